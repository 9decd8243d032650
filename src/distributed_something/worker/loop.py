"""The worker: one process with slots. It leases in batches, runs each job in a slot, settles in batches.

    slots       run one attempt after another, the first in the main thread, each other one in its own;
                the one that finds few jobs left leases for all, and settles what has ended on the way
    keeper      a thread that is there while an attempt takes long: it renews the leases at a third of
                their term, gives back what was leased ahead for the slot, and carries out the order to
                stop. A thread of its own flushes the ledger and settles what lingers: that may take long

Without a keeper the main thread does its work between two attempts: a worker of one slot and of short jobs
has a single thread, in which starting a process costs a tenth less.

The ledger is flushed before the queue is told: a job that the queue holds for finished has its event.
An error of the queue or the store delays the worker and loses nothing: what has ended stays in memory,
its lease renewed, until it is settled.

Between two short jobs as little as possible is done: what runs there finds the processor's caches filled by
the job's own process, and takes four times as long as what is done for many jobs at once, at the settling.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..background import complain
from ..clock import Clock
from ..engine import Queue
from ..job import MAX_DELIVERIES, UNCOUNTED, Cause, Lease, Outcome, RetryPolicy, State
from ..ledger import LedgerWriter, name_of
from .attempt.slot import Slot

BATCH = 100
"""At most this many jobs a slot are leased ahead."""

AHEAD_SECONDS = 0.25
"""Jobs are leased ahead for about this long: long jobs not at all, so that other workers get them.

What is held for a slot whose attempt goes on for longer is given back.
"""

GIVEN_BACK_UP_TO = MAX_DELIVERIES // 4
"""So often a job may have been handed out to be given back because others before it are long.

SQS counts what is given back, too: that alone must not bring a job near MAX_DELIVERIES.
"""

SKIPPED_AHEAD = 10
"""At most this many jobs a slot are leased ahead while all that is known are jobs that were done already."""

RETRY_SECONDS = 1.0
TICK_SECONDS = 0.05
DOZE_SECONDS = 0.01
"""So soon an idle slot hears an order to stop."""

IDLE_FIRST_SECONDS = 0.01
IDLE_SECONDS = 0.25
"""The waits of an idle worker for a job grow from the first to this."""

KEEPER_SECONDS = 1.0
"""The keeper ends when no attempt has been long for this long."""

FLUSH_SECONDS = 1.0
GIVE_UP_SECONDS = 30.0


class Stop(NamedTuple):
    """The order to stop: running jobs have `grace_seconds` (None: as long as they need) to finish.

    Where the machine ends, a job that will not finish is better off elsewhere: then those have no more than
    `unsure_seconds` of which the attempts before them do not say that they will finish in time.
    """

    grace_seconds: float | None
    why: str
    unsure_seconds: float | None = None


class Identity(NamedTuple):
    """Who writes in the ledger: the worker's name, and the machine's."""

    worker: str
    machine: str


class _Ended(NamedTuple):
    """An attempt that ended at `when` (Unix seconds)."""

    when: float
    lease: Lease
    outcome: Outcome


def _moved(mean: float | None, seconds: float) -> float:
    """A mean of which the latest count most, once it has taken in one more."""
    return seconds if mean is None else 0.8 * mean + 0.2 * seconds


class Worker:
    """Runs jobs from a queue until it is told to stop, or, with `until_empty`, until the queue is drained.

    `term` is the leases' term, `poll` how long the queue itself may wait for a job, in which a stop is not
    heard, and `delays` (one a slot) how long each slot waits before its first job, all in seconds.
    """

    def __init__(
        self,
        queue: Queue,
        slots: Sequence[Slot],
        ledger: LedgerWriter,
        identity: Identity,
        policy: RetryPolicy,
        clock: Clock,
        *,
        term: float,
        delays: Sequence[float] = (),
        poll: float = 0.0,
    ) -> None:
        self._queue = queue
        self._slots = slots
        self._ledger = ledger
        self._who = {"worker": identity.worker, "machine": identity.machine}
        self._policy = policy
        self._clock = clock
        self._term = term
        self._delays = delays or [0.0] * len(slots)
        self._poll = poll
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._turn = threading.Lock()
        self._ready: deque[Lease] = deque()
        self._running: dict[Slot, Lease] = {}
        self._ended: list[_Ended] = []
        self._noted: list[_Ended] = []
        """What has ended and is in the ledger's hands, but not yet settled with the queue."""
        self._settling = threading.Lock()
        self._mean_seconds: float | None = None
        self._mean_skipped: float | None = None
        self._stop: Stop | None = None
        self._order: Stop | None = None
        self._ordered = 0.0
        self._drained = False
        self._idle_rounds = 0
        self._renewed = self._flushed = self._needed = self._tend_at = clock.monotonic()
        self._keeper: threading.Thread | None = None
        self._writer: threading.Thread | None = None
        self._long: dict[Slot, float] = {}
        """The slots whose attempts take long, and since when."""
        self._longest: float | None = None
        """Seconds of the longest attempt that succeeded here."""
        self._over = threading.Event()

    def stop(self, stop: Stop) -> None:
        """Ask the worker to stop: lock-free, for signal handlers. A later order replaces an earlier one."""
        self._stop = stop

    def run(self, *, until_empty: bool = False) -> None:
        """Work. On return every job taken is settled or given back, and no process of a job is left."""
        (first, delay), *others = zip(self._slots, self._delays, strict=True)
        threads = [
            threading.Thread(target=self._guarded, args=(*other, until_empty), daemon=True)
            for other in others
        ]
        for thread in threads:
            thread.start()
        self._guarded(first, delay, until_empty)
        while self._serving(threads):
            self._tend()
            threads[0].join(TICK_SECONDS)
        self._over.set()
        for helper in (self._keeper, self._writer):
            if helper is not None:
                helper.join()
        self._settle_rest()
        for slot in self._slots:
            slot.close()

    def _serving(self, threads: Sequence[threading.Thread]) -> bool:
        """Whether to wait for other slots: after the order to stop, only for those that have a job."""
        alive = any(thread.is_alive() for thread in threads)
        return alive and (self._stop is None or self._busy())

    # the keeper, or the main thread between two attempts

    def _takes_long(self, slot: Slot) -> None:
        """From now on, until this slot's attempt ends and a while longer, there is a keeper.

        Only now the ledger is told that the attempt began: of a short one its end tells all.
        """
        now = self._clock.monotonic()
        with self._lock:
            lease = None if slot in self._long else self._running[slot]
            self._long.setdefault(slot, now)
            self._needed = now
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, daemon=True)
                self._keeper.start()
        if lease is not None:
            self._ledger.started(self._clock.now(), lease, **self._who, log=slot.log_place)

    def _keep(self) -> None:
        while not self._over.wait(TICK_SECONDS):
            if self._has_to_write() and not (self._writer is not None and self._writer.is_alive()):
                self._writer = threading.Thread(target=self._write, daemon=True)
                self._writer.start()
            self._hold()
            with self._lock:
                if not self._long and self._clock.monotonic() - self._needed > KEEPER_SECONDS:
                    self._keeper = None
                    return

    def _tend(self) -> None:
        self._tend_at = self._clock.monotonic() + TICK_SECONDS
        if self._has_to_write():
            self._write()
        self._hold()

    def _has_to_write(self) -> bool:
        return self._clock.monotonic() - self._flushed >= FLUSH_SECONDS

    def _write(self) -> None:
        """Bring what happened to the ledger and the queue, which may take minutes where a store is slow."""
        self._attempt(self._settle)
        self._attempt(self._ledger.flush)
        self._flushed = self._clock.monotonic()

    def _hold(self) -> None:
        """See to the leases and to the order to stop."""
        now = self._clock.monotonic()
        if now - self._renewed >= self._term / 3 and self._attempt(self._renew):
            self._renewed = now
        if self._slow():
            self._give_back_surplus()
        if self._stop is not None:
            if self._stop is not self._order:  # a drain may be followed, hours later, by one that is urgent
                self._order, self._ordered = self._stop, now
            self._wind_down(self._order, now - self._ordered)

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Do it; an error is told and met again at the next tick."""
        try:
            action()
        except Exception as error:  # noqa: BLE001  the queue or the store may fail in any way: go on
            self._complain(error)
            self._clock.wait(RETRY_SECONDS)
            return False
        return True

    def _give_back_surplus(self) -> None:
        """Give back what was leased ahead for slots whose attempts turn out to be long: the last first."""
        surplus: list[Lease] = []
        kept: list[Lease] = []
        with self._lock:
            too_many = -self._lacking()
            while self._ready and len(surplus) < too_many:
                lease = self._ready.pop()
                (surplus if lease.deliveries <= GIVEN_BACK_UP_TO else kept).append(lease)
            self._ready.extend(reversed(kept))
        if surplus:
            self._attempt(lambda: self._queue.release(surplus))

    def _wind_down(self, stop: Stop, seconds: float) -> None:
        """Give back what has not begun; let run what may, as long as it may."""
        with self._lock:
            unstarted = list(self._ready)
            self._ready.clear()
            for slot in self._running:
                if seconds >= self._time_for(slot, stop, seconds):
                    slot.cancel(Cause.INTERRUPTED)
        if unstarted:
            self._attempt(lambda: self._queue.release(unstarted))

    def _time_for(self, slot: Slot, stop: Stop, seconds: float) -> float:
        """How long after the order to stop, `seconds` ago, an attempt may go on."""
        grace = math.inf if stop.grace_seconds is None else stop.grace_seconds
        if stop.unsure_seconds is None:
            return grace
        now = self._clock.monotonic()
        ran = now - self._long.get(slot, now)
        sure = self._longest is not None and self._longest - ran <= grace - seconds
        return grace if sure else min(grace, stop.unsure_seconds)

    def _settle_rest(self) -> None:
        """At the end; what cannot be settled for a while is left to the end of its lease."""
        deadline = self._clock.monotonic() + GIVE_UP_SECONDS
        with self._lock:
            unstarted = list(self._ready)
            self._ready.clear()
        settled = False
        while not settled and self._clock.monotonic() < deadline:
            settled = self._attempt(self._settle) and self._attempt(lambda: self._queue.release(unstarted))
        self._attempt(self._ledger.flush)

    def _renew(self) -> None:
        with self._lock:
            ended = (each.lease for each in (*self._ended, *self._noted))
            held = [*self._ready, *self._running.values(), *ended]
        _, lost = self._queue.renew(held)
        tokens = {(lease.job.id, lease.token) for lease in lost}
        with self._lock:
            kept = [lease for lease in self._ready if (lease.job.id, lease.token) not in tokens]
            self._ready.clear()
            self._ready.extend(kept)
            for slot, lease in self._running.items():
                if (lease.job.id, lease.token) in tokens:
                    slot.cancel(Cause.LEASE_LOST)

    # the slots

    def _guarded(self, slot: Slot, delay: float, until_empty: bool) -> None:
        """A slot goes on whatever happens in it."""
        self._doze(delay)
        while self._stop is None and not self._drained:
            if slot is self._slots[0] and self._keeper is None and self._clock.monotonic() >= self._tend_at:
                self._tend()
            try:
                self._serve(slot, until_empty)
            except Exception as error:  # noqa: BLE001  the job goes back to the queue
                self._complain(error)
                with self._lock:
                    self._long.pop(slot, None)
                    lease = self._running.pop(slot, None)
                    if lease is not None:
                        outcome = Outcome(State.WAITING, Cause.INTERRUPTED)
                        self._ended.append(_Ended(self._clock.now(), lease, outcome))
                self._clock.wait(RETRY_SECONDS)

    def _serve(self, slot: Slot, until_empty: bool) -> None:
        """Run one job if there is one, and see that there are more."""
        lease = self._take(slot)
        if lease is not None:
            self._hand_back(slot, lease, slot.run(lease, self._takes_long))
        if self._low():
            found = self._replenish()
            if until_empty and not found and not self._busy():
                self._drained = self._queue.counts().open == 0
            self._idle_rounds = 0 if found or lease else self._idle_rounds + 1
            if self._idle_rounds and not self._drained:
                self._doze(min(IDLE_FIRST_SECONDS * (1 << min(self._idle_rounds, 10)), IDLE_SECONDS))

    def _doze(self, seconds: float) -> None:
        """Let time pass; an order to stop ends it soon, also one that a signal brings to this thread."""
        until = self._clock.monotonic() + seconds
        while self._stop is None and (left := until - self._clock.monotonic()) > 0:
            self._clock.wait(min(left, DOZE_SECONDS))

    def _take(self, slot: Slot) -> Lease | None:
        with self._lock:
            if not self._ready or self._stop is not None:
                return None
            lease = self._running[slot] = self._ready.popleft()
            slot.begin()
            return lease

    def _hand_back(self, slot: Slot, lease: Lease, outcome: Outcome) -> None:
        with self._lock:
            del self._running[slot]
            self._long.pop(slot, None)
            self._ended.append(_Ended(self._clock.now(), lease, outcome))
            if outcome.state is State.SKIPPED:  # tells nothing of how long the command takes
                self._mean_skipped = _moved(self._mean_skipped, outcome.seconds)
            else:
                self._mean_seconds = _moved(self._mean_seconds, outcome.seconds)
            if outcome.state is State.SUCCEEDED and outcome.seconds > (self._longest or 0.0):
                self._longest = outcome.seconds

    def _note(self, ended: _Ended) -> None:
        when, lease, outcome = ended
        dead = outcome.cause is not None and self._policy.after(lease.attempt).dead
        self._ledger.ended(name_of(outcome, dead=dead), when, lease, outcome, **self._who)

    # leasing and settling, by whichever slot's turn it is

    def _replenish(self) -> bool:
        """Settle what has ended and lease anew; one slot at a time, the others wait for what it finds.

        Whether there are jobs at hand now.
        """
        if not self._turn.acquire(blocking=False):
            with self._lock:
                if not self._ready:
                    self._changed.wait(TICK_SECONDS)
                return bool(self._ready)
        try:
            self._settle()
            leases = self._queue.lease(self._wanted(), self._wait()) if self._stop is None else []
            if self._stop is not None:
                self._queue.release(leases)
                return False
            self._offer(leases)
            return bool(leases)
        finally:
            self._turn.release()
            with self._lock:
                self._changed.notify_all()

    def _wait(self) -> float:
        """How long the queue may wait for a job: a slot that has just ended one does not wait here."""
        return self._poll if self._idle_rounds else 0.0

    def _busy(self) -> bool:
        with self._lock:
            return bool(self._ready or self._running or self._ended or self._noted)

    def _low(self) -> bool:
        """Whether it is time to lease: all that was held is used up, or, with other slots at work, half."""
        return len(self._ready) <= (self._ahead() // 2 if len(self._slots) > 1 else 0)

    def _ahead(self) -> int:
        """How many jobs to hold beyond those that run, and those that idle slots take at once."""
        most, mean = BATCH, self._mean_seconds
        if mean is None:
            most, mean = SKIPPED_AHEAD, self._mean_skipped
        if mean is None:
            return 0
        return min(int(AHEAD_SECONDS / max(mean, 1e-6)), most) * (len(self._slots) - self._slow())

    def _slow(self) -> int:
        """How many slots have an attempt that goes on for longer than jobs are leased ahead."""
        if not self._long:
            return 0
        before = self._clock.monotonic() - AHEAD_SECONDS
        return sum(since < before for since in list(self._long.values()))

    def _lacking(self) -> int:
        """How many jobs to lease, or, where it is less than none, to give back. Under the lock."""
        return len(self._slots) - len(self._running) - len(self._ready) + self._ahead()

    def _wanted(self) -> int:
        with self._lock:
            return max(self._lacking(), 0)

    def _offer(self, leases: Sequence[Lease]) -> None:
        spent = [lease for lease in leases if lease.deliveries > MAX_DELIVERIES]
        detail = f"handed out {MAX_DELIVERIES} times, and each time its worker was lost"
        outcome = Outcome(State.DEAD, Cause.WORKER_LOST, detail)
        good = [lease for lease in leases if lease.deliveries <= MAX_DELIVERIES]
        with self._lock:
            self._ready.extend(good)
            ready = list(self._ready)
            self._ended += [_Ended(self._clock.now(), lease, outcome) for lease in spent]
        if len(self._slots) == 1:
            self._slots[0].expect(ready)

    def _settle(self) -> None:
        """Write down what has ended, then tell the queue. What fails stays to be settled again."""
        with self._settling:
            with self._lock:
                ended, self._ended = self._ended, []
                self._noted += ended
            for each in ended:
                self._note(each)
            if not self._noted:
                return
            self._ledger.flush()
            self._queue.done([lease for _, lease, outcome in self._noted if outcome.cause is None])
            for _, lease, outcome in self._noted:
                self._settle_failure(lease, outcome)
            with self._lock:
                self._noted = []

    def _settle_failure(self, lease: Lease, outcome: Outcome) -> None:
        if outcome.cause is None or outcome.cause is Cause.LEASE_LOST:
            return
        if outcome.state is State.DEAD:
            self._queue.fail(lease, outcome.cause, outcome.detail, final=True)
        elif outcome.cause in UNCOUNTED:
            self._queue.release([lease])
        else:
            self._queue.fail(lease, outcome.cause, outcome.detail)

    def _complain(self, error: Exception) -> None:
        complain(f"worker {self._who['worker']}: {type(error).__name__}: {error}")
