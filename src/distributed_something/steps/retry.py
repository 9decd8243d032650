"""Puts dead jobs back into the queue. `ds retry` and the page call it."""

from __future__ import annotations

from collections.abc import Collection

from ..job import Job, Lease
from .project import Project


def retry(project: Project, causes: Collection[str], ids: Collection[str]) -> list[str]:
    """Put dead jobs back as new. Returns the ids that went back.

    `causes` and `ids` limit which jobs; empty: all dead jobs.
    """
    fold, queue = project.fold().update(), project.engine.queue()
    wanted = [
        record
        for record in fold.dead()
        if (not causes or record.cause in causes) and (not ids or record.id in ids)
    ]
    now = project.clock.now()  # before a worker can lease one: the ledger is ordered by time
    back = queue.redrive([record.id for record in wanted])
    ledger = project.own_ledger("retry")
    for job_id in back:
        ledger.ended("retried", now, Lease(Job(job_id, 0, b""), "", now), None)
    ledger.flush()
    return back
