"""Checks a job file and queues its jobs. `ds submit` and `ds run` call it.

Nothing is queued before every job of the file has been checked.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..engine import PutReport, Queue, Store
from ..errors import DsError
from ..inputs.jobs.jobfile import JobFile
from ..job import Job, Needs, in_batches
from ..ledger import RunPaths, job_ids, write_jobs
from ..system.collector import uncollected
from ..words import many
from .project import Project

if TYPE_CHECKING:
    from ..inputs.checks.fit import CheckedJobs

BATCH_JOBS = 50_000
BATCH_BYTES = 32 << 20
"""Largest batch of jobs that is queued and listed at once, in jobs and in bytes."""

_T = TypeVar("_T")
_R = TypeVar("_R")


LOOKED_FOR, LOOKED_FOR_IN_BUCKETS = 200_000, 20_000
"""Jobs of a file whose inputs are looked for before they are queued: 3 s in a folder, 30 s in a bucket."""


def check(
    project: Project, job_file: Path, shared: Mapping[str, Any], *, unchecked: bool = False
) -> CheckedJobs:
    """Reads a whole job file, and checks each job against the config. Changes nothing. Raises DsError.

    Unless `unchecked`, program and inputs are looked for: what `ds check` calls an error is refused.
    """
    from ..inputs.checks.fit import CheckedJobs, check_jobs
    from ..inputs.collect import collect_command
    from ..inputs.handler import handler_needs
    from ..inputs.jobs.messages import form_of

    collect_command(project.config.collect)
    file = JobFile(job_file, shared)
    form = form_of(project.config, file)
    with project.console.progress(None, "jobs checked") as progress:
        folds_case = project.engine.store.folds_case
        limit = project.engine.job_bytes
        needs = frozenset[str]() if unchecked else handler_needs(project.config, project.folder)
        fit = check_jobs(project.config, file, progress.update, limit, folds_case=folds_case, needs=needs)
    for note in [*file.notes, *(f"{what}; {fix}" for what, fix in fit.warnings)]:
        project.console.say(note)
    if project.config.image_starts_worker:
        project.console.say(f"messages as {form.readers} read them")
    if not unchecked:
        _refuse_missing(project, file, fit.total)
    return CheckedJobs(file, fit.total, form, _largest(project, file) if fit.needy else None)


def _largest(project: Project, file: JobFile) -> Needs | None:
    """Returns the most that jobs need. Raises UsageError for the first that fits no machine."""
    from ..inputs.checks.sizing import at_once, largest

    capacity = project.engine.capacity()
    most = largest(project.config, file, project.engine.store, capacity)
    if most is not None and not project.config.engine_kind.packs:
        project.console.say(f"the largest need is {most}; {at_once(capacity, most)}")
    return most


def _refuse_missing(project: Project, file: JobFile, total: int) -> None:
    """Raises DsError where jobs could not start: their program, or inputs, are missing."""
    from ..inputs.checks.findings import Check, Severity, input_findings, make_all, refuse_errors
    from ..inputs.checks.program import runnable_findings

    config, store = project.config, project.engine.store
    most = LOOKED_FOR_IN_BUCKETS if config.in_bucket else LOOKED_FOR
    where = config.store_place(project.folder)
    program = Check("the program", lambda: runnable_findings(config, project.folder))
    inputs = Check("the inputs", lambda: input_findings(config, file, store, where, most=most))
    found = make_all([program, inputs])
    try:
        refuse_errors(found)
    except DsError as missing:
        fix = f"{missing.fix}; or --unchecked, to queue the jobs as they are"
        raise type(missing)(missing.what, fix) from None
    for each in found:
        if each.severity is Severity.WARNING and each.what.startswith("INPUTS"):
            project.console.say(f"note: {each.what}; {each.fix}")
    if config.inputs and total > most:
        project.console.say(f"inputs: those of the first {most:,} jobs are there; ds check looks for all")


def submit(project: Project, checked: CheckedJobs) -> PutReport:
    """Queue the jobs of a file.

    Ctrl-C waits for the batch under way, and is raised once that batch is listed. Submitting the file again
    then adds what is missing, and nothing twice.
    """
    from ..inputs.checks.sizing import with_needs
    from ..runs.provenance import note_job_file
    from ..runs.runfile import note_largest

    engine = project.engine
    queue, paths = engine.queue(), project.paths()
    if checked.largest is not None:
        note_largest(engine.store, paths.app, paths.run, checked.largest)
    with held_interrupt() as interrupted:
        jobs: Iterator[Job] = takewhile(
            lambda _: not interrupted.is_set(), checked.file.jobs(in_order=not checked.form.as_is)
        )
        if checked.largest is not None and project.config.engine_kind.packs:
            jobs = with_needs(project.config, engine.store, jobs, engine.capacity().default)
        with project.console.progress(checked.total, "jobs submitted") as progress:
            form = checked.form
            report = queue_jobs(jobs, queue, engine.store, paths, progress.update, form.message)
        note_job_file(engine.store, paths, checked.file.path)
    if interrupted.is_set():
        raise KeyboardInterrupt
    return report


def submit_checked(project: Project, checked: CheckedJobs) -> PutReport:
    """Submit and print the result. Raises DsError if the queue refused jobs."""
    try:
        report = submit(project, checked)
    except KeyboardInterrupt:
        project.console.hint("submit the file again: it adds what is missing")
        raise
    were = "was" if report.known == 1 else "were"
    known = f"; {report.known:,} {were} in the run already" if report.known else ""
    project.console.say(f"{many(report.sent, 'job')} submitted{known}")
    if report.failed:
        job, why = report.failed[0]
        what = f"{many(len(report.failed), 'job', 'was', 'were')} refused by the queue, such as {job}: {why}"
        raise DsError(what, "submit the file again: it adds what is missing, and nothing twice")
    return report


@uncollected()
def queue_jobs(
    jobs: Iterable[Job],
    queue: Queue,
    store: Store,
    paths: RunPaths,
    queued: Callable[[int], None],
    message: Callable[[Job], Job] = lambda job: job,
) -> PutReport:
    """Put jobs into the queue, and those that are new to the run into its job list.

    Calls `queued` with the number of jobs in the queue after each batch. After a failure some jobs are
    queued, and the last batch may not be listed. A repeated call adds what is missing, and nothing twice.
    """
    segment = f"{paths.jobs}{time.time_ns():020}-{os.urandom(2).hex()}.jsonl"  # in order: see SegmentReader
    listed: set[str] | None = None

    def put(batch: list[Job]) -> PutReport:
        nonlocal listed
        report = queue.put(map(message, batch))
        unlisted = {job_id for job_id, _ in report.failed}
        if report.known:  # listed already, unless that submission was interrupted before
            listed = job_ids(store, paths) if listed is None else listed
            unlisted |= listed
        if new := [job for job in batch if job.id not in unlisted]:
            write_jobs(store, segment, new)
        return report

    sent, known, failed = 0, 0, tuple[tuple[str, str], ...]()
    for report in _while_reading(put, in_batches(jobs, BATCH_JOBS, BATCH_BYTES)):
        sent, known, failed = sent + report.sent, known + report.known, failed + report.failed
        queued(sent + known)
    return PutReport(sent, known, failed)


def _while_reading(verb: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """Yields `verb(item)` for each item, in order. A thread does it while the next item is read.

    After an error no further item begins, and the item under way is waited for.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    with ThreadPoolExecutor(1) as helper:
        doing: Future[_R] | None = None
        for item in items:
            if doing is not None:
                yield doing.result()
            doing = helper.submit(verb, item)
        if doing is not None:
            yield doing.result()


@contextmanager
def held_interrupt() -> Iterator[threading.Event]:
    """Yields an event that the first Ctrl-C sets. The second Ctrl-C interrupts as usual."""
    import signal

    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def note(_number: int, _frame: object) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
