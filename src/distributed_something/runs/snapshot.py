"""Builds the one view of a run that `ds status`, the monitor and the page show. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..budget import NO_BUDGET, Budget, Spent, share
from ..engine import Counts, Machines
from ..job import State
from ..ledger import JobRecord
from ..words import many

if TYPE_CHECKING:
    from ..exclusion import Pause

RATE_WINDOW_SECONDS = 60.0
"""Time over which the rate of a run under way is measured, in seconds."""

MEASURED_ENDS = 20
"""Number of ends in that time from which on the rate says how long the rest takes."""


class Tally(Protocol):
    """What a view of a run needs of the ledger: `Fold`, or `LiveFold`."""

    @property
    def total(self) -> int:
        """Number of jobs."""

    @property
    def by_state(self) -> Mapping[State, int]:
        """Number of jobs in each state."""

    @property
    def failed(self) -> int:
        """Number of jobs that wait again after a failed attempt."""

    @property
    def attempts(self) -> int:
        """Number of attempts that ended and used up one."""

    @property
    def interruptions(self) -> int:
        """Number of attempts that were interrupted."""

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds of attempts, by the event that ended them."""

    @property
    def first(self) -> float | None:
        """When the first attempt began, in Unix seconds."""

    @property
    def last_end(self) -> float | None:
        """When the last job came to its end, in Unix seconds."""

    def update(self) -> Tally:
        """Reads what is new in the ledger."""

    def running(self) -> Iterator[JobRecord]:
        """Yields the jobs that run by the ledger."""

    def proven(self) -> int:
        """Returns how many jobs have succeeded, by more than that they left the queue."""

    def ended_since(self, since: float) -> int:
        """Returns how many jobs came to an end since then (Unix seconds)."""


class JobCounts(NamedTuple):
    """total = waiting + running + succeeded + dead + skipped + dropped; `failed` is a part of `waiting`.

    `unproven` is a part of `succeeded`: their worker has only taken them from the queue.
    """

    total: int = 0
    waiting: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    dead: int = 0
    skipped: int = 0
    dropped: int = 0
    unproven: int = 0

    @property
    def final(self) -> int:
        """Jobs that need nothing more."""
        return self.succeeded + self.dead + self.skipped + self.dropped


def outcomes(jobs: Mapping[str, int]) -> list[tuple[str, int]]:
    """Returns states and their numbers, none empty. `succeeded` has no unproven job here."""
    states = ("succeeded", "unproven", "skipped", "dead", "dropped", "running", "waiting")
    counts = {**jobs, "succeeded": jobs["succeeded"] - jobs.get("unproven", 0)}
    return [(state, counts[state]) for state in states if counts.get(state)]


def unproven_text(jobs: Mapping[str, int]) -> str | None:
    """Says what is not known of the unproven jobs; None: there is none."""
    count = jobs.get("unproven", 0)
    left = f"{many(count, 'job', 'has', 'have')} left the queue, and no outputs were seen"
    return f"{left}: they may have failed (ds jobs --json: detail)" if count else None


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
    why_idle: str | None = None
    queued: int | None = None
    """Jobs in the queue that are not finished and not dead; None where the queue is gone."""
    leased: int = 0
    """Jobs in the queue that a worker holds."""
    unseen: int = 0
    """Jobs counted as running that the ledger does not show yet: workers write starts down late."""
    budget: Budget = NO_BUDGET
    no_eta: str | None = None
    """Why the time left is not known, although workers run and jobs are left."""
    pauses: tuple[Pause, ...] = ()
    """The workers that pause, as their machines cannot work."""
    excluded: Mapping[str, str] = {}
    """The machines that get no more jobs, and why."""

    @property
    def paused(self) -> str:
        """Why workers pause, the most frequent reason first; empty: none pauses."""
        return _paused(self.pauses)

    @property
    def cost_usd(self) -> float | None:
        """What the run has cost so far; None: unknown."""
        cost = self.machines.cost
        return None if cost is None else cost.usd + cost.usd_per_attempt * self.attempts

    @property
    def elapsed(self) -> float | None:
        """How long the run took, in seconds; None: it has not ended."""
        if self.started is None or self.finished is None:
            return None
        return round(self.finished - self.started, 3)

    @property
    def spent(self) -> Spent:
        """What the run has spent of its budget."""
        return Spent(self.cost_usd, self.machines.hours)

    @property
    def expected_usd(self) -> float | None:
        """The run's cost at its end, at the present rate; None: unknown."""
        cost, so_far = self.machines.cost, self.cost_usd
        if cost is None or so_far is None or self.state == "finished":
            return self.cost_usd
        hourly = cost.usd_per_hour
        return None if hourly is None or self.eta is None else so_far + hourly * self.eta / 3600

    def to_json(self) -> dict[str, Any]:
        """Returns the object that `ds status --json` prints."""
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
                "dropped": jobs.dropped,
                "unproven": jobs.unproven,
            },
            "attempts": self.attempts,
            "interruptions": self.interruptions,
            "rate_per_s": round(self.rate, 3),
            "eta_s": None if self.eta is None else round(self.eta, 1),
            "started": _iso(self.started),
            "finished": _iso(self.finished),
            "machines": {"target": machines.target, "running": machines.running, "lost": machines.lost},
            "excluded": [{"machine": name, "why": why} for name, why in self.excluded.items()],
            "machine_hours": None if machines.hours is None else round(machines.hours, 4),
            "cost_usd": self.cost_usd,
            "budget": self._budget_json(),
            "needs": [{**needs._asdict(), "waiting": count} for needs, count in machines.needs],
            "why_idle": self.why_idle,
        }

    def _budget_json(self) -> dict[str, float | None] | None:
        """Returns limits and share in use, from 0 to 1; None if the run has no budget."""
        limits, spent = self.budget, self.spent
        if not limits:
            return None
        return {**limits._asdict(), "spent_hours": spent.hours, "share": share(limits, spent)}


def _iso(when: float | None) -> str | None:
    if when is None:
        return None
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Alive(NamedTuple):
    """Whether any machine runs, and the names of those that have ended: their jobs run no more."""

    any: bool
    gone: frozenset[str] = frozenset()

    @classmethod
    def of(cls, machines: Machines) -> Alive:
        """As the engine has them."""
        return cls(machines.running > 0, frozenset(each.id for each in machines.rented if not each.running))

    def state(self, record: JobRecord) -> State:
        """Returns a job's state: one whose worker is gone waits, whatever the ledger last said."""
        gone = not self.any or record.machine in self.gone
        return State.WAITING if gone and record.state is State.RUNNING else record.state

    def stranded(self, fold: Tally) -> int:
        """Returns how many jobs run by the ledger alone: their machines are gone, their leases not yet."""
        running = fold.by_state[State.RUNNING]
        if not running or not self.any:
            return running
        if not self.gone:
            return 0
        return sum(each.machine in self.gone for each in fold.running())


def count_jobs(fold: Tally, stranded: int) -> JobCounts:
    """Returns the jobs by state; `stranded` of them have lost their worker, and wait."""
    by_state = fold.by_state
    return JobCounts(
        total=fold.total,
        waiting=by_state[State.WAITING] + stranded,
        running=by_state[State.RUNNING] - stranded,
        succeeded=by_state[State.SUCCEEDED],
        failed=fold.failed,
        dead=by_state[State.DEAD],
        skipped=by_state[State.SKIPPED],
        dropped=by_state[State.DROPPED],
    )


def count_queue(total: int, counts: Counts, dropped: int = 0, dead: int = 0) -> JobCounts:
    """Returns the jobs by state where workers write no ledger: what has left the queue has succeeded.

    That is the promise of the reference's workers, which delete a message after success only. `dead`: jobs
    that are dead by the ledger.
    """
    left = min(counts.open, total)
    leased = min(counts.leased, left)
    dead = min(max(counts.dead, dead), total - left)
    dropped = min(dropped, total - left - dead)
    return JobCounts(
        total=total,
        waiting=left - leased,
        running=leased,
        succeeded=total - left - dead - dropped,
        dead=dead,
        dropped=dropped,
    )


def take(
    fold: Tally,
    *,
    app: str,
    engine: str,
    run: str | None,
    machines: Machines,
    counts: Counts | None,
    now: float,
    why_idle: str | None = None,
    pauses: Sequence[Pause] = (),
    silent: bool = False,
    budget: Budget = NO_BUDGET,
    excluded: Mapping[str, str] | None = None,
) -> Snapshot:
    """Returns the view of a run. `counts`: None if the queue is gone. `silent`: workers write no ledger."""
    alive = Alive.of(machines)
    stranded = alive.stranded(fold)
    jobs, unseen = _count(fold, counts, stranded, machines.slots if alive.any else 0, silent=silent)
    over = jobs.total > 0 and jobs.final == jobs.total and (counts is None or counts.open == 0)
    rate = _rate(fold, fold.last_end if over and fold.last_end else now, whole=over)
    left = jobs.total - jobs.final
    eta = no_eta = None
    if left and machines.running and not over:
        eta = time_left(fold, jobs, rate, now)
        no_eta = None if eta is not None else _no_eta(fold, jobs, silent=silent)
    moves = over or (jobs.running > 0 and counts is not None and not machines.diagnosis)
    elsewhere, lost = stranded if alive.any else 0, machines.queue_lost
    idle = None if moves else _why_idle(why_idle, jobs, counts, elsewhere, lost)
    if counts and not counts.open and jobs.total and fold.first is None and not jobs.final:
        idle = "the queue does not count the jobs yet: its counts may be a minute old"
    return Snapshot(
        app=app,
        engine=engine,
        run=run,
        state=_state(over, machines),
        jobs=jobs,
        attempts=fold.attempts,
        interruptions=fold.interruptions,
        rate=rate,
        eta=eta,
        started=fold.first,
        finished=fold.last_end if over else None,
        machines=machines,
        why_idle=_paused(pauses) or idle,
        queued=counts.open if counts else None,
        leased=counts.leased if counts else 0,
        unseen=unseen,
        budget=budget,
        no_eta=no_eta,
        pauses=tuple(pauses),
        excluded=excluded or {},
    )


def _count(
    fold: Tally, counts: Counts | None, stranded: int, slots: int, *, silent: bool
) -> tuple[JobCounts, int]:
    """Returns the jobs by state, and how many of the running ones have no event yet: `slots` at most."""
    by_state, by_queue = fold.by_state, None
    if silent and counts is not None:
        by_queue = count_queue(fold.total, counts, by_state[State.DROPPED], by_state[State.DEAD])
    jobs = by_queue or count_jobs(fold, stranded)
    if silent and jobs.succeeded:
        jobs = jobs._replace(unproven=max(jobs.succeeded - fold.proven(), 0))
    if counts is None or by_queue:
        return jobs, 0
    unseen = min(max(min(counts.leased, slots) - by_state[State.RUNNING], 0), jobs.waiting)
    waiting = jobs.waiting - unseen
    failed = min(jobs.failed, waiting)
    return jobs._replace(running=jobs.running + unseen, waiting=waiting, failed=failed), unseen


def _paused(pauses: Sequence[Pause]) -> str:
    found = Counter(each.why for each in pauses)
    return "; ".join(f"{many(count, 'worker')} paused: {why}" for why, count in found.most_common())


def time_left(fold: Tally, jobs: JobCounts, rate: float, now: float) -> float | None:
    """Returns the time left in seconds; None: it cannot be known.

    What is left takes what a success has taken on average, on as many slots as are busy now; the time that
    running jobs have had is taken off. Failures and skipped jobs, which may end at once, say nothing of it.
    Many jobs a minute take at least what the present rate says.
    """
    done, spent = fold.by_state[State.SUCCEEDED], fold.spent.get("succeeded", 0.0)
    if not done or not spent or not jobs.running:
        return None
    mean, left = spent / done, jobs.total - jobs.final
    begun = (each.started for each in fold.running() if each.started is not None)
    had = sum(min(max(now - when, 0.0), mean) for when in begun)
    work = max(left * mean - had, 0.0) / jobs.running
    if not work:
        return None
    return max(work, left / rate) if rate * RATE_WINDOW_SECONDS >= MEASURED_ENDS else work


def _no_eta(fold: Tally, jobs: JobCounts, *, silent: bool) -> str:
    if silent:
        return "not known, as these workers do not say when jobs begin"
    if not jobs.running:
        return "not known while no job runs"
    if not fold.by_state[State.SUCCEEDED]:
        return "not known until a job has succeeded"
    return "not known: the last jobs take longer than the others did"


def _why_idle(
    why: str | None, jobs: JobCounts, counts: Counts | None, stranded: int, lost: str
) -> str | None:
    """Returns the engine's reason, with what queue and ledger add. `stranded`: while other machines run.

    `lost`: why the queue is gone.
    """
    if counts is None:
        return _why_gone(jobs, lost)
    if not counts.open:
        if not jobs.total:
            return "the queue is empty: ds submit JOBFILE"
        lag = "its counts may be a minute old; if that lasts, ds cleanup, then ds run JOBFILE"
        return f"the queue is empty, and {_not_ended(jobs)}: {lag}"
    if not why or not stranded:
        return why
    return f"{many(stranded, 'job', 'was', 'were')} on machines that are gone; {why}"


def _why_gone(jobs: JobCounts, lost: str) -> str:
    if not jobs.total and not lost:
        return "nothing is set up: ds run JOBFILE"
    return f"{lost or 'the queue is gone'}, and {_not_ended(jobs)}: ds run JOBFILE begins a new run"


def _not_ended(jobs: JobCounts) -> str:
    return many(jobs.total - jobs.final, "job", "has", "have") + " not ended"


def _state(over: bool, machines: Machines) -> str:
    if over:
        return "finished"
    if machines.draining:
        return "draining"
    return "running" if machines.running else "idle"


def _rate(fold: Tally, until: float, *, whole: bool) -> float:
    """Final jobs a second: over the last minute, or over the whole run when it has ended."""
    if fold.first is None or fold.last_end is None:
        return 0.0
    since = fold.first if whole else max(fold.first, until - RATE_WINDOW_SECONDS)
    return fold.ended_since(since) / max(until - since, 1e-3)


def job_line(record: JobRecord, body: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the object that `ds jobs --json` prints for a job."""
    return {
        "id": record.id,
        "index": record.index,
        "state": record.state.value,
        "attempts": record.attempts,
        "cause": record.cause,
        "detail": record.detail,
        "exit_code": record.exit_code,
        "seconds": record.seconds,
        "max_rss_bytes": record.max_rss_bytes,
        "worker": record.worker,
        "output": record.output,
        "log": record.log,
        "job": body,
    }


def shown(record: JobRecord, state: str | None, cause: str | None, *, alive: Alive) -> bool:
    """Returns whether a job has this state and cause; None: any. `failed` jobs wait for the next attempt."""
    if cause is not None and record.cause != cause:
        return False
    if state == "failed":
        return record.failed
    return state is None or alive.state(record).value == state
