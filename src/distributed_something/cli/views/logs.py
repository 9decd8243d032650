"""Prints the log of a job, whole or as it grows, and the groups of failures: `ds logs`, `ds failures`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...console import Console
from ...engine import Renting
from ...errors import OK, UsageError
from ...job import State
from ...ledger import Fold, JobRecord
from ...runs.following import Follower
from ...runs.joblog import begin_of, read_log, read_running
from ...steps.look.jobs import made_in
from ...steps.project import Project
from .status import at_work

FOLLOW_SECONDS = 2.0  # longest pause between two looks at a followed log, in seconds


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
    while follow and record.state in (State.WAITING, State.RUNNING) and at_work(project.engine.machines()):
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
    from ...report.failures import group_failures

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
