"""A project whose engine is aws, on the emulator, and what tests want to know of it."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path
from typing import Any

from distributed_something.aws.ecs.current_state import find_one
from distributed_something.aws.ecs.resources import Kind
from distributed_something.aws.engine import AwsEngine
from distributed_something.aws.iam.roles import PATH, PROFILE
from distributed_something.aws.watch.alarms import find_alarms
from distributed_something.console import Console
from distributed_something.inputs.config import load_config
from distributed_something.job import Cause, Outcome, State
from distributed_something.ledger import LedgerWriter
from distributed_something.runs.record import read_record
from distributed_something.s3.session import AwsSession
from distributed_something.steps.project import Project
from distributed_something.steps.submit import check, submit
from distributed_something.testing import FakeClock
from emulating import REGION, account_roles, endpoint, session
from rights import recorded

IMAGE = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"


class Cloud:
    """A project whose engine is aws, on the emulator; its names are no other test's."""

    patience = 2.0
    """Seconds that a call is made again for: less than a person waits."""

    def __init__(self, folder: Path, through: str | None = None, **keys: object) -> None:
        self._endpoint = through or endpoint()
        self.app = f"App{uuid.uuid4().hex[:8]}"
        self.bucket = f"bucket-{self.app.lower()}"
        self.session = session()
        self.clock = FakeClock(1_790_000_000.0)
        self.out, self.err = io.StringIO(), io.StringIO()
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.given: dict[str, object] = {
            "APP_NAME": self.app,
            "ENGINE": "aws",
            "AWS_REGION": REGION,
            "AWS_BUCKET": self.bucket,
            "ECS_CLUSTER": f"cluster-{self.app}",
            "DOCKERHUB_TAG": "lab/image:1",
            "COMMAND": "echo {n}",
            "CLUSTER_MACHINES": 3,
            "MACHINE_TYPE": ["m5.xlarge"],
        }
        self.session.client("s3").create_bucket(Bucket=self.bucket)
        account_roles()
        self.config(**keys)

    def config(self, **keys: object) -> Project:
        """Write the config, with these keys in place of the usual ones, and read it as a new process does."""
        self.given |= keys
        text = "".join(f"{name} = {value!r}\n" for name, value in self.given.items())
        (self.folder / "config.py").write_text(text)
        return self.open()

    def open(self) -> Project:
        config = load_config(self.folder)
        console = Console(yes=True, out=self.out, err=self.err)
        own = recorded(AwsSession(config.aws_region, endpoint=self._endpoint, patience=self.patience))
        said = console.say
        self.engine = AwsEngine(self.folder, config, self.clock, self._endpoint, session=own, say=said)
        # the engine by endpoint, as a rehearsal has it
        self.project = Project(self.folder, config, console, self.clock, engine=self.engine)
        return self.project

    def jobs(self, count: int = 5, **shared: object) -> Path:
        path = self.folder / "jobs.json"
        path.write_text(json.dumps({**shared, "groups": [{"n": n} for n in range(count)]}))
        return path

    def submit(self, path: Path | None = None) -> Any:
        return submit(self.project, check(self.project, path or self.jobs(), {}))

    def found(self, kind: Kind, name: str) -> Any:
        return find_one(self.session, kind, name, str(self.given["ECS_CLUSTER"]))

    def record(self) -> Any:
        return read_record(self.project.record_path)


class Calls:
    """Calls to AWS that a session makes, as (service, operation), from when it is made."""

    def __init__(self, engine: AwsEngine) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []
        for service in ("sqs", "ec2", "ecs", "logs", "s3", "iam", "sts", "ssm"):
            events = engine.session.client(service).meta.events
            events.register("provide-client-params.*", self._note)

    def _note(self, params: dict[str, Any], model: Any, **_: object) -> None:
        self.seen.append((model.name, params))

    def names(self) -> list[str]:
        return [name for name, _ in self.seen]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [params for each, params in self.seen if each == name]


def fleet_file(cloud: Cloud, **keys: object) -> Path:
    """A fleet file as one would fill it in for this account."""
    image = session().client("ssm").get_parameter(Name=IMAGE)["Parameter"]["Value"]
    specification = {
        "ImageId": image,
        "IamInstanceProfile": {"Arn": f"arn:aws:iam::123456789012:instance-profile{PATH}{PROFILE}"},
        "InstanceType": "m5.xlarge",
    }
    role = "arn:aws:iam::123456789012:role/aws-ec2-spot-fleet-tagging-role"
    path = cloud.folder / "fleet.json"
    path.write_text(json.dumps({"IamFleetRole": role, "LaunchSpecifications": [specification | keys]}))
    return path


def instances(cloud: Cloud) -> list[str]:
    found = cloud.engine._looker.fleets.machines(cloud.app)
    return [machine.id for machine in found if machine.running]


def work(cloud: Cloud, count: int, *, dead: int = 0, worker: str = "worker-1", hold: bool = False) -> None:
    """What a worker does: lease, run, write down, settle; with `hold` it is still at it."""
    queue = cloud.engine.queue()
    ledger = LedgerWriter(cloud.engine.store, f"{cloud.project.paths().events}{worker}.jsonl")
    leases = []
    while len(leases) < count:
        leases += queue.lease(count - len(leases), 1)
    for number, lease in enumerate(leases):
        facts = {"worker": worker, "machine": worker}
        if hold:
            ledger.started(cloud.clock.now(), lease, **facts)
            continue
        lost = number < dead
        outcome = Outcome(State.WAITING, Cause.EXIT) if lost else Outcome(State.SUCCEEDED)
        ledger.ended("dead" if lost else "succeeded", cloud.clock.now(), lease, outcome, **facts)
        if lost:
            queue.fail(lease, Cause.EXIT, final=True)
    ledger.flush()
    if not hold:
        queue.done(leases[dead:])


def left(cloud: Cloud) -> list[str]:
    """What there still is of the app that could cost money or stand in the way."""
    names = [
        (Kind.QUEUE, "Queue"), (Kind.QUEUE, "DeadMessages"), (Kind.QUEUE, "Queue-carried"),
        (Kind.TASK_DEFINITION, "Task"), (Kind.SERVICE, "Service"),
    ]  # fmt: skip
    found = [f"{kind} {name}" for kind, name in names if cloud.found(kind, cloud.app + name)]
    fleets = [fleet.id for fleet in cloud.engine._looker.fleets.of_app(cloud.app) if fleet.alive]
    found += fleets + instances(cloud) + cloud.engine._looker.fleets.templates(cloud.app)
    return found + find_alarms(cloud.session, cloud.app)


def answer(cloud: Cloud, operation: str, parsed: dict[str, Any], service: str = "ec2") -> None:
    """From now on AWS answers an operation so: for what the emulator cannot do."""
    from botocore.awsrequest import AWSResponse

    http = AWSResponse("", 200, {}, None)  # type: ignore[arg-type,no-untyped-call]
    events = cloud.engine.session.client(service).meta.events
    events.register(f"before-call.{service}.{operation}", lambda **_: (http, parsed))
