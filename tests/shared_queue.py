"""The queue of the slurm engine in one process: a head has its turns while somebody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed_something.cluster.shared.head import Head, stand
from distributed_something.cluster.shared.mail import Mailbox
from distributed_something.cluster.shared.place import Place
from distributed_something.cluster.shared.queue import CommandQueue, SharedQueue
from distributed_something.cluster.shared.replica import Replica, Terms
from distributed_something.job import RetryPolicy
from distributed_something.testing import FakeClock

_TABLE = """SELECT seq, id, state, visible_at, failed, deliveries, token, owner, cause, detail, need
    FROM jobs ORDER BY seq"""


def new_place(folder: Path, files: Any = None) -> Place:
    place = Place(folder / "run", files)
    place.make()
    return place


class Exact(CommandQueue):
    """Asks for counts, too: the latest status is older than the fake clock's time."""

    counts = SharedQueue.counts


def command_queue(folder: Path, policy: RetryPolicy, term: float, clock: FakeClock) -> CommandQueue:
    return Exact(new_place(folder), Terms(policy, term), clock, owner="w1")


def table(replica: Replica) -> list[Any]:
    return replica.queue._read(_TABLE)


class Turning:
    """A clock on which time passes only while the head has nothing to answer."""

    def __init__(self, clock: FakeClock, head: Head) -> None:
        self.clock = clock
        self.head = head

    def now(self) -> float:
        return self.clock.now()

    def monotonic(self) -> float:
        return self.clock.monotonic()

    def wait(self, seconds: float, until: threading.Event | None = None) -> bool:
        if not self.head.turn():
            self.clock.advance(seconds)
        return False


@contextmanager
def served(folder: Path, policy: RetryPolicy, term: float, clock: FakeClock) -> Iterator[SharedQueue]:
    place, terms = new_place(folder), Terms(policy, term)
    replica = Replica(place, terms)
    head = stand(replica, place.look(), terms, clock)
    assert head is not None
    head._mailbox = Mailbox(place, head.epoch)
    yield SharedQueue(place, "w1", Turning(clock, head))
    head.close()
    other = Replica(place, terms)
    other.catch_up(place.look())
    assert table(other) == table(replica), "the log leads to another queue"
    other.close()
    replica.close()
