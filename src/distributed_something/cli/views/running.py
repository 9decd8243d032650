"""Shows the jobs that run now: for how long, in how much memory, and what they printed last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...engine import Store
from ...errors import DsError
from ...job import State
from ...ledger import Fold, JobRecord
from ...report.alike import plain
from ...runs.joblog import tail_of
from ...runs.snapshot import Alive, Snapshot
from ...system.usage import memory_of_jobs
from ...words import bytes_text, duration, many

if TYPE_CHECKING:
    from ...steps.project import Project


def running_lines(
    project: Project, fold: Fold, snapshot: Snapshot, most: int, columns: int | None
) -> Iterator[str]:
    """Yields a line for each of the jobs that have run longest, at most `most`, cut to the columns."""
    alive, now = Alive.of(snapshot.machines), project.clock.now()
    found = [each for each in fold.running() if alive.state(each) is State.RUNNING]
    found.sort(key=lambda each: each.started or now)
    shown = found if len(found) <= most else found[: most - 1]
    here = os.uname().nodename
    memory = memory_of_jobs({each.id for each in shown if each.machine == here})
    rows = [
        (f"#{each.index}", duration(max(now - (each.started or now), 0.0)), bytes_text(memory.get(each.id)))
        for each in shown
    ]
    wide = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    yield "running for"
    for each, row in zip(shown, rows, strict=True):
        facts = "  ".join(f"{text:<{width}}" for text, width in zip(row, wide, strict=True) if width)
        yield f"  {facts}  {_last_line(project.engine.store, fold, each)}".rstrip()[:columns]
    if len(found) > len(shown):
        yield f"  and {many(len(found) - len(shown), 'job')} more: ds jobs --state running"


def _last_line(store: Store, fold: Fold, record: JobRecord) -> str:
    """Returns the last line that a job has printed, as a terminal shows it now; empty: nothing yet."""
    try:
        text = tail_of(store, fold.paths, record)
    except DsError:
        return ""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in plain(text).split("\n")]
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
