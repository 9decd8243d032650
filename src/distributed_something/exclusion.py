"""Decides which machines a run excludes: jobs fail there that succeed elsewhere. Pure.

`steps/watch/exclude.py` asks at each look of the monitor, and acts. A machine is bad if

- at least `IN_A_ROW` jobs in a row failed on it of one cause (the exit code is part of it), which no other
  machine has shown, or of many machines no more than one in ten; meanwhile as many jobs succeeded elsewhere,
  and among them one that had failed on it;
- or `UNTRIED` jobs in a row failed so, none ever succeeded on it, and meanwhile one did elsewhere: such a
  machine may take all jobs before another one gets any of them;
- or its workers have paused for `PAUSED_SECONDS`, for a reason that no other machine has, while jobs succeed.

One machine alone is never bad, nor is one of two that fail alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from .words import duration, many

IN_A_ROW = 3
UNTRIED = 10
ALIKE_SHARE = 0.1
"""Share of the machines that may have a cause of failures of bad machines in common."""

PAUSED_SECONDS = 120.0  # pause of a worker after which its machine may be bad, in seconds

Span = tuple[str, float, float]
"""A machine's name in the ledger, and from when to when (Unix seconds) it stood for a host."""


class Failure(NamedTuple):
    """A failed attempt at a job (its number), at a time in Unix seconds."""

    machine: str
    job: int
    at: float
    cause: str


class Pause(NamedTuple):
    """A pause of a worker whose machine cannot work, since a time in Unix seconds."""

    machine: str
    since: float
    why: str


class Row(NamedTuple):
    """Failures of one cause in a row on a machine, the newest first. `alone`: no other machine shows it."""

    machine: str
    cause: str
    failures: tuple[Failure, ...]
    alone: bool = True

    @property
    def jobs(self) -> list[int]:
        """The numbers of the jobs that failed."""
        return sorted({each.job for each in self.failures})

    @property
    def since(self) -> float:
        """When the first of them failed, in Unix seconds."""
        return min((each.at for each in self.failures), default=math.inf)

    def after(self, success: float | None) -> Row:
        """Returns what has failed since the latest success on the machine."""
        return self._replace(failures=tuple(each for each in self.failures if each.at > (success or 0.0)))


class Elsewhere(NamedTuple):
    """Jobs that succeeded on other machines since a row began, and those among them that had failed in it."""

    jobs: int
    of_the_row: int


def rows(failures: Iterable[Failure], machines: int) -> list[Row]:
    """Returns rows of failures that may condemn their machines. So many `machines` have worked."""
    of_machine: dict[str, list[Failure]] = {}
    showing: dict[str, set[str]] = {}
    for each in sorted(failures, key=lambda failure: -failure.at):
        of_machine.setdefault(each.machine, []).append(each)
        showing.setdefault(each.cause, set()).add(each.machine)
    found = []
    for machine, its in of_machine.items():
        cause = its[0].cause
        row = Row(machine, cause, tuple(takewhile(lambda each: each.cause == cause, its)))  # noqa: B023  used here
        alike = len(showing[cause])
        if len(row.jobs) >= IN_A_ROW and alike <= max(ALIKE_SHARE * machines, 1):
            found.append(row._replace(alone=alike == 1))
    return found


def verdict(row: Row, elsewhere: Elsewhere, *, ever_succeeded: bool) -> str | None:
    """Returns in words why a machine is bad; None: it is not. `row` is what followed its latest success."""
    count = len(row.jobs)
    why = f"{many(count, 'job')} in a row failed there ({row.cause})"
    if elsewhere.of_the_row and count >= IN_A_ROW and elsewhere.jobs >= IN_A_ROW:
        return f"{why}, and {many(elsewhere.of_the_row, 'job')} of them succeeded elsewhere"
    if row.alone and elsewhere.jobs and count >= UNTRIED and not ever_succeeded:
        return f"{why} and none succeeded, while {many(elsewhere.jobs, 'job')} did elsewhere"
    return None


def stuck(pauses: Sequence[Pause], now: float) -> list[Pause]:
    """Returns the pauses for which a machine is bad if meanwhile a job succeeded elsewhere."""
    found: dict[str, Pause] = {}
    for each in sorted(pauses, key=lambda pause: pause.since):
        alike = {other.machine for other in pauses if other.why == each.why}
        if each.machine and now - each.since >= PAUSED_SECONDS and len(alike) == 1:
            found.setdefault(each.machine, each)
    return [*found.values()]


def pause_text(pause: Pause, now: float) -> str:
    """Returns in words why a machine is bad whose workers pause."""
    return (
        f"its worker has paused for {duration(now - pause.since)} ({pause.why}), and jobs succeeded elsewhere"
    )


class Hosts:
    """Knows on which host a machine of the ledger was: a pilot has been on one node after another.

    `lives` has (since, host) of each such machine; any other machine is its own host.
    """

    def __init__(self, lives: Mapping[str, Sequence[tuple[float, str]]]) -> None:
        self._lives = {machine: sorted(each) for machine, each in lives.items() if each}

    def at(self, machine: str, when: float) -> str:
        """Returns the host of a machine at a time (Unix seconds)."""
        known = self._lives.get(machine, ())
        return next(
            (host for since, host in reversed(known) if since <= when), known[0][1] if known else machine
        )

    def spans(self, host: str) -> list[Span]:
        """Returns which machines stood for a host, and when."""
        found = []
        for machine, each in self._lives.items():
            ends = [*(since for since, _ in each[1:]), math.inf]
            found += [
                (machine, since, end) for (since, name), end in zip(each, ends, strict=True) if name == host
            ]
        return found or [(host, -math.inf, math.inf)]
