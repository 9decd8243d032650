"""Many processes on one queue at once: no error, no job twice, nobody left waiting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distributed_something.job import Job
from distributed_something.local.queue import SqliteQueue

pytestmark = pytest.mark.real

PROCESSES = 24
JOBS = 2000

WORKER = """
import json, sys, time
from pathlib import Path
from distributed_something.local.queue import SqliteQueue

done, longest = [], 0.0
with SqliteQueue(Path(sys.argv[1]), owner=sys.argv[2]) as queue:
    sys.stdin.read()  # all start together
    while True:
        start = time.monotonic()
        leases = queue.lease(5)
        between = time.monotonic()
        queue.done(leases)
        longest = max(longest, between - start, time.monotonic() - between)
        if not leases:
            break
        done += [lease.job.id for lease in leases]
print(json.dumps([done, longest]))
"""


def test_each_job_is_done_by_exactly_one_of_many_processes(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    command = [sys.executable, "-c", WORKER, str(path)]
    workers = [
        subprocess.Popen([*command, f"w{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(PROCESSES)
    ]
    with SqliteQueue(path) as queue:
        queue.put(Job(f"{n:016x}", n, b'{"group": {}}') for n in range(JOBS))
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
            worker.stdin = None
        reports = [json.loads(worker.communicate(timeout=60)[0]) for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * PROCESSES
        assert (queue.finished(), queue.counts().open) == (JOBS, 0)
    done = [each for ids, _ in reports for each in ids]
    assert sorted(done) == [f"{n:016x}" for n in range(JOBS)]
    # 0.1 to 0.4 s on a quiet machine of two cores; the bound is wide for the sake of busy ones.
    assert max(longest for _, longest in reports) < 5.0


def test_a_process_that_has_the_queue_open_twice_loses_nothing_to_another_that_closes_it(
    tmp_path: Path,
) -> None:
    """As the page of a run does, while machine processes begin and end."""
    path = tmp_path / "queue.db"
    command = [sys.executable, "-c", WORKER, str(path), "w"]

    def done_elsewhere() -> list[str]:
        found: list[str] = json.loads(
            subprocess.run(command, input="", capture_output=True, text=True).stdout
        )[0]
        return found

    with SqliteQueue(path) as first:
        first.put([Job("a" * 16, 0, b'{"group": {}}')])
        with SqliteQueue(path) as second:
            assert done_elsewhere() == ["a" * 16]
            second.put([Job("b" * 16, 1, b'{"group": {}}')])
            assert done_elsewhere() == ["b" * 16]
            assert (first.finished(), second.finished()) == (2, 2)
