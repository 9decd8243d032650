"""Says in words what a run does now, what is wrong with it, and what to do next. Pure. `model` calls it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..budget import Notice, Over, judge
from ..report.failures import FailureGroup
from ..runs.snapshot import Snapshot
from ..words import duration, many

CAUSES = 2  # most kinds of failures that are named


class Earlier(NamedTuple):
    """Jobs that are dead in the run before, and that this run does not have."""

    run: str
    dead: int


class Around(NamedTuple):
    """What the story of a run needs besides its snapshot."""

    groups: Sequence[FailureGroup] = ()
    earlier: Earlier | None = None
    too_many: str | None = None
    """Why too many jobs are dead, so that the run drains."""
    canary: int = 0
    """Number of jobs that end before the other machines are asked for; 0: they are asked for already."""
    rents: bool = False
    past: bool = False
    """It is not the current run: no command changes it."""


def story(snapshot: Snapshot, around: Around) -> dict[str, Any]:
    """Returns lines of `now` and `wrong`, and of `next` with the command that does it."""
    following = () if around.past else _next(snapshot, around)
    return {
        "now": _now(snapshot) + _canary(snapshot, around.canary),
        "wrong": [*_wrong(snapshot, around)],
        "next": [{"text": text, "command": command} for text, command in following],
    }


def _now(snapshot: Snapshot) -> str:
    jobs, machines = snapshot.jobs, snapshot.machines
    if not jobs.total:
        return "The run has no jobs yet."
    if snapshot.state == "finished":
        took = (
            duration(snapshot.finished - snapshot.started) if snapshot.finished and snapshot.started else ""
        )
        still = many(machines.running, "machine", "still runs", "still run")
        rest = f" {still}." if machines.running else ""
        return f"It has ended{f' after {took}' if took else ''}.{rest}"
    if snapshot.state == "draining":
        return f"It drains: {many(jobs.running, 'job', 'runs', 'run')} to the end, and no other one begins."
    if not machines.running:
        return f"No worker runs. {many(jobs.waiting, 'job', 'waits', 'wait')}."
    where = f" on {many(machines.running, 'machine')}" if machines.running > 1 else ""
    left = f", about {duration(snapshot.eta)} left" if snapshot.eta is not None else ""
    unknown = f"; the time left is {snapshot.no_eta}" if snapshot.no_eta else ""
    running = many(jobs.running, "job", "runs", "run")
    return f"{running}{where}, {many(jobs.waiting, 'job', 'waits', 'wait')}{left}{unknown}."


def _canary(snapshot: Snapshot, canary: int) -> str:
    if not canary or snapshot.state == "finished":
        return ""
    done = f"{min(snapshot.jobs.final, canary):,} of its {many(canary, 'job', 'has', 'have')} ended"
    return f" The canary goes first: {done}; then ds monitor asks for the other machines."


def _wrong(snapshot: Snapshot, around: Around) -> Iterator[str]:
    jobs, machines, earlier = snapshot.jobs, snapshot.machines, around.earlier
    dead = sorted((group for group in around.groups if group.dead), key=lambda group: -group.dead)
    if around.too_many:
        yield f"On hold: {around.too_many}. ds monitor drains the run, and ds start refuses"
    for group in dead[:CAUSES]:
        yield f"{many(group.dead, 'job', 'is', 'are')} dead ({group.cause}): {group.example}"
    if rest := sum(group.dead for group in dead[CAUSES:]):
        yield f"{many(rest, 'job', 'is', 'are')} dead for other reasons"
    if jobs.failed:
        yield f"{many(jobs.failed, 'job', 'has', 'have')} failed and will be tried again"
    if snapshot.paused:
        yield snapshot.paused
    elif snapshot.why_idle and snapshot.state != "finished":
        yield f"Why nothing moves: {snapshot.why_idle}"
    if machines.diagnosis:
        yield machines.diagnosis.what
    if machines.lost:
        lost = many(machines.lost, "machine", "was", "were")
        yield f"{lost} lost; their jobs went back, and no attempt was charged"
    for name, why in snapshot.excluded.items():
        yield f"The machine {name} gets no more jobs: {why}"
    verdict = judge(snapshot.budget, snapshot.spent) if snapshot.state != "finished" else None
    if isinstance(verdict, Over | Notice):
        yield verdict.text
    if earlier is not None:
        were = many(earlier.dead, "job", "is", "are")
        yield f"{were} dead in the run before, {earlier.run}, and no part of this one"


def _next(snapshot: Snapshot, around: Around) -> Iterator[tuple[str, str]]:
    jobs, machines = snapshot.jobs, snapshot.machines
    if snapshot.state == "finished":
        if jobs.dead:
            yield "See why they failed, mend the cause, then retry them below or by", "ds retry"
            yield "Take out those that cannot work, so that the run ends clean: below, or by ds drop JOB", ""
        elif machines.running and around.rents:
            yield "End the machines:", "ds monitor"
        return
    verdict = judge(snapshot.budget, snapshot.spent)
    if around.too_many:
        yield "Mend the cause, and put the dead jobs back:", "ds retry"
        yield "Then go on:", "ds start && ds monitor"
    elif isinstance(verdict, Over):
        yield "Raise the budget, and go on:", verdict.fix.replace(", then", " &&")
    elif snapshot.queued is None:
        yield "Begin a new run:", "ds run JOBFILE"
    elif not machines.running and not machines.target and jobs.total:
        yield "Start workers:", "ds start"
    if snapshot.paused:
        yield "Mend that: the workers go on by themselves, and no attempt is charged. To see it:", "ds status"
    if machines.diagnosis and machines.diagnosis.fix:
        yield machines.diagnosis.fix, ""
    if around.rents and snapshot.queued is not None and not around.too_many and not isinstance(verdict, Over):
        yield "Have the machines ended when all is done:", "ds monitor"
