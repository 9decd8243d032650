"""Decides what the monitor does next from what it has seen. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

AGREEING_LOOKS = 3  # looks in a row that must see nothing left before a run ends: a queue's counts may lag


class Look(NamedTuple):
    """One look at a run: jobs not final, machines, why they ended if they did on purpose, and whether the
    queue is gone, so that the ledger alone tells of the jobs.
    """

    open_jobs: int
    machines_target: int
    machines_running: int
    ended: str | None = None
    queue_gone: bool = False


class Finish(NamedTuple):
    """Nothing is left to do: end the machines, write the report."""


class Replace(NamedTuple):
    """The machines are gone and should not be: start them again."""


class GiveUp(NamedTuple):
    """Jobs are left, and the machines have ended on purpose."""

    why: str
    fix: str = "ds start, then ds monitor"


Action = Finish | Replace | GiveUp


def decide(looks: Sequence[Look]) -> Action | None:
    """Returns the next action after these looks (the newest last); None is to go on watching."""
    recent = looks[-AGREEING_LOOKS:]
    if len(recent) == AGREEING_LOOKS and not any(look.open_jobs for look in recent):
        return Finish()
    last = looks[-1]
    if not last.open_jobs and last.queue_gone:  # the run has been ended before
        return Finish()
    if not last.open_jobs or last.machines_running:
        return None
    if last.ended is not None:
        return GiveUp(last.ended)
    return Replace() if last.machines_target else None


def drained(looks: Sequence[Look]) -> bool:
    """Returns whether no machine runs or is to come, although jobs are left, after looks that agree."""
    recent = looks[-AGREEING_LOOKS:]
    idle = [look.open_jobs and not look.machines_running and not look.machines_target for look in recent]
    return len(idle) == AGREEING_LOOKS and all(idle)


CHEAPEST_SECONDS = 900.0
"""Time that a fleet has to get its machines with `cheapest`, in seconds; later losses are not replaced."""


class Load(NamedTuple):
    """One look at a fleet at work: jobs not final, machines asked for, there, and with a job under way."""

    open_jobs: int
    target: int
    running: int
    busy: int


class Shrink(NamedTuple):
    """Ask for `target` machines from now on, ending none by that; `spare` idle ones may be ended at once."""

    target: int
    spare: int


def machines_for(jobs: int, *, slots: int, tasks: int) -> int:
    """Returns how many machines can have all of these jobs under way: `slots` a task, `tasks` a machine."""
    return -(-jobs // max(slots * tasks, 1))


def shrink(
    looks: Sequence[Load], *, slots: int, tasks: int, cheapest: bool = False, age: float = 0.0
) -> Shrink | None:
    """Returns whether the fleet is larger than what is left to do after these looks (the newest last).

    Several looks must agree, as counts may lag: what the largest of them needs is kept, and every machine
    with a job, and one machine while the run goes on, as its end is for `decide`. The target only sinks.
    `age` is how long the machines have been asked for, in seconds.
    """
    recent, last = looks[-AGREEING_LOOKS:], looks[-1]
    if len(recent) < AGREEING_LOOKS:
        return None
    needed = machines_for(max(look.open_jobs for look in recent), slots=slots, tasks=tasks)
    keep = max(needed, *(look.busy for look in recent), 1)
    target = min(1 if cheapest and age >= CHEAPEST_SECONDS else keep, last.target)
    spare = max(last.running - keep, 0)
    return Shrink(target, spare) if target < last.target or spare else None
