"""Which job a machine starts next, by what each needs and what is free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from distributed_something.engine import KnownJob
from distributed_something.job import Job, Needs, NeedyJob, State
from distributed_something.local.packed import of_number, to_number
from distributed_something.local.queue import SqliteQueue
from distributed_something.packing import PASSED_SECONDS, Capacity, Head, Passed, choose
from distributed_something.testing import FakeClock

WHOLE = Needs(4, 8000)
BIG, SMALL, HUGE = (
    Head(Needs(4, 100), (True, 1), 1),
    Head(Needs(1, 100), (True, 2), 2),
    Head(Needs(9, 100), (True, 1), 1),
)


def test_the_oldest_that_fits_starts() -> None:
    assert choose(BIG, [BIG, SMALL], WHOLE, WHOLE, None, 100.0) == (BIG, None)


def test_another_goes_before_one_that_does_not_fit() -> None:
    assert choose(BIG, [BIG, SMALL], Needs(3, 8000), WHOLE, None, 100.0) == (SMALL, Passed(1, 100.0))
    assert choose(BIG, [BIG, SMALL], Needs(3, 50), WHOLE, None, 100.0) == (None, Passed(1, 100.0))


def test_for_a_while_only_then_room_is_kept_for_it() -> None:
    later = 100.0 + PASSED_SECONDS
    passed = Passed(1, 100.0)
    assert choose(BIG, [BIG, SMALL], Needs(3, 8000), WHOLE, passed, later - 1) == (SMALL, passed)
    assert choose(BIG, [BIG, SMALL], Needs(3, 8000), WHOLE, passed, later) == (None, passed)
    assert choose(BIG, [BIG, SMALL], WHOLE, WHOLE, passed, later) == (BIG, None)


def test_the_while_begins_anew_for_another_job_and_where_the_clock_is_set_back() -> None:
    assert choose(BIG, [SMALL], Needs(3, 8000), WHOLE, Passed(7, 0.0), 100.0) == (SMALL, Passed(1, 100.0))
    assert choose(BIG, [SMALL], Needs(3, 8000), WHOLE, Passed(1, 900.0), 100.0) == (SMALL, Passed(1, 100.0))


def test_no_room_is_kept_for_a_job_that_never_fits() -> None:
    assert choose(HUGE, [HUGE, SMALL], Needs(1, 8000), WHOLE, Passed(1, 0.0), 1e6)[0] == SMALL


def test_nothing_waits() -> None:
    assert choose(None, [], WHOLE, WHOLE, Passed(1, 0.0), 100.0) == (None, None)


@pytest.mark.parametrize(
    ("each", "at_once"),
    [(Needs(1, 0), 4), (Needs(2, 0), 2), (Needs(1, 3000), 2), (Needs(3, 9000), 0), (Needs(5), 0)],
)
def test_where_the_queue_cannot_choose_the_largest_says_how_many_run(each: Needs, at_once: int) -> None:
    assert Capacity(WHOLE).fitting(each) == at_once


def test_gpus_that_are_shared_take_no_room() -> None:
    whole, each = Needs(4, 8000, 2), Needs(1, 0, 2)
    assert (Capacity(whole).fitting(each), Capacity(whole, shares_gpus=True).fitting(each)) == (1, 4)
    assert Capacity(whole, shares_gpus=True).fitting(Needs(1, 0, 3)) == 0, "more than there are"
    assert Capacity(whole, shares_gpus=True).left(whole, each, 2) == Needs(2, 8000, 2)


@pytest.mark.parametrize("memory", [0, 1, 15, 16, 17, 500, 15_500, 1_000_000, 10**12])
def test_memory_is_rounded_up_by_an_eighth_at_most(memory: int) -> None:
    found = of_number(to_number(Needs(3, memory, 2)), Needs())
    assert (found.cpus, found.gpus) == (3, 2)
    assert memory <= found.memory <= memory * 9 / 8


def job(number: int, needs: Needs | None = None) -> Job:
    body = b'{"group":{"n":%d}}' % number
    plain = Job(sha256(body).hexdigest()[:16], number, body)
    return plain if needs is None else NeedyJob(plain, needs)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(tmp_path: Path, clock: FakeClock) -> Iterator[SqliteQueue]:
    with closing(opened(tmp_path, clock)) as queue:
        yield queue


def opened(folder: Path, clock: FakeClock) -> SqliteQueue:
    return SqliteQueue(folder / "queue.db", clock=clock, owner="w", capacity=lambda: Capacity(WHOLE))


def leased(queue: SqliteQueue, times: int = 9) -> list[int]:
    return [lease.job.index for _ in range(times) for lease in queue.lease(9)]


def put(queue: SqliteQueue, needs: Iterable[Needs | None]) -> None:
    queue.put(job(number, each) for number, each in enumerate(needs))


def test_a_machine_starts_what_fits_and_not_more(queue: SqliteQueue) -> None:
    put(queue, [Needs(2, 6000), Needs(2, 6000), Needs(1, 500), None, None])
    assert leased(queue) == [0, 2, 3], "6,000 + 500 MB, and 2 + 1 + 1 processors"
    assert queue.counts().waiting == 2


def test_room_comes_back_with_each_end(queue: SqliteQueue) -> None:
    put(queue, [Needs(4), Needs(3), Needs(3)])
    (first,) = queue.lease(1)
    assert queue.lease(1) == []
    queue.done([first])
    (second,) = queue.lease(1)
    queue.release([second])
    assert [lease.job.index for lease in queue.lease(1)] == [1], "in its place, with its needs"


def test_a_lease_that_has_run_out_takes_no_room(queue: SqliteQueue, clock: FakeClock) -> None:
    put(queue, [Needs(4), Needs(3)])
    queue.lease(1)
    clock.advance(121.0)
    assert leased(queue) == [0], "it is due again, and takes all"


def test_a_large_job_is_passed_over_for_a_minute_and_then_waited_for(
    queue: SqliteQueue, clock: FakeClock
) -> None:
    put(queue, [Needs(1), Needs(4), *[Needs(1)] * 50])
    (first,) = queue.lease(1)
    passing = queue.lease(1)
    assert passing[0].job.index == 2
    clock.advance(PASSED_SECONDS)
    assert queue.lease(1) == []
    queue.done([first, *passing])
    assert leased(queue) == [1]


def test_what_fits_only_unrounded_is_started(queue: SqliteQueue) -> None:
    put(queue, [Needs(1, 7999)])
    assert leased(queue) == [0]


def test_other_workers_and_a_new_process_see_the_same_room(
    tmp_path: Path, queue: SqliteQueue, clock: FakeClock
) -> None:
    put(queue, [Needs(3), Needs(3)])
    assert leased(queue) == [0]
    with closing(opened(tmp_path, clock)) as other:
        assert leased(other) == []


def test_jobs_that_say_nothing_are_leased_as_before_and_make_no_index(queue: SqliteQueue) -> None:
    put(queue, [None] * 9)
    assert len(queue.lease(9)) == 9
    assert queue.needs(Needs()) == []


def test_what_waits_is_counted_by_its_needs(queue: SqliteQueue) -> None:
    put(queue, [Needs(4), Needs(2, 512), Needs(2, 512), None])
    assert leased(queue) == [0]
    assert sorted(queue.needs(Needs())) == [(Needs(1), 1), (Needs(2, 512), 2)]


def test_an_emptied_queue_is_as_a_new_one(queue: SqliteQueue) -> None:
    put(queue, [Needs(4)])
    queue.purge()
    put(queue, [None] * 9)
    assert len(queue.lease(9)) == 9 and queue.needs(Needs()) == []


def test_a_rebuilt_queue_knows_the_needs(tmp_path: Path, clock: FakeClock) -> None:
    with closing(opened(tmp_path, clock)) as queue:
        queue.restore(KnownJob(job(n, Needs(3)), State.WAITING) for n in range(2))
        assert leased(queue) == [0]


@pytest.mark.parametrize("version", [1, 2])
def test_a_queue_of_an_earlier_version_goes_on(
    tmp_path: Path, queue: SqliteQueue, clock: FakeClock, version: int
) -> None:
    import sqlite3

    put(queue, [None])
    with closing(sqlite3.connect(queue.path)) as db:
        need = "ALTER TABLE jobs DROP COLUMN need;" if version == 1 else ""
        db.executescript(f"DROP TABLE large; {need} PRAGMA user_version = {version};")
    with closing(opened(tmp_path, clock)) as upgraded:
        upgraded.put([job(1, Needs(3)), job(2, Needs(3))])
        assert leased(upgraded) == [0, 1]
