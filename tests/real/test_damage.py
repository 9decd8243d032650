"""A queue that is damaged while workers run: commands answer, workers end, and a repair brings it back."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import DsProject, until

pytestmark = pytest.mark.real

JOBS = 60
ANSWER_SECONDS = 5.0


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def overwritten(path: Path) -> None:
    for each in (path, path.with_name("queue.db-wal")):
        with each.open("r+b") as file:
            file.write(os.urandom(each.stat().st_size))


def wrong_type(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE jobs SET failed = 'abc' WHERE state = 0 AND token IS NULL")


@pytest.fixture
def running(project: DsProject) -> DsProject:
    """A run with workers, some of whose jobs have ended."""
    project.config(
        COMMAND="sleep 0.2; echo {n} > {output_dir}/x", OUTPUT="out/{n}", DOCKER_CORES=3, JOB_RETRIES=2
    )
    jobs = project.jobs([{"n": n} for n in range(JOBS)])
    project.ds("setup")
    project.ds("submit", jobs)
    project.ds("start")
    until(lambda: len(list(project.folder.glob("data/out/*/x"))) > 5, "jobs to end")
    return project


def answered(project: DsProject, *command: str, code: int | None) -> str:
    began = time.monotonic()
    said = project.ds(*command, code=code)
    assert time.monotonic() - began < ANSWER_SECONDS
    return str(said.stdout + said.stderr)


@pytest.mark.fault(75)
@pytest.mark.parametrize("damage", [emptied, overwritten, wrong_type], ids=lambda damage: damage.__name__)
def test_commands_answer_workers_end_and_no_job_is_lost(
    running: DsProject, damage: Callable[[Path], None]
) -> None:
    damage(next(running.folder.glob(".ds/*/queue.db")))
    said = answered(running, "status", code=None)
    assert "ds repair" in said or damage is wrong_type
    until(lambda: not running.processes(), "the workers to end by themselves")
    answered(running, "stop", "--now", code=None)
    done = {job["id"] for job in running.job_lines() if job["state"] == "succeeded"}
    assert "again" in answered(running, "repair", code=0)
    running.ds("start")
    running.ds("monitor")
    jobs = running.job_lines()
    assert len(jobs) == JOBS and {job["state"] for job in jobs} == {"succeeded"}
    assert all(job["attempts"] == 1 for job in jobs if job["id"] in done)


@pytest.mark.fault(75)
def test_cleanup_removes_a_damaged_queue(running: DsProject) -> None:
    emptied(next(running.folder.glob(".ds/*/queue.db")))
    answered(running, "cleanup", "--yes", code=0)
    assert not running.processes()
    assert not list(running.folder.glob(".ds/*/queue.db"))
