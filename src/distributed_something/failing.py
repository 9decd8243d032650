"""Decides whether so many jobs of a run have failed that it drains. Pure. The steps act on it.

`steps/watch/monitor.py` asks `too_many` at each look, and `steps/start.py` before workers start.
"""

from __future__ import annotations

from typing import NamedTuple

from .words import many

RATE_FROM = 20  # number of ended jobs from which on their share of dead ones counts
CANARY_RATE = 0.1  # MAX_FAILURE_RATE of a run with a canary, if the config gives none

FIX = "ds failures, mend the cause, ds retry; then ds start and ds monitor"


class Limits(NamedTuple):
    """How many jobs of a run may be dead, as a number and as a share of the ended ones. None: no limit.

    `canary` jobs are judged by their share before the run gets all its machines; 0: none are.
    """

    jobs: int | None = None
    rate: float | None = None
    canary: int = 0

    def __bool__(self) -> bool:
        return self != Limits()


class Failing(NamedTuple):
    """How many jobs have ended, how many of them are dead, and how many of those died alike, of `cause`."""

    ended: int
    dead: int
    alike: int = 0
    cause: str = ""


def too_many(limits: Limits, found: Failing) -> str | None:
    """Returns in words why the run must drain; None: it goes on.

    Jobs that die alike count twice: one fault ends them, and will end those that follow.
    """
    counted = found.dead + (found.alike if found.alike > 1 else 0)
    why = f": {found.alike:,} of them alike: {found.cause}" if found.alike > 1 else ""
    dead = f"{many(found.dead, 'job', 'is', 'are')} dead{why}"
    if limits.jobs is not None and counted > limits.jobs:
        return f"{dead} (MAX_FAILURES = {limits.jobs})"
    rate = limits.rate if limits.rate is not None or not limits.canary else CANARY_RATE
    if rate is None or found.ended < (limits.canary or RATE_FROM) or counted <= rate * found.ended:
        return None
    return f"of {found.ended:,} ended jobs {dead} (MAX_FAILURE_RATE = {rate:g})"


def may_be_too_many(limits: Limits, ended: int, dead: int) -> bool:
    """Returns whether there are too many dead jobs if all of them died alike: only then it is looked up."""
    return too_many(limits, Failing(ended, dead, dead)) is not None
