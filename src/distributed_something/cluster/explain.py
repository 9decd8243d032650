"""Pilots in words: those that run, and why the others wait. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..words import many, time_text
from .pilots import Pilot

MINUTES = "%H:%M"
SHOWN = 8
"""Pilots that `ds status` shows one by one."""


class Waiting(NamedTuple):
    """Why pilots wait: in words, what to do (empty: wait), and whether waiting is of no use."""

    why: str
    fix: str = ""
    for_ever: bool = False


def why_pending(pilots: Sequence[Pilot], now: float, waiting: Callable[[str], Waiting]) -> Waiting | None:
    """Why pilots do not run that are submitted; None where all run. `waiting`: what a reason means."""
    pending = [pilot for pilot in pilots if not pilot.running or pilot.silent]
    if not pending:
        return None
    commonest = Counter(pilot.reason for pilot in pending).most_common(1)[0][0]
    found = waiting(commonest)
    which = next(pilot for pilot in pending if pilot.reason == commonest)
    starts = [pilot.start for pilot in pending if pilot.start is not None and pilot.start > now]
    estimate = f", and starts about {time_text(min(starts), now, MINUTES)}" if starts else ""
    named = f" ({commonest})" if commonest else ""
    state = "silent" if all(pilot.silent for pilot in pending) else "pending"
    what = f"{many(len(pending), 'pilot', 'is', 'are')} {state}: {found.why}{named}{estimate}"
    hopeless = all(waiting(pilot.reason).for_ever for pilot in pending)
    return Waiting(what, found.fix.format(id=which.id), hopeless)


def details(pilots: Sequence[Pilot], now: float, waits: Waiting | None) -> list[tuple[str, str]]:
    """Each pilot that runs, with its node and times, and why the others wait."""
    running = [pilot for pilot in pilots if pilot.running]
    lines = [(f"pilot {pilot.id}", _life(pilot, now)) for pilot in running[:SHOWN]]
    if len(running) > SHOWN:
        lines.append(("and", many(len(running) - SHOWN, "more pilot")))
    pending = waits is not None and any(not pilot.running for pilot in pilots)
    return (
        lines if not pending or waits is None else [*lines, ("pending", ": ".join(filter(None, waits[:2])))]
    )


def _life(pilot: Pilot, now: float) -> str:
    since = f", since {time_text(pilot.start, now, MINUTES)}" if pilot.start is not None else ""
    until = f", ends at {time_text(pilot.end, now, MINUTES)}" if pilot.end is not None else ""
    silent = f", silent: {pilot.reason}" if pilot.silent else ""
    return f"on {pilot.node}{since}{until}{silent}"
