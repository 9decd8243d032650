"""Passes time in as a value, so that tests decide what time it is."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the project knows of time."""

    def now(self) -> float:
        """Seconds since the Unix epoch: jumps when the clock is set."""

    def monotonic(self) -> float:
        """Seconds since some moment, for intervals: never jumps, and goes on while the machine sleeps."""

    def wait(self, seconds: float, until: threading.Event | None = None) -> bool:
        """Let `seconds` pass, or less if `until` is set meanwhile; whether `until` is set."""


class BackOff:
    """Pauses between repeated tries, in seconds: they double from `first` to `longest`."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = self._next = first
        self._longest = longest

    def next(self) -> float:
        """Returns the next pause."""
        pause, self._next = self._next, min(self._next * 2, self._longest)
        return pause

    def reset(self) -> None:
        """Begins with the first pause again."""
        self._next = self._first


_INTERVALS: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux stops its CLOCK_MONOTONIC while the machine sleeps."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since the machine was started, those that it slept included."""
        return time.clock_gettime(_INTERVALS)

    def wait(self, seconds: float, until: threading.Event | None = None) -> bool:
        """Sleep for `seconds`, or less if `until` is set meanwhile."""
        if until is None:
            time.sleep(seconds)
            return False
        return until.wait(seconds)
