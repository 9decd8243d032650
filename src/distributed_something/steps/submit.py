"""Checks a job file and queues its jobs: nothing is queued before all of it fits."""

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
from ..inputs.jobfile import JobFile
from ..job import Job, in_batches
from ..ledger import RunPaths, job_ids, write_jobs
from ..system.collector import uncollected
from .project import Project

if TYPE_CHECKING:
    from ..inputs.fit import CheckedJobs

BATCH_JOBS = 50_000
BATCH_BYTES = 32 << 20
"""So many jobs, or bytes of them, are queued and then listed, before the next are read."""


_T = TypeVar("_T")
_R = TypeVar("_R")


@contextmanager
def held_interrupt() -> Iterator[threading.Event]:
    """Within: the first Ctrl-C sets the event that is yielded, and the second ends everything as usual."""
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


@uncollected()
def queue_jobs(
    jobs: Iterable[Job], queue: Queue, store: Store, paths: RunPaths, queued: Callable[[int], None]
) -> PutReport:
    """Put jobs into the queue, and those that are new to the run into its job list; what became of them.

    `queued` is told how many are in the queue by now. After a failure some are queued, and of the last
    batch perhaps not listed: the same jobs once more add what is missing, and nothing twice.
    """
    segment = f"{paths.jobs}{time.time_ns():020}-{os.urandom(2).hex()}.jsonl"  # in order: see SegmentReader
    listed: set[str] | None = None

    def put(batch: list[Job]) -> PutReport:
        nonlocal listed
        report = queue.put(batch)
        unlisted = {job_id for job_id, _ in report.failed}
        if report.known:  # listed already, unless that submission was cut short before it was
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
    """`verb` of each item, in order: done in a thread while the next item is read.

    Whatever goes wrong, nothing is begun any more, and what has begun is waited for.
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


def check(project: Project, job_file: Path, shared: Mapping[str, Any]) -> CheckedJobs:
    """Read a job file through, and check each of its jobs against the config, before anything is changed."""
    from ..inputs.fit import CheckedJobs, check_jobs

    file = JobFile(job_file, shared)
    with project.console.progress(None, "jobs checked") as progress:
        total = check_jobs(project.config, file, progress.update, project.engine.job_bytes)
    for note in file.notes:
        project.console.say(note)
    return CheckedJobs(file, total)


def submit(project: Project, checked: CheckedJobs) -> PutReport:
    """Queue the jobs of a file.

    After an interruption, submitting the file again adds what is missing and nothing twice: Ctrl-C waits
    for what is on its way, and is raised when that is listed.
    """
    from ..runs.provenance import note_job_file

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
