"""Does what must not wait for attempts: renews leases, obeys the order to stop, has the settler write.

A thread runs while an attempt takes long. Without one, the worker's main thread calls `tend` between two
attempts: a worker of one slot and of short jobs has a single thread, in which starting a process costs a
tenth less. Writing has a thread of its own: a slow store must not delay a renewal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ..background import complain
from ..clock import Clock
from ..engine import Queue
from ..errors import QueueDamaged
from ..job import Lease
from .leases import LeaseBuffer
from .orders import Stop
from .settler import Settler

RETRY_SECONDS = 1.0
"""Pause after an error of the queue or the store, in seconds."""

TICK_SECONDS = 0.05
"""Poll interval of the keeper, in seconds."""

KEEPER_SECONDS = 1.0
"""Time without a long attempt after which the keeper's thread ends, in seconds."""


class Guard:
    """Runs what may fail in any way: an error is reported, delays the caller, and is met again later."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self.damage: QueueDamaged | None = None
        """No retry helps: the worker has to end."""

    def __call__(self, action: Callable[[], None]) -> bool:
        """Runs an action. Returns whether it succeeded."""
        try:
            action()
        except Exception as error:  # noqa: BLE001  the queue or the store may fail in any way: go on
            self.report(error)
            return False
        return True

    def report(self, error: Exception) -> None:
        """Writes an error to stderr, and waits."""
        complain(f"{self._name}: {type(error).__name__}: {error}")
        if isinstance(error, QueueDamaged):
            self.damage = error
        self._clock.wait(RETRY_SECONDS)


class Keeper:
    """Keeps a worker's leases. `stop` is its order to stop, which a signal handler may set."""

    def __init__(
        self,
        queue: Queue,
        buffer: LeaseBuffer,
        settler: Settler,
        guard: Guard,
        clock: Clock,
        *,
        term: float,
    ) -> None:
        self._queue = queue
        self._buffer = buffer
        self._settler = settler
        self._guard = guard
        self._clock = clock
        self._renew_seconds = term / 3
        self.stop: Stop | None = None
        self._obeyed: tuple[Stop | None, float] = (None, 0.0)
        """The order that is carried out, and since when: a drain may be followed by an urgent one."""
        self._renewed = self._needed = self._tend_at = clock.monotonic()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._writer: threading.Thread | None = None
        self._over = threading.Event()

    def call(self) -> None:
        """Has the thread run: an attempt takes long."""
        with self._lock:
            self._needed = self._clock.monotonic()
            if self._thread is None:
                thread = threading.Thread(target=self._keep, daemon=True)
                thread.start()
                self._thread = thread

    def tend(self) -> None:
        """Does the keeper's work at once, writing included."""
        self._tend_at = self._clock.monotonic() + TICK_SECONDS
        if self._settler.is_due():
            self._write()
        self._hold()

    def tend_if_due(self) -> None:
        """Does the keeper's work where no thread does it, once a tick."""
        if self._thread is None and self._clock.monotonic() >= self._tend_at:
            self.tend()

    def close(self) -> None:
        """Ends the threads."""
        self._over.set()
        for helper in (self._thread, self._writer):
            if helper is not None:
                helper.join()

    def _keep(self) -> None:
        while not self._over.wait(TICK_SECONDS):
            if self._settler.is_due() and not (self._writer is not None and self._writer.is_alive()):
                writer = threading.Thread(target=self._write, daemon=True)
                if self._guard(writer.start):  # no thread more can be started: the next turn tries again
                    self._writer = writer
            self._hold()
            with self._lock:
                if not self._buffer.has_long and self._clock.monotonic() - self._needed > KEEPER_SECONDS:
                    self._thread = None
                    return

    def _write(self) -> None:
        """Settles and flushes, which may take minutes where a store is slow."""
        self._guard(self._settler.settle)
        self._guard(self._settler.flush)

    def _hold(self) -> None:
        """Sees to the leases and to the order to stop."""
        now = self._clock.monotonic()
        if now - self._renewed >= self._renew_seconds and self._guard(self._renew):
            self._renewed = now
        self.give_back(self._buffer.take_surplus())
        if (stop := self.stop) is not None:
            self._wind_down(stop, now)

    def _wind_down(self, stop: Stop, now: float) -> None:
        """Gives back what has not started, and cancels the attempts whose time is over."""
        if stop is not self._obeyed[0]:
            self._obeyed = stop, now
            self._settler.hurry()
        unstarted = self._buffer.take_unstarted()
        self._buffer.cancel_overdue(stop, now - self._obeyed[1])
        self.give_back(unstarted)

    def give_back(self, leases: Sequence[Lease]) -> None:
        """Gives leases back to the queue; they are held again if that fails."""
        if leases and not self._guard(lambda: self._queue.release(leases)):
            self._buffer.put_back(leases)

    def _renew(self) -> None:
        since = self._clock.monotonic()
        _, lost = self._queue.renew([*self._buffer.held(), *self._settler.unsettled()])
        self._buffer.lose(lost)
        self._buffer.renewed(since)
