"""Days on which machines die and calls fail: whatever happens, a run comes to the same end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import distributed_something
from conftest import DsProject, until
from pretending import require
from rehearsing import check_files, machines_left, processes

pytestmark = pytest.mark.real

ROUGH = "notice=0.4/min,kill=0.4/min,throttle=5%,error=2%,lag=2s,speed=8x"
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
    more = {
        "DOCKERHUB_TAG": "user/image",
        "CLUSTER_MACHINES": machines,
        "TASKS_PER_MACHINE": 1,
        "MACHINE_TYPE": ["m5.large"],
        "MACHINE_PRICE": 0.1,
        "SQS_MESSAGE_VISIBILITY": 8,
        "DOCKER_CORES": 2,
    }
    text = text.replace('ENGINE = "local"', 'ENGINE = "rehearsal"')
    (project.folder / "config.py").write_text(text + "".join(f"{key} = {more[key]!r}\n" for key in more))


@pytest.mark.fault(17)
@pytest.mark.parametrize("seed", [2, 3])
def test_the_readmes_example_on_a_rough_day(rehearsal: DsProject, seed: int) -> None:
    shutil.copytree(TEXTS, rehearsal.folder, dirs_exist_ok=True)
    adapt(rehearsal, (TEXTS / "config.py").read_text(), machines=2)
    ended = rehearsal.ds(
        "run", "files/exampleJob.json", "--faults", f"{ROUGH},seed={seed}", code=3, timeout=240
    )

    check_files(rehearsal.folder / "data", "words", FAIL, "Text")
    assert "left behind" in ended.stdout
    assert machines_left(rehearsal) == []
    rehearsal.ds("cleanup", "--yes", timeout=120)
    assert not processes(rehearsal)


@pytest.mark.fault(8, 17)
def test_two_thousand_jobs_on_a_rough_day_with_a_monitor_that_is_killed(rehearsal: DsProject) -> None:
    draw = random.Random(23)
    command = "echo {n} > {output_dir}/n.txt; exit {code}"
    text = (
        f'APP_NAME = "App"\nENGINE = "local"\nCOMMAND = {command!r}\nOUTPUT = "out/{{n}}"\nJOB_RETRIES = 2\n'
    )
    adapt(rehearsal, text, machines=3)
    bad = {17, 1234}
    jobs = rehearsal.jobs({"n": n, "code": int(n in bad)} for n in range(2000))
    step: tuple[object, ...] = (
        "run",
        jobs,
        "--faults",
        "notice=0.1/min,kill=0.1/min,throttle=5%,error=2%,lag=2s,speed=8x,seed=4",
    )
    began, kills = time.monotonic(), 0
    while time.monotonic() - began < 240:
        watching = rehearsal.start(*step, start_new_session=True)
        try:
            out, err = watching.communicate(timeout=240 if kills == 5 else (not kills and 12) or draw.uniform(0.5, 5.0))
            break
        except subprocess.TimeoutExpired:
            os.killpg(watching.pid, signal.SIGKILL)
            watching.communicate()
            kills, step = kills + 1, ("monitor",)

    assert kills >= 2
    assert watching.returncode == 3, f"{out}\n{err}"
    events = check_files(rehearsal.folder / "data", "out", dict.fromkeys(map(str, bad), "exit"), "n")
    assert events["succeeded"] + events["skipped"] >= 1998
    assert machines_left(rehearsal) == []
    rehearsal.ds("cleanup", "--yes", timeout=120)
    assert not processes(rehearsal)
