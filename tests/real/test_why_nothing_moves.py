"""Each reason that `ds status` gives when no job is under way, on the engine aws with a pretended account."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conftest import DsProject, until
from distributed_something.rehearsal.place import Place
from pretending import require
from rehearsing import TWO_MACHINES

pytestmark = pytest.mark.real

WORK = "sh -c 'while [ ! -e {go}{n} ]; do sleep 0.1; done'"


@pytest.fixture
def rehearsal(project: DsProject) -> Iterator[DsProject]:
    """A set-up project of two machines whose jobs wait for a file; its account is gone afterwards."""
    require()
    project.config(
        **TWO_MACHINES,
        COMMAND=WORK,
        CONTAINERS=False,
        DOCKER_CORES=1,
    )
    project.ds("setup", timeout=120)
    yield project
    project.ds("cleanup", "--yes", code=None, timeout=120)


def submit(project: DsProject, count: int = 2) -> None:
    project.ds("submit", project.jobs(({"n": n} for n in range(count)), go=str(project.folder / "go")))


def start(project: DsProject, *args: object) -> None:
    project.ds("start", "--wait", "0.01", *args, timeout=120)


def says(project: DsProject, *words: str) -> None:
    """Wait until `ds status` gives a reason with all of these words."""
    seen = [""]

    def found() -> bool:
        seen[0] = project.status()["why_idle"] or ""
        return all(word in seen[0] for word in words)

    try:
        until(found, f"{words}", 90)
    except AssertionError as error:
        raise AssertionError(f"{error}; last: {seen[0]!r}") from error


def client(project: DsProject, service: str) -> Any:
    """One for the pretended account that the project's commands use."""
    import boto3

    (folder,) = (project.folder / ".ds").glob("*.rehearsal")
    key = Place(folder).key()
    return boto3.Session(key, key, region_name="us-east-1").client(
        service, endpoint_url=Place(folder).endpoint()
    )


def test_the_queue_is_empty_then_no_machines_and_then_the_fleets_reason(rehearsal: DsProject) -> None:
    says(rehearsal, "the queue is empty: ds submit")
    submit(rehearsal)
    says(rehearsal, "no machines were asked for: ds start")
    start(rehearsal, "--faults", "capacity=0")
    says(rehearsal, "no spare capacity", "more types in MACHINE_TYPE")
    assert rehearsal.status()["machines"] == {"target": 2, "running": 0, "lost": 0}


def test_no_machine_is_in_the_cluster_yet_or_the_config_names_another_one(rehearsal: DsProject) -> None:
    submit(rehearsal)
    start(rehearsal, "--faults", "boot=10min")
    says(rehearsal, "2 machines run, and no task", "join", "about 3 minutes")  # by ECS or by us
    with (rehearsal.folder / "config.py").open("a") as file:
        file.write("ECS_CLUSTER = 'another'\n")
    says(rehearsal, "no task is in the cluster 'another'", "write ECS_CLUSTER = 'default'")


def test_a_task_does_not_fit_on_a_machine(rehearsal: DsProject) -> None:
    submit(rehearsal, 4)
    start(rehearsal)
    until(lambda: len(rehearsal.job_lines("--state", "running")) == 2, "two jobs in the ledger", 60)
    under_way = [line["job"]["group"]["n"] for line in rehearsal.job_lines("--state", "running")]
    config = rehearsal.folder / "config.py"
    config.write_text(config.read_text().replace("m5.large", "m5.4xlarge") + "MEMORY = 40000\n")
    rehearsal.ds("setup", timeout=120)  # for larger machines than those that have come
    for n in under_way:  # the tasks that run end when they have finished their jobs
        (rehearsal.folder / f"go{n}").touch()
    says(rehearsal, "a task does not fit on a machine", "larger MACHINE_TYPE")


def test_the_image_cannot_be_pulled(rehearsal: DsProject) -> None:
    submit(rehearsal)
    start(rehearsal, "--faults", "pull=100%")
    says(rehearsal, "the image of the task cannot be pulled", "user/image", "check DOCKERHUB_TAG")


def test_tasks_run_and_take_no_job(rehearsal: DsProject) -> None:
    submit(rehearsal)
    starting, workers = rehearsal.start("start", "--wait", "0.01"), set[int]()

    def frozen() -> bool:
        """As they begin: a worker that has asked for jobs would get some, frozen or not."""
        for pid in set(rehearsal.processes()) - workers:
            with suppress(OSError):  # what a worker starts to see whether processes can be started has gone
                if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"\0worker\0"):
                    os.kill(pid, signal.SIGSTOP)
                    workers.add(pid)
        return len(workers) >= 2

    until(frozen, "two workers", 60)
    starting.communicate()
    try:
        log = rehearsal.folder / ".ds" / "App.rehearsal" / "tasks.log"
        says(rehearsal, "2 tasks run, and no job is under way yet", f"see what they print: {log}")
        assert log.is_file()
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    until(lambda: rehearsal.status()["why_idle"] is None, "jobs under way", 60)


def test_jobs_of_lost_machines_are_hidden_until_their_leases_end(rehearsal: DsProject) -> None:
    submit(rehearsal)
    start(rehearsal)
    until(lambda: len(rehearsal.job_lines("--state", "running")) == 2, "two jobs in the ledger", 60)
    for pid in rehearsal.processes():  # without a word: nobody gives the jobs back
        with suppress(ProcessLookupError):  # it went with the one that was killed before it
            os.kill(pid, signal.SIGKILL)
    ec2 = client(rehearsal, "ec2")
    found = ec2.describe_instances()["Reservations"]
    ec2.terminate_instances(InstanceIds=[each["InstanceId"] for some in found for each in some["Instances"]])
    says(rehearsal, "2 jobs were on machines that are gone", "hidden until", ":")
    status = rehearsal.status()
    assert status["jobs"]["running"] == 0 and status["jobs"]["waiting"] == 2
    assert {line["state"] for line in rehearsal.job_lines()} == {"waiting"}
