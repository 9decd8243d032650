"""Repeats an action at intervals, in a thread of its own. Workers use it beside their jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

from ..clock import Clock


class Repeating:
    """Repeats an action in a thread while entered. `act` must not raise.

    Leaving waits for an action that is under way; none follows.
    """

    def __init__(self, name: str, seconds: float, act: Callable[[], object], clock: Clock) -> None:
        self._seconds = seconds
        self._act = act
        self._clock = clock
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _repeat(self) -> None:
        while not self._closed.is_set():
            self._act()
            self._clock.wait(self._seconds, self._closed)
