"""Decides what is said about a run, and when. Pure; `notifier.py` sends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..inputs.config import Config
from ..runs.snapshot import Snapshot
from ..words import duration, many, money

END, DEAD, STALLED = "end", "dead", "stalled"


class Notice(NamedTuple):
    """One thing to say about a run. `key` names it: each key is sent once in a run."""

    event: str
    key: str
    title: str
    text: str


def due(config: Config, snapshot: Snapshot, moved: float, now: float) -> Iterator[Notice]:
    """Yields what is to be said at a look. `moved` is when a job last ended (Unix seconds).

    A run has stalled if no job has ended for NOTIFY_STALLED seconds, and none may still be within its time
    limit. Two monitors give one notice the same key.
    """
    jobs = snapshot.jobs
    left = jobs.total - jobs.final
    if jobs.dead and left:  # else the notice of the end says it
        text = f"{many(jobs.dead, 'job', 'is', 'are')} dead, {left:,} of {jobs.total:,} left"
        yield Notice(DEAD, DEAD, f"{snapshot.app}: a job is dead", text)
    if left and now - moved >= max(config.notify_stalled, config.job_timeout):
        why = f": {snapshot.why_idle}" if snapshot.why_idle else ""
        text = f"no job has ended for {duration(now - moved)}; {left:,} left, {jobs.running:,} running{why}"
        yield Notice(STALLED, f"{STALLED}-{moved:.0f}", f"{snapshot.app}: nothing has moved", text)


def ended(snapshot: Snapshot, why: str | None) -> Notice:
    """Returns what is said at the end of a run. `why`: it ended with jobs left; None: all have ended.

    A run that goes on after its end (`ds retry`) ends again, with more attempts.
    """
    jobs = snapshot.jobs
    seen = jobs.succeeded + jobs.skipped - jobs.unproven
    parts = [f"{seen:,} of {many(jobs.total, 'job')} succeeded"]
    parts += [f"{jobs.unproven:,} left the queue, no outputs seen"] if jobs.unproven else []
    parts += [f"{jobs.dead:,} dead"] if jobs.dead else []
    if snapshot.started is not None and snapshot.finished is not None:
        parts.append(f"in {duration(snapshot.finished - snapshot.started)}")
    parts += [money(snapshot.cost_usd)] if snapshot.cost_usd else []
    if why is not None:
        parts.append(why)
    state = "ended early" if why is not None else f"finished, {jobs.dead:,} dead" if jobs.dead else "finished"
    key = f"{END}-{jobs.final}-{snapshot.attempts}-{snapshot.interruptions}"
    return Notice(END, key, f"{snapshot.app}: {state}", ", ".join(parts))
