"""Drains a run: no new leases, and the machines end. `ds stop` and the page call it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ..errors import QueueDamaged
from ..ledger import Fold
from ..runs.snapshot import Snapshot
from .project import Project
from .start import patiently

if TYPE_CHECKING:
    from ..console import Watcher

STOP_PATIENCE_SECONDS = 3600.0
"""Longest time without a look that succeeds, in seconds. Long, because the stop itself ends idle machines."""

LAST_LOOK_PATIENCE_SECONDS = 300.0  # the same for the last look, which only reports


def stop(project: Project, *, now: bool) -> Snapshot:
    """Drain the run and wait for it. Running jobs finish, or go back to the queue at once if `now`."""
    engine, clock, fold = project.engine, project.clock, project.fold()
    engine.stop(now=now)
    with project.console.watch() as watcher:
        look = partial(_stop_look, project, fold, watcher, now=now)
        while patiently(project, clock.monotonic() + STOP_PATIENCE_SECONDS, look, watcher.note):
            clock.wait(min(engine.poll_interval, 1.0))
        until = clock.monotonic() + LAST_LOOK_PATIENCE_SECONDS
        return patiently(project, until, partial(project.snapshot, fold), watcher.note)


def _stop_look(project: Project, fold: Fold, watcher: Watcher, *, now: bool) -> bool:
    """Returns whether machines still run. Ends machines on which nothing runs any more."""
    machines = project.engine.machines()
    if machines.running:
        with suppress(QueueDamaged):  # it has to end all the same
            watcher.show(project.snapshot(fold))
        if machines.tasks == 0 and not now:
            project.engine.stop(now=True)
    return machines.running > 0
