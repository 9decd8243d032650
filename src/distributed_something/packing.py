"""Decides which waiting job a machine starts next, by what each needs and what is free. Pure.

The local queue asks `choose` for each job, once a job of it says what it needs. `Capacity.fitting` is for
queues that cannot choose: it says how many jobs run at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .job import Needs

PASSED_SECONDS = 60.0
"""Time for which other jobs may start before one whose turn it is and that does not fit, in seconds.

Then the room that comes free is kept for it: no job starves.
"""


class Capacity(NamedTuple):
    """What a machine has for jobs, its slots as `cpus`, and what a job takes that says nothing.

    `what` names such a machine, and `fix` says how to have a larger one. `shares_gpus`: jobs may share a GPU.
    """

    whole: Needs
    default: Needs = Needs()
    what: str = "a machine"
    fix: str = "lower what the job needs"
    shares_gpus: bool = False

    def left(self, free: Needs, needs: Needs, times: int = 1) -> Needs:
        """Returns what so many jobs leave of what is free."""
        return free.less(needs._replace(gpus=0) if self.shares_gpus else needs, times)

    def fitting(self, each: Needs) -> int:
        """Returns how many jobs that each need this much fit at a time; 0: not one does."""
        if not each.fit(self.whole):
            return 0
        counted = each._replace(gpus=0) if self.shares_gpus else each
        return min(has // needs for has, needs in zip(self.whole, counted, strict=True) if needs)


class Head(NamedTuple):
    """A waiting job, and what it needs. `order`: the smaller, the earlier is its turn."""

    needs: Needs
    order: tuple[bool, int]
    job: int


class Passed(NamedTuple):
    """The job whose turn it is and that does not fit, and since when (Unix seconds) others go before it."""

    job: int
    since: float


def choose(
    oldest: Head | None, heads: Iterable[Head], free: Needs, whole: Needs, passed: Passed | None, now: float
) -> tuple[Head | None, Passed | None]:
    """Returns the job to start (None: none does now), and `oldest` if it does not fit.

    `oldest` is the one whose turn it is. `heads`, the first of those with the same needs each, are looked at
    if it does not fit: the first that fits starts. After PASSED_SECONDS none starts until `oldest` does; for
    one that `whole` has no room for, nothing is kept.
    """
    if oldest is None or oldest.needs.fit(free):
        return oldest, None
    since = min(passed.since, now) if passed is not None and passed.job == oldest.job else now
    if now - since >= PASSED_SECONDS and oldest.needs.fit(whole):
        return None, Passed(oldest.job, since)
    fits = (head for head in heads if head.needs.fit(free))
    return min(fits, key=lambda head: head.order, default=None), Passed(oldest.job, since)
