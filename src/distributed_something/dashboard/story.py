"""Says in words what a run does now, what is wrong with it, and what to do next. Pure. `model` calls it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..budget import Notice, Over, judge
from ..report.failures import FailureGroup
from ..runs.snapshot import Snapshot
from ..words import duration, many

CAUSES = 2
"""Most kinds of failures that are named."""


class Earlier(NamedTuple):
    """Jobs that are dead in the run before, and that this run does not have."""

    run: str
    dead: int


def story(
    snapshot: Snapshot, groups: Sequence[FailureGroup], earlier: Earlier | None, *, rents: bool, past: bool
) -> dict[str, Any]:
    """Returns lines of `now` and `wrong`, and of `next` with the command that does it.

    `past`: it is not the current run, so that no command changes it.
    """
    following = () if past else _next(snapshot, rents=rents)
    return {
        "now": _now(snapshot),
        "wrong": [*_wrong(snapshot, groups, earlier)],
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


def _wrong(snapshot: Snapshot, groups: Sequence[FailureGroup], earlier: Earlier | None) -> Iterator[str]:
    jobs, machines = snapshot.jobs, snapshot.machines
    dead = sorted((group for group in groups if group.dead), key=lambda group: -group.dead)
    for group in dead[:CAUSES]:
        yield f"{many(group.dead, 'job', 'is', 'are')} dead ({group.cause}): {group.example}"
    if rest := sum(group.dead for group in dead[CAUSES:]):
        yield f"{many(rest, 'job', 'is', 'are')} dead of other causes"
    if jobs.failed:
        yield f"{many(jobs.failed, 'job', 'has', 'have')} failed and will be tried again"
    if snapshot.why_idle and snapshot.state != "finished":
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


def _next(snapshot: Snapshot, *, rents: bool) -> Iterator[tuple[str, str]]:
    jobs, machines = snapshot.jobs, snapshot.machines
    if snapshot.state == "finished":
        if jobs.dead:
            yield "See why they failed, mend the cause, then retry them below or by", "ds retry"
            yield "Take out those that cannot work, so that the run ends clean:", "ds drop JOB"
        elif machines.running and rents:
            yield "End the machines:", "ds monitor"
        return
    verdict = judge(snapshot.budget, snapshot.spent)
    if isinstance(verdict, Over):
        yield "Raise the budget, then watch on:", "ds start --budget +5"
    elif snapshot.queued is None:
        yield "Begin a new run:", "ds run JOBFILE"
    elif not machines.running and not machines.target and jobs.total:
        yield "Start workers:", "ds start"
    if machines.diagnosis and machines.diagnosis.fix:
        yield machines.diagnosis.fix, ""
    if rents and snapshot.queued is not None:
        yield "Have the machines ended when all is done:", "ds monitor"
