"""The SQLite queue does what the one in memory does, whatever is done to it, crashes included."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from distributed_something.job import Cause, Job, Lease, RetryPolicy
from distributed_something.local.queue import SqliteQueue
from distributed_something.testing import FakeClock, MemoryQueue

WORDS: dict[str, Any] = {
    "policy": RetryPolicy(attempts=2, backoff=10.0, limit=15.0),
    "term": 60.0,
    "owner": "w1",
}

few = st.lists(st.integers(0, 9), max_size=5)
seconds = st.sampled_from([0.0, 1.0, 10.0, 59.0, 60.0, 61.0])


def job(number: int) -> Job:
    return Job(f"{number * 0x1111_1111_1111_1111:016x}", number, b'{"group": {"n": %d}}' % number)


def facts(lease: Lease) -> tuple[object, ...]:
    return lease.job, lease.deadline, lease.attempt, lease.deliveries


class QueueMachine(RuleBasedStateMachine):
    """Both queues go through the same; every lease ever made stays in hand, so that many are stale."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ds-model-"))
        self.clock = FakeClock()
        self.model = MemoryQueue(**WORDS, clock=self.clock)
        self.leases: list[tuple[Lease, Lease]] = []
        self.open()

    def open(self) -> None:
        self.queue: Any = SqliteQueue(self.folder / "queue.db", **WORDS, clock=self.clock)

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.queue.close()
            shutil.rmtree(self.folder)

    def chosen(self, picks: list[int]) -> tuple[list[Lease], list[Lease]]:
        recent = self.leases[-10:]
        pairs = [recent[pick] for pick in picks if pick < len(recent)]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    @rule(numbers=few)
    def put(self, numbers: list[int]) -> None:
        assert self.queue.put(map(job, numbers)) == self.model.put(map(job, numbers))

    @rule(limit=st.integers(0, 4))
    def lease(self, limit: int) -> None:
        model, queue = self.model.lease(limit), self.queue.lease(limit)
        assert list(map(facts, queue)) == list(map(facts, model))
        self.leases += zip(model, queue, strict=True)

    @rule(picks=few)
    def renew(self, picks: list[int]) -> None:
        model, queue = self.chosen(picks)
        expected, actual = self.model.renew(model), self.queue.renew(queue)
        assert [list(map(facts, each)) for each in actual] == [list(map(facts, each)) for each in expected]
        self.leases += zip(expected[0], actual[0], strict=True)

    @rule(picks=few)
    def done(self, picks: list[int]) -> None:
        model, queue = self.chosen(picks)
        self.model.done(model)
        self.queue.done(queue)

    @rule(picks=few, delay=seconds)
    def release(self, picks: list[int], delay: float) -> None:
        model, queue = self.chosen(picks)
        self.model.release(model, delay)
        self.queue.release(queue, delay)

    @rule(picks=few, cause=st.sampled_from([Cause.EXIT, Cause.TIMEOUT]), final=st.booleans())
    def fail(self, picks: list[int], cause: Cause, final: bool) -> None:
        for model, queue in zip(*self.chosen(picks), strict=True):
            expected = self.model.fail(model, cause, "why", final=final)
            assert self.queue.fail(queue, cause, "why", final=final) == expected

    @rule(seconds=seconds)
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(numbers=st.none() | few)
    def redrive(self, numbers: list[int] | None) -> None:
        ids = None if numbers is None else [job(number).id for number in numbers]
        assert self.queue.redrive(ids) == self.model.redrive(ids)

    @rule(numbers=few)
    def drop(self, numbers: list[int]) -> None:
        ids = [job(number).id for number in numbers]
        assert self.queue.drop(ids) == self.model.drop(ids)

    @rule(owner=st.sampled_from(["w1", "w2"]))
    def lose_a_worker(self, owner: str) -> None:
        expected, actual = self.model.release_owner(owner), self.queue.release_owner(owner)
        assert list(map(facts, actual)) == list(map(facts, expected))

    @rule(unlikely=st.integers(0, 9))
    def purge(self, unlikely: int) -> None:
        if unlikely == 9:
            self.model.purge()
            self.queue.purge()

    @rule()
    def crash(self) -> None:
        """What lies on disk while the file is open is what a killed process leaves: go on with a copy."""
        crashed = Path(tempfile.mkdtemp(prefix="ds-model-"))
        for suffix in ("", "-wal"):
            shutil.copy(self.folder / f"queue.db{suffix}", crashed)
        self.queue.close()
        shutil.rmtree(self.folder)
        self.folder = crashed
        self.open()

    @invariant()
    def both_say_the_same(self) -> None:
        if hasattr(self, "queue"):
            assert self.queue.counts() == self.model.counts()
            assert self.queue.finished() == self.model.finished()
            assert self.queue.next_visible() == self.model.next_visible()
            assert list(self.queue.dead()) == list(self.model.dead())


TestQueueModel = QueueMachine.TestCase
TestQueueModel.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
