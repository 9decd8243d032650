"""Runs by pilots, on a real Slurm cluster and on hosts with a real sshd: what is the same on both."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters import ClusterProject, wait_until
from hosting import HostsProject

pytestmark = pytest.mark.real

KINDS: dict[str, tuple[type[ClusterProject], str]] = {
    "slurm": (ClusterProject, "cluster"),
    "ssh": (HostsProject, "hosts"),
}
"""The kind of project of each engine, and the fixture that it works in."""


@pytest.fixture(params=KINDS)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ClusterProject]:
    kind, needs = KINDS[request.param]
    found = kind(tmp_path / "project", request.getfixturevalue(needs))
    found.folder.mkdir()
    yield found
    for log in found.state().glob("logs/*.log"):
        print(f"--- {log.name}\n{log.read_text()[-3000:]}")


def test_a_run_from_the_first_step_to_the_last(project: ClusterProject) -> None:
    project.config()
    done = project.ds("run", project.numbered(100), timeout=120)
    assert "100 succeeded" in done.stdout
    project.is_complete(100)
    assert Counter(project.starts()) == Counter(range(100))
    assert project.cluster.jobs() == []
    project.leaves_nothing()


def test_workers_heads_and_pilots_are_killed_and_every_job_is_done(project: ClusterProject) -> None:
    project.config()
    project.ds("setup")
    project.ds("submit", project.numbered(240, 0.3))
    project.ds("start", timeout=90)
    killed = 0

    def kill(pids: list[int]) -> None:
        nonlocal killed
        os.kill(pids[0], signal.SIGKILL)
        killed += 1

    for _ in range(2):
        wait_until(project.heads, "a head", 30)
        kill(project.heads())
        time.sleep(2)
        kill(project.workers())
        time.sleep(2)
    kill(project.first_pilots())
    done = project.ds("monitor", timeout=240)
    assert "240 succeeded" in done.stdout
    project.is_complete(240)
    starts = Counter(project.starts())
    assert set(starts) == set(range(240))
    assert sum(starts.values()) - 240 <= killed * 4, "only what a kill explains runs again"
    project.leaves_nothing(killed=True)


def test_a_run_whose_terminal_closes_is_taken_up_by_monitor(project: ClusterProject) -> None:
    project.config()
    run = project.start("run", project.numbered(80, 1.5), start_new_session=True)
    wait_until(lambda: len(project.starts()) > 5, "jobs to run")
    os.killpg(run.pid, signal.SIGHUP)
    run.communicate(timeout=30)
    before = len(project.starts())
    wait_until(lambda: len(project.starts()) >= min(before + 5, 80), "jobs to go on")
    project.ds("monitor", timeout=120)
    project.is_complete(80)
    assert Counter(project.starts()) == Counter(range(80))
    project.leaves_nothing(killed=True)
