"""Looks whether too many jobs of a run are dead. `failing.py` decides; start and monitor call it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from ... import failing
from ...ledger import Fold
from ...runs.snapshot import Snapshot, Tally
from ..project import Project

if TYPE_CHECKING:
    from ...report.failures import Said

MOST_JOBS = 1000
"""Number of dead jobs of which those that died alike are counted: each costs the reading of a log, once."""


def too_many_dead(
    project: Project, snapshot: Snapshot, fold: Tally, said: Said | None = None, most: int = MOST_JOBS
) -> str | None:
    """Returns in words why the run must drain: its dead jobs are over a limit. None: it goes on.

    Logs are read only if the limit is met should all have died alike; `said` keeps them for the next call.
    A tally without jobs (the auto-monitor's) cannot tell what died alike.
    """
    limits, jobs = project.config.failure_limits, snapshot.jobs
    if not limits or not failing.may_be_too_many(limits, jobs.final, jobs.dead):
        return None
    found = failing.Failing(jobs.final, jobs.dead)
    if isinstance(fold, Fold):
        from ...report.failures import group_failures

        groups = group_failures(project.engine.store, project.paths(), islice(fold.dead(), most), said)
        if groups:
            found = found._replace(alike=groups[0].dead, cause=f"{groups[0].cause}: {groups[0].example}")
    return failing.too_many(limits, found)
