"""The emulator that tests of the aws engine talk to: one a test process, started when a test asks for it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest

import services
from distributed_something.aws.ecs.desired import queues
from distributed_something.aws.iam.roles import account_of
from distributed_something.aws.names import run_tags
from distributed_something.aws.sqs.queues import QueueNames, QueueUrls, ensure_queue, queue_url
from distributed_something.clock import SystemClock
from distributed_something.inputs.config import parse_config
from distributed_something.rehearsal.emulator.clock import EmulatorClock
from distributed_something.rehearsal.emulator.server import CREDENTIALS, emulator
from distributed_something.s3.session import AwsSession

REGION = "us-east-1"


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
