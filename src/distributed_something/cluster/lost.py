"""Gives back what lost workers held: a worker's name says which pilot it belongs to."""

from __future__ import annotations

from collections.abc import Iterable

from ..job import Cause, Outcome, State
from ..ledger import LedgerWriter
from .shared.queue import SharedQueue


def prefix_of(pilot: str) -> str:
    """What the names of a pilot's workers begin with."""
    return f"pilot-{pilot}"


def pilot_of(worker: str) -> str | None:
    """The pilot that a worker belongs to; None for what is no worker of a pilot."""
    kind, _, rest = worker.partition("-")
    return rest.partition("-")[0] if kind == "pilot" else None


def give_back(workers: Iterable[str], queue: SharedQueue, ledger: LedgerWriter, now: float) -> int:
    """Give back at once what these workers hold, and write it into the ledger; how many jobs that were."""
    count = 0
    for worker in workers:
        outcome = Outcome(State.WAITING, Cause.WORKER_LOST, f"its worker {worker} was killed")
        for lease in queue.release_owner(worker):
            count += 1
            who = {"worker": worker, "machine": pilot_of(worker) or ""}
            ledger.ended("interrupted", now, lease, outcome, **who)
    ledger.flush()
    return count
