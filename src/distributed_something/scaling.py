"""What the monitor does next, decided from what it has seen. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

AGREEING_LOOKS = 3
"""The end of a run needs this many looks in a row that see nothing left: counts may lag."""


class Look(NamedTuple):
    """One look at a run: jobs not final, machines, and why the machines ended if they did on purpose."""

    open_jobs: int
    machines_target: int
    machines_running: int
    ended: str | None = None


class Finish(NamedTuple):
    """Nothing is left to do: end the machines, write the report."""


class Replace(NamedTuple):
    """The machines are gone and should not be: start them again."""


class GiveUp(NamedTuple):
    """Jobs are left, and the machines have ended on purpose."""

    why: str


Action = Finish | Replace | GiveUp


def decide(looks: Sequence[Look]) -> Action | None:
    """The next action after these looks (the newest last); None is to go on watching."""
    recent = looks[-AGREEING_LOOKS:]
    if len(recent) == AGREEING_LOOKS and not any(look.open_jobs for look in recent):
        return Finish()
    last = looks[-1]
    if not last.open_jobs or last.machines_running:
        return None
    if last.ended is not None:
        return GiveUp(last.ended)
    return Replace() if last.machines_target else None
