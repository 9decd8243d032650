"""The four steps, and what comes after them. Each is a screenful; the work is done elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .engine import Machines, PutReport
from .errors import FAILED, LEFTOVERS, OK, SOME_DEAD, DsError, NotSignedIn, Unreachable, UsageError
from .job import Job, Lease, Outcome, State
from .ledger import Fold, LedgerWriter, RunPaths
from .monitoring import Watch, take_back
from .project import Project
from .record import RunRecord, new_run_id, read_record, record_key, write_record
from .runfile import write_run_file
from .scaling import Finish, GiveUp, Replace
from .snapshot import Snapshot
from .state import one_at_a_time
from .words import many

if TYPE_CHECKING:
    from .console import Watcher
    from .submission import CheckedJobs

START_LOOK_SECONDS = 15.0
"""Between two looks at machines that are to come."""

STOP_PATIENCE_SECONDS = 3600.0
"""So long looks may fail before a stop gives up: it is who ends the machines when nothing runs on them."""

LAST_LOOK_PATIENCE_SECONDS = 300.0
"""The same of the look that tells how the run is once all has stopped."""

_T = TypeVar("_T")


def setup(project: Project) -> str:
    """Make what a run needs; its id. A run that is not finished goes on; nothing is made twice.

    Of two at a time on this machine the second finds the run of the first, instead of emptying its queue.
    """
    with one_at_a_time(project.folder):
        return _set_up(project, next_run(project))


def _set_up(project: Project, run: str) -> str:
    engine, config = project.engine, project.config
    store = engine.store
    record = RunRecord.new(config, engine.name, run, store.locate("runs"), project.clock.now())
    if project.record_path.exists():
        standing = read_record(project.record_path)
        record = standing if standing.run == run else record

    def note(resource: str) -> None:
        nonlocal record
        record = record.with_resources((resource,))
        write_record(project.record_path, record)

    engine.setup(run, note)
    _keep(project, record)
    write_run_file(store, config, engine.name, run)
    return run


def next_run(project: Project) -> str:
    """The run that `setup` is for: the one under way, or a new one."""
    run = project.engine.current_run()
    if run is None or project.snapshot().state == "finished":
        return new_run_id(project.clock.now())
    return run


def _keep(project: Project, record: RunRecord) -> None:
    """Write the record down, and in the store too where others than this machine watch the run."""
    write_record(project.record_path, record)
    if project.config.auto_monitor:
        paths = RunPaths(record.app, record.run)
        project.engine.store.write(record_key(paths), record.to_json().encode())


def _note_made(project: Project, resource: str) -> None:
    """Write down what was made, before the next thing is made."""
    with one_at_a_time(project.folder):
        write_record(project.record_path, read_record(project.record_path).with_resources((resource,)))


def check(project: Project, job_file: Path, shared: Mapping[str, Any]) -> CheckedJobs:
    """Read a job file through, and check each of its jobs against the config, before anything is changed."""
    from .jobfile import JobFile
    from .submission import CheckedJobs, check_jobs

    file = JobFile(job_file, shared)
    with project.console.progress(None, "jobs checked") as progress:
        return CheckedJobs(file, check_jobs(project.config, file, progress.update, project.engine.job_bytes))


def submit(project: Project, checked: CheckedJobs) -> PutReport:
    """Queue the jobs of a file.

    After an interruption, submitting the file again adds what is missing and nothing twice: Ctrl-C waits
    for what is on its way, and is raised when that is listed.
    """
    from .provenance import note_job_file
    from .submission import held_interrupt, queue_jobs

    engine = project.engine
    queue, paths = engine.queue(), project.paths()
    with held_interrupt() as interrupted:
        jobs = takewhile(lambda _: not interrupted.is_set(), checked.file.jobs())
        with project.console.progress(checked.total, "jobs submitted") as progress:
            report = queue_jobs(jobs, queue, engine.store, paths, progress.update)
        note_job_file(engine.store, paths, checked.file.path)
    if interrupted.is_set():
        raise KeyboardInterrupt
    return report


def start(project: Project, fleet_file: Path | None) -> None:
    """Ask for machines, and write them into the run record.

    Raises DsError, with nothing changed, where the record is that of another run: another engine's, perhaps.
    """
    engine = project.engine
    if fleet_file is not None and not project.config.engine_kind.rents:
        project.console.say(f"note: {fleet_file} is not used: the engine {engine.name!r} rents no machine")
    engine.queue()
    record, run = project.record(), engine.current_run()
    if record.run != run:
        what = f"the latest set-up was of run {record.run} ({record.engine}), and the queue is that of {run}"
        raise DsError(what, "ds setup, to go on with the queue's run; then ds start")
    fleet = engine.start(record.run, fleet_file, lambda resource: _note_made(project, resource))
    with one_at_a_time(project.folder):
        _keep(project, project.record().with_fleet(fleet))


def await_machines(project: Project, seconds: float) -> Machines:
    """Watch the machines come, for so long at most; how they are then. The fleet stands afterwards.

    Raises DsError, once the fleet has been taken back, where none can come.
    """
    engine, until = project.engine, project.clock.now() + seconds
    shown: tuple[object, ...] = ()
    told: str | None = None
    while True:
        machines = _patiently(
            project, until, engine.machines, lambda said: project.console.say(f"note: {said}")
        )
        if machines.hopeless:
            take_back(project, machines)
        if machines.kept and shown != machines[:2]:
            shown = machines[:2]
            project.console.say(f"{machines.running:,} of {machines.target:,} machines")
        if machines.running >= machines.target or project.clock.now() >= until:
            return machines
        if machines.trouble and machines.trouble != told:
            told = machines.trouble
            project.console.say(f"note: {told}" + (f"; {machines.fix}" if machines.fix else ""))
        pause = min(START_LOOK_SECONDS, engine.look_seconds)
        project.clock.wait(min(pause, max(until - project.clock.now(), 0.0)))


def _patiently(project: Project, until: float, look: Callable[[], _T], say: Callable[[str], None]) -> _T:
    """What a look sees. Machines come and go whether one fails or not: looks go on until that time."""
    while True:
        try:
            return look()
        except Unreachable as error:
            if project.clock.now() >= until:
                raise
            say(f"{error.what}; looking again")
        project.clock.wait(min(START_LOOK_SECONDS, project.engine.look_seconds))


def monitor(project: Project, record: Path | None, every: float | None, *, cheapest: bool = False) -> int:
    """Watch until nothing is left, end the machines, write the report; the exit code.

    Killed at any point and started again it ends in the same place: it keeps nothing in memory that
    it could not read again.
    """
    if record is not None:
        _check_record(project, record)
    watch = Watch(project, cheapest=cheapest)
    with project.console.watch() as watcher:
        while not isinstance(action := watch.look(watcher), Finish | GiveUp):
            if isinstance(action, Replace):
                watcher.note("the workers were killed: starting them again")
                start(project, None)
            if every is None:
                watch.rest()
            else:  # looks that are to agree on the end lie further apart than the queue's counts may lag
                least = 0.0 if watch.open_jobs else project.engine.last_looks_seconds
                project.clock.wait(max(every, least))
    if isinstance(action, GiveUp):
        what = f"{many(watch.open_jobs, 'job', 'is', 'are')} left, and the workers have ended: {action.why}"
        raise DsError(what, "ds start, then ds monitor")
    return end(project, watch.fold)


def end(project: Project, fold: Fold) -> int:
    """Write the report and end the machines, whatever becomes of the report: they cost money."""
    engine, console = project.engine, project.console
    _tell_of_damage(project)
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


def _check_record(project: Project, path: Path) -> None:
    record = read_record(path)
    if record.app != project.config.app_name:
        raise UsageError(
            f"{path}: belongs to the app {record.app!r}, and this project's is {project.config.app_name!r}",
            "name this project's record, or choose the project with -C",
        )


def finish(project: Project, fold: Fold) -> int:
    """Write the run's report and print its summary; 0, or 3 where jobs are dead."""
    from .failures import group_failures
    from .provenance import what_ran
    from .report import build_report, summary_lines, write_report

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
    ledger = _own_ledger(project, "queue")
    for record in left:
        lease, found = Lease(Job(record.id, record.index, b""), "", now), dead.get(record.id)
        if found is None:
            ledger.ended("succeeded", now, lease, None)
        else:
            ledger.ended("dead", now, lease, Outcome(State.WAITING, found.cause, found.detail))
    ledger.flush()


def retry(project: Project, causes: Collection[str], ids: Collection[str]) -> list[str]:
    """Put dead jobs back as new (of these causes, or these ids, or all); the ids that went back."""
    fold, queue = project.fold().update(), project.engine.queue()
    wanted = [
        record
        for record in fold.jobs.values()
        if record.state is State.DEAD
        and (not causes or record.cause in causes)
        and (not ids or record.id in ids)
    ]
    now = project.clock.now()  # before a worker can have one: the ledger's order is that of time
    back = queue.redrive([record.id for record in wanted])
    ledger = _own_ledger(project, "retry")
    for job_id in back:
        ledger.ended("retried", now, Lease(Job(job_id, 0, b""), "", now), None)
    ledger.flush()
    return back


def _own_ledger(project: Project, name: str) -> LedgerWriter:
    """A segment of the run's ledger for what this command has to tell: each has one writer."""
    return LedgerWriter(project.engine.store, f"{project.paths().events}{name}-{os.urandom(4).hex()}.jsonl")


def stop(project: Project, *, now: bool) -> Snapshot:
    """Drain: no new leases; wait until what runs has finished, or (`now`) gone back to the queue."""
    engine, clock, fold = project.engine, project.clock, project.fold()
    engine.stop(now=now)
    with project.console.watch() as watcher:
        look = partial(_stop_look, project, fold, watcher, now=now)
        while _patiently(project, clock.now() + STOP_PATIENCE_SECONDS, look, watcher.note):
            clock.wait(min(engine.look_seconds, 1.0))
        until = clock.now() + LAST_LOOK_PATIENCE_SECONDS
        return _patiently(project, until, partial(project.snapshot, fold), watcher.note)


def _stop_look(project: Project, fold: Fold, watcher: Watcher, *, now: bool) -> bool:
    """Whether machines still run; those on which nothing runs any more are ended, without `now` too."""
    machines = project.engine.machines()
    if machines.running:
        watcher.show(project.snapshot(fold))
        if machines.tasks == 0 and not now:
            project.engine.stop(now=True)
    return machines.running > 0


def cleanup(project: Project) -> list[str]:
    """Remove everything the run made; what is still there after a last look.

    A run of another engine stays, with its record, and is named. Where something is left the record stays
    too: the next clean-up looks for what is in it.
    """
    if _unfinished(project) != 0:
        project.console.confirm("not all jobs are finished; remove the queue all the same")
    _tell_of_damage(project)
    leftovers = list(project.engine.remove())
    if other := _other_engine(project):
        project.console.hint(f"ds cleanup --engine {other}, as the latest run was one of {other!r}")
    elif not leftovers:
        project.record_path.unlink(missing_ok=True)
    return leftovers


def _tell_of_damage(project: Project) -> None:
    """Say so where the run record is there, and cannot be read: what it alone knows of stays."""
    if project.record_path.exists():
        try:
            read_record(project.record_path)
        except UsageError as error:
            project.console.say(f"note: {error.what}; what it alone knows of is not removed")


def _other_engine(project: Project) -> str | None:
    """The engine of the run in the record, where that is not the project's; a broken record tells of none."""
    try:
        engine = read_record(project.record_path).engine
    except DsError:
        return None
    return engine if engine != project.engine.name else None


def _unfinished(project: Project) -> int | None:
    """How many jobs are not finished; None where a damaged queue keeps it to itself."""
    try:
        return project.snapshot().queued or 0
    except NotSignedIn:
        raise
    except DsError as error:
        project.console.say(f"note: {error.what}")
        return None
