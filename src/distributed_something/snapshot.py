"""One view of a run: what `ds status`, the monitor and the page show. Pure over what is handed in."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime
from typing import Any, NamedTuple

from .engine import Counts, Machines
from .job import State
from .ledger import Fold, JobRecord

RATE_WINDOW_SECONDS = 60.0


class JobCounts(NamedTuple):
    """total = waiting + running + succeeded + dead + skipped; `failed` is a part of `waiting`."""

    total: int = 0
    waiting: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    dead: int = 0
    skipped: int = 0

    @property
    def final(self) -> int:
        """Jobs that need nothing more."""
        return self.succeeded + self.dead + self.skipped


class Snapshot(NamedTuple):
    """How a run is. Times in Unix seconds, `rate` in jobs a second, `eta` in seconds."""

    app: str
    engine: str
    run: str | None
    state: str
    jobs: JobCounts
    attempts: int
    interruptions: int
    rate: float
    eta: float | None
    started: float | None
    finished: float | None
    machines: Machines
    cost_usd: float | None = None
    why_idle: str | None = None
    queued: int | None = None
    """Jobs in the queue that are not finished and not dead; None where the queue is gone."""
    leased: int = 0
    """Jobs in the queue that some worker holds."""

    def to_json(self) -> dict[str, Any]:
        """The object that `ds status --json` prints."""
        jobs, machines = self.jobs, self.machines
        return {
            "app": self.app,
            "engine": self.engine,
            "run": self.run,
            "state": self.state,
            "jobs": {
                "total": jobs.total,
                "waiting": jobs.waiting,
                "running": jobs.running,
                "succeeded": jobs.succeeded,
                "failed": jobs.failed,
                "dead": jobs.dead,
                "skipped": jobs.skipped,
            },
            "attempts": self.attempts,
            "interruptions": self.interruptions,
            "rate_per_s": round(self.rate, 3),
            "eta_s": None if self.eta is None else round(self.eta, 1),
            "started": _iso(self.started),
            "finished": _iso(self.finished),
            "machines": {"target": machines.target, "running": machines.running, "lost": machines.lost},
            "cost_usd": self.cost_usd,
            "why_idle": self.why_idle,
        }


def _iso(when: float | None) -> str | None:
    if when is None:
        return None
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def count_jobs(fold: Fold, *, workers_alive: bool) -> JobCounts:
    """The jobs by state. A job whose worker is gone is not running, whatever the ledger last said."""
    by_state = fold.by_state
    running = by_state[State.RUNNING] if workers_alive else 0
    return JobCounts(
        total=len(fold.jobs),
        waiting=by_state[State.WAITING] + by_state[State.RUNNING] - running,
        running=running,
        succeeded=by_state[State.SUCCEEDED],
        failed=fold.failed,
        dead=by_state[State.DEAD],
        skipped=by_state[State.SKIPPED],
    )


def count_queue(total: int, counts: Counts) -> JobCounts:
    """The jobs by state where workers write no ledger: what has left the queue has succeeded.

    That is the promise of the reference's workers, which delete a message after success only.
    """
    left = min(counts.open, total)
    leased = min(counts.leased, left)
    dead = min(counts.dead, total - left)
    return JobCounts(
        total=total, waiting=left - leased, running=leased, succeeded=total - left - dead, dead=dead
    )


def take(
    fold: Fold,
    *,
    app: str,
    engine: str,
    run: str | None,
    machines: Machines,
    counts: Counts | None,
    now: float,
    why_idle: str | None = None,
    silent: bool = False,
) -> Snapshot:
    """The view of a run. `counts` is None where the queue is gone. `silent` workers write no ledger."""
    if silent and counts is not None:
        jobs = count_queue(len(fold.jobs), counts)
    else:
        jobs = count_jobs(fold, workers_alive=machines.running > 0)
    over = jobs.total > 0 and jobs.final == jobs.total and (counts is None or counts.open == 0)
    rate = _rate(fold, fold.last_end if over and fold.last_end else now, whole=over)
    left = jobs.total - jobs.final
    return Snapshot(
        app=app,
        engine=engine,
        run=run,
        state=_state(over, machines),
        jobs=jobs,
        attempts=fold.attempts,
        interruptions=fold.interruptions,
        rate=rate,
        eta=left / rate if rate and left else None,
        started=fold.first,
        finished=fold.last_end if over else None,
        machines=machines,
        cost_usd=machines.cost_usd,
        why_idle=None if over or (jobs.running and not machines.trouble) else why_idle,
        queued=counts.open if counts else None,
        leased=counts.leased if counts else 0,
    )


def _state(over: bool, machines: Machines) -> str:
    if over:
        return "finished"
    if machines.draining:
        return "draining"
    return "running" if machines.running else "idle"


def _rate(fold: Fold, until: float, *, whole: bool) -> float:
    """Final jobs a second: over the last minute, or over the whole run when it has ended."""
    if fold.first is None or not fold.ends:
        return 0.0
    since = fold.first if whole else max(fold.first, until - RATE_WINDOW_SECONDS)
    fold.ends.sort()
    ended = len(fold.ends) - bisect_left(fold.ends, since)
    return ended / max(until - since, 1e-3)


def job_line(record: JobRecord, body: dict[str, Any] | None) -> dict[str, Any]:
    """The object that `ds jobs --json` prints for a job."""
    return {
        "id": record.id,
        "index": record.index,
        "state": record.state.value,
        "attempts": record.attempts,
        "cause": record.cause,
        "exit_code": record.exit_code,
        "seconds": record.seconds,
        "max_rss_bytes": record.max_rss_bytes,
        "worker": record.worker,
        "output": record.output,
        "log": record.log,
        "job": body,
    }
