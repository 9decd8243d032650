"""Orders to stop, from whichever side they come: the earliest end counts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType

from ..clock import Clock
from .loop import Stop


class Orders:
    """Passes orders to stop on to a worker. Any thread may give them."""

    def __init__(self, stop: Callable[[Stop], None], clock: Clock) -> None:
        self._stop = stop
        self._clock = clock
        self._lock = threading.Lock()
        self._given = False
        self._deadline: float | None = None

    def give(self, stop: Stop) -> None:
        """Have the worker stop. An order that leaves more time than an earlier one changes nothing."""
        with self._lock:
            now = self._clock.monotonic()
            deadline = None if stop.grace_seconds is None else now + stop.grace_seconds
            if self._given and (
                deadline is None or (self._deadline is not None and deadline >= self._deadline)
            ):
                return
            self._given, self._deadline = True, deadline
            self._stop(stop)

    def on_signals(self, orders: Mapping[signal.Signals, Stop]) -> None:
        """Have these signals give these orders. Called in the main thread, once a process.

        A thread hears them: the kernel may hand a signal to any thread of ours, and then the main thread,
        where Python runs handlers, goes on waiting for whatever it waits for.
        """
        pipe, waker = os.pipe2(os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in orders:
            signal.signal(number, _ignore)
        threading.Thread(target=self._hear, args=(pipe, orders), name="orders", daemon=True).start()

    def _hear(self, pipe: int, orders: Mapping[signal.Signals, Stop]) -> None:
        while numbers := os.read(pipe, 64):
            for number in numbers:
                if stop := next((stop for known, stop in orders.items() if known == number), None):
                    self.give(stop)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass
