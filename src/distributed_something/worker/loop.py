"""Runs jobs from a queue in slots: leases in batches, runs each job in a slot, settles in batches.

    slots       run one attempt after another, the first in the main thread, each other one in its own;
                the one that finds few jobs left leases for all, and settles what has ended on the way
    leases      the buffer of what is leased: how many to take, how many to give back
    settler     the ends of attempts, on their way to the ledger and then to the queue
    keeper      renews leases and obeys the order to stop while attempts run

An error of the queue or the store delays the worker and loses nothing. While the machine cannot work
(`health`), its jobs go back as they came, and the worker pauses. The loop knows no engine: an engine's worker
process makes the queue, the slots and the ledger, and calls `Worker.run`.

Between two short jobs as little as possible is done: what runs there finds the processor's caches filled by
the job's own process, and takes four times as long as what is done for many jobs at once, at the settling.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

from ..background import complain
from ..clock import Clock
from ..engine import Queue
from ..errors import SickMachine
from ..job import MAX_DELIVERIES, Cause, Lease, Outcome, RetryPolicy, State
from ..ledger import LedgerWriter
from .attempt.slot import Slot
from .health import Health, sickness
from .keeper import TICK_SECONDS, Guard, Keeper
from .leases import LeaseBuffer
from .orders import Stop
from .settler import Settler

__all__ = ["Identity", "Stop", "Worker"]

DOZE_SECONDS = 0.01
"""Poll interval of an idle slot for the order to stop, in seconds."""

IDLE_FIRST_SECONDS = 0.01
IDLE_SECONDS = 0.25
"""Pauses of an idle worker between two leases: they double from the first to this, in seconds."""

GIVE_UP_SECONDS = 30.0
"""Maximum time for settling at a worker's end, in seconds; what is left returns when its lease ends."""


class Identity(NamedTuple):
    """The names that a worker and its machine have in the ledger."""

    worker: str
    machine: str


class Worker:
    """Runs jobs from a queue until the order to stop, or, with `until_empty`, until the queue is drained.

    `term` is the leases' term, `poll` how long the queue itself may wait for a job (in which a stop is not
    noticed), `delays` (one a slot) how long each slot waits before its first job, and `settle_seconds` how
    long ends may wait to be settled together while there are jobs, all in seconds.
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
        settle_seconds: float = 0.0,
        health: Health | None = None,
    ) -> None:
        self._queue = queue
        self._slots = slots
        self._health = health
        self._clock = clock
        self._delays = delays or [0.0] * len(slots)
        self._poll = poll
        self._name = f"worker {identity.worker}"
        self._guard = Guard(self._name, clock)
        self._leases = LeaseBuffer(len(slots), clock.monotonic, term)
        self._settler = Settler(queue, ledger, identity._asdict(), policy, clock, settle_seconds)
        self._keeper = Keeper(queue, self._leases, self._settler, self._guard, clock, term=term)
        self._leasing = threading.Lock()
        self._drained = False
        self._idle_rounds = 0

    def stop(self, stop: Stop) -> None:
        """Orders the worker to stop: lock-free, for signal handlers. The latest order counts."""
        self._keeper.stop = stop

    @property
    def _stopped(self) -> bool:
        return self._keeper.stop is not None or self._guard.damage is not None

    def run(self, *, until_empty: bool = False) -> None:
        """Works. On return every job taken is settled or given back, and no process of a job is left.

        Raises QueueDamaged at the end: the ledger has what could not be settled.
        """
        (first, delay), *others = zip(self._slots, self._delays, strict=True)
        threads = [
            threading.Thread(target=self._serve_slot, args=(*other, until_empty), daemon=True)
            for other in others
        ]
        for thread in threads:
            thread.start()
        self._serve_slot(first, delay, until_empty)
        while self._waits_for(threads):
            self._keeper.tend()
            next((thread for thread in threads if thread.is_alive()), threads[0]).join(TICK_SECONDS)
        self._keeper.close()
        self._settle_rest()
        if self._health is not None:
            self._health.close()
        for slot in self._slots:
            slot.close()
        if self._guard.damage is not None:
            raise self._guard.damage

    def _waits_for(self, threads: Sequence[threading.Thread]) -> bool:
        """Whether to wait for other slots: after the order to stop, only for those that have a job."""
        alive = any(thread.is_alive() for thread in threads)
        return alive and (not self._stopped or self._busy())

    def _busy(self) -> bool:
        return self._leases.busy or bool(self._settler.unsettled())

    def _settle_rest(self) -> None:
        deadline = self._clock.monotonic() + GIVE_UP_SECONDS
        unstarted = self._leases.take_unstarted()
        settled = False
        while not settled:
            settled = self._guard(self._settler.settle) and self._guard(
                lambda: self._queue.release(unstarted)
            )
            if self._guard.damage is not None or self._clock.monotonic() >= deadline:
                break
        self._guard(self._settler.flush)

    # one slot

    def _serve_slot(self, slot: Slot, delay: float, until_empty: bool) -> None:
        """Runs jobs in a slot until the end, whatever happens in one of them."""
        self._doze(delay)
        is_first = slot is self._slots[0]
        while not (self._stopped or self._drained):
            if is_first:
                self._keeper.tend_if_due()
            try:
                self._serve_once(slot, until_empty)
            except Exception as error:  # noqa: BLE001  the job goes back to the queue
                sick = sickness(error)
                self._recover(slot, sick.what if sick else "")
                if sick is not None and self._health is not None:
                    self._pause(slot, self._health, sick)
                else:
                    self._guard.report(error)

    def _serve_once(self, slot: Slot, until_empty: bool) -> None:
        """Runs one job if there is one, and leases more if few are left."""
        lease = None if self._stopped else self._leases.take(slot)
        if lease is not None:
            outcome = slot.run(lease, self._takes_long)
            self._settler.add(lease, outcome)
            self._leases.finish(slot, outcome)
            if self._health is not None and self._health.pauses:
                self._health.recovered()
        if self._leases.is_low():
            found = self._replenish()
            if until_empty and not found and not self._busy():
                self._drained = self._queue.counts().open == 0
            self._idle_rounds = 0 if found or lease else self._idle_rounds + 1
            if self._idle_rounds and not self._drained:
                self._doze(min(IDLE_FIRST_SECONDS * (1 << min(self._idle_rounds, 10)), IDLE_SECONDS))

    def _takes_long(self, slot: Slot) -> None:
        """Has the keeper run until this attempt ends, and the ledger say that it began.

        A short attempt has no such event: its end tells all.
        """
        lease = self._leases.mark_long(slot)
        self._keeper.call()
        if lease is not None:
            self._settler.started(lease, slot.log_place)

    def _recover(self, slot: Slot, why: str) -> None:
        """Gives back the job of a slot in which our own code failed, or the machine."""
        lease = self._leases.running(slot)
        if lease is not None:
            self._settler.add(lease, Outcome(State.WAITING, Cause.INTERRUPTED, why))
        self._leases.finish(slot, None)

    def _pause(self, slot: Slot, health: Health, sick: SickMachine) -> None:
        """Gives back what has not started, and waits until machine and store can work."""
        complain(f"{self._name}: paused: {sick.what}")
        found: SickMachine | None = sick
        while found is not None and not self._stopped:
            self._keeper.give_back(self._leases.take_unstarted())
            health.pause(found, lambda: self._goes_on(slot))
            try:
                slot.check_machine()
                found = None
            except SickMachine as still:
                found = still

    def _goes_on(self, slot: Slot) -> bool:
        """Keeps the leases in a pause. Returns whether the worker goes on."""
        if slot is self._slots[0]:
            self._keeper.tend_if_due()
        return not self._stopped

    def _doze(self, seconds: float) -> None:
        """Waits; an order to stop ends the wait soon, also one that a signal brings to this thread."""
        until = self._clock.monotonic() + seconds
        while not self._stopped and (left := until - self._clock.monotonic()) > 0:
            self._clock.wait(min(left, DOZE_SECONDS))

    # leasing, by one slot for all

    def _replenish(self) -> bool:
        """Settles what has ended, then leases. Returns whether there are jobs now.

        One slot at a time does it; the others wait for what it finds.
        """
        if not self._leasing.acquire(blocking=False):
            return self._leases.wait_for_offer(TICK_SECONDS)
        try:
            self._settler.settle_if_due()
            wait = self._poll if self._idle_rounds else 0.0  # a slot that has just ended a job does not wait
            leases = [] if self._stopped else self._queue.lease(self._leases.wanted(), wait)
            if not leases:
                self._settler.settle()  # no job is left for which ends could wait
            self._offer(leases)
            return bool(leases)  # after an order to stop they are given back as all that has not started
        finally:
            self._leasing.release()
            self._leases.end_waits()

    def _offer(self, leases: Sequence[Lease]) -> None:
        """Makes leases ready; a job that was handed out too often kills its workers, and is dead."""
        detail = f"handed out {MAX_DELIVERIES} times, and each time its worker was lost"
        for lease in leases:
            if lease.deliveries > MAX_DELIVERIES:
                self._settler.add(lease, Outcome(State.DEAD, Cause.WORKER_LOST, detail))
        ready = self._leases.offer([lease for lease in leases if lease.deliveries <= MAX_DELIVERIES])
        if len(self._slots) == 1:
            self._slots[0].expect(ready)
