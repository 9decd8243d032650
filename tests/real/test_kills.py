"""kill -9 of anything, at any moment: every job ends as the ledger says, and nothing is left running."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conftest import DsProject, until

pytestmark = pytest.mark.real

JOBS = 200
KILLS = 10
TARGETS = ["worker", "worker", "machine", "everything", "host", "monitor"]


@pytest.fixture
def pause() -> str:
    """Seconds for `sleep`, written as nobody else writes them: so its processes can be found."""
    return f"0.03{os.getpid():07d}{random.randrange(10**6):06d}"


def running(argument: str) -> list[int]:
    """The processes of this machine that were started with this argument."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if argument.encode() in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return found


def kill(*pids: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Killer:
    """Kills processes of a project while a monitor watches it, and starts the monitor again."""

    def __init__(self, project: DsProject, seed: int) -> None:
        self._project = project
        self._chance = random.Random(seed)
        self._monitor = project.start("monitor")
        self.struck: list[str] = []

    def run_to_the_end(self) -> None:
        """Kill now and then, afterwards only watch; the monitor ends when the work is done."""
        ended = False
        while len(self.struck) < KILLS and not ended:
            time.sleep(self._chance.uniform(0.02, 0.35))
            self._strike(self._chance.choice(TARGETS))
            ended = self._watch_again() == 0
        until(lambda: ended or self._watch_again() == 0, "the monitor to see the end", seconds=90)

    def _strike(self, target: str) -> None:
        if target == "monitor":
            self._monitor.kill()
            self._monitor.wait()
        pids = list(self._pids(target))
        kill(*pids)
        if pids:
            self.struck.append(target)

    def _pids(self, target: str) -> Iterator[int]:
        ours = self._project.processes()
        if target == "everything":
            # workers before their jobs: one that sees its job killed rightly calls that a failed attempt
            yield from sorted(ours, key=lambda pid: b"local.machine" not in command_of(pid))
        elif target == "host":
            hosts = [pid for pid in ours if b"distributed_something.worker.attempt.host" in command_of(pid)]
            yield from self._chance.sample(hosts, min(len(hosts), 1))
        elif target != "monitor":
            # as told: for a moment, what a worker starts looks like it, and its end is a failure of its job
            told = self._project.machine()
            named = [told["pid"]] if target == "machine" else told["workers"].values()
            chosen = [pid for pid in named if pid in ours]
            yield from self._chance.sample(chosen, min(len(chosen), self._chance.choice([1, 2])))

    def _watch_again(self) -> int | None:
        """The monitor's exit code; one that was killed, or found its workers killed, is started again."""
        code: int | None = self._monitor.poll()
        if code is not None:
            _, err = self._monitor.communicate()
            assert "Traceback" not in err, err
            if code != 0:
                self._monitor = self._project.start("monitor")
        return code


def queue_rows(project: DsProject) -> list[tuple[int, int]]:
    """(state, attempts used up) of each job in the queue's file; state 1 is done."""
    with sqlite3.connect(next(project.folder.glob(".ds/*/queue.db"))) as database:
        rows: list[tuple[int, int]] = database.execute("SELECT state, failed FROM jobs").fetchall()
    database.close()
    return rows


def check_output(project: DsProject, job: dict[str, Any]) -> None:
    """Every file of a job's output is there, whole, and as its manifest says."""
    number = job["job"]["group"]["n"]
    folder = project.folder / "data" / job["output"]
    assert (folder / "a").read_text() == f"first of {number}\n"
    assert (folder / "b/c").read_text() == f"second of {number}\n" * 1000
    manifest = json.loads((folder / f".ds/{job['id']}.json").read_text())
    assert manifest["job"] == job["id"]
    told = {file["name"]: (file["size"], file["sha256"]) for file in manifest["files"]}
    found = {
        name: (len(data := (folder / name).read_bytes()), hashlib.sha256(data).hexdigest())
        for name in ("a", "b/c")
    }
    assert told == found


COMMAND = (
    "sleep {pause}; echo first of {n} > {output_dir}/a; mkdir {output_dir}/b;"
    " yes second of {n} | head -n 1000 > {output_dir}/b/c"
)
HANDLER = """
import subprocess

def process(n, pause, output_dir):
    subprocess.run(["sleep", pause], check=True)
    (output_dir / "a").write_text(f"first of {n}\\n")
    (output_dir / "b").mkdir()
    (output_dir / "b/c").write_text(f"second of {n}\\n" * 1000)
"""


@pytest.mark.fault(15, 17, 21, 25)
@pytest.mark.parametrize(("kind", "seed"), [("command", 1), ("handler", 2), ("command", 3)])
def test_killed_at_any_moment_every_job_is_done_and_whole(
    project: DsProject, pause: str, kind: str, seed: int
) -> None:
    what = {"COMMAND": COMMAND} if kind == "command" else {"COMMAND": None, "HANDLER": "work:process"}
    project.config(**what, OUTPUT="out/{n}", JOB_RETRIES=30, DOCKER_CORES=3)
    (project.folder / "work.py").write_text(HANDLER)
    project.ds("setup")
    project.ds("submit", project.jobs(({"n": n} for n in range(JOBS)), pause=pause))
    project.ds("start")
    killer = Killer(project, seed)
    killer.run_to_the_end()
    assert len(killer.struck) >= KILLS // 3, "too little was killed to show anything"

    until(lambda: not project.processes(), "the workers to end")
    assert not running(pause)
    jobs = project.job_lines()
    assert sorted(job["job"]["group"]["n"] for job in jobs) == list(range(JOBS))
    assert {job["state"] for job in jobs} == {"succeeded"}
    for job in jobs:
        check_output(project, job)
    rows = queue_rows(project)
    assert [state for state, _ in rows] == [1] * JOBS
    status = project.status()
    counts = status["jobs"]
    assert (counts["total"], counts["succeeded"]) == (JOBS, JOBS)
    assert sum(counts[name] for name in ("waiting", "running", "dead", "skipped", "failed")) == 0
    assert status["state"] == "finished"
    if "host" not in killer.struck:  # who kills a job's own process makes an attempt of it fail
        assert JOBS <= status["attempts"] <= JOBS + len(killer.struck), "more than a kill explains"
        assert {failed for _, failed in rows} == {0}


def start_jobs(project: DsProject, groups: list[dict[str, Any]]) -> None:
    project.ds("setup")
    project.ds("submit", project.jobs(groups))
    project.ds("start")


@pytest.mark.fault(17)
def test_a_job_that_kills_its_worker_is_dead_and_the_others_succeed(project: DsProject) -> None:
    project.config(COMMAND="sh {script} {n}", DOCKER_CORES=2, JOB_RETRIES=1)
    poisonous, harmless = project.folder / "poisonous.sh", project.folder / "harmless.sh"
    poisonous.write_text("kill -9 $PPID")
    harmless.write_text("exit 0")
    groups = [{"n": n, "script": str(harmless if n else poisonous)} for n in range(21)]
    project.ds("run", project.jobs(groups), code=3)
    poison, *others = project.job_lines()
    assert (poison["state"], poison["cause"]) == ("dead", "worker-lost")
    assert {job["state"] for job in others} == {"succeeded"}
    assert "its worker was lost" in project.ds("failures").stdout
    assert sorted(state for state, _ in queue_rows(project)) == [1] * 20 + [2]


def test_workers_whose_machine_process_is_killed_end_by_themselves(project: DsProject, pause: str) -> None:
    project.config(COMMAND="sleep {pause}", DOCKER_CORES=2)
    start_jobs(project, [{"n": n, "pause": f"1{pause[1:]}"} for n in range(4)])
    until(lambda: len(running(f"1{pause[1:]}")) == 2, "two jobs to run")
    kill(project.machine()["pid"])
    until(lambda: not project.processes(), "the workers to end")
    assert not running(f"1{pause[1:]}")
    status = project.status()
    assert (status["state"], status["machines"]["lost"]) == ("idle", 1)
    assert "ds start" in status["why_idle"]
    assert status["jobs"]["succeeded"] == 2  # what ran was let finish
    project.ds("start")
    project.ds("monitor")
    assert project.status()["jobs"]["succeeded"] == 4


@pytest.mark.parametrize("then", ["start", "stop", "cleanup"])
def test_orphans_of_killed_workers_are_ended_by_the_next_command(
    project: DsProject, pause: str, then: str
) -> None:
    project.config(COMMAND="setsid sleep {pause} & sleep {pause}; cat {gate}", DOCKER_CORES=2, JOB_RETRIES=1)
    gate, long = project.folder / "gate", f"1000{pause[1:]}"
    start_jobs(project, [{"n": n, "pause": long, "gate": str(gate)} for n in range(2)])
    until(lambda: len(running(long)) == 4, "both jobs to run")
    machine = project.machine()
    before = running(long)
    kill(machine["pid"], *machine["workers"].values())
    until(lambda: project.status()["machines"]["running"] == 0, "the kills to be seen")
    project.ds("--yes", then)
    assert not set(before) & set(running(long))
    if then == "start":
        until(lambda: len(running(long)) == 4, "both jobs to run again")
        status = project.status()
        assert (status["interruptions"], status["attempts"], status["jobs"]["dead"]) == (2, 0, 0)
        assert {failed for _, failed in queue_rows(project)} == {0}


@pytest.mark.parametrize("escape", ["env -i sleep {pause}", "env -i setsid sleep {pause} & sleep {pause}"])
def test_a_killed_workers_job_ends_with_it_whatever_its_environment(
    project: DsProject, pause: str, escape: str
) -> None:
    project.config(COMMAND=escape, DOCKER_CORES=1)
    long = f"1000{pause[1:]}"
    start_jobs(project, [{"pause": long}])
    until(lambda: running(long), "the job to run")
    before = running(long)
    kill(*project.machine()["workers"].values())
    until(lambda: not set(before) & set(running(long)), "the job's processes to end")
    until(lambda: running(long), "the job to run again")


def test_two_starts_at_once_are_one_start(project: DsProject) -> None:
    project.config(COMMAND="sleep {n}")
    project.ds("setup")
    project.ds("submit", project.jobs([{"n": 0.01}]))
    starts = [project.start("start") for _ in range(4)]
    said = [process.communicate(timeout=30)[1] for process in starts]
    assert [process.returncode for process in starts] == [0] * 4, said
    machines = [p for p in project.processes() if b"distributed_something.local.machine" in command_of(p)]
    assert len(machines) == 1 + 2
    project.ds("monitor")


def test_a_new_run_is_not_worked_on_by_workers_of_the_one_before(project: DsProject) -> None:
    project.config(COMMAND="sleep {n}")
    start_jobs(project, [{"n": 0.01}])
    until(lambda: project.status()["state"] == "finished", "the first run to finish")
    start_jobs(project, [{"n": 0.02}, {"n": 0.03}])
    project.ds("monitor")
    assert project.status()["jobs"]["succeeded"] == 2


def test_cleanup_ends_running_jobs_at_once_and_whoever_watches_is_told(
    project: DsProject, pause: str
) -> None:
    project.config(COMMAND="sleep {pause} # {n}")
    start_jobs(project, [{"n": n, "pause": f"1000{pause[1:]}"} for n in range(2)])
    until(lambda: running(f"1000{pause[1:]}"), "a job to run")
    watching = project.start("monitor")
    time.sleep(0.3)
    began = time.monotonic()
    project.ds("--yes", "cleanup")
    assert time.monotonic() - began < 15, "jobs were given time to finish"
    assert not running(f"1000{pause[1:]}")
    _, said = watching.communicate(timeout=20)
    assert watching.returncode == 1
    assert "error:" in said
    assert "fix:" in said


def test_a_stop_during_a_start_is_not_lost(project: DsProject) -> None:
    project.config(COMMAND="sleep {n}", DOCKER_CORES=4)
    project.ds("setup")
    project.ds("submit", project.jobs({"n": 0.01 + n / 1000} for n in range(500)))
    chance = random.Random(3)
    for _ in range(4):
        starting = project.start("start")
        time.sleep(chance.uniform(0.05, 0.4))
        project.ds("stop", "--now", timeout=20)
        starting.communicate(timeout=20)
        project.ds("stop", timeout=20)
        assert not project.processes()


def interrupted(process: subprocess.Popen[str]) -> str:
    """Ctrl-C for a process that has begun to watch; what it said. Never a traceback."""
    assert process.stderr is not None
    while "running" not in process.stderr.readline():
        pass
    time.sleep(random.uniform(0.0, 0.1))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert "Traceback" not in said
    assert process.returncode == 130, said
    return said


def test_ctrl_c_ends_the_watching_and_not_the_work(project: DsProject) -> None:
    project.config(COMMAND="sleep {n}")
    run = project.start("run", project.jobs({"n": 0.5 + n / 1000} for n in range(16)))
    assert "the work goes on" in interrupted(run)
    assert "ds monitor to watch again" in interrupted(project.start("monitor"))
    project.ds("monitor")
    assert project.status()["jobs"]["succeeded"] == 16


def test_workers_that_die_at_once_are_told_of_and_can_be_stopped(project: DsProject) -> None:
    project.config(COMMAND="true {n}")
    project.ds("setup")
    project.ds("submit", project.jobs([{"n": 1}]))
    (project.folder / ".ds/App/work").write_text("where the workers want a folder")
    project.ds("start")
    until(lambda: "keep dying" in (project.status()["why_idle"] or ""), "the trouble to be told")
    project.ds("stop", "--now", timeout=20)
    assert not project.processes()
    assert project.status()["jobs"]["waiting"] == 1


_CROWDED = """
import os
import errno

forks = os.fork
left = {left}


def fork():
    global left
    left -= 1
    if {when}:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return forks()


os.fork = fork
"""


def crowd(project: DsProject, left: int, when: str) -> None:
    """Have the system refuse processes to the machine process: `left` counts its tries down."""
    (project.folder / "sitecustomize.py").write_text(_CROWDED.format(left=left, when=when))
    project.environment["PYTHONPATH"] = str(project.folder)


def test_a_worker_that_the_system_has_no_room_for_comes_later(project: DsProject) -> None:
    crowd(project, 2, "left == 0")
    project.config(COMMAND="sleep {n}")
    project.ds("setup")
    project.ds("submit", project.jobs([{"n": 0.1}, {"n": 60}]))
    project.ds("start")
    until(lambda: len(project.machine()["workers"]) == 2, "the second worker to come")
    project.ds("stop", "--now")


def test_where_there_is_room_for_no_worker_the_start_says_so(project: DsProject) -> None:
    crowd(project, 0, "True")
    project.config(COMMAND="true {n}")
    project.ds("setup")
    project.ds("submit", project.jobs([{"n": 1}]))
    assert "no room for one process more" in project.ds("start", code=1).stderr
    assert project.status()["jobs"]["waiting"] == 1


@pytest.mark.fault(78)
def test_a_worker_that_hangs_is_killed_after_a_stop_and_its_job_waits(project: DsProject) -> None:
    project.config(COMMAND="sleep 600", DOCKER_CORES=1)
    project.ds("setup")
    project.ds("submit", project.jobs([{"n": 1}]))
    project.ds("start")
    until(lambda: project.status()["jobs"]["running"] == 1, "the job to run")
    (worker,) = project.machine()["workers"].values()
    os.kill(worker, signal.SIGSTOP)  # as if its disk did not answer
    project.ds("stop", "--now")
    assert not project.processes()
    assert project.status()["jobs"]["waiting"] == 1
