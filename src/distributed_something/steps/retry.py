"""Puts dead jobs back into the queue."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING

from ..job import Job, Lease, State
from ..ledger import LedgerWriter
from .project import Project

if TYPE_CHECKING:
    pass


def retry(project: Project, causes: Collection[str], ids: Collection[str]) -> list[str]:
    """Put dead jobs back as new (of these causes, or these ids, or all); the ids that went back."""
    fold, queue = project.fold().update(), project.engine.queue()
    wanted = [
        record
        for record in fold.jobs.values()
        if record.state is State.DEAD
        and (not causes or record.cause in causes)
        and (not ids or record.id in ids)
    ]
    now = project.clock.now()  # before a worker can have one: the ledger's order is that of time
    back = queue.redrive([record.id for record in wanted])
    ledger = own_ledger(project, "retry")
    for job_id in back:
        ledger.ended("retried", now, Lease(Job(job_id, 0, b""), "", now), None)
    ledger.flush()
    return back


def own_ledger(project: Project, name: str) -> LedgerWriter:
    """A segment of the run's ledger for what this command has to tell: each has one writer."""
    return LedgerWriter(project.engine.store, f"{project.paths().events}{name}-{os.urandom(4).hex()}.jsonl")
