"""From a job file to jobs that are known to be good: everything is checked before anything is queued."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from .config import Config
from .errors import UsageError
from .job import Job
from .jobfile import read_jobs
from .ledger import job_line, parse_job_line
from .template import TRUSTED, CommandTemplate, Template, check_names

_LONG_BODY = 60_000
"""Bytes of a body that could hold a value too long for a command line."""

_STAND_INS = dict.fromkeys(TRUSTED, "x")


@dataclass
class Submission:
    """Checked jobs, waiting in a temporary file; closing it (or the context's end) removes it."""

    count: int
    _spool: IO[bytes]

    def __enter__(self) -> Submission:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def batches(self, size: int) -> Iterator[list[Job]]:
        """The jobs in their order, in lists of at most `size`."""
        self._spool.seek(0)
        index = 0
        while lines := list(islice(self._spool, size)):
            pairs = map(parse_job_line, lines)
            yield [Job(job_id, number, body) for number, (job_id, body) in enumerate(pairs, index)]
            index += len(lines)


def check_jobs(
    config: Config, job_file: Path, shared: Mapping[str, Any], seen: Callable[[int], None]
) -> Submission:
    """Read a job file through and check every job. Raises UsageError at the first one that is wrong.

    `seen` is told how many jobs have been read so far, now and then.
    """
    check = _checker(config)
    spool = tempfile.TemporaryFile(buffering=1 << 20)  # noqa: SIM115  the Submission closes it
    count = 0
    try:
        for job in read_jobs(job_file, shared):
            check(job)
            spool.write(job_line(job))
            count += 1
            if not count % 10_000:
                seen(count)
    except BaseException:
        spool.close()
        raise
    return Submission(count, spool)


def _checker(config: Config) -> Callable[[Job], None]:
    """A check of one job against the placeholders of the config. Raises UsageError if those are wrong."""
    import msgspec

    decode = msgspec.json.decode
    command = CommandTemplate(config.command) if config.command else None
    others = [("INPUTS", Template(text)) for text in config.inputs]
    others += [("OUTPUT", Template(config.output))] if config.output else []
    named: list[tuple[str, Template | CommandTemplate]] = [*others]
    named += [("COMMAND", command)] if command else []
    wanted = frozenset().union(*(template.names for _, template in named)) - TRUSTED

    def check(job: Job) -> None:
        document = decode(job.body)
        group = document["group"]
        if not wanted <= document.keys() | group.keys():
            for where, template in named:
                _at(job, check_names, template, [*document, *group, *TRUSTED], where)
        if command is not None and (command.guarded or len(job.body) > _LONG_BODY or b"\\u0000" in job.body):
            _at(job, command.check, {**document, **group, **_STAND_INS})

    return check


def _at(job: Job, check: Callable[..., None], *values: Any) -> None:
    """Run a check, and name the job in what it finds."""
    try:
        check(*values)
    except UsageError as error:
        raise UsageError(f"job {job.index + 1}: {error.what}", error.fix) from error
