"""Claim and complete on the SQLite queue: one by one and in batches, with few and with many waiting."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from random import Random

from distributed_something.job import Job, Lease, Needs, NeedyJob
from distributed_something.local.packed import next_job
from distributed_something.local.queue import SqliteQueue
from distributed_something.packing import Capacity

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


def _choosing(folder: Path, waiting: int, sizes: int) -> tuple[int, list[float]]:
    """Returns how many different needs wait, and how long each choice of a job took, in seconds, sorted."""
    random, held, took = Random(1), list[Lease](), list[float]()
    needs = [Needs(cpus, 500 * size) for cpus in (1, 2, 4, 8) for size in range(1, sizes + 1)]
    capacity = Capacity(Needs(16, 64_000))
    with SqliteQueue(folder / f"{sizes}.db", owner="w", capacity=lambda: capacity) as queue:
        queue.put(NeedyJob(job, random.choice(needs)) for job in _jobs(waiting))
        kinds = len(queue.needs(Needs()))
        while len(took) < 2000:
            with queue._writing() as db:
                began = time.perf_counter()
                next_job(db, time.time(), capacity)
                took.append(time.perf_counter() - began)
            found = queue.lease(1)
            held += found
            if not held:
                break
            if not found or random.random() < 0.2:
                queue.done([held.pop(random.randrange(len(held)))])
    return kinds, sorted(took)


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
        chosen = [_choosing(Path(folder), 20 * jobs, sizes) for sizes in (3, 8, 60)]
    table(("claim and complete", "jobs/s"), rows)
    print(f"64 processes: longest wait {longest:.2f} s, fewest jobs of one process {least}")
    for kinds, took in chosen:
        half, most = took[len(took) // 2] * 1e6, took[len(took) * 9 // 10] * 1e6
        print(f"{20 * jobs:,} waiting of {kinds} needs: a choice takes {half:.0f} µs, 90 % under {most:.0f}")
