"""A disk that is full: under the jobs, under the store, under the queue. Nothing is lost, and it is said."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import DsProject, until

pytestmark = pytest.mark.real

Mount = Callable[[Path, int], Path]


@pytest.fixture
def small_disk(project: DsProject) -> Iterator[Mount]:
    """Makes a folder a disk of so many MB. That needs root: left out on a laptop, demanded in CI."""
    mounted: list[Path] = []

    def mount(folder: Path, megabytes: int) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode and os.environ.get("CI") != "true":
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        assert not done.returncode, done.stderr
        mounted.append(folder)
        return folder

    try:
        yield mount
    finally:
        if (project.folder / "config.py").exists():
            project.ds("stop", "--now", code=None)
        for folder in reversed(mounted):
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Use up what is left of the disk; the file to remove for room."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def test_a_job_that_fills_its_disk_is_disk_full_and_costs_no_other_job(
    project: DsProject, small_disk: Mount
) -> None:
    small_disk(project.folder / ".ds", 12)
    project.config(
        COMMAND="head -c {bytes} /dev/zero > {output_dir}/zeros",
        OUTPUT="out/{n}",
        JOB_RETRIES=1,
        DOCKER_CORES=1,
    )
    sizes = [1000, 50_000_000, 2000]
    project.ds("run", project.jobs({"n": n, "bytes": size} for n, size in enumerate(sizes)), code=3)
    jobs = project.job_lines()
    assert [(job["state"], job["cause"]) for job in jobs] == [
        ("succeeded", None),
        ("dead", "disk-full"),
        ("succeeded", None),
    ]
    assert "No space left" in project.ds("failures").stdout
    assert (project.folder / "data/out/2/zeros").stat().st_size == 2000


def test_an_output_that_does_not_fit_the_store_is_disk_full_and_leaves_no_part(
    project: DsProject, small_disk: Mount
) -> None:
    store = small_disk(project.folder / "data", 8)
    project.config(
        COMMAND="head -c {bytes} /dev/zero > {output_dir}/zeros",
        OUTPUT="out/{n}",
        JOB_RETRIES=1,
        DOCKER_CORES=1,
    )
    sizes = [1000, 20_000_000, 2000]
    project.ds("run", project.jobs({"n": n, "bytes": size} for n, size in enumerate(sizes)), code=3)
    assert [job["cause"] for job in project.job_lines()] == [None, "disk-full", None]
    assert not [path for path in (store / "out/1").rglob("*") if path.is_file()]
    assert (store / "out/2/zeros").stat().st_size == 2000


@pytest.mark.fault(19)
@pytest.mark.parametrize("full", ["data", ".ds"])
def test_work_goes_on_when_a_full_disk_has_room_again(
    project: DsProject, small_disk: Mount, full: str
) -> None:
    """The ledger's disk, or the queue's: the workers wait for room, and so does the monitor."""
    disk = small_disk(project.folder / full, 24)
    project.config(COMMAND="sh {script} {n}", DOCKER_CORES=2, JOB_RETRIES=1)
    script, done = project.folder / "job.sh", project.folder / "done"
    script.write_text(f"sleep 0.02; echo $1 >> '{done}'")
    project.ds("setup")
    project.ds("submit", project.jobs({"n": n, "script": str(script)} for n in range(200)))
    project.ds("start")
    until(lambda: done.exists() and len(done.read_text().split()) > 20, "some jobs to be done")
    ballast = fill(disk)
    watching = project.start("monitor")
    until(lambda: "is full: make room" in (project.status()["why_idle"] or ""), "the reason to be told")
    time.sleep(1.0)
    ballast.unlink()
    _, said = watching.communicate(timeout=60)
    assert watching.returncode == 0, said
    assert project.status()["jobs"]["succeeded"] == 200
    assert {int(number) for number in done.read_text().split()} == set(range(200))


@pytest.mark.fault(19)
@pytest.mark.parametrize("full", ["data", ".ds"])
def test_commands_on_a_full_disk_say_so_and_can_be_repeated(
    project: DsProject, small_disk: Mount, full: str
) -> None:
    disk = small_disk(project.folder / full, 40)
    project.config(COMMAND="true {n}")
    project.ds("setup")
    ballast = fill(disk)
    jobs = project.jobs({"n": n, "padding": "x" * 1000} for n in range(3000))
    said = project.ds("submit", jobs, code=1).stderr
    assert "full" in said or "No space left" in said
    assert "fix:" in said
    said = project.ds("start", code=None).stderr
    assert full == "data" or "No space left" in said or "full" in said
    ballast.unlink()
    project.ds("submit", jobs)
    assert project.status()["jobs"]["total"] == 3000
    project.ds("start")
    project.ds("monitor")
    assert project.status()["jobs"]["succeeded"] == 3000


def test_a_worker_killed_while_the_disk_is_full_costs_nothing(project: DsProject, small_disk: Mount) -> None:
    disk = small_disk(project.folder / ".ds", 24)
    project.config(COMMAND="sleep {n}", DOCKER_CORES=2, JOB_RETRIES=1)
    project.ds("setup")
    project.ds("submit", project.jobs({"n": 0.05 + n / 10000} for n in range(60)))
    project.ds("start")
    until(lambda: project.status()["jobs"]["succeeded"] > 3, "some jobs to be done")
    ballast = fill(disk)
    for pid in project.machine()["workers"].values():
        os.kill(pid, 9)
    time.sleep(1.0)
    ballast.unlink()
    project.ds("monitor", timeout=60)
    status = project.status()
    assert (status["jobs"]["succeeded"], status["attempts"]) == (60, 60)
