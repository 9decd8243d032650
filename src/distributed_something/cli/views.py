"""Prints what the commands that only look show: status, jobs, logs, failures, findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..budget import used
from ..console import Console, describe, fitting, progress_parts
from ..engine import Machines, Renting
from ..errors import OK, DsError, UsageError
from ..job import State
from ..ledger import Fold, JobRecord
from ..runs.following import Follower
from ..runs.joblog import begin_of, read_log, read_running
from ..runs.snapshot import Snapshot, unproven_text
from ..steps.look.jobs import left_dead, made_in
from ..steps.project import Project
from ..words import duration, many, money, rate_text

if TYPE_CHECKING:
    from ..inputs.checks.findings import Finding

RUNNING_SHOWN = 6
"""Most running jobs that `ds status` shows."""

FOLLOW_SECONDS = 2.0
"""Longest pause between two looks at a followed log, in seconds."""


def status(project: Project, *, watch: bool) -> int:
    """Print the state of the run, once or until it has ended."""
    console = project.console
    fold = project.fold() if project.current_run() else None
    snapshot = project.snapshot(fold)
    if watch:
        snapshot = watch_run(project)
    if console.json:
        console.data(snapshot.to_json())
        return OK
    facts = _facts(snapshot)
    if fold is not None and not project.config.image_starts_worker:
        facts["earlier"] = _earlier(project, fold)
    text = describe(facts, console.columns)
    console.line(text)
    room = console.lines - text.count("\n") - 3 if console.lines else RUNNING_SHOWN
    if fold is not None and snapshot.jobs.running and room > 1:
        from .running import running_lines

        for line in running_lines(project, fold, snapshot, min(room, RUNNING_SHOWN), console.columns):
            console.line(line)
    return OK


def _earlier(project: Project, fold: Fold) -> str | None:
    """Names the dead jobs of the run before, if this one does not have them."""
    try:
        found = left_dead(project, fold)
    except DsError:  # it is only a notice
        return None
    if found is None:
        return None
    run, dead = found
    return (
        f"{many(dead, 'job', 'is', 'are')} dead in run {run}, and no part of this one: ds status --run {run}"
    )


def watch_run(project: Project, until: float | None = None) -> Snapshot:
    """Show the run until it ends or stands still, or that monotonic time. Returns the last snapshot."""
    fold = project.fold()
    with project.console.watch() as watcher:
        while True:
            snapshot = project.snapshot(fold)
            watcher.show(snapshot)
            idle = snapshot.state == "idle" and not _at_work(snapshot.machines)
            over = until is not None and project.clock.monotonic() >= until
            if snapshot.state == "finished" or idle or over:
                return snapshot
            project.clock.wait(max(project.engine.poll_interval, 0.5))


SHOWN_NEEDS = 4
"""Maximum different needs of waiting jobs that `ds status` shows."""


def _at_work(machines: Machines) -> bool:
    """Returns whether machines run or are still to come."""
    return bool(machines.running or (machines.replaces_lost and machines.target))


def _facts(snapshot: Snapshot) -> dict[str, object]:
    jobs, machines = snapshot.jobs, snapshot.machines
    return {
        "app": f"{snapshot.app} ({snapshot.engine})",
        "run": snapshot.run,
        "state": snapshot.state,
        "jobs": fitting(progress_parts(snapshot)[:-1], None),  # the last one is the state
        "succeeded": jobs.succeeded - jobs.unproven or None,
        "not known": unproven_text(jobs._asdict()),
        "skipped": jobs.skipped or None,
        "dead": jobs.dead or None,
        "dropped": jobs.dropped or None,
        "waiting": jobs.waiting or None,
        "running": jobs.running or None,
        "to retry": jobs.failed or None,
        "attempts": snapshot.attempts or None,
        "interruptions": snapshot.interruptions or None,
        "rate": rate_text(snapshot.rate) if snapshot.rate else None,
        "time left": duration(snapshot.eta) if snapshot.eta is not None else snapshot.no_eta,
        "machines": _machines(machines),
        **dict(machines.details),
        "needs": _needs(machines) or None,
        "bad machines": "; ".join(f"{name}: {why}" for name, why in snapshot.excluded.items()) or None,
        "cost": None if snapshot.cost_usd is None else _cost(snapshot.cost_usd, snapshot.expected_usd),
        "budget": used(snapshot.budget, snapshot.spent) or None,
        "why idle": snapshot.why_idle,
    }


def _cost(so_far: float, expected: float | None) -> str:
    return money(so_far) + (f", {money(expected)} at the end" if expected not in (None, so_far) else "")


def _needs(machines: Machines) -> str:
    """Says what waiting jobs need, the most frequent first."""
    found = sorted(machines.needs, key=lambda each: -each[1])
    more = ["…"] if len(found) > SHOWN_NEEDS else []
    return "; ".join([f"{many(count, 'job')}: {needs}" for needs, count in found[:SHOWN_NEEDS]] + more)


def _machines(machines: Machines) -> str:
    target = f" of {machines.target:,}" if machines.replaces_lost else ""
    lost = f", {machines.lost:,} lost" if machines.lost else ""
    return f"{machines.running:,}{target} running, {machines.slots:,} slots{lost}"


def find(fold: Fold, wanted: str) -> JobRecord:
    """Returns the job with this id, start of an id, or index (`92`, `#92`). Raises UsageError.

    Digits without a leading zero, up to the largest index, are an index; any others begin an id.
    """
    found = fold.find(wanted)
    if not found:
        raise UsageError(f"{wanted}: no job has this id or index", "ds jobs")
    if len(found) > 1:
        shown = ", ".join(record.id for record in found[:5])
        more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
        raise UsageError(f"{wanted}: {len(found)} ids begin so: {shown}{more}", "give more of the id")
    return found[0]


def find_ids(project: Project, wanted: Iterable[str]) -> list[str]:
    """Returns the ids of the named jobs. Raises UsageError."""
    names = list(wanted)
    if not names:
        return []
    fold = project.fold().update()
    return [find(fold, name).id for name in names]


def logs(project: Project, wanted: str, *, follow: bool, attempt: int | None) -> int:
    """Print the log of a job's latest attempt, or of another one.

    With `follow` it prints until the job has ended: also a job that is still to begin, and later attempts.
    With --json each piece is an object.
    """
    fold = project.fold().update()
    record = find(fold, wanted)
    if attempt is not None:
        return _earlier_log(project, fold, record, attempt)
    if record.state is State.SKIPPED and not record.log and (run := made_in(project, record)):
        project.console.say(f"it was skipped, as run {run} had made its outputs; this is its log there")
        return logs(project.looking_at(run), record.id, follow=False, attempt=None)
    _say_attempt(project.console, record)
    if not follow and record.state is State.RUNNING:
        return _running_log(project, record)
    log = _ShownLog(project, record.id)
    log.show(record, whole=not follow)
    follower = Follower(project.engine.store, project.paths(), project.clock)
    while follow and record.state in (State.WAITING, State.RUNNING) and _at_work(project.engine.machines()):
        if isinstance(project.engine, Renting):  # elsewhere logs are stored as they are printed
            follower.ask(record.id)
        project.clock.wait(min(project.engine.poll_interval, FOLLOW_SECONDS))
        record = fold.update().jobs[record.id]
        log.show(record)
    if not log.size:
        reason = f"{record.state.value}" + (f", {record.cause}: {record.detail}" if record.cause else "")
        project.console.say(f"job {record.id} has printed nothing ({reason})")
    return OK


class _ShownLog:
    """Prints a growing log piece by piece. `size` is the number of bytes printed of the present attempt."""

    def __init__(self, project: Project, job_id: str) -> None:
        self._project = project
        self._id = job_id
        self._place: str | None = None
        self._attempt = 0
        self.size = 0

    def show(self, record: JobRecord, *, whole: bool = False) -> None:
        """Print what is new. If another attempt has begun, print the rest of the one before first.

        `whole`: the log is complete; print it even if it is empty.
        """
        if begin_of(record.log) != begin_of(self._place):
            moved = not self.size and record.attempt == self._attempt  # the log of a short attempt
            if self._place is not None and not moved:
                self._print(self._ended(self._place))
                self._project.console.say(f"attempt {record.attempt} begins")
            self.size = 0
        self._place, self._attempt = record.log, record.attempt
        self._print(record.log, whole=whole)

    def _print(self, place: str | None, *, whole: bool = False) -> None:
        text = read_log(self._project.engine.store, self._project.paths(), place, skip=self.size)
        if text or whole:
            _write(self._project.console, self._id, self._attempt, text)
        self.size += len(text)

    def _ended(self, place: str) -> str:
        """Returns the place with its length, which the end event has: other logs follow in the segment.

        A killed worker wrote no end event, and nothing follows its log.
        """
        fold = self._project.fold()
        events = fold.update().events(fold.jobs[self._id])
        places = (str(each["log"]) for each in events if each.get("log"))
        return next((each for each in places if "+" in each and begin_of(each) == begin_of(place)), place)


def _say_attempt(console: Console, record: JobRecord) -> None:
    """Say which attempt is shown, if there were several."""
    if record.attempts + record.interruptions > 1:
        cause = f", {record.cause}" if record.cause else ""
        console.say(f"attempt {record.attempt} ({record.state.value}{cause}); --attempt N shows another one")


def _earlier_log(project: Project, fold: Fold, record: JobRecord, attempt: int) -> int:
    """Print the log of this attempt: the newest of that number, because a retry counts from 1 again."""
    store, paths = project.engine.store, project.paths()
    events = [each for each in fold.events(record) if each.get("attempt") == attempt]
    if not events:
        raise UsageError(f"job {record.id} has no attempt {attempt}", f"ds logs {record.id}")
    event: dict[str, Any] = next((each for each in reversed(events) if each.get("log")), {})
    place = event.get("log")
    if place is None or "+" in str(place):
        text = read_log(store, paths, place)
    else:  # the worker of that attempt was lost
        text = read_running(store, paths, str(place), record.id, event.get("worker"), attempt)
    _write(project.console, record.id, attempt, text)
    return OK


def _running_log(project: Project, record: JobRecord) -> int:
    """Print what a running attempt has printed; on machines elsewhere, up to a minute ago."""
    store, paths = project.engine.store, project.paths()
    text = read_running(store, paths, record.log, record.id, record.worker, record.attempt)
    _write(project.console, record.id, record.attempt, text)
    if isinstance(project.engine, Renting):
        project.console.say("the job runs; this text may be a minute old, --follow shows it as it comes")
    return OK


def _write(console: Console, job_id: str, attempt: int, text: bytes) -> None:
    if console.json:
        console.data({"id": job_id, "attempt": attempt, "text": text.decode(errors="replace")})
    else:
        console.raw(text)


def failures(project: Project) -> int:
    """Print the groups of failures."""
    from ..report.failures import group_failures

    console = project.console
    fold = project.fold().update()
    groups = group_failures(project.engine.store, project.paths(), fold.failing())
    if console.json:
        for group in groups:
            facts = {"cause": group.cause, "jobs": len(group.ids), "dead": group.dead}
            console.data({**facts, "example": group.example, "ids": group.ids})
        return OK
    if not groups:
        console.say("no job has failed")
        return OK
    console.table(
        ("jobs", "dead", "cause", "last line", "for example"),
        ((len(group.ids), group.dead, group.cause, group.example[:120], group.ids[0]) for group in groups),
    )
    look = f"ds logs {groups[0].ids[0]}"
    dead = next((group.cause for group in groups if group.dead), None)
    # `ds retry` is for dead jobs: others are tried again without it
    console.hint(f"{look}, and when it is mended: ds retry --cause {dead}" if dead else look)
    return OK


def show(console: Console, findings: Sequence[Finding]) -> None:
    """Print findings, the worst first."""
    from ..inputs.checks.findings import Severity

    if console.json:
        for each in findings:
            facts = {name: dict(value) if isinstance(value, tuple) else value for name, value in each.facts}
            more = {"facts": facts} if facts else {}
            console.data({"severity": each.severity, "what": each.what, "fix": each.fix, **more})
        return
    order = list(Severity)
    rows = sorted(findings, key=lambda each: order.index(each.severity))
    console.table(["severity", "what", "fix"], [(each.severity, each.what, each.fix) for each in rows])
    counts = {each: sum(found.severity is each for found in findings) for each in order}
    console.say(
        f"{many(counts[Severity.ERROR], 'error')}, {many(counts[Severity.WARNING], 'warning')}, "
        + (f"{many(counts[Severity.NOTICE], 'notice')}, " if counts[Severity.NOTICE] else "")
        + f"{counts[Severity.OK]} ok"
    )
