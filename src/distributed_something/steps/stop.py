"""Drains a run: no new leases, and the machines end."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..ledger import Fold
from ..runs.snapshot import Snapshot
from .project import Project

if TYPE_CHECKING:
    from ..console import Watcher
from .start import patiently

STOP_PATIENCE_SECONDS = 3600.0
"""So long looks may fail before a stop gives up: it is who ends the machines when nothing runs on them."""


LAST_LOOK_PATIENCE_SECONDS = 300.0
"""The same of the look that tells how the run is once all has stopped."""


def stop(project: Project, *, now: bool) -> Snapshot:
    """Drain: no new leases; wait until what runs has finished, or (`now`) gone back to the queue."""
    engine, clock, fold = project.engine, project.clock, project.fold()
    engine.stop(now=now)
    with project.console.watch() as watcher:
        look = partial(_stop_look, project, fold, watcher, now=now)
        while patiently(project, clock.now() + STOP_PATIENCE_SECONDS, look, watcher.note):
            clock.wait(min(engine.poll_interval, 1.0))
        until = clock.now() + LAST_LOOK_PATIENCE_SECONDS
        return patiently(project, until, partial(project.snapshot, fold), watcher.note)


def _stop_look(project: Project, fold: Fold, watcher: Watcher, *, now: bool) -> bool:
    """Whether machines still run; those on which nothing runs any more are ended, without `now` too."""
    machines = project.engine.machines()
    if machines.running:
        watcher.show(project.snapshot(fold))
        if machines.tasks == 0 and not now:
            project.engine.stop(now=True)
    return machines.running > 0
