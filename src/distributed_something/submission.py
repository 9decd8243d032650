"""From a job file to jobs in the queue: all is checked against the config before anything is queued."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from .collector import uncollected
from .config import Config
from .engine import PutReport, Queue, Store
from .errors import UsageError
from .job import Job, in_batches
from .jobfile import JobFile
from .ledger import RunPaths, job_ids, write_jobs
from .template import TRUSTED, CommandTemplate, Template, check_names

BATCH_JOBS = 50_000
BATCH_BYTES = 32 << 20
"""So many jobs, or bytes of them, are queued and then listed, before the next are read."""

LONG_VALUE = 60_000
"""Characters of a value that could be too long for a command line; short ones need no closer look."""

_T = TypeVar("_T")
_R = TypeVar("_R")

_STAND_INS = dict.fromkeys(TRUSTED, "x")


class CheckedJobs(NamedTuple):
    """A job file that fits the config, and how many groups it has."""

    file: JobFile
    total: int


@uncollected()
def check_jobs(
    config: Config, job_file: JobFile, seen: Callable[[int], None], most: int | None = None
) -> int:
    """Read all groups and check that the config's placeholders can be filled with them; how many there are.

    Raises UsageError for the first job that is wrong. `seen` is told the number of jobs now and then.
    `most` is how many bytes a job's body may have.
    """
    check_all = _Checker(config, job_file.shared)
    number = 0
    for number, group in enumerate(job_file.groups(), 1):
        check_all(number, group)
        if most is not None and _is_long(job_file.shared, group, most):
            raise UsageError(
                f"job {number}: is larger than the queue takes ({most:,} bytes)",
                "put what is long into a file of the store, and name that file in the job",
            )
        if not number % 10_000:
            seen(number)
    return number


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


def nothing_to_run() -> UsageError:
    """The error of a config whose jobs are to run here, and that does not say what a job is."""
    return UsageError(
        "config: neither COMMAND nor HANDLER says what a job is",
        "write COMMAND = 'my-program {Plate}', with keys of the job in braces",
    )


class _Checker:
    """Checks one group after another against the placeholders of a config."""

    def __init__(self, config: Config, shared: Mapping[str, Any]) -> None:
        if config.image_starts_worker and not config.engine_kind.foreign_workers:
            raise nothing_to_run()
        for where, text in [*(("INPUTS", each) for each in config.inputs), ("OUTPUT", config.output)]:
            if not {".", ".."}.isdisjoint(text.split("/")):
                what = f"{where}: {text} has a part '.' or '..', and no key of a store has one"
                raise UsageError(what, f"write {where} as a path from the top of the store")
        self._shared = shared
        self._command = CommandTemplate(config.command) if config.command else None
        self._named: list[tuple[str, Template | CommandTemplate]] = [
            *(("INPUTS", Template(text)) for text in config.inputs),
            *([("OUTPUT", Template(config.output))] if config.output else []),
            *([("COMMAND", self._command)] if self._command else []),
        ]
        used = self._command.names - TRUSTED if self._command else frozenset[str]()
        self._used = list(used)
        self._careful = bool(self._command and self._command.guarded)
        self._names: object = None

    def __call__(self, number: int, group: Mapping[str, Any]) -> None:
        if group.keys() != self._names:  # mostly all groups have the same names
            for where, template in self._named:
                names = [*self._shared, *group, *TRUSTED]
                _at(number, check_names, template, names, where)
            self._names = group.keys()
        if self._careful or self._risky(group):
            assert self._command is not None
            _at(number, self._command.check, {**self._shared, **group, **_STAND_INS})

    def _risky(self, group: Mapping[str, Any]) -> bool:
        """Whether some value might not go onto a command line: numbers and short texts do."""
        for name in self._used:
            value = group[name] if name in group else self._shared[name]
            if type(value) is str:
                if len(value) > LONG_VALUE or "\0" in value:
                    return True
            elif type(value) is not int:
                return True
        return False


def _is_long(shared: Mapping[str, Any], group: Mapping[str, Any], most: int) -> bool:
    """Whether a job's body has too many bytes; only texts, lists and objects can make it so."""
    values = [*shared.values(), *group.values()]
    plain = all(type(each) in (str, int, float, bool, type(None)) for each in values)
    if plain and sum(len(each) if type(each) is str else 1000 for each in values) * 6 < most - 10_000:
        return False
    import msgspec

    return len(msgspec.json.encode({**shared, "group": dict(group)})) > most


def _at(number: int, check: Callable[..., None], *values: Any) -> None:
    """Run a check, and name the job in what it finds."""
    try:
        check(*values)
    except UsageError as error:
        raise UsageError(f"job {number}: {error.what}", error.fix) from error
