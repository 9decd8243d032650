"""The four steps, and what comes after them. Each is a screenful; the work is done elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import __version__
from .engine import PutReport
from .errors import FAILED, OK, SOME_DEAD, DsError, UsageError
from .job import Job, Lease, State
from .ledger import Fold, LedgerWriter, RunPaths, event, job_ids, write_jobs
from .project import Project
from .record import RunRecord, new_run_id, read_record, write_record
from .scaling import AGREEING_LOOKS, Finish, GiveUp, Look, Replace, decide
from .snapshot import Snapshot

if TYPE_CHECKING:
    from .jobfile import JobFile

SUBMIT_BATCH = 10_000
LOOKING_SHARE = 0.05
"""How much of its time the monitor spends on looking, at most."""

LOOK_SECONDS_MOST = 2.0
"""Longer than this nobody waits for the next look because of what the last one cost."""


def setup(project: Project) -> str:
    """Make what a run needs; its id. A run that is not finished goes on; nothing is made twice."""
    engine, config = project.engine, project.config
    run = engine.current_run()
    if run is None or project.snapshot().state == "finished":
        run = new_run_id(project.clock.now())
    made = engine.setup(run)
    store = engine.store
    record = RunRecord.new(config, engine.name, run, store.locate("runs"), project.clock.now())
    if project.record_path.exists():
        standing = read_record(project.record_path)
        record = standing if standing.run == run else record
    write_record(project.record_path, record.with_resources(tuple(made)))
    facts = {"app": config.app_name, "run": run, "engine": engine.name, "version": __version__}
    store.write_if_absent(RunPaths(config.app_name, run).root + "run.json", json.dumps(facts).encode())
    return run


class CheckedJobs(NamedTuple):
    """A job file that fits the config, and how many groups it has."""

    file: JobFile
    total: int


def check(project: Project, job_file: Path, shared: Mapping[str, Any]) -> CheckedJobs:
    """Read a job file through, and check each of its jobs against the config, before anything is changed."""
    from .jobfile import JobFile
    from .submission import check_jobs

    file = JobFile(job_file, shared)
    with project.console.progress(None, "jobs checked") as progress:
        return CheckedJobs(file, check_jobs(project.config, file, progress.update))


def submit(project: Project, checked: CheckedJobs) -> PutReport:
    """Queue the jobs of a file.

    After an interruption, submitting the file again adds what is missing and nothing twice.
    """
    queue, paths, store = project.engine.queue(), project.paths(), project.engine.store
    segment = f"{paths.jobs}{os.urandom(4).hex()}.jsonl"
    listed: set[str] | None = None
    sent, known, failed = 0, 0, tuple[tuple[str, str], ...]()
    jobs = checked.file.jobs()
    with project.console.progress(checked.total, "jobs submitted") as progress:
        while batch := list(islice(jobs, SUBMIT_BATCH)):
            report = queue.put(batch)
            sent, known, failed = sent + report.sent, known + report.known, failed + report.failed
            unlisted = {job_id for job_id, _ in report.failed}
            if report.known:  # listed already, unless that submission was cut short before it was
                listed = job_ids(store, paths) if listed is None else listed
                unlisted |= listed
            if batch := [job for job in batch if job.id not in unlisted]:
                write_jobs(store, segment, batch)
            progress.update(sent + known)
    return PutReport(sent, known, failed)


def start(project: Project, fleet_file: Path | None) -> None:
    """Ask for machines, and write them into the run record."""
    engine = project.engine
    if fleet_file is not None and engine.name == "local":
        project.console.say(f"note: {fleet_file} is not used: the engine 'local' has this machine only")
    engine.queue()
    record = _record(project)
    fleet = engine.start(record.run)
    write_record(project.record_path, record.with_fleet(fleet))


def _record(project: Project) -> RunRecord:
    if not project.record_path.exists():
        raise DsError(
            f"{project.config.app_name} is not set up: {project.record_path} is missing", "ds setup"
        )
    return read_record(project.record_path)


def monitor(project: Project, record: Path | None, every: float | None) -> int:
    """Watch until nothing is left, end the machines, write the report; the exit code.

    Killed at any point and started again it ends in the same place: it keeps nothing in memory that
    it could not read again.
    """
    if record is not None:
        _check_record(project, record)
    fold, looks = project.fold(), list[Look]()
    with project.console.watch() as watcher:
        while True:
            began = project.clock.now()
            snapshot = project.snapshot(fold)
            watcher.show(snapshot)
            if snapshot.why_idle and snapshot.jobs.waiting:
                watcher.note(snapshot.why_idle)
            if snapshot.queued is None and snapshot.jobs.final < snapshot.jobs.total:
                raise DsError("the queue is gone, and jobs are left: somebody cleaned up", "ds run JOBFILE")
            looks = [*looks, _look(snapshot)][-AGREEING_LOOKS:]
            action = decide(looks)
            if isinstance(action, Finish | GiveUp):
                break
            if isinstance(action, Replace):
                watcher.note("the workers were killed: starting them again")
                start(project, None)
            if every is None:
                _rest(project, snapshot, project.clock.now() - began)
            else:
                project.clock.wait(every)
    if isinstance(action, GiveUp):
        left = looks[-1].open_jobs
        raise DsError(
            f"{left:,} jobs are left, and the workers have ended: {action.why}", "ds start, then ds monitor"
        )
    project.engine.stop()  # the workers end while the report is written
    code = finish(project, fold)
    project.engine.end()
    return code


def _rest(project: Project, snapshot: Snapshot, cost: float) -> None:
    """Wait for the next look, or for the end where the queue can tell of it sooner.

    A look that took `cost` seconds took them from the jobs: looking has its share of the time and no more.
    """
    engine, clock, jobs = project.engine, project.clock, snapshot.queued
    seconds = max(engine.look_seconds, min(cost / LOOKING_SHARE, LOOK_SECONDS_MOST))
    until = clock.now() + (seconds if jobs else engine.last_looks_seconds)
    while (left := until - clock.now()) > 0:
        soon = jobs / snapshot.rate / 4 if jobs and snapshot.rate else left
        clock.wait(min(left, max(soon, engine.last_looks_seconds)))
        if soon < left:
            jobs = engine.queue().counts().open
            if not jobs:
                return


def _check_record(project: Project, path: Path) -> None:
    record = read_record(path)
    if record.app != project.config.app_name:
        raise UsageError(
            f"{path}: belongs to the app {record.app!r}, and this project's is {project.config.app_name!r}",
            "name this project's record, or choose the project with -C",
        )


def _look(snapshot: Snapshot) -> Look:
    """What counts for the end is the queue; where it is gone, the ledger."""
    machines, jobs = snapshot.machines, snapshot.jobs
    open_jobs = jobs.total - jobs.final if snapshot.queued is None else snapshot.queued
    return Look(open_jobs, machines.target, machines.running, machines.ended)


def finish(project: Project, fold: Fold) -> int:
    """Write the run's report and print its summary; 0, or 3 where jobs are dead."""
    from .failures import group_failures
    from .report import build_report, summary_lines, write_report

    console, paths = project.console, project.paths()
    snapshot = project.snapshot(fold)
    groups = group_failures(project.engine.store, paths, fold.jobs.values())
    report = build_report(snapshot, fold, groups, project.config)
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


def retry(project: Project, causes: Collection[str], ids: Collection[str]) -> list[str]:
    """Put dead jobs back as new (of these causes, or these ids, or all); the ids that went back."""
    engine, paths, fold = project.engine, project.paths(), project.fold().update()
    queue = engine.queue()
    wanted = [
        record
        for record in fold.jobs.values()
        if record.state is State.DEAD
        and (not causes or record.cause in causes)
        and (not ids or record.id in ids)
    ]
    now = project.clock.now()  # before a worker can have one: the ledger's order is that of time
    back = queue.redrive([record.id for record in wanted])
    ledger = LedgerWriter(engine.store, f"{paths.events}retry-{os.urandom(4).hex()}.jsonl")
    for job_id in back:
        lease = Lease(Job(job_id, 0, b""), "", now)
        ledger.ended(lease, event("retried", now, lease, None))
    ledger.flush()
    return back


def stop(project: Project, *, now: bool) -> Snapshot:
    """Drain: no new leases; wait until what runs has finished, or (`now`) gone back to the queue."""
    engine, fold = project.engine, project.fold()
    engine.stop(now=now)
    with project.console.watch() as watcher:
        while engine.machines().running:
            watcher.show(project.snapshot(fold))
            project.clock.wait(min(engine.look_seconds, 1.0))
    return project.snapshot(fold)


def cleanup(project: Project) -> list[str]:
    """Remove everything the run made; what is still there after a last look."""
    if _unfinished(project) != 0:
        project.console.confirm("not all jobs are finished; remove the queue all the same")
    leftovers = list(project.engine.remove())
    project.record_path.unlink(missing_ok=True)
    return leftovers


def _unfinished(project: Project) -> int | None:
    """How many jobs are not finished; None where a damaged queue keeps it to itself."""
    try:
        return project.snapshot().queued or 0
    except DsError as error:
        project.console.say(f"note: {error.what}")
        return None
