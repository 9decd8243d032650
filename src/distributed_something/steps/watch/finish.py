"""Ends a run: the report, the machines, and a last look. `ds monitor` and the auto-monitor call it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from itertools import islice
from typing import Any, NamedTuple

from ...errors import FAILED, LEFTOVERS, OK, SOME_DEAD, DsError, UsageError
from ...inputs.config import Config
from ...job import Cause, Job, Lease, State
from ...ledger import LEFT_QUEUE, Fold, job_bodies
from ...runs.record import read_record
from ...words import many
from ...worker.files.done import Recipe, rules_of
from ..project import Project

MOST_LOOKED_UP = 10_000
"""Maximum jobs of an image's own worker whose outputs are looked up at the end of a run."""


def end(project: Project, fold: Fold) -> int:
    """Write the report and end the machines. Returns the exit code.

    The machines cost money: they end even if the report cannot be written.
    """
    engine, console = project.engine, project.console
    warn_of_damaged_record(project)
    try:
        engine.stop()  # the workers end while the report is written
    except DsError as error:
        console.say(f"note: {error.what}")  # engine.end tries again
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
    """Write the run's report and print its summary. Returns the exit code: 3 if jobs are dead."""
    from ...report.build import summary_lines, write_report

    console, paths = project.console, project.paths()
    if project.config.image_starts_worker:
        record_ends(project, fold)
    report = make_report(project, fold, project.config)
    page = write_report(project.engine.store, paths, report)
    if console.json:
        console.data(report)
    else:
        for line in summary_lines(report):
            console.line(line)
        console.say(f"report: {project.engine.store.locate(page)}")
    if report["jobs"]["dead"]:
        console.hint("ds failures, then ds retry")
        return SOME_DEAD
    return OK if report["state"] == "finished" or not report["jobs"]["total"] else FAILED


def make_report(project: Project, fold: Fold, config: Config) -> dict[str, Any]:
    """Returns the report of the run that the project looks at. `config` is the run's."""
    from ...report.build import build_report
    from ...report.failures import group_failures
    from ...runs.provenance import what_ran

    store, paths = project.engine.store, project.paths()
    snapshot = project.snapshot(fold)
    groups = group_failures(store, paths, fold.update().failing())
    return build_report(snapshot, fold, groups, config, what_ran(store, paths, config))


def record_ends(project: Project, fold: Fold) -> None:
    """Write to the ledger how the jobs ended, for workers that write no ledger.

    Called once their queue is empty. A job is dead if the dead queue has it, or if it lacks the outputs
    by which its worker tells a done job (CHECK_IF_DONE_BOOL). The others have succeeded: such workers delete
    no other job. Only those whose outputs were seen have an `output`. If there are dead jobs that may not be
    read (the auto-monitor has few rights), nothing is written: their queue stays, and the run shows numbers.
    """
    if not fold.update().by_state[State.WAITING]:
        return
    try:
        project.note_dead(fold)
    except DsError as error:
        if project.engine.queue().counts().dead:
            project.console.say(f"note: {error.what}")
            return
    left = {record.id: record.index for record in fold.jobs.values() if record.state is State.WAITING}
    seen = _look_at_outputs(project, left)
    now, ledger = project.clock.now(), project.own_ledger("queue")
    for job_id, index in left.items():
        found = seen.get(job_id, _Seen())
        lost = found.fits is False and project.config.check_if_done_bool
        facts = {"detail": f"{LEFT_QUEUE}; {found.words}"}
        facts |= {"output": found.folder} if found.fits else {"cause": Cause.OUTPUT_MISSING} if lost else {}
        lease = Lease(Job(job_id, index, b""), "", now, 1)
        ledger.ended("dead" if lost else "succeeded", now, lease, None, **facts)
    ledger.flush()
    if unfit := sum(found.fits is False for found in seen.values()):
        lack = f"{many(unfit, 'job')} left the queue without the outputs that EXPECTED_NUMBER_FILES asks for"
        again = "after ds cleanup, run the file again, and their worker skips the others"
        fate = f"they are dead; {again}" if project.config.check_if_done_bool else "they may have failed"
        project.console.say(f"note: {lack}: {fate}")


class _Seen(NamedTuple):
    """What was seen of a job's outputs. `fits`: whether the done rule holds; None: not known."""

    words: str = "its outputs were not looked up"
    folder: str = ""
    fits: bool | None = None


def _look_at_outputs(project: Project, wanted: Collection[str]) -> dict[str, _Seen]:
    """Looks for the outputs of these jobs, as far as the rule is given and it is known where they are.

    At most MOST_LOOKED_UP, as each is a call. Files below a place that jobs share speak for none of them.
    """
    from ...inputs.jobs.messages import outputs_of

    config, home = project.config, project.engine.store
    rule, found = rules_of(config, Recipe()).rule, dict[str, _Seen]()
    if rule is None or not config.engine_kind.foreign_workers:
        return found
    try:
        bodies = islice(job_bodies(home, project.paths(), wanted), MOST_LOOKED_UP)
        places = {job_id: place for job_id, body in bodies if (place := outputs_of(config, body, job_id))}
        alike = Counter(places.values())
        for job_id, place in places.items():
            if alike[place] > 1:
                found[job_id] = _Seen(f"{alike[place]:,} jobs have their outputs in {place}")
                continue
            where = place.prefix if place.bucket == config.aws_bucket else str(place)
            files = home.list(where)
            fitting = (each for each in files if each.size >= rule.min_bytes and rule.containing in each.key)
            count = len([*islice(fitting, rule.files)])
            words = f"{count:,} of {many(rule.files, 'file')} in {where}"
            found[job_id] = _Seen(words, where.rstrip("/"), count >= rule.files)
    except DsError as error:
        project.console.say(f"note: {error.what}; other outputs are not looked up")
    return found


def warn_of_damaged_record(project: Project) -> None:
    """Print a note if the run record is there and cannot be read: resources that only it names will stay."""
    if project.record_path.exists():
        try:
            read_record(project.record_path)
        except UsageError as error:
            project.console.say(f"note: {error.what}; resources that only this file names are not removed")
