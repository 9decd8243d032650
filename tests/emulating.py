"""The emulator that tests of the aws engine talk to: one a test process, started when a test asks for it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import services
from distributed_something.aws.ecs.desired import queues
from distributed_something.aws.iam.roles import account_of
from distributed_something.aws.names import run_tags
from distributed_something.aws.sqs.queues import QueueNames, QueueUrls, ensure_queue, queue_url
from distributed_something.clock import SystemClock
from distributed_something.errors import DsError
from distributed_something.inputs.config import parse_config
from distributed_something.rehearsal.emulator.clock import PATH
from distributed_something.rehearsal.emulator.server import CREDENTIALS
from distributed_something.s3.session import AwsSession

REGION = "us-east-1"
EMULATOR = "distributed_something.rehearsal.emulator"


@contextmanager
def emulator(port: int = 0) -> Iterator[str]:
    """Run an emulator in a process of its own (port 0: a free one); yields its endpoint URL.

    It ends with the context, and also when this process is killed. Raises DsError where it cannot start.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", EMULATOR, "--port", str(port), "--until-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **CREDENTIALS},
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    with process, process.stdin, process.stdout:
        try:
            endpoint = process.stdout.readline().strip()
            if not endpoint:
                raise DsError("the emulator did not start", "its own words are on stderr, above")
            yield endpoint
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10.0)
            process.kill()


@cache
def endpoint() -> str:
    """Its address. Where what it needs is not installed, the test is skipped; on a build server it fails."""
    try:
        import boto3  # noqa: F401
        import moto.server  # noqa: F401
    except ImportError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"{error}: pip install -e '.[aws,rehearsal]'")
    running = ExitStack()
    atexit.register(running.close)
    return running.enter_context(emulator())


@cache
def session() -> AwsSession:
    """A session whose calls go to the emulator, whatever the developer's own AWS settings are."""
    address = endpoint()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= CREDENTIALS | {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    return AwsSession(REGION, endpoint=address)


class EmulatorClock:
    """Implements clock.Clock with an emulator's time, which it stops and moves. One test at a time."""

    def __init__(self, endpoint: str, now: float = 1_000_000_000.0) -> None:
        self._url = endpoint + PATH
        self._tell({"now": now})

    def now(self) -> float:
        """Seconds since the Unix epoch, as far as the emulator is concerned."""
        return float(self._ask(None)["now"])

    def monotonic(self) -> float:
        """Returns the same, as it never goes back."""
        return self.now()

    def follow(self) -> None:
        """Let the emulator follow the machine's clock again."""
        self._tell({"now": None})

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, here and there."""
        self._tell({"advance": seconds})

    def wait(self, seconds: float, until: threading.Event | None = None) -> bool:
        """Let `seconds` pass at once, or none if `until` is set already; whether `until` is set."""
        if until is not None and until.is_set():
            return True
        self.advance(seconds)
        return until is not None and until.is_set()

    def _tell(self, change: dict[str, float | None]) -> None:
        self._ask(json.dumps(change).encode())

    def _ask(self, body: bytes | None) -> dict[str, Any]:
        with urllib.request.urlopen(self._url, body, timeout=30) as answer:
            facts: dict[str, Any] = json.load(answer)
        return facts


@contextmanager
def stopped_clock() -> Iterator[EmulatorClock]:
    """The emulator's time, to be moved; afterwards it goes on by itself, for the tests to come."""
    clock = EmulatorClock(endpoint())
    try:
        yield clock
    finally:
        clock.follow()


@cache
def second_session() -> AwsSession:
    """A session whose calls go to ministack: the same services, as somebody else understood them."""
    services.require("ministack")
    session()  # puts the developer's own AWS settings out of reach
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    running = ExitStack()
    atexit.register(running.close)
    server = running.enter_context(services.Servers(folder)).get("ministack")
    return AwsSession(REGION, endpoint=server.endpoint)


def ensure_queues(where: AwsSession, names: QueueNames, visibility: int = 120) -> QueueUrls:
    """An app's queues as `ds setup` makes them and brings them in line."""
    config = parse_config(
        "APP_NAME = 'lab'\nCOMMAND = 'true'\n"
        f"SQS_QUEUE_NAME = {names.jobs!r}\nSQS_DEAD_LETTER_QUEUE = {names.dead!r}\n"
        f"SQS_MESSAGE_VISIBILITY = {visibility}\nAWS_REGION = {where.region!r}\n"
    )
    number = where.client("sts").get_caller_identity()["Account"]
    wanted = queues(config, account_of(config, number), "run1", names)
    client, tags = where.client("sqs"), run_tags(config, "run1")
    urls = {
        each.name: ensure_queue(client, SystemClock(), each.name, {**each.settings}, tags) for each in wanted
    }
    return QueueUrls(urls[names.jobs], urls[names.dead], urls[names.carried])


def delete_queues(where: AwsSession, names: QueueNames) -> None:
    """Delete the queues, with all that is in them."""
    client = where.client("sqs")
    for name in (names.jobs, names.carried, names.dead):
        if url := queue_url(client, name):
            client.delete_queue(QueueUrl=url)


def new_queues(where: AwsSession | None = None) -> QueueUrls:
    """Queues that no other test knows, in the emulator, or somewhere else."""
    name = f"q-{uuid.uuid4().hex[:12]}"
    return ensure_queues(where or session(), QueueNames(name, f"{name}-dead"))


@cache
def account_roles() -> None:
    """The roles that `ds account setup` makes."""
    import json

    from distributed_something.aws.iam.roles import PATH, PROFILES, Role

    iam = session().client("iam")
    for name in (Role.TASK, Role.EXECUTION, Role.IMAGE_TASK):
        iam.create_role(RoleName=name, Path=PATH, AssumeRolePolicyDocument=json.dumps({"Statement": []}))
    for profile in PROFILES:
        iam.create_instance_profile(InstanceProfileName=profile, Path=PATH)


@cache
def account_function() -> None:
    """The auto-monitor's function, and the role of it, as records: the emulator calls no function."""
    from distributed_something.aws.iam.account import Step
    from distributed_something.aws.iam.roles import PATH, Role, Where
    from distributed_something.aws.watch.function import find_function, plan_function

    role = {"RoleName": str(Role.MONITOR), "Path": PATH, "AssumeRolePolicyDocument": "{}"}
    where = Where("123456789012", REGION)
    made = [Step("", "create_role", role), *plan_function(where, find_function(session()), b"PK")]
    for step in made:
        getattr(session().client(step.service), step.call)(**step.request)
