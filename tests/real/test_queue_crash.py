"""Processes killed at any moment leave a sound queue, and no job is lost."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distributed_something.engine import Counts
from distributed_something.job import Job
from distributed_something.local.queue import BATCH, SqliteQueue

pytestmark = pytest.mark.real

JOBS = 3000
TERM = 0.5

# Does a bit of everything; writes down what is done before it says so to the queue, as a real worker does.
WORKER = """
import os, random, sys
from pathlib import Path
from distributed_something.job import Cause, RetryPolicy
from distributed_something.local.queue import SqliteQueue

diary = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
policy = RetryPolicy(attempts=10**6, backoff=0.0)
queue = SqliteQueue(Path(sys.argv[1]), term=float(sys.argv[3]), policy=policy)
print("ready", flush=True)
while True:
    leases = queue.lease(random.choice([1, 5, 20]), wait=1.0)
    leases, _ = queue.renew(leases)
    fate = random.random()
    if fate < 0.1:
        queue.release(leases)
    elif fate < 0.2 and leases:
        queue.fail(leases[0], Cause.EXIT)
    else:
        os.write(diary, b"".join(b"%s\\n" % lease.job.id.encode() for lease in leases))
        queue.done(leases)
"""

SUBMITTER = """
import sys
from pathlib import Path
from distributed_something.job import Job
from distributed_something.local.queue import SqliteQueue

queue = SqliteQueue(Path(sys.argv[1]))
print("ready", flush=True)
queue.put(Job(f"{n:016x}", n, b'{"group": {}}' * 20) for n in range(10**9))
"""


def start(script: str, *words: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    assert process.poll() is None, "it ended by itself"
    process.kill()
    process.communicate()


def sound(path: Path) -> bool:
    db = sqlite3.connect(path)
    try:
        return bool(db.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    finally:
        db.close()


def drained(path: Path) -> set[str]:
    """Do what is left as a worker that lives."""
    done: set[str] = set()
    with SqliteQueue(path) as queue:
        while leases := queue.lease(100, wait=TERM * 2):
            queue.done(leases)
            done.update(lease.job.id for lease in leases)
        assert (queue.finished(), queue.counts()) == (JOBS, Counts())
    return done


def test_workers_killed_at_any_moment_lose_no_job(tmp_path: Path) -> None:
    path, diary, chance = tmp_path / "queue.db", tmp_path / "diary", random.Random(7)
    with SqliteQueue(path) as queue:
        queue.put(Job(f"{n:016x}", n, b'{"group": {}}') for n in range(JOBS))
    for _ in range(4):
        workers = [start(WORKER, path, diary, TERM) for _ in range(3)]
        for worker in workers:
            time.sleep(chance.uniform(0.0, 0.1))
            kill(worker)
        assert sound(path)
    before = set(diary.read_text().split())
    assert before, "no job was done before the kills: they show nothing"
    assert before | drained(path) == {f"{n:016x}" for n in range(JOBS)}


def test_a_submission_killed_at_any_moment_can_be_repeated(tmp_path: Path) -> None:
    path, chance = tmp_path / "queue.db", random.Random(7)
    stored = 0
    for _ in range(3):
        submitter = start(SUBMITTER, path)
        time.sleep(chance.uniform(0.2, 0.8))
        kill(submitter)
        assert sound(path)
        with SqliteQueue(path) as queue:
            waiting = queue.counts().waiting
            assert waiting >= stored
            assert waiting % BATCH == 0, "a part of a transaction was stored"
            stored = waiting
    with SqliteQueue(path) as queue:
        report = queue.put(Job(f"{n:016x}", n, b"{}") for n in range(stored + 10))
        assert (report.sent, report.known) == (10, stored)
