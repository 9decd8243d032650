"""Days on which machines die and calls fail: whatever happens, a run comes to the same end."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import distributed_something
from conftest import DsProject, until
from pretending import require
from rehearsing import Emulator, check_counts, check_files, processes, queues

pytestmark = pytest.mark.real

TEXTS = Path(distributed_something.__file__).parent / "examples" / "text"
FAIL = {
    "act5_scene4.txt": "input-missing",
    "cast.txt": "exit",
    "epilogue.txt": "output-missing",
    "act3_scene2.txt": "timeout",
}


@pytest.fixture
def rehearsal(project: DsProject) -> Iterator[DsProject]:
    """A project whose runs are rehearsed; nothing of them runs afterwards."""
    require()
    yield project
    project.ds("cleanup", "--yes", code=None, timeout=120)
    until(lambda: not processes(project), "the rehearsal's processes to end")


def adapt(project: DsProject, text: str, machines: int) -> None:
    """Write config.py for a rehearsal on so many machines of one task each."""
    more: dict[str, Any] = {
        "ENGINE": "rehearsal",
        "AWS_BUCKET": "bucket-of-a-test",
        "DOCKERHUB_TAG": "user/image",
        "CLUSTER_MACHINES": machines,
        "TASKS_PER_MACHINE": 1,
        "MACHINE_TYPE": ["m5.large"],
        "MACHINE_PRICE": 0.1,
        "SQS_MESSAGE_VISIBILITY": 8,
        "DOCKER_CORES": 2,
    }
    kept = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("ENGINE"))
    (project.folder / "config.py").write_text(kept + "".join(f"{key} = {more[key]!r}\n" for key in more))


def check_end(project: DsProject, count: int, dead: int) -> dict[str, Any]:
    """The account as the run has left it, and that clean-up leaves nothing in it; the run's story."""
    emulator = Emulator.of(project)
    assert emulator.account["refused"], "no call went wrong"
    gone = [each for each in emulator.account["machines"] if each["lost"] or each["noticed"]]
    assert gone, "no machine was lost"
    assert emulator.machines() == []
    assert emulator.messages() == queues(project.status()["app"], dead=dead)
    check_counts(project, count, dead)
    (file,) = (project.folder / "data" / "runs").glob("*/*/rehearsal.json")
    story: dict[str, Any] = json.loads(file.read_bytes())
    lost = [each["id"] for each in emulator.account["machines"] if each["lost"]]
    assert [each["machine"] for each in story["lost"]] == lost
    assert (story["jobs"], story["leftovers"]) == (count, [])

    project.environment |= emulator.environment
    project.ds("cleanup", "--yes", "--engine", "aws", timeout=120)
    assert emulator.machines() + emulator.things() == []
    project.ds("cleanup", "--yes", timeout=120)
    assert not processes(project)
    return story


@pytest.mark.fault(17)
@pytest.mark.parametrize("seed", [3370, 179])  # soon the first machine is killed; or it gets its notice
def test_the_readmes_example_on_a_rough_day(rehearsal: DsProject, seed: int) -> None:
    shutil.copytree(TEXTS, rehearsal.folder, dirs_exist_ok=True)
    adapt(rehearsal, (TEXTS / "config.py").read_text(), machines=2)
    faults = f"notice=0.25/min,kill=0.25/min,throttle=5%,error=2%,lag=2s,speed=8x,seed={seed}"
    ended = rehearsal.ds("run", "files/exampleJob.json", "--faults", faults, code=3, timeout=400)

    assert "left behind: nothing" in ended.stdout
    assert "were refused on purpose" in ended.stdout
    count = len(json.loads((TEXTS / "files" / "exampleJob.json").read_bytes())["groups"])
    check_files(rehearsal.folder / "data", "words", "Text", count, FAIL)
    check_end(rehearsal, count, len(FAIL))


def is_worker(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # a job's, that has ended meanwhile
        return False
    return command.split(b"\0")[1:-1] == [b"-m", b"distributed_something", b"worker"]


def kill_a_worker(project: DsProject) -> None:
    """Kill one as soon as there are some outputs, with what it has leased."""
    outputs = project.folder / "data" / "out"
    until(lambda: len(list(outputs.glob("*/.ds/*.json"))) >= 20, "the first jobs", 120)
    os.kill(next(pid for pid in project.processes() if is_worker(pid)), signal.SIGKILL)
    assert Emulator.of(project).messages()["AppQueue"] > 0, "nothing was left to lose"


def monitored(project: DsProject, kills: int, draw: random.Random) -> tuple[int, str]:
    """Monitor to the end, killed so many times at random on the way; how often it was, and what it said."""
    for killed in range(kills + 1):
        monitor = project.start("monitor", start_new_session=True)
        try:
            out, err = monitor.communicate(timeout=400 if killed == kills else draw.uniform(0.3, 4.0))
        except subprocess.TimeoutExpired:
            os.killpg(monitor.pid, signal.SIGKILL)
            monitor.communicate()
        else:
            break
    assert monitor.returncode == 3, f"{out}\n{err}"
    return killed, out


@pytest.mark.fault(8, 17)
def test_two_thousand_jobs_on_a_rough_day_with_a_monitor_that_is_killed(rehearsal: DsProject) -> None:
    bad = {"17": "exit", "1234": "exit"}
    keys = {
        "APP_NAME": "App",
        "COMMAND": "echo {n} > {output_dir}/n.txt; exit {code}",
        "OUTPUT": "out/{n}",
        "JOB_RETRIES": 2,
    }
    adapt(rehearsal, "".join(f"{key} = {value!r}\n" for key, value in keys.items()), machines=3)
    jobs = rehearsal.jobs({"n": n, "code": int(str(n) in bad)} for n in range(2000))
    faults = "notice=0.15/min,kill=0.15/min,throttle=5%,error=2%,lag=2s,speed=8x,seed=599"
    rehearsal.ds("setup", timeout=120)
    rehearsal.ds("submit", jobs, timeout=120)
    record = rehearsal.folder / "files" / "AppSpotFleetRequestId.json"
    earlier = record.read_bytes()
    rehearsal.ds("start", "--faults", faults, timeout=120)
    assert record.read_bytes() != earlier
    record.write_bytes(
        earlier
    )  # as if it had been killed between asking for the machines and writing that down
    kill_a_worker(rehearsal)
    kills, out = monitored(rehearsal, 6, random.Random(23))

    assert kills >= 2
    assert "left behind: nothing" in out
    check_files(rehearsal.folder / "data", "out", "n", 2000, bad)
    story = check_end(rehearsal, 2000, len(bad))
    assert story["attempts"] >= 2002
