"""The aws engine against the emulator, by the steps that a user takes."""

from __future__ import annotations

import io
import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distributed_something import steps
from distributed_something.aws.desired import Kind
from distributed_something.aws.engine import AwsEngine
from distributed_something.aws.found import find_one
from distributed_something.config import load_config
from distributed_something.console import Console
from distributed_something.errors import DsError, UsageError
from distributed_something.project import Project
from distributed_something.record import read_record
from distributed_something.testing import FakeClock
from emulating import REGION, account_roles, endpoint, session


class Cloud:
    """A project whose engine is aws, on the emulator; its names are no other test's."""

    def __init__(self, folder: Path, **keys: object) -> None:
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
        self.project = Project(self.folder, config, console, self.clock)
        self.engine = AwsEngine(self.folder, config, self.clock, endpoint())
        vars(self.project)["engine"] = self.engine  # the engine by endpoint, as a rehearsal has it
        return self.project

    def jobs(self, count: int = 5, **shared: object) -> Path:
        path = self.folder / "jobs.json"
        path.write_text(json.dumps({**shared, "groups": [{"n": n} for n in range(count)]}))
        return path

    def submit(self, path: Path | None = None) -> Any:
        return steps.submit(self.project, steps.check(self.project, path or self.jobs(), {}))

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


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path / "project")


# -- setup --------------------------------------------------------------------------------------------------


def test_setup_makes_everything_and_records_it(cloud: Cloud) -> None:
    run = steps.setup(cloud.project)
    for kind, name in [
        (Kind.QUEUE, "Queue"),
        (Kind.QUEUE, "DeadMessages"),
        (Kind.LOG_GROUP, ""),
        (Kind.LOG_GROUP, "_perInstance"),
        (Kind.TASK_DEFINITION, "Task"),
        (Kind.SERVICE, "Service"),
    ]:
        assert cloud.found(kind, cloud.app + name) is not None, name
        assert f"{kind} {cloud.app}{name}" in cloud.record().resources
    assert cloud.engine.current_run() == cloud.record().run == run
    assert cloud.found(Kind.LOG_GROUP, cloud.app).settings["retentionInDays"] == 60


def test_a_dry_run_prints_the_plan_and_makes_nothing(cloud: Cloud) -> None:
    calls = Calls(cloud.engine)
    plan = cloud.engine.plan(steps.next_run(cloud.project))
    assert f"create queue {cloud.app}Queue" in plan and f"create service {cloud.app}Service" in plan
    reads = ("Describe", "Get", "List", "Head")
    assert all(name.startswith(reads) for name in calls.names()), calls.names()
    assert cloud.engine.current_run() is None and not cloud.project.record_path.exists()


@pytest.mark.fault(18)
def test_setup_again_makes_nothing_and_brings_settings_in_line(cloud: Cloud) -> None:
    run = steps.setup(cloud.project)
    made = cloud.record().resources
    calls = Calls(cloud.engine)
    assert steps.setup(cloud.project) == run
    assert cloud.record().resources == made
    assert not [name for name in calls.names() if name.startswith(("Create", "Register", "Delete", "Purge"))]
    cloud.config(SQS_MESSAGE_VISIBILITY=77, MEMORY=1000)
    assert steps.setup(cloud.project) == run
    assert cloud.found(Kind.QUEUE, cloud.app + "Queue").settings["VisibilityTimeout"] == "77"
    task = cloud.found(Kind.TASK_DEFINITION, cloud.app + "Task").settings
    assert task["containerDefinitions"][-1]["memory"] == 1000
    assert cloud.found(Kind.SERVICE, cloud.app + "Service").settings["taskDefinition"] == cloud.app + "Task"


def test_tasks_are_told_the_queues_own_address(cloud: Cloud) -> None:
    steps.setup(cloud.project)
    [_, main] = cloud.found(Kind.TASK_DEFINITION, cloud.app + "Task").settings["containerDefinitions"]
    told = {each["name"]: each["value"] for each in main["environment"]}
    assert told["SQS_QUEUE_URL"] == cloud.engine.queue().urls.jobs
    assert told["DS_RUN"] == cloud.engine.current_run()


def test_each_resource_is_recorded_before_the_next_is_made(cloud: Cloud) -> None:
    """Setup fails at each of its steps in turn: what was made by then is in the record, and setup goes on."""
    for step in ("CreateCluster", "RegisterTaskDefinition", "CreateService"):
        service = cloud.engine.session.client("ecs")
        event = f"provide-client-params.ecs.{step}"

        def fail(**_: object) -> None:
            raise DsError("the network went away")

        service.meta.events.register(event, fail)
        with pytest.raises(DsError, match="went away"):
            steps.setup(cloud.project)
        service.meta.events.unregister(event, fail)
        for resource in cloud.record().resources:
            kind = next(kind for kind in Kind if resource.startswith(f"{kind} "))
            assert cloud.found(kind, resource.removeprefix(f"{kind} ")) is not None
    run = cloud.record().run
    assert steps.setup(cloud.project) == run
    assert len(cloud.record().resources) == 8


@pytest.mark.fault(35, 36, 42)
def test_names_are_compared_exactly_over_all_pages(cloud: Cloud) -> None:
    sqs, logs = session().client("sqs"), session().client("logs")
    logs.create_log_group(logGroupName=f"{cloud.app}_per")
    for number in range(60):
        logs.create_log_group(logGroupName=f"{cloud.app}-{number}")
    for name in (f"lab-{cloud.app}Queue", f"{cloud.app}Queue2"):
        sqs.create_queue(QueueName=name)
    session().client("ecs").create_cluster(clusterName=f"lab-cluster-{cloud.app}")
    plan = cloud.engine.plan("run1")
    assert all(line.startswith("create ") for line in plan), plan
    steps.setup(cloud.project)
    assert cloud.found(Kind.LOG_GROUP, cloud.app) is not None


def test_a_missing_role_is_one_clear_line(cloud: Cloud) -> None:
    iam = session().client("iam")
    iam.delete_role(RoleName="ds-task")
    try:
        with pytest.raises(DsError, match="no role ds-task") as error:
            steps.setup(cloud.project)
    finally:
        iam.create_role(RoleName="ds-task", AssumeRolePolicyDocument="{}")
    assert error.value.fix.startswith("ds account setup")
    assert cloud.engine.current_run() is None


def test_a_missing_bucket_and_a_type_that_there_is_not(cloud: Cloud) -> None:
    cloud.config(AWS_BUCKET="no-such-bucket-of-ours")
    with pytest.raises(UsageError, match="no bucket no-such-bucket-of-ours"):
        cloud.engine.plan("run1")
    cloud.config(AWS_BUCKET=cloud.bucket, MACHINE_TYPE=["m5.xxlarge"])
    with pytest.raises(UsageError, match=r"MACHINE_TYPE: .*m5\.xxlarge"):
        cloud.engine.plan("run1")


@pytest.mark.fault(16)
def test_a_queue_of_another_app_is_not_shared(cloud: Cloud, tmp_path: Path) -> None:
    steps.setup(cloud.project)
    other = Cloud(tmp_path / "other", SQS_DEAD_LETTER_QUEUE=f"{cloud.app}DeadMessages")
    with pytest.raises(UsageError, match=f"belongs to the app {cloud.app}"):
        steps.setup(other.project)
    strange = f"strange-{cloud.app}"
    sqs = session().client("sqs")
    sqs.send_message(QueueUrl=sqs.create_queue(QueueName=strange)["QueueUrl"], MessageBody="{}")
    other.config(SQS_DEAD_LETTER_QUEUE=f"{other.app}Dead", SQS_QUEUE_NAME=strange)
    with pytest.raises(UsageError, match="was not made by us, and holds 1 messages"):
        steps.setup(other.project)


@pytest.mark.fault(29, 41)
def test_no_key_is_in_the_task_definition_and_the_configs_region_is_used(cloud: Cloud) -> None:
    steps.setup(cloud.project)
    text = json.dumps(cloud.found(Kind.TASK_DEFINITION, cloud.app + "Task").settings, default=str)
    assert "testing" not in text and "SECRET" not in text
    cloud.config(AWS_REGION="eu-central-1")
    assert cloud.engine.current_run() is None


# -- submit -------------------------------------------------------------------------------------------------


def test_jobs_are_submitted_listed_and_known(cloud: Cloud) -> None:
    steps.setup(cloud.project)
    assert cloud.submit()[:2] == (5, 0)
    cloud.open()
    assert cloud.submit(cloud.jobs(8))[:2] == (3, 5)
    assert cloud.engine.queue().counts().waiting == 8
    snapshot = cloud.project.snapshot()
    assert (snapshot.jobs.total, snapshot.jobs.waiting, snapshot.queued) == (8, 8, 8)


def test_an_interrupted_submission_adds_what_is_missing_and_nothing_twice(cloud: Cloud) -> None:
    steps.setup(cloud.project)
    jobs = cloud.jobs(400)
    checked = steps.check(cloud.project, jobs, {})
    checked = checked._replace(file=_Interrupting(checked.file, after=150))
    with pytest.raises(KeyboardInterrupt):
        steps.submit(cloud.project, checked)
    sent = cloud.engine.queue().counts().waiting
    assert 100 <= sent < 400
    cloud.open()
    report = cloud.submit(jobs)
    assert (report.sent, report.known) == (400 - sent, sent)
    assert cloud.engine.queue().counts().waiting == cloud.project.snapshot().jobs.total == 400


class _Interrupting:
    """A job file during whose reading somebody presses Ctrl-C."""

    def __init__(self, file: Any, after: int) -> None:
        self._file, self._after = file, after

    def jobs(self) -> Iterator[Any]:
        for number, job in enumerate(self._file.jobs()):
            if number == self._after:
                os.kill(os.getpid(), signal.SIGINT)
            yield job


def test_a_job_too_large_for_a_message_is_found_before_anything_is_sent(cloud: Cloud) -> None:
    steps.setup(cloud.project)
    path = cloud.folder / "jobs.json"
    path.write_text(json.dumps({"groups": [{"n": 1}, {"n": "x" * 1_100_000}]}))
    cloud.config(COMMAND="echo")
    with pytest.raises(UsageError, match="job 2: is larger than the queue takes"):
        cloud.submit(path)
    assert cloud.engine.queue().counts().open == 0
