"""Reads the jobs of a run with their bodies, a page at a time, and what earlier runs have of them.

`ds jobs`, `ds status` and the Python API show them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ...errors import DsError
from ...job import State
from ...ledger import Fold, JobRecord
from ...runs.snapshot import Alive, job_line, shown
from ..project import Project

PAGE_JOBS = 5000  # number of jobs that are read at a time


def selected(fold: Fold, state: str | None, cause: str | None, *, alive: Alive) -> Iterator[JobRecord]:
    """Yields the jobs in this state and with this cause; of dead and failing ones only those are read."""
    if state == State.DEAD:
        found = fold.dead()
    elif state == "failed":
        found = fold.failing()
    elif state == State.RUNNING:
        found = fold.running()
    else:
        found = fold.records()
    return (record for record in found if shown(record, state, cause, alive=alive))


def with_bodies(
    fold: Fold, records: Iterator[JobRecord]
) -> Iterator[tuple[JobRecord, dict[str, Any] | None]]:
    """Yields the jobs with their bodies; None: the job list does not have it."""
    while page := list(islice(records, PAGE_JOBS)):
        bodies = fold.bodies(page)
        yield from ((record, _parsed(bodies.get(record.id))) for record in page)


def line_of(record: JobRecord, body: dict[str, Any] | None, *, alive: Alive) -> dict[str, Any]:
    """Returns the object that `ds jobs --json` prints for a job."""
    return {**job_line(record, body), "state": alive.state(record).value}


def left_dead(project: Project, fold: Fold) -> tuple[str, int] | None:
    """Returns the run before the one that is looked at, and how many of its dead jobs this one does not have.

    None: there is no such run, or no such job.
    """
    shown = project.current_run()
    before = [run for run in project.runs() if shown is not None and run < shown]
    if not before:
        return None
    earlier = project.looking_at(before[-1]).fold().update()
    left = sum(each.id not in fold.jobs for each in earlier.dead())
    earlier.close()
    return (before[-1], left) if left else None


def made_in(project: Project, record: JobRecord) -> str | None:
    """Returns the earlier run that made the outputs of a skipped job; None: this run, or it is not known."""
    from ...worker.files.manifest import read_manifest

    if record.state is not State.SKIPPED or not record.output:
        return None
    try:
        manifest = read_manifest(project.engine.store, record.output, record.id)
    except DsError:
        return None
    known = manifest is not None and manifest.run != project.current_run() and manifest.run in project.runs()
    return manifest.run if manifest is not None and known else None


def _parsed(body: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads((body or b"null").decode())
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
