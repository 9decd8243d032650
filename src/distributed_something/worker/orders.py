"""Passes orders to stop to a worker, from signals and from notices: the earliest end counts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import NamedTuple

from ..clock import Clock


class Stop(NamedTuple):
    """The order to stop: running jobs have `grace_seconds` to finish (None: no limit).

    Where the machine ends, a job that will not finish is better off elsewhere: attempts of which earlier
    ones do not say that they finish in time then have `unsure_seconds` only.
    """

    grace_seconds: float | None
    why: str
    unsure_seconds: float | None = None


class Orders:
    """Passes orders to stop to a worker. Any thread may give them."""

    def __init__(self, stop: Callable[[Stop], None], clock: Clock) -> None:
        self._stop = stop
        self._clock = clock
        self._lock = threading.Lock()
        self._given = False
        self._deadline: float | None = None

    def give(self, stop: Stop) -> None:
        """Orders the worker to stop. An order that leaves more time than an earlier one changes nothing."""
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
        """Turns signals into orders. Called in the main thread, once a process.

        A thread of its own receives them: the kernel may hand a signal to any of our threads, and the main
        thread, where Python runs handlers, then goes on waiting.
        """
        pipe, waker = os.pipe2(os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in orders:
            signal.signal(number, _ignore)
        threading.Thread(target=self._receive, args=(pipe, orders), name="orders", daemon=True).start()

    def _receive(self, pipe: int, orders: Mapping[signal.Signals, Stop]) -> None:
        while numbers := os.read(pipe, 64):
            for number in numbers:
                if stop := next((stop for known, stop in orders.items() if known == number), None):
                    self.give(stop)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass
