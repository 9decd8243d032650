"""The worker's loop, with a queue in memory and slots that run nothing: what it settles and survives."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest

from distributed_something.clock import Clock, SystemClock
from distributed_something.engine import Counts
from distributed_something.job import MAX_DELIVERIES, Cause, DeadJob, Job, Lease, Outcome, RetryPolicy, State
from distributed_something.ledger import LedgerWriter
from distributed_something.local.store import FolderStore
from distributed_something.testing import FakeClock, MemoryQueue
from distributed_something.worker import keeper, leases, settler
from distributed_something.worker.attempt.slot import Slot
from distributed_something.worker.loop import Identity, Stop, Worker

SUCCESS = Outcome(State.SUCCEEDED, seconds=0.001)


def jobs(count: int) -> list[Job]:
    return [Job(f"{n:016x}", n, b'{"group":{"n":%d}}' % n) for n in range(count)]


class FakeSlot:
    """Stands for a Slot: an attempt is what `attempt` makes of it; `cancel` ends one that waits."""

    def __init__(
        self,
        attempt: Callable[[Lease], Outcome] | None = None,
        seconds: float = 0.0,
        *,
        quick: bool = False,
    ) -> None:
        self._quick = quick
        self._attempt = attempt or (lambda _lease: SUCCESS)
        self._seconds = seconds
        self.cancelled = threading.Event()
        self._cause: Cause | None = None
        self.ran: list[Lease] = []
        self.running = threading.Event()
        self.closed = False

    log_place = "log@0"

    def expect(self, leases: Sequence[Lease]) -> None:
        pass

    def begin(self) -> None:
        self._cause = None
        self.cancelled.clear()

    def run(self, lease: Lease, takes_long: Callable[[Slot], None]) -> Outcome:
        if not self._quick:
            takes_long(cast("Slot", self))
        self.ran.append(lease)
        self.running.set()
        if self._seconds and self.cancelled.wait(self._seconds):
            return Outcome(State.WAITING, self._cause, seconds=0.001)
        return self._attempt(lease)

    def cancel(self, cause: Cause) -> None:
        self._cause = cause
        self.cancelled.set()

    def close(self) -> None:
        self.closed = True


class WatchedQueue(MemoryQueue):
    """Notes the order of what it is told, and raises as often as it is told to."""

    def __init__(self, notes: list[str], policy: RetryPolicy, clock: Clock, term: float = 120.0) -> None:
        super().__init__(policy=policy, clock=clock, term=term)
        self.notes = notes
        self.batches: list[int] = []
        self.raising: dict[str, int] = {}

    def _note(self, verb: str) -> None:
        if self.raising.get(verb, 0):
            self.raising[verb] -= 1
            raise OSError(f"{verb}: the disk is full")
        self.notes.append(verb)

    def lease(self, limit: int, wait: float = 0.0) -> list[Lease]:
        self._note("lease")
        leases = super().lease(limit, min(wait, 0.01))
        if leases:
            self.batches.append(len(leases))
        return leases

    def done(self, leases: Sequence[Lease]) -> None:
        self._note("done")
        super().done(leases)

    def fail(self, lease: Lease, cause: Cause, detail: str = "", *, final: bool = False) -> DeadJob | None:
        self._note("fail")
        return super().fail(lease, cause, detail, final=final)

    def release(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        self._note("release")
        super().release(leases, delay)

    def renew(self, leases: Sequence[Lease]) -> tuple[list[Lease], list[Lease]]:
        self._note("renew")
        return super().renew(leases)

    def counts(self) -> Counts:
        self._note("counts")
        return super().counts()


class WatchedStore(FolderStore):
    """A folder whose appends can fail, and are noted."""

    def __init__(self, root: Path, notes: list[str]) -> None:
        super().__init__(root)
        self._notes = notes
        self.raising = 0
        self.asked = threading.Event()
        self.answers = threading.Event()
        self.answers.set()

    def append(self, key: str, data: bytes) -> None:
        self.asked.set()
        self.answers.wait(30)
        if self.raising:
            self.raising -= 1
            raise OSError("append: the disk is full")
        super().append(key, data)
        self._notes.append("ledger")


class QuickClock(SystemClock):
    """Real time, but for the worker's waits after an error: those take a thousandth."""

    def wait(self, seconds: float, until: threading.Event | None = None) -> bool:
        return super().wait(min(seconds, 0.01 if seconds < keeper.RETRY_SECONDS else 0.001), until)


class Bench:
    """A worker with everything around it."""

    def __init__(self, folder: Path) -> None:
        self.notes: list[str] = []
        self.policy = RetryPolicy(attempts=2, backoff=0.001)
        self.queue = WatchedQueue(self.notes, self.policy, SystemClock())
        self.store = WatchedStore(folder, self.notes)

    def worker(self, *slots: FakeSlot, term: float = 120.0, clock: Clock | None = None) -> Worker:
        return Worker(
            self.queue,
            cast("list[Slot]", list(slots)),
            LedgerWriter(self.store, "events/w.jsonl"),
            Identity("w", "here"),
            self.policy,
            clock or QuickClock(),
            term=term,
            poll=0.01,
        )

    def events(self, job: Job | None = None) -> list[tuple[str, str | None]]:
        """(event, cause) of each end of an attempt in the ledger, of one job or of all."""
        path = self.store.root / "events/w.jsonl"
        lines = map(json.loads, path.read_text().splitlines() if path.exists() else [])
        ends = [line for line in lines if line["event"] != "started"]
        return [(end["event"], end.get("cause")) for end in ends if job is None or end["id"] == job.id]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Running:
    """A worker at work in a thread."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._thread = threading.Thread(target=worker.run)
        self._thread.start()

    def stop(self, order: float | Stop | None) -> float:
        """Stop it, with so much grace; the seconds that this took."""
        began = time.monotonic()
        self._worker.stop(order if isinstance(order, Stop) else Stop(order, "test"))
        self._thread.join(10)
        assert not self._thread.is_alive(), "the worker did not stop"
        return time.monotonic() - began


def wait_for(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_until_empty_does_every_job_and_closes_the_slots(bench: Bench) -> None:
    bench.queue.put(jobs(500))
    slots = [FakeSlot(), FakeSlot()]
    bench.worker(*slots).run(until_empty=True)
    assert bench.queue.finished() == 500
    assert sorted(lease.job.index for slot in slots for lease in slot.ran) == list(range(500))
    assert [slot.closed for slot in slots] == [True, True]
    assert bench.events() == [("succeeded", None)] * 500


def test_a_worker_of_one_slot_and_short_jobs_has_one_thread(bench: Bench) -> None:
    bench.queue.put(jobs(50))
    before, seen = threading.active_count(), set[tuple[int, int]]()

    def attempt(_: Lease) -> Outcome:
        seen.add((threading.get_ident(), threading.active_count()))
        return SUCCESS

    bench.worker(FakeSlot(attempt, quick=True)).run(until_empty=True)
    assert seen == {(threading.get_ident(), before)}


@pytest.mark.fault(15)
def test_a_long_job_among_short_ones_is_tended_and_the_keeper_ends_with_the_need(bench: Bench) -> None:
    bench.queue.put(jobs(3))
    slot = FakeSlot(seconds=0.3)
    running = Running(bench.worker(slot, term=0.15))
    wait_for(lambda: bench.queue.finished() == 3)
    running.stop(0.0)
    assert bench.notes.count("renew") >= 3
    assert [lease.attempt for lease in slot.ran] == [1, 1, 1]


def test_until_empty_waits_for_jobs_that_are_to_be_tried_again(bench: Bench) -> None:
    bench.queue.put(jobs(3))
    slot = FakeSlot(lambda lease: SUCCESS if lease.attempt == 2 else Outcome(State.WAITING, Cause.EXIT))
    bench.worker(slot).run(until_empty=True)
    assert [lease.attempt for lease in slot.ran].count(2) == 3
    assert bench.queue.finished() == 3


def test_short_jobs_are_leased_and_settled_in_batches_and_long_ones_singly(bench: Bench) -> None:
    bench.queue.put(jobs(1000))
    bench.worker(FakeSlot()).run(until_empty=True)
    assert len(bench.queue.batches) < 1000 / 10
    assert max(bench.queue.batches) <= leases.BATCH + 1

    bench.queue.batches.clear()
    bench.queue.put(Job(f"{n:016x}", n, b"{}") for n in range(2000, 2010))
    bench.worker(FakeSlot(lambda _: Outcome(State.SUCCEEDED, seconds=60.0))).run(until_empty=True)
    assert bench.queue.batches == [1] * 10


def test_the_ledger_has_it_before_the_queue_is_told(bench: Bench) -> None:
    bench.queue.put(jobs(300))
    bench.worker(FakeSlot()).run(until_empty=True)
    settled = [note for note in bench.notes if note in ("ledger", "done")]
    assert settled[0] == "ledger"
    for before, after in pairwise(settled):
        assert not (before == after == "done"), "the queue was told of jobs that the ledger did not have"


@pytest.mark.fault(19)
@pytest.mark.parametrize("verb", ["lease", "done", "fail", "release", "renew", "counts", "ledger"])
def test_an_error_of_queue_or_ledger_loses_no_job_and_does_not_end_the_loop(bench: Bench, verb: str) -> None:
    first_fails = jobs(1)[0].id

    def attempt(lease: Lease) -> Outcome:
        failing = lease.job.id == first_fails and lease.attempt == 1
        return Outcome(State.WAITING, Cause.EXIT) if failing else SUCCESS

    term = 0.03 if verb == "renew" else 120
    bench.queue = WatchedQueue(bench.notes, bench.policy, SystemClock(), term)
    bench.queue.put(jobs(100))
    if verb == "ledger":
        bench.store.raising = 5
    else:
        bench.queue.raising[verb] = 5
    bench.worker(FakeSlot(attempt), FakeSlot(attempt), term=term).run(until_empty=True)
    assert bench.queue.finished() == 100
    assert [name for name, _ in bench.events()].count("succeeded") == 100
    assert bench.events(jobs(1)[0]) == [("failed", "exit"), ("succeeded", None)]


@pytest.mark.fault(19)
def test_an_error_of_our_own_in_a_slot_gives_the_job_back(bench: Bench) -> None:
    seen: list[str] = []

    def attempt(lease: Lease) -> Outcome:
        seen.append(lease.job.id)
        if seen.count(lease.job.id) == 1:
            raise RuntimeError("a bug of ours")
        return SUCCESS

    bench.queue.put(jobs(5))
    bench.worker(FakeSlot(attempt)).run(until_empty=True)
    assert bench.queue.finished() == 5
    assert [seen.count(job.id) for job in jobs(5)] == [2] * 5


def test_a_failed_attempt_is_tried_again_until_the_job_is_dead_with_its_cause(bench: Bench) -> None:
    (job,) = jobs(1)
    bench.queue.put([job])
    bench.worker(FakeSlot(lambda _: Outcome(State.WAITING, Cause.TIMEOUT, "too long"))).run(until_empty=True)
    assert bench.events(job) == [("failed", "timeout"), ("dead", "timeout")]
    (dead,) = bench.queue.dead()
    assert (dead.attempt, dead.cause, dead.detail) == (2, Cause.TIMEOUT, "too long")


@pytest.mark.fault(16, 17)
def test_a_job_handed_out_too_often_is_dead_and_not_run_again(bench: Bench) -> None:
    (job,) = jobs(1)
    bench.queue.put([job])
    for _ in range(MAX_DELIVERIES):
        bench.queue.lease(1)
        bench.queue.release_owner(bench.queue.owner)  # its worker was killed
    slot = FakeSlot()
    bench.worker(slot).run(until_empty=True)
    assert slot.ran == []
    assert bench.events(job) == [("dead", "worker-lost")]
    (dead,) = bench.queue.dead()
    assert dead.cause is Cause.WORKER_LOST


@pytest.mark.fault(25)
def test_an_empty_queue_is_waited_for(bench: Bench) -> None:
    slot = FakeSlot()
    running = Running(bench.worker(slot))
    wait_for(lambda: bench.notes.count("lease") > 3)
    bench.queue.put(jobs(1))
    wait_for(lambda: bench.queue.finished() == 1)
    assert running.stop(None) < 2


@pytest.mark.fault(26)
def test_a_drain_lets_the_running_job_finish_and_gives_back_the_others(bench: Bench) -> None:
    bench.queue.put(jobs(50))
    slot = FakeSlot(seconds=0.2)
    running = Running(bench.worker(slot))
    wait_for(slot.running.is_set)
    running.stop(None)
    assert bench.queue.finished() == 1
    assert bench.queue.counts() == Counts(waiting=49)


@pytest.mark.fault(26)
@pytest.mark.parametrize("grace", [0.0, 0.15])
def test_a_job_that_does_not_end_within_the_grace_goes_back_uncharged(bench: Bench, grace: float) -> None:
    (job,) = jobs(1)
    bench.queue.put([job])
    slot = FakeSlot(seconds=60)
    running = Running(bench.worker(slot))
    wait_for(slot.running.is_set)
    assert grace <= running.stop(grace) < grace + 3
    assert bench.queue.counts() == Counts(waiting=1)
    assert bench.events(job)[-1] == ("interrupted", "interrupted")
    assert bench.queue.lease(1)[0].attempt == 1


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    ("known", "state"), [(None, "interrupted"), (0.1, "succeeded"), (90.0, "interrupted")]
)
def test_where_the_machine_ends_only_what_will_finish_goes_on(
    bench: Bench, known: float | None, state: str
) -> None:
    bench.queue.put(jobs(1 if known is None else 2))
    slot = FakeSlot()

    def attempt(lease: Lease) -> Outcome:
        if known is not None and lease.job.index == 0:
            return Outcome(State.SUCCEEDED, seconds=known)
        slot.running.set()
        cut = slot.cancelled.wait(0.5)
        return Outcome(State.WAITING, Cause.INTERRUPTED) if cut else SUCCESS

    slot = FakeSlot(attempt)
    worker = Running(bench.worker(slot))
    wait_for(lambda: len(slot.ran) == (1 if known is None else 2))
    assert worker.stop(Stop(30.0, "the machine ends", 0.05)) < 10
    assert [name for name, _ in bench.events()][-1] == state


@pytest.mark.fault(26)
def test_an_order_to_stop_leaves_its_grace_however_long_ago_a_drain_began(bench: Bench) -> None:
    bench.queue.put(jobs(1))
    slot = FakeSlot(seconds=60)
    worker = bench.worker(slot)
    running = Running(worker)
    wait_for(slot.running.is_set)
    worker.stop(Stop(None, "drain"))
    time.sleep(0.4)
    assert running.stop(0.3) >= 0.3
    assert bench.queue.counts() == Counts(waiting=1)


@pytest.mark.fault(15)
@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_leases_are_renewed_and_a_grace_lasts_whatever_the_clock_is_set_to(bench: Bench, jump: float) -> None:
    bench.queue.put(jobs(1))
    clock, slot = FakeClock(), FakeSlot(seconds=60)
    worker = bench.worker(slot, clock=clock)
    running = Running(worker)
    wait_for(slot.running.is_set)
    worker.stop(Stop(100.0, "test"))
    time.sleep(3 * keeper.TICK_SECONDS)  # the order is heard
    clock.set(clock.now() + jump)
    for _ in range(2):
        seen = bench.notes.count("renew")
        clock.advance(40.0)
        wait_for(lambda seen=seen: bench.notes.count("renew") > seen)  # type: ignore[misc]
    assert not slot.cancelled.is_set()
    clock.advance(100.0)
    wait_for(slot.cancelled.is_set)
    running.stop(0.0)


@pytest.mark.fault(15, 26)
def test_leases_are_renewed_and_a_stop_is_heard_while_the_ledger_does_not_answer(bench: Bench) -> None:
    bench.queue.put(jobs(1))
    clock, slot = FakeClock(), FakeSlot(seconds=60)
    worker = bench.worker(slot, clock=clock)
    running = Running(worker)
    wait_for(slot.running.is_set)
    bench.store.answers.clear()
    clock.advance(settler.FLUSH_SECONDS)
    wait_for(bench.store.asked.is_set)
    try:
        clock.advance(40.0)
        wait_for(lambda: "renew" in bench.notes)
        worker.stop(Stop(0.0, "now"))
        wait_for(slot.cancelled.is_set)
    finally:
        bench.store.answers.set()
        running.stop(0.0)
    assert bench.queue.counts() == Counts(waiting=1)


def test_jobs_held_ahead_go_back_when_the_worker_stops(bench: Bench) -> None:
    bench.queue.put(jobs(1000))
    fast = iter(range(20))
    gate = threading.Event()

    def attempt(_: Lease) -> Outcome:
        if next(fast, None) is None:
            gate.wait(10)
        return SUCCESS

    running = Running(bench.worker(slot := FakeSlot(attempt), clock=FakeClock()))
    wait_for(lambda: len(slot.ran) > 20 and bench.queue.counts().leased > 10)
    threading.Timer(0.05, gate.set).start()
    running.stop(None)
    counts = bench.queue.counts()
    assert (counts.leased, counts.waiting + bench.queue.finished()) == (0, 1000)


def test_jobs_held_ahead_go_back_when_the_one_before_them_turns_out_long(bench: Bench) -> None:
    bench.queue.put(jobs(1000))
    gate = threading.Event()

    def attempt(lease: Lease) -> Outcome:
        if lease.job.index == 20:
            gate.wait(20)
        return SUCCESS

    running = Running(bench.worker(slot := FakeSlot(attempt)))
    wait_for(lambda: len(slot.ran) == 21)
    try:
        wait_for(lambda: bench.queue.counts().waiting == 979)
    finally:
        gate.set()
        running.stop(0.0)


def test_jobs_that_were_handed_out_often_are_not_given_back_for_a_long_one(bench: Bench) -> None:
    bench.queue.put(jobs(100))
    for _ in range(leases.GIVEN_BACK_UP_TO):
        bench.queue.lease(100)
        bench.queue.release_owner(bench.queue.owner)
    clock, gate = FakeClock(), threading.Event()

    def attempt(_: Lease) -> Outcome:
        if len(slot.ran) == 6:
            gate.wait(20)
        return SUCCESS

    slot = FakeSlot(attempt)
    running = Running(bench.worker(slot, clock=clock))
    wait_for(lambda: len(slot.ran) == 6)
    try:
        for count in (1, 2):
            clock.advance(40.0)
            wait_for(lambda count=count: bench.notes.count("renew") >= count)  # type: ignore[misc]
        assert "release" not in bench.notes
        assert bench.queue.counts().leased > 50
    finally:
        gate.set()
        running.stop(0.0)


def test_one_long_job_does_not_have_the_short_ones_beside_it_leased_singly(bench: Bench) -> None:
    bench.queue.put(jobs(1000))
    clock, gate = FakeClock(), threading.Event()

    def long(_: Lease) -> Outcome:
        clock.advance(10.0)  # so long it has gone on already when the other slot begins
        gate.wait(20)
        return SUCCESS

    slow, quick = FakeSlot(long), FakeSlot()
    running = Running(bench.worker(slow, quick, clock=clock))
    wait_for(lambda: bench.queue.finished() >= 900)
    assert len(slow.ran) == 1
    assert len(bench.queue.batches) < 100
    gate.set()
    running.stop(0.0)


def test_jobs_that_were_done_already_do_not_say_how_long_the_others_take(bench: Bench) -> None:
    def attempt(lease: Lease) -> Outcome:
        if 50 <= lease.job.index < 70:
            return Outcome(State.SUCCEEDED, seconds=60.0)
        return Outcome(State.SKIPPED, seconds=0.001)

    bench.queue.put(jobs(100))
    bench.worker(FakeSlot(attempt)).run(until_empty=True)
    assert 1 < max(bench.queue.batches) <= leases.SKIPPED_AHEAD + 1
    assert bench.queue.batches[-40:] == [1] * 40


@pytest.mark.fault(15)
def test_a_lost_lease_cancels_the_job_and_leaves_it_to_its_new_owner(bench: Bench) -> None:
    (job,) = jobs(1)
    bench.queue.put([job])
    slot = FakeSlot(seconds=60)
    running = Running(bench.worker(slot, term=0.3))
    wait_for(slot.running.is_set)
    bench.queue.release_owner("")  # as when this worker stood still beyond its lease
    other = MemoryQueue.lease(bench.queue, 1)
    wait_for(lambda: ("interrupted", "lease-lost") in bench.events(job))
    running.stop(0.0)
    assert bench.queue.counts() == Counts(leased=1)
    _, lost = MemoryQueue.renew(bench.queue, other)
    assert not lost
    assert "fail" not in bench.notes


@pytest.mark.fault(15)
def test_a_job_longer_than_its_lease_keeps_it(bench: Bench) -> None:
    clock = FakeClock()
    bench.queue = WatchedQueue(bench.notes, bench.policy, clock)
    bench.queue.put(jobs(1))

    def attempt(_: Lease) -> Outcome:
        for count in range(1, 5):  # 160 s, with a term of 120
            clock.advance(40.0)
            wait_for(lambda count=count: bench.notes.count("renew") >= count)  # type: ignore[misc]
            assert bench.queue.counts() == Counts(leased=1)
        return SUCCESS

    slot = FakeSlot(attempt)
    bench.worker(slot, clock=clock).run(until_empty=True)
    assert bench.queue.finished() == 1
    assert len(slot.ran) == 1


@pytest.mark.fault(19, 26)
def test_jobs_that_could_not_be_given_back_are_given_back_later(bench: Bench) -> None:
    bench.queue.put(jobs(1000))
    gate, count = threading.Event(), iter(range(20))
    slot = FakeSlot(lambda _: SUCCESS if next(count, None) is not None else (gate.wait(20), SUCCESS)[1])
    worker = bench.worker(slot)
    running = Running(worker)
    wait_for(lambda: len(slot.ran) > 20)
    bench.queue.raising["release"] = 3
    worker.stop(Stop(None, "drain"))
    try:
        wait_for(lambda: bench.queue.counts().leased == 1)
    finally:
        gate.set()
        running.stop(None)
    assert bench.queue.counts() == Counts(waiting=1000 - bench.queue.finished())


@pytest.mark.fault(15)
def test_a_lease_that_may_have_ended_is_not_started() -> None:
    clock, slot = FakeClock(), cast("Slot", FakeSlot())
    held = leases.LeaseBuffer(1, clock.monotonic, 120.0)
    clock.advance(1000.0)
    old, new = (Lease(job, "token", 0.0) for job in jobs(2))
    held.offer([old])
    clock.advance(100.0)
    held.renewed(clock.monotonic())
    clock.advance(121.0)
    held.put_back([old])
    assert held.take(slot) is None
    held.offer([new])
    assert held.take(slot) is new


def test_the_main_thread_rests_while_another_slot_ends_its_job(bench: Bench) -> None:
    bench.queue.put(jobs(3))
    begun, gate = threading.Event(), threading.Event()
    first = [FakeSlot(lambda _: (begun.wait(20), SUCCESS)[1]) for _ in range(2)]
    last = FakeSlot(lambda _: (begun.set(), gate.wait(20), SUCCESS)[2])
    worker = bench.worker(*first, last)
    running = Running(worker)
    wait_for(lambda: bench.queue.finished() == 2)
    worker.stop(Stop(None, "drain"))
    time.sleep(0.2)
    used = time.process_time()
    time.sleep(0.5)
    used = time.process_time() - used
    gate.set()
    running.stop(None)
    assert used < 0.25
