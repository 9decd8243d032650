"""Claim and complete on the SQLite queue: one by one and in batches, with few and with many waiting."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from distributed_something.job import Job
from distributed_something.local.queue import SqliteQueue

from .tools import table


def _jobs(count: int) -> Iterator[Job]:
    for number in range(count):
        body = b'{"group":{"n":%d,"pad":"%s"}}' % (number, b"x" * 250)
        yield Job(sha256(body).hexdigest()[:16], number, body)


def _rate(queue: SqliteQueue, batch: int, count: int) -> float:
    began, done = time.perf_counter(), 0
    while done < count:
        leases = queue.lease(batch)
        queue.done(leases)
        done += len(leases)
    return done / (time.perf_counter() - began)


def _contend(path: Path, results: SimpleQueue[tuple[int, float]]) -> None:
    longest, done = 0.0, 0
    with SqliteQueue(path) as queue:
        while True:
            began = time.perf_counter()
            leases = queue.lease(10)
            longest = max(longest, time.perf_counter() - began)
            if not leases:
                break
            queue.done(leases)
            done += len(leases)
    results.put((done, longest))


def _many(path: Path, processes: int) -> tuple[float, int, float]:
    context = get_context("fork")
    results = context.SimpleQueue()
    began = time.perf_counter()
    workers = [context.Process(target=_contend, args=(path, results)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    found = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    total = sum(done for done, _ in found)
    return total / (time.perf_counter() - began), min(d for d, _ in found), max(wait for _, wait in found)


def main(jobs: int) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for waiting in (jobs, 200 * jobs):
            path = Path(folder) / f"{waiting}.db"
            with SqliteQueue(path) as queue:
                queue.put(_jobs(waiting))
            with SqliteQueue(path) as queue:  # as a worker does, which never puts
                for batch, count in ((1, min(waiting // 3, 500)), (100, min(waiting // 3, 50_000))):
                    rows.append(
                        (f"{waiting:,} waiting, {batch} at a time", f"{_rate(queue, batch, count):,.0f}")
                    )
        path = Path(folder) / "many.db"
        with SqliteQueue(path) as queue:
            queue.put(_jobs(20 * jobs))
        rate, least, longest = _many(path, 64)
        rows.append(("64 processes, 10 at a time", f"{rate:,.0f}"))
    table(("claim and complete", "jobs/s"), rows)
    print(f"64 processes: longest wait {longest:.2f} s, fewest jobs of one process {least}")
