"""The SQS queue for a worker on a machine: it ends if the queue is deleted, and gives all jobs back.

Used by `aws/worker.py`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ...clock import Clock
from ...errors import DsError
from ...job import Cause, DeadJob, Lease
from ...s3.session import AwsSession, QueueGone
from .queue import SqsQueue
from .queues import QueueUrls

GONE_SECONDS = 3.0  # how long SQS must deny that the queue exists, in seconds; a single answer may be wrong
GONE_LAPSE = 30.0  # age in seconds from which such an answer does not count


_T = TypeVar("_T")


class WorkersQueue(SqsQueue):
    """An SqsQueue whose worker may leave.

    Jobs that are received after `leave` or `pause` (in a wait that had begun before) go back at once. When
    the queue has gone, `on_gone` is called once; from then on every verb does nothing. `answered` is the time
    of SQS's last success (monotonic): a healthy worker makes calls often.
    """

    def __init__(self, session: AwsSession, urls: QueueUrls, *, clock: Clock, **more: Any) -> None:
        super().__init__(session, urls, clock=clock, **more)
        self.on_gone: Callable[[QueueGone], None] = lambda _gone: None
        self.answered = clock.monotonic()
        self._missing_since = self._missing_last = -math.inf
        self._gone = False
        self._leaving = False
        self._paused_until = -math.inf
        self._receiving = 0
        self._changed = threading.Condition()

    def leave(self) -> None:
        """Lease nothing more."""
        self._leaving = True

    def pause(self, seconds: float) -> None:
        """Lease nothing for this long. Leases held already are kept, and renewed."""
        self._paused_until = self._clock.monotonic() + seconds

    def wait_for_receivers(self, seconds: float) -> None:
        """After `leave`: waits up to `seconds` until jobs that are being received are given back."""
        with self._changed:
            self._changed.wait_for(lambda: not self._receiving, seconds)

    def lease(self, limit: int, wait: float = 0.0) -> list[Lease]:
        """Claim jobs."""
        with self._changed:
            if self._leaving or self._gone:
                return []
            if self._clock.monotonic() < self._paused_until:
                self._changed.wait(wait)
                return []
            self._receiving += 1
        try:
            leases = self._asked(lambda: super(WorkersQueue, self).lease(limit, wait), list[Lease]())
            if leases and (self._leaving or self._clock.monotonic() < self._paused_until):
                with suppress(DsError):  # or else the worker gives them back, or runs them
                    super().release(leases)
                    leases = []
            return leases
        finally:
            with self._changed:
                self._receiving -= 1
                self._changed.notify_all()

    def renew(self, leases: Sequence[Lease]) -> tuple[list[Lease], list[Lease]]:
        """Move deadlines."""
        return self._asked(lambda: super(WorkersQueue, self).renew(leases), (list(leases), list[Lease]()))

    def done(self, leases: Sequence[Lease]) -> None:
        """Take finished jobs out."""
        self._asked(lambda: super(WorkersQueue, self).done(leases), None)

    def release(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Give jobs back."""
        self._asked(lambda: super(WorkersQueue, self).release(leases, delay), None)

    def fail(self, lease: Lease, cause: Cause, detail: str = "", *, final: bool = False) -> DeadJob | None:
        """Count a failed attempt."""
        return self._asked(lambda: super(WorkersQueue, self).fail(lease, cause, detail, final=final), None)

    def _asked(self, verb: Callable[[], _T], otherwise: _T) -> _T:
        """Calls the verb; returns `otherwise` once the queue has gone. Raises QueueGone before."""
        if self._gone:
            return otherwise
        try:
            answer = verb()
        except QueueGone as gone:
            if not self._is_sure():
                raise
            if not self._gone:
                self._gone = True
                self.on_gone(gone)
            return otherwise
        self.answered = self._clock.monotonic()
        return answer

    def _is_sure(self) -> bool:
        """Whether SQS has denied the queue for GONE_SECONDS."""
        now = self._clock.monotonic()
        if now - self._missing_last > GONE_LAPSE:
            self._missing_since = now
        self._missing_last = now
        return now - self._missing_since >= GONE_SECONDS
