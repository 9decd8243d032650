"""Ends settled together, where requests cost money: few requests, nothing lost, few jobs repeated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distributed_something.job import Job, Outcome, RetryPolicy, State
from distributed_something.ledger import LedgerWriter
from distributed_something.local.store import FolderStore
from distributed_something.s3.segment import SENT_SHARE, Segment
from distributed_something.testing import FakeClock, MemoryQueue
from distributed_something.worker.settler import FLUSH_SECONDS, UNSETTLED, Settler

SUCCESS = Outcome(State.SUCCEEDED, seconds=1.0)
WAIT = 30.0


class Desk:
    """A settler with a queue, a ledger and a clock that a test moves."""

    def __init__(self, folder: Path, jobs: int, settle_seconds: float = WAIT) -> None:
        self.clock = FakeClock()
        self.queue = MemoryQueue(clock=self.clock, term=120.0)
        self.store = FolderStore(folder)
        ledger = LedgerWriter(self.store, "events/w.jsonl")
        who = {"worker": "w", "machine": "m"}
        self.settler = Settler(self.queue, ledger, who, RetryPolicy(), self.clock, settle_seconds)
        self.queue.put(Job(f"{n:016x}", n, b"{}") for n in range(jobs))
        self.leases = self.queue.lease(jobs)

    def tend(self) -> None:
        """What the keeper does at each tick."""
        if self.settler.is_due():
            self.settler.settle()
            self.settler.flush()

    def events(self) -> list[str]:
        files = [*self.store.list("events/")]
        return [
            json.loads(line)["event"] for file in files for line in self.store.read(file.key).splitlines()
        ]


def test_ends_wait_for_each_other_for_half_a_minute(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 3)
    for lease in desk.leases:
        desk.settler.add(lease, SUCCESS)
        desk.settler.settle_if_due()
        desk.clock.advance(9.0)
        desk.tend()
    assert desk.events() == [] and len(desk.settler.unsettled()) == 3  # renewed until they are settled
    desk.clock.advance(3.0)
    desk.tend()
    assert desk.events() == ["succeeded"] * 3
    assert desk.queue.finished() == 3 and not desk.settler.unsettled()


def test_many_ends_do_not_wait(tmp_path: Path) -> None:
    desk = Desk(tmp_path, UNSETTLED)
    for lease in desk.leases:
        desk.settler.add(lease, SUCCESS)
        desk.settler.settle_if_due()
    assert desk.queue.finished() == UNSETTLED


def test_where_requests_are_free_ends_are_settled_at_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 1, settle_seconds=0.0)
    desk.settler.add(desk.leases[0], SUCCESS)
    desk.settler.settle_if_due()
    assert desk.queue.finished() == 1


def test_ends_do_not_wait_once_the_worker_stops(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 1)
    desk.settler.add(desk.leases[0], SUCCESS)
    desk.settler.hurry()
    desk.clock.advance(FLUSH_SECONDS)
    desk.tend()
    assert desk.queue.finished() == 1


def test_a_start_is_written_down_for_a_long_attempt_only(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 2)
    short, long = desk.leases
    for lease in desk.leases:
        desk.settler.started(lease, "log@0")
    desk.clock.advance(10.0)
    desk.settler.add(short, SUCCESS)
    for _ in range(3):
        assert desk.events() == []
        desk.clock.advance(10.0)
        desk.tend()
    assert desk.events() == ["started", "succeeded"]  # the start of the long one is written along
    desk.settler.add(long, SUCCESS)
    desk.settler.settle()
    assert desk.events() == ["started", "succeeded", "succeeded"]


def test_a_start_alone_is_written_after_a_minute(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 1)
    desk.settler.started(desk.leases[0], "log@0")
    desk.clock.advance(59.0)
    desk.tend()
    assert desk.events() == []
    desk.clock.advance(1.0)
    desk.tend()
    assert desk.events() == ["started"]


def test_what_cannot_be_written_is_tried_again_soon_and_stays_leased(tmp_path: Path) -> None:
    class Failing(FolderStore):
        failures = 2

        def append(self, key: str, data: bytes) -> None:
            if self.failures:
                self.failures -= 1
                raise OSError("no network")
            super().append(key, data)

    desk = Desk(tmp_path, 1)
    store = Failing(tmp_path)
    ledger = LedgerWriter(store, "events/w.jsonl")
    settler = Settler(desk.queue, ledger, {}, RetryPolicy(), desk.clock, WAIT)
    settler.add(desk.leases[0], SUCCESS)
    desk.clock.advance(WAIT)
    for _ in range(2):
        assert settler.is_due()
        with pytest.raises(OSError, match="no network"):
            settler.settle()
        assert [lease.job.id for lease in settler.unsettled()] == [desk.leases[0].job.id]
    settler.settle()
    assert desk.queue.finished() == 1 and desk.events() == ["succeeded"]


def test_a_lost_worker_repeats_only_what_it_had_not_settled(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 20)
    for lease in desk.leases[:10]:
        desk.settler.add(lease, SUCCESS)
    desk.settler.settle()
    for lease in desk.leases[10:15]:
        desk.settler.add(lease, SUCCESS)
    desk.clock.advance(121.0)  # the worker is killed: leases run out
    again = {lease.job.id for lease in desk.queue.lease(100)}
    assert again == {lease.job.id for lease in desk.leases[10:]}


def test_a_ledger_is_sent_three_times_at_most_and_in_parts_that_only_grow() -> None:
    segment = Segment("events/w.jsonl")
    line, sent, parts = b"x" * 3000, 0, dict[int, bytes]()
    for _ in range(500):
        number, whole = segment.extended(line)
        assert whole.startswith(parts.get(number, b"")) and whole.endswith(line)
        parts[number] = whole
        sent += len(whole)
        segment.wrote(number, whole)
    size = sum(map(len, parts.values()))
    assert size == segment.size == 500 * 3000
    assert sent <= SENT_SHARE * size
    assert len(parts) <= 110


@pytest.mark.parametrize("first", [100, 300_000])
@pytest.mark.parametrize("stored", [True, False])
def test_a_part_whose_answer_was_lost_is_written_anew_with_what_follows(first: int, *, stored: bool) -> None:
    segment, parts = Segment("log"), dict[int, bytes]()

    def write(data: bytes, *, stored: bool = True, answered: bool = True) -> None:
        number, whole = segment.extended(data)
        if stored:
            parts[number] = whole
        if answered:
            segment.wrote(number, whole)

    write(b"a" * first)
    for _ in range(2):
        write(b"b" * 200_000, stored=stored, answered=False)
    write(b"b" * 200_000 + b"c" * 50_000)
    write(b"d")
    assert b"".join(parts[number] for number in sorted(parts)) == (
        b"a" * first + b"b" * 200_000 + b"c" * 50_000 + b"d"
    )
