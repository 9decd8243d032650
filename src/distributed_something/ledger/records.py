"""Folds the events of one job into its state. Pure; `batch` calls it for jobs that have not succeeded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from ..job import UNCOUNTED, State


class Told(Protocol):
    """An event as the fold needs it: `events.Entry`, or its like."""

    t: float
    event: str
    attempt: int | None
    exit_code: int | None
    seconds: float | None
    cpu_seconds: float | None
    max_rss_bytes: int | None
    cause: str | None
    detail: str | None
    worker: str | None
    machine: str | None
    output: str | None
    log: str | None


FACTS = (
    "attempt", "attempts", "interruptions", "started", "ended", "cause", "detail", "exit_code", "seconds",
    "cpu_seconds", "max_rss_bytes", "worker", "machine", "output", "log",
)  # fmt: skip
"""What a record has beside id, index and state."""


LEFT_QUEUE = "left the queue"
"""Begin of a job's detail whose worker writes no ledger."""


class JobRecord:
    """The state of one job by the ledger. `attempts` counts those that used up an attempt."""

    __slots__ = ("id", "index", "state", *FACTS)

    def __init__(self, job_id: str, index: int) -> None:
        self.id = job_id
        self.index = index
        self.state = State.WAITING
        self.attempt = 0
        self.attempts = 0
        self.interruptions = 0
        self.started: float | None = None
        self.ended: float | None = None
        self.cause: str | None = None
        self.detail: str | None = None
        self.exit_code: int | None = None
        self.seconds: float | None = None
        self.cpu_seconds: float | None = None
        self.max_rss_bytes: int | None = None
        self.worker: str | None = None
        self.machine: str | None = None
        self.output: str | None = None
        self.log: str | None = None

    @property
    def done(self) -> bool:
        """Whether the job needs nothing more."""
        return self.state in (State.SUCCEEDED, State.SKIPPED)

    def take(self, facts: Sequence[Any]) -> None:
        """Takes over the values of FACTS."""
        (
            self.attempt, self.attempts, self.interruptions, self.started, self.ended, self.cause,
            self.detail, self.exit_code, self.seconds, self.cpu_seconds, self.max_rss_bytes, self.worker,
            self.machine, self.output, self.log,
        ) = facts  # fmt: skip

    @property
    def failed(self) -> bool:
        """Whether the job waits again after a failed attempt."""
        return self.state is State.WAITING and self.cause is not None and self.cause not in UNCOUNTED

    @property
    def unproven(self) -> bool:
        """Whether all that is known of the job's success is that it left the queue."""
        left = (self.detail or "").startswith(LEFT_QUEUE)
        return self.state is State.SUCCEEDED and self.output is None and left


ENDS = {
    "succeeded": State.SUCCEEDED,
    "skipped": State.SKIPPED,
    "failed": State.WAITING,
    "interrupted": State.WAITING,
    "dead": State.DEAD,
    "retried": State.WAITING,
    "dropped": State.DROPPED,
}
"""The state that each event leads to; `started` leads to RUNNING."""

_RANKS = {"started": 0, "retried": 2, "dropped": 3}


def order(event: Told) -> tuple[float, int, int]:
    """Sort key of a job's events: their time, then their nature, then the attempt."""
    return event.t, _RANKS.get(event.event, 1), int(event.attempt or 0)


def fold_job(record: JobRecord, events: Iterable[Told]) -> JobRecord:
    """Applies the events of a job to its new record, in the order of their time, however they were read."""
    dead = False
    for each in sorted(events, key=order):
        if record.state is State.DROPPED:
            break  # what a worker of another delivery says later changes nothing, but a success
        dead = each.event == "dead" or (dead and each.event != "retried")
        if each.event == "started":
            _start(record, each)
        elif dead and each.event in ("interrupted", "failed") and not record.done:
            record.state = State.DEAD  # the end of another delivery: no queue has the job any more
            record.interruptions += each.event == "interrupted"
        else:
            _end(record, each)
    return record


def _start(record: JobRecord, event: Told) -> None:
    record.state, record.started = State.RUNNING, event.t
    record.worker, record.machine, record.log = event.worker, event.machine, event.log
    record.attempt = event.attempt or 1


def _end(record: JobRecord, event: Told) -> None:
    if record.done:
        record.interruptions += event.event == "interrupted"
        return  # a job that has succeeded stays so, whatever a second delivery says
    if event.event == "retried":
        record.state, record.ended = State.WAITING, event.t
        record.cause = record.detail = record.exit_code = None
        record.attempts = 0
        return
    if event.event == "dropped":
        record.state, record.ended = State.DROPPED, event.t
        return
    if event.event == "interrupted":
        record.interruptions += 1
        if record.worker != event.worker and record.state is State.RUNNING:
            return  # another worker has the job by now
    elif event.event != "skipped":
        # an attempt whose worker was killed before it settled is made again under its number
        record.attempts = max(record.attempts, event.attempt or record.attempts + 1)
    record.state, record.ended = ENDS[event.event], event.t
    record.attempt = event.attempt or record.attempt
    record.cause, record.detail, record.exit_code = event.cause, event.detail, event.exit_code
    record.seconds, record.cpu_seconds = event.seconds, event.cpu_seconds
    record.max_rss_bytes = event.max_rss_bytes
    record.worker = event.worker or record.worker
    record.machine = event.machine or record.machine
    record.output = event.output
    record.log = event.log or record.log
    if record.seconds is not None:
        record.started = event.t - record.seconds
