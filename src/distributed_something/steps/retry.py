"""Puts dead jobs back into the queue, or takes jobs out: `ds retry`, `ds drop` and the page call it."""

from __future__ import annotations

from collections.abc import Collection

from ..job import Job, Lease, State
from ..ledger import LedgerWriter
from .project import Project

FINAL = (State.SUCCEEDED, State.SKIPPED, State.DROPPED)  # states of jobs that `drop` leaves as they are

DROP_FIX = "only dead jobs are taken out, and on one machine waiting ones; ds stop --now puts back what runs"


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
    _note(ledger, "retried", back, now)
    return back


def drop(project: Project, ids: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Take these jobs out of the run: the dead, and the waiting ones that the queue finds.

    Returns the ids that are out, and the states of the jobs that stay because they run, have ended or are not
    found. The ledger has the dead ones first: after a failure part-way, calling again is safe.
    """
    fold, queue, now = project.fold().update(), project.engine.queue(), project.clock.now()
    states = {each: fold.jobs[each].state for each in ids}
    dead = {each for each, state in states.items() if state is State.DEAD}
    ledger = project.own_ledger("drop")
    _note(ledger, "dropped", dead, now)
    taken = {*queue.drop(each for each, state in states.items() if state not in FINAL)} - dead
    _note(ledger, "dropped", taken, project.clock.now())
    out = [each for each in states if each in dead or each in taken or states[each] is State.DROPPED]
    return out, {each: state.value for each, state in states.items() if each not in out}


def _note(ledger: LedgerWriter, name: str, ids: Collection[str], now: float) -> None:
    for job_id in sorted(ids):
        ledger.ended(name, now, Lease(Job(job_id, 0, b""), "", now), None)
    ledger.flush()
