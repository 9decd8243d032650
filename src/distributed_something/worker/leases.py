"""Holds the leases of one worker, and decides how many more to take or to give back. Pure, except the clock.

Leasing ahead saves short jobs a request each; long jobs are not leased ahead, so that other workers get them.
The worker's loop takes and finishes leases here; the keeper asks what to renew, to give back and to cancel.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence

from ..job import MAX_DELIVERIES, Cause, Lease, Outcome, State
from .attempt.slot import Slot
from .orders import Stop

BATCH = 100
"""Maximum jobs leased ahead for each slot."""

AHEAD_SECONDS = 0.25
"""Work leased ahead for each slot, in seconds; leases of a slot that is busy for longer are given back."""

GIVEN_BACK_UP_TO = MAX_DELIVERIES // 4
"""Maximum deliveries of a job that is given back because the jobs before it are long.

SQS counts returned jobs too: returning them must not bring a job near MAX_DELIVERIES.
"""

SKIPPED_AHEAD = 10
"""Maximum jobs leased ahead for each slot while all jobs so far were skipped."""


def _moved(mean: float | None, seconds: float) -> float:
    """Returns a moving average that has taken in one more value; the latest values count most."""
    return seconds if mean is None else 0.8 * mean + 0.2 * seconds


class LeaseBuffer:
    """Holds ready and running leases. Threads may share it."""

    def __init__(self, slots: int, monotonic: Callable[[], float], term: float) -> None:
        """`term`: how long a lease lasts after it was taken or renewed, in seconds."""
        self._slots = slots
        self._monotonic = monotonic
        self._term = term
        self._sure = monotonic()
        """The latest time at which every lease held here was as good as new."""
        self._lock = threading.Lock()
        self._offered = threading.Condition(self._lock)
        self._ready: deque[Lease] = deque()
        self._running: dict[Slot, Lease] = {}
        self._long_since: dict[Slot, float] = {}
        self._mean_seconds: float | None = None
        self._mean_skipped: float | None = None
        self._longest: float | None = None
        """Duration of the longest attempt that succeeded here, in seconds."""

    # a slot's job begins and ends

    def take(self, slot: Slot) -> Lease | None:
        """Starts the next lease in a slot; None: none is ready. Drops leases that may have ended."""
        with self._lock:
            if self._monotonic() - self._sure > self._term:
                self._ready.clear()
            if not self._ready:
                return None
            lease = self._running[slot] = self._ready.popleft()
            slot.begin()  # under the lock: a cancellation from now on is for this attempt
            return lease

    def finish(self, slot: Slot, outcome: Outcome | None) -> None:
        """Ends a slot's lease; outcome None: nothing is known of the attempt."""
        with self._lock:
            self._running.pop(slot, None)
            self._long_since.pop(slot, None)
            if outcome is None:
                return
            if outcome.state is State.SKIPPED:  # tells nothing of how long the command takes
                self._mean_skipped = _moved(self._mean_skipped, outcome.seconds)
            else:
                self._mean_seconds = _moved(self._mean_seconds, outcome.seconds)
            if outcome.state is State.SUCCEEDED and outcome.seconds > (self._longest or 0.0):
                self._longest = outcome.seconds

    def mark_long(self, slot: Slot) -> Lease | None:
        """Notes that a slot's attempt takes long. Returns its lease the first time, then None."""
        with self._lock:
            if slot in self._long_since:
                return None
            self._long_since[slot] = self._monotonic()
            return self._running[slot]

    def running(self, slot: Slot) -> Lease | None:
        """Returns the lease that runs in a slot."""
        return self._running.get(slot)

    @property
    def has_long(self) -> bool:
        """Whether an attempt takes long."""
        return bool(self._long_since)

    @property
    def busy(self) -> bool:
        """Whether a lease is ready or running."""
        with self._lock:
            return bool(self._ready or self._running)

    # how many to lease

    def is_low(self) -> bool:
        """Whether to lease: the ready leases are used up, or, with several slots, half of them."""
        return len(self._ready) <= (self._ahead() // 2 if self._slots > 1 else 0)

    def wanted(self) -> int:
        """Returns how many jobs to lease now."""
        with self._lock:
            return max(self._lacking(), 0)

    def offer(self, leases: Sequence[Lease]) -> list[Lease]:
        """Adds ready leases, just taken. Returns all that are ready now."""
        with self._lock:
            if not (self._ready or self._running):
                self._sure = self._monotonic()
            self._ready.extend(leases)
            return list(self._ready)

    def put_back(self, leases: Sequence[Lease]) -> None:
        """Holds leases again that could not be given back."""
        with self._lock:
            self._ready.extend(leases)

    def renewed(self, since: float) -> None:
        """Notes that all leases held at this time have been renewed."""
        with self._lock:
            self._sure = max(self._sure, since)

    def wait_for_offer(self, seconds: float) -> bool:
        """Waits for another slot to lease. Returns whether a lease is ready."""
        with self._lock:
            if not self._ready:
                self._offered.wait(seconds)
            return bool(self._ready)

    def end_waits(self) -> None:
        """Wakes the slots that wait for an offer."""
        with self._lock:
            self._offered.notify_all()

    def _ahead(self) -> int:
        """Returns how many jobs to hold beyond those that run and those that idle slots take at once."""
        most, mean = BATCH, self._mean_seconds
        if mean is None:
            most, mean = SKIPPED_AHEAD, self._mean_skipped
        if mean is None:
            return 0
        return min(int(AHEAD_SECONDS / max(mean, 1e-6)), most) * (self._slots - self._slow())

    def _slow(self) -> int:
        """Returns how many slots are busy for longer than jobs are leased ahead."""
        if not self._long_since:
            return 0
        before = self._monotonic() - AHEAD_SECONDS
        return sum(since < before for since in list(self._long_since.values()))

    def _lacking(self) -> int:
        """Returns how many jobs to lease; below zero, to give back. Under the lock."""
        return self._slots - len(self._running) - len(self._ready) + self._ahead()

    # what is given back, renewed and cancelled

    def take_surplus(self) -> list[Lease]:
        """Removes and returns what is held for slots that turn out to be busy for long, the last first."""
        surplus: list[Lease] = []
        kept: list[Lease] = []
        if not self._slow():
            return surplus
        with self._lock:
            too_many = -self._lacking()
            while self._ready and len(surplus) < too_many:
                lease = self._ready.pop()
                (surplus if lease.deliveries <= GIVEN_BACK_UP_TO else kept).append(lease)
            self._ready.extend(reversed(kept))
        return surplus

    def take_unstarted(self) -> list[Lease]:
        """Removes and returns every lease that has not started."""
        with self._lock:
            unstarted = list(self._ready)
            self._ready.clear()
            return unstarted

    def held(self) -> list[Lease]:
        """Returns every lease, ready or running."""
        with self._lock:
            return [*self._ready, *self._running.values()]

    def lose(self, lost: Sequence[Lease]) -> None:
        """Drops lost leases; attempts that run on them are cancelled."""
        tokens = {(lease.job.id, lease.token) for lease in lost}
        with self._lock:
            kept = [lease for lease in self._ready if (lease.job.id, lease.token) not in tokens]
            self._ready.clear()
            self._ready.extend(kept)
            for slot, lease in self._running.items():
                if (lease.job.id, lease.token) in tokens:
                    slot.cancel(Cause.LEASE_LOST)

    def cancel_overdue(self, stop: Stop, seconds: float) -> None:
        """Cancels the attempts whose time is over, `seconds` after the order to stop."""
        with self._lock:
            for slot in self._running:
                if seconds >= self._time_for(slot, stop, seconds):
                    slot.cancel(Cause.INTERRUPTED)

    def _time_for(self, slot: Slot, stop: Stop, seconds: float) -> float:
        """Returns how long after the order to stop an attempt may go on."""
        grace = math.inf if stop.grace_seconds is None else stop.grace_seconds
        if stop.unsure_seconds is None:
            return grace
        now = self._monotonic()
        ran = now - self._long_since.get(slot, now)
        sure = self._longest is not None and self._longest - ran <= grace - seconds
        return grace if sure else min(grace, stop.unsure_seconds)
