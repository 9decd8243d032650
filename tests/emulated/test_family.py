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
from distributed_something.cli.views.jobs import jobs
from distributed_something.cli.views.logs import failures
from distributed_something.cli.views.status import status
from distributed_something.console import Console
from distributed_something.errors import OK, SOME_DEAD, DsError
from distributed_something.inputs.config import load_config
from distributed_something.job import Cause, State
from distributed_something.s3.session import AwsSession
from distributed_something.steps.cleanup import cleanup
from distributed_something.steps.project import Project
from distributed_something.steps.setup import setup
from distributed_something.steps.start import start
from distributed_something.steps.submit import check, submit
from distributed_something.steps.watch.finish import record_ends
from distributed_something.steps.watch.monitor import monitor
from emulating import EmulatorClock, account_function, account_roles, endpoint, session, stopped_clock
from moving_projects import NAMES, bring, fill_in_fleet

BUCKETS = {"cellprofiler": "lab-results", "printgroups": "lab-results", "omezarr": "lab-zarr"}
"""Where the worker of a family puts its outputs, if not into lab-bucket; there they can be looked up."""

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
    "collate": (["BR0000001"], "BR0000002", 10),
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


@pytest.fixture(autouse=True)
def empty_buckets(account: dict[str, str]) -> Iterator[None]:
    yield
    s3: Any = session().client("s3")
    for bucket in {"lab-bucket", *BUCKETS.values()}:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for each in page.get("Contents", ()):
                s3.delete_object(Bucket=bucket, Key=each["Key"])


@pytest.fixture
def clock() -> Iterator[EmulatorClock]:
    with stopped_clock() as found:
        yield found


def opened(folder: Path, clock: EmulatorClock, engine_class: type[AwsEngine] = AwsEngine) -> Project:
    """The project as each command opens it."""
    config = load_config(folder)
    own = AwsSession(config.aws_region, endpoint=endpoint(), patience=2.0)
    console = Console(yes=True, out=io.StringIO(), err=io.StringIO())
    engine = engine_class(folder, config, clock, endpoint(), session=own, say=console.say)
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
        s3.put_object(Bucket=BUCKETS[name], Key=key, Body=b"x")

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
    unproven = 0 if name in BUCKETS else total - 1
    found = [report["jobs"][state] for state in ("succeeded", "dead", "unproven")]
    assert found == [total - 1, 1, unproven]
    assert cleanup(opened(tmp_path, clock)) == []
    project = opened(tmp_path, clock)
    assert status(project, watch=False) == jobs(project, None, None, csv=False) == OK
    said = [line.split("  ") for line in out(project).splitlines()]
    assert ["not known" in line for line in said].count(True) == bool(unproven)
    assert sum("unproven" in each for line in said for each in line) == unproven
    own = {"Name": "tag:ds:app", "Values": [project.config.app_name]}
    found = session().client("ec2").describe_instances(Filters=[own])["Reservations"]
    machines = [each["State"]["Name"] for reservation in found for each in reservation["Instances"]]
    assert machines and set(machines) == {"terminated"}


def without_a_result(
    name: str, lost: str, folder: Path, clock: EmulatorClock, fleet_ids: dict[str, str], config: str
) -> Project:
    """A family's project, `config` behind its own, after a run in which the output `lost` was lost."""
    job_file = bring(name, folder, config)
    fleet = fill_in_fleet(folder, "123456789012", fleet_ids)
    s3: Any = session().client("s3")
    setup(opened(folder, clock))
    project = opened(folder, clock)
    submit(project, check(project, job_file, {}))
    start(opened(folder, clock), fleet)
    CopyCat(name, environment_of(project), session().client("sqs"), s3, lambda job: False).work()
    s3.delete_object(Bucket=BUCKETS.get(name, "lab-bucket"), Key=lost)
    project = opened(folder, clock)
    record = folder / f"files/{project.config.app_name}SpotFleetRequestId.json"
    assert monitor(project, record, None) == (SOME_DEAD if project.config.check_if_done_bool else OK)
    return project


PLATES = "projects/workspace/backend/2026_11_22_Batch1/BR000000"


@pytest.mark.fault(60)
@pytest.mark.parametrize(
    ("name", "place", "number", "more"),
    [
        ("cellprofiler", "s3://lab-results/projects/output/Plate1-A0", 3, "CHECK_IF_DONE_BOOL = True\n"),
        ("cellprofiler", "s3://lab-results/projects/output/Plate1-A0", 3, "CHECK_IF_DONE_BOOL = False\n"),
        (
            "collate",
            PLATES,
            2,
            "CHECK_IF_DONE_BOOL = True\nOUTPUT = 'projects/workspace/backend/{batch}/{plate}'\n",
        ),
    ],
)
def test_a_job_that_left_the_queue_without_its_outputs_has_not_succeeded(
    tmp_path: Path,
    account: dict[str, str],
    clock: EmulatorClock,
    name: str,
    place: str,
    number: int,
    more: str,
) -> None:
    """By the rule with which its worker skips done jobs it is dead; without that rule it is unproven."""
    key = f"{place.removeprefix('s3://lab-results/')}2/0"
    project = without_a_result(name, key, tmp_path, clock, account, more)
    asked = project.config.check_if_done_bool
    _, lost, *_ = found = sorted(project.fold().jobs.values(), key=lambda record: record.index)
    assert [each.output for each in found if each is not lost] == [f"{place}1", f"{place}3"][: number - 1]
    assert lost.detail == f"left the queue; 0 of 1 file in {place}2/"
    assert (lost.state, lost.cause, lost.seconds) == (
        (State.DEAD, Cause.OUTPUT_MISSING, None) if asked else (State.SUCCEEDED, None, None)
    )
    said = project.console.err
    assert isinstance(said, io.StringIO)
    assert "1 job left the queue without the outputs" in said.getvalue()
    counts = project.snapshot().jobs
    assert (counts.succeeded - counts.unproven, counts.unproven, counts.dead) == (
        number - 1,
        not asked,
        asked,
    )
    assert failures(project) == OK
    assert ("output-missing" in out(project)) is asked
    cleanup(opened(tmp_path, clock))


class FewRights(AwsEngine):
    """The engine of the auto-monitor, which may not read the dead jobs."""

    def queue(self) -> Any:
        return Unreadable(super().queue())


class Unreadable:
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def dead(self) -> Any:
        raise DsError("receiving dead jobs is not allowed")


@pytest.mark.parametrize("broken", [0, 1])
def test_who_may_not_read_the_dead_jobs_writes_the_ends_of_a_run_without_any(
    tmp_path: Path, account: dict[str, str], clock: EmulatorClock, broken: int
) -> None:
    job_file = bring("cellprofiler", tmp_path)
    setup(opened(tmp_path, clock))
    project = opened(tmp_path, clock)
    submit(project, check(project, job_file, {}))
    s3: Any = session().client("s3")
    bad = EXPECTED["cellprofiler"][1]
    worker = CopyCat(
        "cellprofiler",
        environment_of(project),
        session().client("sqs"),
        s3,
        lambda job: bool(broken) and job == bad,
    )
    for _ in range(4):
        worker.work()
        clock.advance(HIDDEN_SECONDS + 1)
    project = opened(tmp_path, clock, FewRights)
    record_ends(project, project.fold())
    states = project.fold().update().by_state
    assert (states[State.SUCCEEDED], states[State.WAITING]) == ((0, 3) if broken else (3, 0))
    cleanup(opened(tmp_path, clock))


@pytest.mark.fault(60)
def test_outputs_in_one_place_speak_for_none_of_the_jobs(
    tmp_path: Path, account: dict[str, str], clock: EmulatorClock
) -> None:
    config = "OUTPUT = '{output}'\nCHECK_IF_DONE_BOOL = False\n"
    project = without_a_result("cellprofiler", "none", tmp_path, clock, account, config)
    assert project.snapshot().jobs.unproven == 3
    assert "3 jobs have left the queue, and no outputs were seen" in out(project)
    cleanup(opened(tmp_path, clock))


def out(project: Project) -> str:
    """What the project's console printed."""
    found = project.console.out
    assert isinstance(found, io.StringIO)
    return found.getvalue()
