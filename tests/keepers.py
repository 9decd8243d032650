"""Pilots without Slurm: keepers of a head, each with its own view of the shared folder, and workers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from distributed_something.clock import SystemClock
from distributed_something.cluster.shared.keeper import Keeper
from distributed_something.cluster.shared.place import Place
from distributed_something.cluster.shared.queue import CommandQueue, SharedQueue
from distributed_something.cluster.shared.replica import Terms
from distributed_something.engine import Counts
from distributed_something.errors import DsError
from distributed_something.job import Job, RetryPolicy

TERMS = Terms(RetryPolicy(3), 120.0)


def jobs(count: int) -> Iterator[Job]:
    for number in range(count):
        body = b'{"group": {"n": %d}}' % number
        yield Job(hashlib.sha256(body).hexdigest()[:16], number, body)


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


class Pilots:
    """Two keepers, as two pilots have them, and workers that note what they ran.

    `places` are two views of one folder, as two nodes have them.
    """

    def __init__(self, places: list[Place], scratch: Path) -> None:
        self.place, _ = self.places = places
        self.place.make()
        self.keepers = [Keeper(place, TERMS, SystemClock(), scratch) for place in places]
        self.over = threading.Event()
        self.ran: Counter[int] = Counter()
        self.workers: list[threading.Thread] = []
        self._unkept = threading.Event()
        self._keeping = threading.Thread(target=self._keep)  # a head ends with the thread that started it

    def _keep(self) -> None:
        while not self._unkept.wait(0.1):
            for keeper, place in zip(self.keepers, self.places, strict=True):
                with contextlib.suppress(OSError):
                    keeper.tend(place.look())

    def _work(self, number: int, batch: int) -> None:
        queue = SharedQueue(self.places[number % 2], f"w{number}")
        while not self.over.is_set():
            with contextlib.suppress(DsError):
                leases = queue.lease(batch, 0.5)
                for lease in leases:
                    self.ran[lease.job.index] += 1
                queue.done(leases)

    def work(self, workers: int, batch: int) -> None:
        self.workers = [
            threading.Thread(target=self._work, args=(number, batch)) for number in range(workers)
        ]
        for thread in (self._keeping, *self.workers):
            thread.start()

    @property
    def head(self) -> int | None:
        return next((keeper.pid for keeper in self.keepers if keeper.pid), None)

    def tell_head(self, order: signal.Signals) -> int:
        pid = self.head
        assert pid is not None
        os.kill(pid, order)
        return pid

    def counts(self) -> Counts:
        return Counts(*(self.place.told() or {"counts": ()})["counts"])

    def stop_working(self) -> None:
        self.over.set()
        for thread in self.workers:
            thread.join()

    def end(self) -> None:
        self.stop_working()
        self._unkept.set()
        if self._keeping.ident:
            self._keeping.join()
        for keeper in self.keepers:
            keeper.end()


def submit(pilots: Pilots, count: int) -> None:
    with CommandQueue(pilots.place, TERMS) as queue:
        assert queue.put(jobs(count)).sent == count
