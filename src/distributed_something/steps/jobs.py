"""Reads the jobs of a run with their bodies, a page at a time. `ds jobs` and the Python API show them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ..job import State
from ..ledger import Fold, JobRecord
from ..runs.snapshot import Alive, job_line, shown

PAGE_JOBS = 5000
"""Number of jobs that are read at a time."""


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


def _parsed(body: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(body or b"null")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
