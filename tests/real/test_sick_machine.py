"""A machine that cannot work for a while: the workers pause and say so, and no job pays for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_disk_full import Mount, fill, small_disk  # noqa: F401  a fixture

from conftest import DsProject, until

pytestmark = [pytest.mark.real, pytest.mark.fault(65)]

USER = 54_321
LIMIT = 30
"""Processes that the user may have. Root has no such limit."""


def needs(*programs: str) -> None:
    """Skips a test on a laptop where it cannot become another user; fails in CI."""
    missing = [each for each in programs if shutil.which(each) is None]
    if os.geteuid() != 0 or missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"needs root, and {missing}")
        pytest.skip("needs root, and setpriv and prlimit of util-linux")


def as_user() -> list[str]:
    """What runs a command by another user, who may read and write what root may."""
    reads = "+dac_override,+dac_read_search"
    user = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups", f"--inh-caps={reads}"]
    return ["setpriv", *user, f"--ambient-caps={reads}"]


def workers(project: DsProject) -> list[int]:
    return list(project.machine()["workers"].values())


def idle(project: DsProject) -> str:
    return project.status()["why_idle"] or ""


def outcome(project: DsProject) -> tuple[int, int, int]:
    """Jobs that have succeeded, those that are dead, and the attempts that count."""
    found = project.status()
    return found["jobs"]["succeeded"], found["jobs"]["dead"], found["attempts"]


def test_no_process_left_for_the_user_charges_no_job(project: DsProject) -> None:
    needs("setpriv", "prlimit")
    project.config(COMMAND="echo {n} | cat", DOCKER_CORES=2, JOB_RETRIES=1)
    project.ds("setup")
    project.ds("submit", project.jobs({"n": n} for n in range(300)))
    for path in (project.folder, *project.folder.rglob("*")):
        os.chown(path, USER, USER)
    others = [subprocess.Popen([*as_user(), "sleep", "60"]) for _ in range(LIMIT - 4)]
    project.prefix = ["prlimit", f"--nproc={LIMIT}", *as_user()]
    project.ds("start")
    project.prefix = as_user()
    until(lambda: "paused: no processes left (ulimit -u)" in idle(project), "the pause to be shown")
    for other in others:
        other.kill()
        other.wait()
    until(lambda: outcome(project)[:2] == (300, 0), "all jobs to succeed", 40)
    assert outcome(project)[2] == 300


def test_no_file_left_for_a_worker_charges_no_job(project: DsProject) -> None:
    needs("prlimit")
    go = project.folder / "go"
    project.config(COMMAND=f"while ! [ -e '{go}' ]; do sleep 0.02; done; echo {{n}}", JOB_RETRIES=1)
    project.ds("setup")
    project.ds("submit", project.jobs({"n": n} for n in range(100)))
    project.ds("start")
    until(lambda: project.status()["jobs"]["running"] == 2, "jobs to run")

    def limit(files: Callable[[int], int]) -> None:
        for pid in workers(project):
            opened = len(os.listdir(f"/proc/{pid}/fd"))
            subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={files(opened)}:1024"], check=True)

    limit(lambda opened: opened - 3)
    go.touch()
    until(lambda: "paused: too many open files (ulimit -n)" in idle(project), "the pause to be shown")
    limit(lambda _: 1024)
    until(lambda: outcome(project) == (100, 0, 100), "all jobs to succeed", 40)


@pytest.fixture
def store(project: DsProject, small_disk: Mount) -> Iterator[Path]:  # noqa: F811
    """A store on a disk of its own, in a project whose jobs note that they ran."""
    project.config(
        COMMAND="sleep 0.02; echo {n} >> '{ran}'; head -c 4000 /dev/zero > {output_dir}/zeros",
        OUTPUT="out/{n}",
        JOB_RETRIES=1,
    )
    yield small_disk(project.folder / "data", 16)


def run_through(
    project: DsProject, spoil: Callable[[], object], mend: Callable[[], object], said: str
) -> None:
    """Spoils the store of a run under way until `status` says so for a while, and mends it."""
    ran = project.folder / "ran"
    project.ds("setup")
    project.ds("submit", project.jobs({"n": n, "ran": str(ran)} for n in range(150)))
    project.ds("start")
    until(lambda: ran.exists() and len(ran.read_text().split()) > 20, "some jobs to run")
    spoil()
    until(lambda: said in idle(project), "the reason to be shown")
    before = len(ran.read_text().split())
    time.sleep(2.0)
    assert len(ran.read_text().split()) <= before + 2
    mend()
    until(lambda: outcome(project)[:2] == (150, 0), "all jobs to succeed", 60)
    assert sorted(map(int, ran.read_text().split())) == [*range(150)]  # what was made was kept
    for n in range(150):
        assert (project.folder / f"data/out/{n}/zeros").stat().st_size == 4000


def test_a_full_store_charges_no_job_and_runs_none_again(project: DsProject, store: Path) -> None:
    run_through(project, lambda: fill(store), lambda: (store / "ballast").unlink(), "is full")


def test_a_read_only_store_charges_no_job_and_runs_none_again(project: DsProject, store: Path) -> None:
    """It becomes read-only before a worker has a file of it open, as it could not later."""
    go, ran = project.folder / "go", project.folder / "ran"

    def remount(how: str) -> bool:
        command = ["mount", "-o", f"remount,{how}", str(store)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    command = "while ! [ -e '{go}' ]; do sleep 0.01; done; echo {n} >> '{ran}'; echo {n} > {output_dir}/n"
    project.config(COMMAND=command, OUTPUT="out/{n}", JOB_RETRIES=1)
    project.ds("setup")
    project.ds("submit", project.jobs({"n": n, "ran": str(ran), "go": str(go)} for n in range(150)))
    project.ds("start")
    until(lambda: remount("ro"), "the store to become read-only")
    go.touch()
    until(lambda: "cannot be written" in idle(project), "the reason to be shown")
    time.sleep(2.0)
    assert len(ran.read_text().split()) <= 2
    assert remount("rw")
    until(lambda: outcome(project) == (150, 0, 150), "all jobs to succeed", 60)
    assert sorted(map(int, ran.read_text().split())) == [*range(150)]  # what was made was kept


def test_a_store_that_is_away_charges_no_job_and_gets_no_file_below_its_mount(
    project: DsProject, store: Path
) -> None:
    aside = project.folder / "aside"
    aside.mkdir()

    def move(source: Path, target: Path) -> None:
        subprocess.run(["mount", "--move", str(source), str(target)], check=True)

    subprocess.run(["mount", "--make-private", str(store)], check=False)
    run_through(project, lambda: move(store, aside), lambda: move(aside, store), "away")


def test_scratch_that_others_have_filled_charges_no_job(
    project: DsProject,
    small_disk: Mount,  # noqa: F811
) -> None:
    state = small_disk(project.folder / ".ds", 24)
    project.config(
        COMMAND="sleep 0.02; head -c 300000 /dev/zero > {output_dir}/zeros", OUTPUT="out/{n}", JOB_RETRIES=1
    )
    project.ds("setup")
    project.ds("submit", project.jobs({"n": n} for n in range(300)))
    project.ds("start")
    until(lambda: project.status()["jobs"]["succeeded"] > 5, "some jobs to succeed")
    ballast = fill(state)
    until(lambda: "is full" in idle(project), "the reason to be shown")
    time.sleep(2.0)
    ballast.unlink()
    until(lambda: outcome(project) == (300, 0, 300), "all jobs to succeed", 60)
