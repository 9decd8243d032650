"""The emulator's time: the machine's own, or one that stands still until someone waits or moves it.

`BriskClock` shortens waits for AWS, as an emulator is quicker. A test that wants to see a lease expire, or a
job outlive twelve hours, moves the emulator's time rather than its own, by requests to PATH.
"""

from __future__ import annotations

import threading

from ...clock import Clock, SystemClock

PATH = "/ds/clock"


_CLOCK = SystemClock()
_BEGAN = _CLOCK.now() - _CLOCK.monotonic()


def steady() -> float:
    """Seconds since the Unix epoch, by the clock as it was set when this process began."""
    return _BEGAN + _CLOCK.monotonic()


class ServiceTime:
    """What the emulated services take for the time. Threads may share it."""

    def __init__(self) -> None:
        self._stands_at: float | None = None
        self._lock = threading.Lock()

    @property
    def manual(self) -> bool:
        """Whether time stands still unless it is moved."""
        return self._stands_at is not None

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        stands_at = self._stands_at
        return steady() if stands_at is None else stands_at

    def millis(self) -> float:
        """Milliseconds since the Unix epoch."""
        return self.now() * 1000.0

    def set(self, now: float | None) -> None:
        """Stand still at `now`; None: follow the machine's clock again."""
        with self._lock:
            self._stands_at = now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass at once; time stands still from here on."""
        with self._lock:
            self._stands_at = self.now() + seconds


class BriskClock:
    """Implements clock.Clock with the time of another one; a wait takes a tenth of what it is asked to.

    It is for those who wait until AWS has done something: an emulator has done it sooner.
    """

    SHARE = 0.1

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        return self._clock.now()

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return self._clock.monotonic()

    def wait(self, seconds: float, until: threading.Event | None = None) -> bool:
        """Wait a tenth of the time, or until the event is set; whether it is."""
        return self._clock.wait(seconds * self.SHARE, until)
