"""What the engine of pilots asks of a scheduler: submit, list, cancel, and what the reasons to wait mean.

A pilot is one job of the scheduler. All pilots of an app have one name, by which they are found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from .explain import Waiting
from .pilots import Pilot


class Scheduler(Protocol):
    """Handles the pilots of one app. Verbs raise DsError where refused, Unreachable where it is silent."""

    name: str
    """The engine's name, such as slurm."""

    title: str
    """The scheduler's own name, for messages."""

    def submit(self, count: int, run: str, logs: Path, excluded: Collection[str]) -> Sequence[str]:
        """Submits `count` pilots, on none of the `excluded` nodes. Returns ids that `cancel` takes.

        Where no reply comes, it finds out whether they were submitted, so that none is submitted twice.
        """

    def list(self) -> Sequence[Pilot]:
        """Returns the pilots that have not ended."""

    def cancel(self, ids: Iterable[str] = (), *, pending: bool = False) -> None:
        """Ends these pilots, or all of the app; with `pending` only those that have not started."""

    def requeue(self, pilot: str) -> None:
        """Ends a running pilot, and starts it again later."""

    def waiting(self, reason: str) -> Waiting:
        """Returns what a pilot's reason to wait means."""


def await_end(
    listing: Callable[[], Sequence[Pilot]], seconds: float, wait: Callable[[float], object]
) -> Sequence[Pilot]:
    """The pilots that have not ended after this time; looked for with pauses that grow.

    Silent ones are not waited for.
    """
    until, pause = time.monotonic() + seconds, 0.25
    left = listing()
    while any(not pilot.silent for pilot in left) and time.monotonic() < until:
        wait(pause)
        pause = min(pause * 1.5, 5.0)
        left = listing()
    return left
