"""Ends a run: the report, the machines, and what is still there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import FAILED, LEFTOVERS, OK, SOME_DEAD, DsError, UsageError
from ..job import Job, Lease, Outcome, State
from ..ledger import Fold
from ..runs.record import read_record
from .project import Project

if TYPE_CHECKING:
    pass
from .retry import own_ledger


def end(project: Project, fold: Fold) -> int:
    """Write the report and end the machines, whatever becomes of the report: they cost money."""
    engine, console = project.engine, project.console
    tell_of_damage(project)
    try:
        engine.stop()  # the workers end while the report is written
    except DsError as error:
        console.say(f"note: {error.what}")  # the end does it again
    try:
        code = finish(project, fold)
    finally:
        leftovers = engine.end()
        for leftover in leftovers:
            console.say(f"still there: {leftover}")
    if leftovers:
        console.hint("ds cleanup")
    return LEFTOVERS if leftovers else code


def finish(project: Project, fold: Fold) -> int:
    """Write the run's report and print its summary; 0, or 3 where jobs are dead."""
    from ..report.build import build_report, summary_lines, write_report
    from ..report.failures import group_failures
    from ..runs.provenance import what_ran

    console, paths = project.console, project.paths()
    if project.config.image_starts_worker:
        note_ends(project, fold)
    snapshot = project.snapshot(fold)
    groups = group_failures(project.engine.store, paths, fold.jobs.values())
    ran = what_ran(project.engine.store, paths, project.config)
    report = build_report(snapshot, fold, groups, project.config, ran)
    page = write_report(project.engine.store, paths, report)
    if console.json:
        console.data(report)
    else:
        for line in summary_lines(report):
            console.line(line)
        console.say(f"report: {project.engine.store.locate(page)}")
    if snapshot.jobs.dead:
        console.hint("ds failures, then ds retry")
        return SOME_DEAD
    return OK if snapshot.state == "finished" or not snapshot.jobs.total else FAILED


def note_ends(project: Project, fold: Fold) -> None:
    """Write down how the jobs of workers that write no ledger ended, once their queue is empty.

    Some are among the queue's dead; the others have succeeded, as such workers delete no other job. Where
    the dead may not be read (the auto-monitor has few rights) nothing is written: only numbers are known.
    """
    left = [record for record in fold.update().jobs.values() if record.state is State.WAITING]
    if not left:
        return
    queue = project.engine.queue()
    try:
        dead = {each.job.id: each for each in queue.dead()} if queue.counts().dead else {}
    except DsError as error:
        project.console.say(f"note: {error.what}")
        return
    now = project.clock.now()
    ledger = own_ledger(project, "queue")
    for record in left:
        lease, found = Lease(Job(record.id, record.index, b""), "", now), dead.get(record.id)
        if found is None:
            ledger.ended("succeeded", now, lease, None)
        else:
            ledger.ended("dead", now, lease, Outcome(State.WAITING, found.cause, found.detail))
    ledger.flush()


def tell_of_damage(project: Project) -> None:
    """Say so where the run record is there, and cannot be read: what it alone knows of stays."""
    if project.record_path.exists():
        try:
            read_record(project.record_path)
        except UsageError as error:
            project.console.say(f"note: {error.what}; what it alone knows of is not removed")
