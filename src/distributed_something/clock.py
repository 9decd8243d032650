"""Time as a value that is passed in, so that tests decide what time it is."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the project knows of time."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""

    def wait(self, seconds: float, until: threading.Event | None = None) -> bool:
        """Let `seconds` pass, or less if `until` is set meanwhile; whether `until` is set."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def wait(self, seconds: float, until: threading.Event | None = None) -> bool:
        """Sleep for `seconds`, or less if `until` is set meanwhile."""
        if until is None:
            time.sleep(seconds)
            return False
        return until.wait(seconds)
