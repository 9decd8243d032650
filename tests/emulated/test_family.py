"""The four families' own projects on the emulator, from `setup` to `cleanup`, with workers like theirs."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aws_project import IMAGE
from copycats import HIDDEN_SECONDS, CopyCat
from distributed_something.aws.engine import AwsEngine
from distributed_something.aws.session import AwsSession
from distributed_something.cli.jobs import jobs
from distributed_something.cli.views import failures
from distributed_something.console import Console
from distributed_something.errors import OK, SOME_DEAD
from distributed_something.inputs.config import load_config
from distributed_something.rehearsal.emulator.clock import EmulatorClock
from distributed_something.steps.cleanup import cleanup
from distributed_something.steps.monitor import monitor
from distributed_something.steps.project import Project
from distributed_something.steps.setup import setup
from distributed_something.steps.start import start
from distributed_something.steps.submit import check, submit
from emulating import account_function, account_roles, endpoint, session, stopped_clock
from moving_projects import NAMES, bring, fill_in_fleet

EXPECTED: dict[str, tuple[list[str], str, int]] = {
    "cellprofiler": (
        ["Metadata_Plate=Plate1,Metadata_Well=A01"],
        "Metadata_Plate=Plate1,Metadata_Well=A02",
        3,
    ),
    "printgroups": (
        ["Metadata_Plate=Plate1,Metadata_Well=A01"],
        "Metadata_Plate=Plate1,Metadata_Well=A02",
        3,
    ),
    "fiji": (["Plate 1-1"], "Plate 1-2", 10),
    "omezarr": (
        ["BR00117035__2021-05-02T16_02_51-Measurement1"],
        "BR00117036__2021-05-02T18_01_40-Measurement1",
        10,
    ),
    "something": (["Plate=P1,Well=A01"], "Plate=P1,Well=A02", 10),
}
"""Jobs that succeed, the one that always fails, and after how many attempts SQS gives that up."""

DONE_BEFORE = "projects/output/Plate1-A03/0"
"""Output of CellProfiler's third job: its done check skips it."""


@pytest.fixture(scope="module")
def account() -> dict[str, str]:
    """An account that is set up as the projects expect it; the ids that their fleet file lacks."""
    found = session()
    account_roles()
    account_function()
    ec2, iam, s3 = found.client("ec2"), found.client("iam"), found.client("s3")
    ec2.create_key_pair(KeyName="key")
    iam.create_role(RoleName="aws-ec2-spot-fleet-tagging-role", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="ecsInstanceRole")
    for bucket in ("lab-bucket", "lab-images", "lab-results", "lab-zarr"):
        s3.create_bucket(Bucket=bucket)
    image = found.client("ssm").get_parameter(Name=IMAGE)["Parameter"]["Value"]
    root = ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"][0]
    return {
        "ami": image,
        "snap": root["Ebs"]["SnapshotId"],
        "subnet": ec2.describe_subnets()["Subnets"][0]["SubnetId"],
        "sg": ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"],
    }


@pytest.fixture
def clock() -> Iterator[EmulatorClock]:
    with stopped_clock() as found:
        yield found


def opened(folder: Path, clock: EmulatorClock) -> Project:
    """The project as each command opens it."""
    config = load_config(folder)
    own = AwsSession(config.aws_region, endpoint=endpoint(), patience=2.0)
    console = Console(yes=True, out=io.StringIO(), err=io.StringIO())
    engine = AwsEngine(folder, config, clock, endpoint(), session=own, say=console.say)
    return Project(folder, config, console, clock, engine=engine)


def environment_of(project: Project) -> dict[str, str]:
    """What the task definition that was made tells the worker."""
    ecs = session().client("ecs")
    (found,) = ecs.describe_task_definition(taskDefinition=f"{project.config.app_name}Task")[
        "taskDefinition"
    ]["containerDefinitions"]
    assert not {"command", "entryPoint"} & found.keys(), "the image starts its own worker"
    return {each["name"]: each["value"] for each in found["environment"]}


@pytest.mark.fault(60)
@pytest.mark.parametrize("name", NAMES)
def test_a_project_of_the_family_runs_with_nothing_but_its_own_files(
    name: str, tmp_path: Path, account: dict[str, str], clock: EmulatorClock
) -> None:
    job_file = bring(name, tmp_path)
    fleet = fill_in_fleet(tmp_path, "123456789012", account)
    good, bad, attempts = EXPECTED[name]
    s3: Any = session().client("s3")
    before = [DONE_BEFORE] if name == "cellprofiler" else []
    for key in before:
        s3.put_object(Bucket="lab-bucket", Key=key, Body=b"x")

    run = setup(opened(tmp_path, clock))
    project = opened(tmp_path, clock)
    submit(project, check(project, job_file, {}))
    start(opened(tmp_path, clock), fleet)
    worker = CopyCat(name, environment_of(project), session().client("sqs"), s3, lambda job: job == bad)
    worker.work()

    total = len(good) + 1 + len(before)
    looked = opened(tmp_path, clock).snapshot().jobs
    assert (looked.total, looked.succeeded, looked.dead) == (total, total - 1, 0), "one is shown again"
    for _ in range(attempts + 1):
        clock.advance(HIDDEN_SECONDS + 1)
        worker.work()
    assert worker.worked == good and len(worker.skipped) == len(before)
    assert worker.failed == [bad] * attempts, "attempts are bounded"

    project = opened(tmp_path, clock)
    looked = project.snapshot().jobs
    assert (looked.succeeded, looked.dead, looked.waiting, looked.running) == (total - 1, 1, 0, 0)
    (dead,) = project.fold().dead()
    assert jobs(project, "dead", None, csv=False) == OK
    assert dead.id in out(project)
    assert failures(opened(tmp_path, clock)) == OK

    project = opened(tmp_path, clock)
    assert (
        monitor(project, tmp_path / f"files/{project.config.app_name}SpotFleetRequestId.json", None)
        == SOME_DEAD
    )
    report = json.loads(project.engine.store.read(f"runs/{project.config.app_name}/{run}/report.json"))
    assert (report["jobs"]["succeeded"], report["jobs"]["dead"]) == (total - 1, 1)
    assert cleanup(opened(tmp_path, clock)) == []
    running = (
        session()
        .client("ec2")
        .describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}])
    )
    assert running["Reservations"] == []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="lab-bucket"):
        for each in page.get("Contents", ()):
            s3.delete_object(Bucket="lab-bucket", Key=each["Key"])


@pytest.mark.fault(60)
def test_a_job_that_left_the_queue_without_its_outputs_is_not_called_succeeded_without_a_word(
    tmp_path: Path, account: dict[str, str], clock: EmulatorClock
) -> None:
    job_file = bring("cellprofiler", tmp_path)
    config = tmp_path / "config.py"
    config.write_text(config.read_text().replace('"lab-results"', '"lab-bucket"'))
    fleet = fill_in_fleet(tmp_path, "123456789012", account)
    s3: Any = session().client("s3")
    setup(opened(tmp_path, clock))
    project = opened(tmp_path, clock)
    submit(project, check(project, job_file, {}))
    start(opened(tmp_path, clock), fleet)
    worker = CopyCat("cellprofiler", environment_of(project), session().client("sqs"), s3, lambda job: False)
    worker.work()
    s3.delete_object(Bucket="lab-bucket", Key="projects/output/Plate1-A02/0")

    project = opened(tmp_path, clock)
    monitor(project, tmp_path / f"files/{project.config.app_name}SpotFleetRequestId.json", None)
    first, lost, third = sorted(project.fold().jobs.values(), key=lambda record: record.index)
    assert (first.output, third.output) == ("projects/output/Plate1-A01", "projects/output/Plate1-A03")
    assert lost.output is None and lost.detail == "left the queue; 0 of 1 file in projects/output/Plate1-A02/"
    said = project.console.err
    assert isinstance(said, io.StringIO)
    assert "1 job left the queue without the outputs" in said.getvalue() and lost.id in said.getvalue()
    cleanup(opened(tmp_path, clock))
    for each in s3.list_objects_v2(Bucket="lab-bucket")["Contents"]:
        s3.delete_object(Bucket="lab-bucket", Key=each["Key"])


def out(project: Project) -> str:
    """What the project's console printed."""
    found = project.console.out
    assert isinstance(found, io.StringIO)
    return found.getvalue()
