"""Brings the ends of attempts to the ledger, then to the queue.

The ledger is flushed first: a job that the queue calls finished has its event. After an error nothing is
lost: what has ended stays here, and the keeper renews its lease until it is settled.

Where a request costs money (`settle_seconds` above 0), ends wait for each other that long. A worker that is
killed meanwhile repeats them: other workers get these jobs again.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import NamedTuple

from ..clock import Clock
from ..engine import Queue
from ..job import UNCOUNTED, Cause, Lease, Outcome, RetryPolicy, State
from ..ledger import LedgerWriter, name_of

FLUSH_SECONDS = 1.0
"""Least age of the oldest end or start at which the keeper has it written, in seconds."""

UNSETTLED = 100
"""Ends that wait to be settled together; more are settled at once. It bounds what a lost worker repeats."""


class _Ended(NamedTuple):
    """An attempt that ended at `when` (Unix seconds)."""

    when: float
    lease: Lease
    outcome: Outcome


class Settler:
    """Writes down and settles what has ended. Threads may share it."""

    def __init__(
        self,
        queue: Queue,
        ledger: LedgerWriter,
        who: Mapping[str, str],
        policy: RetryPolicy,
        clock: Clock,
        settle_seconds: float = 0.0,
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._who = who
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._ended: list[_Ended] = []
        self._noted: list[_Ended] = []
        """What the ledger has and the queue does not know yet."""
        self._settle_seconds = settle_seconds
        self._since = clock.monotonic()
        """When the oldest of `_ended` and `_noted` was added."""

    def add(self, lease: Lease, outcome: Outcome) -> None:
        """Adds the end of an attempt, to be settled later."""
        cause = outcome.cause
        counted = cause is not None and cause not in UNCOUNTED
        if cause and counted and self._policy.is_permanent(lease.attempt, cause, outcome.exit_code):
            outcome = outcome._replace(state=State.DEAD)
        self._ledger.forget_start(lease.job.id)
        ended = _Ended(self._clock.now(), lease, outcome)
        with self._lock:
            if not (self._ended or self._noted):
                self._since = self._clock.monotonic()
            self._ended.append(ended)

    def started(self, lease: Lease, log: str) -> None:
        """Notes in the ledger that an attempt runs; `log` is the place of its text."""
        self._ledger.started(self._clock.now(), lease, **self._who, log=log)

    def unsettled(self) -> list[Lease]:
        """Returns the leases of what has ended and is not settled."""
        with self._lock:
            return [each.lease for each in (*self._noted, *self._ended)]

    def is_due(self) -> bool:
        """Whether it is time to settle and flush."""
        seconds = max(self._settle_seconds, FLUSH_SECONDS)
        if (self._ended or self._noted) and self._clock.monotonic() - self._since >= seconds:
            return True
        started = self._ledger.oldest_started
        patience = max(2 * self._settle_seconds, FLUSH_SECONDS)  # most starts are written along with ends
        return started is not None and abs(self._clock.now() - started) >= patience

    def hurry(self) -> None:
        """Lets no end wait any more: the worker stops."""
        self._settle_seconds = 0.0

    def settle_if_due(self) -> None:
        """Settles unless the ends may wait for more."""
        if self._settle_seconds <= 0 or len(self._ended) >= UNSETTLED or self.is_due():
            self.settle()

    def settle(self) -> None:
        """Writes down what has ended, then informs the queue. What fails stays to be settled again."""
        with self._settling:
            with self._lock:
                ended, self._ended = self._ended, []
                self._noted += ended
            for each in ended:
                self._note(each)
            if not self._noted:
                return
            self.flush()
            self._queue.done([lease for _, lease, outcome in self._noted if outcome.cause is None])
            for _, lease, outcome in self._noted:
                self._settle_failure(lease, outcome)
            with self._lock:
                self._noted = []
                self._since = self._clock.monotonic()  # at most the time of this settling too late

    def flush(self) -> None:
        """Writes the events that wait in the ledger; the starts among them only once they are old enough."""
        now, oldest = self._clock.now(), self._ledger.oldest_started
        old = now - self._settle_seconds * 2 / 3 + FLUSH_SECONDS
        set_back = oldest is not None and oldest > now
        self._ledger.flush(started_before=math.inf if set_back else old)

    def _note(self, ended: _Ended) -> None:
        when, lease, outcome = ended
        dead = outcome.cause is not None and self._policy.after(lease.attempt).dead
        self._ledger.ended(name_of(outcome, dead=dead), when, lease, outcome, **self._who)

    def _settle_failure(self, lease: Lease, outcome: Outcome) -> None:
        if outcome.cause is None or outcome.cause is Cause.LEASE_LOST:
            return
        if outcome.state is State.DEAD:
            self._queue.fail(lease, outcome.cause, outcome.detail, final=True)
        elif outcome.cause in UNCOUNTED:
            self._queue.release([lease])
        else:
            self._queue.fail(lease, outcome.cause, outcome.detail)
