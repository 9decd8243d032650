"""Which job a machine starts next, by what each needs and what is free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from distributed_something.cluster.shared.head import stand
from distributed_something.cluster.shared.mail import Letters, Mailbox
from distributed_something.cluster.shared.queue import SharedQueue
from distributed_something.cluster.shared.replica import Replica, Room, Terms
from distributed_something.engine import KnownJob
from distributed_something.job import Job, Lease, Needs, NeedyJob, RetryPolicy, State
from distributed_something.local.packed import of_number, to_number
from distributed_something.local.queue import SqliteQueue
from distributed_something.packing import PASSED_SECONDS, Capacity, Head, Passed, choose
from distributed_something.testing import FakeClock
from shared_queue import Turning, new_place, table

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


def leased(queue: SqliteQueue | SharedQueue, times: int = 9) -> list[int]:
    return [lease.job.index for _ in range(times) for lease in queue.lease(9)]


def put(queue: SqliteQueue | SharedQueue, needs: Iterable[Needs | None]) -> None:
    queue.put(job(number, each) for number, each in enumerate(needs))


def test_a_machine_starts_what_fits_and_not_more(queue: SqliteQueue) -> None:
    put(queue, [Needs(2, 6000), Needs(2, 6000), Needs(1, 500), None, None])
    assert leased(queue) == [0, 2, 3], "6,000 + 500 MB, and 2 + 1 + 1 processors"
    assert queue.counts().waiting == 2


@pytest.mark.parametrize("seed", range(20))
def test_the_first_that_fits_starts_whatever_the_needs_of_the_others(queue: SqliteQueue, seed: int) -> None:
    random, waiting = Random(seed), dict[int, Needs]()
    for number in range(60):
        waiting[number] = Needs(random.randint(1, 4), random.choice([0, 8, 768, 5120, 7680, 8000]))
    needs = {**waiting}
    put(queue, needs.values())
    held: list[Lease] = []
    while waiting:
        free = WHOLE
        for lease in held:
            free = free.less(needs[lease.job.index])
        fits = [number for number in waiting if needs[number].fit(free)]
        found = queue.lease(1)
        assert [lease.job.index for lease in found] == fits[:1]
        held += found
        if found:
            del waiting[found[0].job.index]
        else:
            queue.done([held.pop(random.randrange(len(held)))])


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


class Pilots:
    """Workers of two pilots, and the head of the queue that they share."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.place, self.terms = new_place(folder), Terms(RetryPolicy(), 120.0)
        self.clock = clock
        self.replica = Replica(self.place, self.terms)
        self.stand()

    def stand(self) -> None:
        head = stand(self.replica, self.place.look(), self.terms, self.clock)
        assert head is not None
        head._mailbox = Mailbox(self.place, head.epoch)
        self.head = head

    def worker(self, pilot: int, whole: Needs | None = WHOLE) -> SharedQueue:
        room = Room(f"pilot-{pilot}-", Capacity(whole)) if whole else None
        return SharedQueue(self.place, f"pilot-{pilot}-w", Turning(self.clock, self.head), room=room)

    def again(self) -> list[object]:
        """The queue as the log alone tells it."""
        replica = Replica(self.place, self.terms)
        replica.catch_up(self.place.look())
        try:
            return table(replica)
        finally:
            replica.close()


@pytest.fixture
def pilots(tmp_path: Path, clock: FakeClock) -> Iterator[Pilots]:
    pilots = Pilots(tmp_path, clock)
    yield pilots
    pilots.head.close()
    assert pilots.again() == table(pilots.replica), "the log leads to another queue"
    pilots.replica.close()


def test_each_pilot_gets_what_fits_into_its_own_room(pilots: Pilots) -> None:
    put(pilots.worker(0, None), [Needs(3), Needs(3), Needs(3), Needs(1, 100), None])
    first, second, large = pilots.worker(1), pilots.worker(12), pilots.worker(3, Needs(9, 9, 9))
    assert leased(first, 2) == [0, 3], "a worker of pilot 12 is none of pilot 1"
    assert leased(second, 2) == [1, 4]
    assert leased(first, 1) == leased(second, 1) == []
    (third,) = large.lease(1)
    large.release([third])
    assert leased(large, 2) == [2]


def test_another_head_goes_on_with_the_same_room(pilots: Pilots) -> None:
    put(pilots.worker(0, None), [Needs(2), Needs(3), Needs(2)])
    assert leased(pilots.worker(1), 1) == [0]
    pilots.head.close()
    pilots.stand()
    assert leased(pilots.worker(1), 2) == [2]
    assert pilots.again() == table(pilots.replica)


def test_a_worker_that_waits_does_not_stand_in_the_way_of_another_pilot(pilots: Pilots) -> None:
    put(pilots.worker(0, None), [Needs(4)] * 3)
    first, second = pilots.worker(1), pilots.worker(2)
    (_,), (other,) = first.lease(1), second.lease(1)
    waiting = [Letters(pilots.place, pilots.head.epoch, f"pilot-{n}-x", pilots.clock) for n in (1, 2)]
    for number, letters in enumerate(waiting, 1):
        room = Room(f"pilot-{number}-", Capacity(WHOLE)).facts()
        letters.ask("lease", [f"pilot-{number}-x", "0f", 1, 1e9, room, False])
    assert pilots.head.turn() == 0, "both wait"
    second.done([other])
    while pilots.head.turn():
        pass
    replies = [letters.reply() for letters in waiting]
    assert replies[0] is None and replies[1] is not None and replies[1].result[0][1] == 2


def test_without_needs_pilots_lease_as_before(pilots: Pilots) -> None:
    put(pilots.worker(0, None), [None] * 9)
    assert len(pilots.worker(1).lease(6)) == 6


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
