"""Orders to stop, from whichever side they come: the earliest end counts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType

from ..clock import Clock
from .loop import Stop


class Orders:
    """Passes orders to stop on to a worker, with what is left of the time that all of them leave.

    Signal handlers and threads may give orders: the lock can be taken again by the thread that has it.
    """

    def __init__(self, stop: Callable[[Stop], None], clock: Clock) -> None:
        self._stop = stop
        self._clock = clock
        self._lock = threading.RLock()
        self._given = False
        self._deadline: float | None = None

    def give(self, stop: Stop) -> None:
        """Have the worker stop. An order that leaves more time than an earlier one changes nothing."""
        with self._lock:
            now = self._clock.now()
            deadline = None if stop.grace_seconds is None else now + stop.grace_seconds
            if self._given and (
                deadline is None or (self._deadline is not None and deadline >= self._deadline)
            ):
                return
            self._given, self._deadline = True, deadline
            self._stop(stop)

    def on_signals(self, orders: Mapping[signal.Signals, Stop]) -> None:
        """Have these signals give these orders. Called in the main thread."""

        def give(number: int, _frame: FrameType | None) -> None:
            self.give(orders[signal.Signals(number)])

        for number in orders:
            signal.signal(number, give)
