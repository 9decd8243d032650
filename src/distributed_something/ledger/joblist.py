"""Writes and reads the job lists of a run: one line a job, written by submit."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator
from typing import Any

from ..engine import Store
from ..job import LARGE_BODY, Job
from .segments import RunPaths, SegmentReader


def write_jobs(store: Store, key: str, jobs: Iterable[Job]) -> None:
    """Append jobs to a job list. After a failure part-way a line may lack its end: readers pass over it."""
    lines: list[bytes] = []
    for job in jobs:
        if len(job.body) < LARGE_BODY:
            lines.append(job_line(job))
        else:
            store.append(key, b"".join([*lines, _BEFORE % job.id.encode()]))
            store.append(key, job.body)
            lines = [_BEHIND]
    store.append(key, b"".join(lines))


_BEFORE, _BEHIND = b'{"id":"%s","job":', b"}\n"


def job_line(job: Job) -> bytes:
    """Returns a job as a line of a job list. The id has a fixed place, so that reading needs no parser."""
    return b"%s%s%s" % (_BEFORE % job.id.encode(), job.body, _BEHIND)


def parse_job_line(line: bytes) -> tuple[str, bytes]:
    """Returns the (id, body) of a complete line that `job_line` wrote."""
    return listed_id(line), line[31:-2]


def job_bodies(
    store: Store, paths: RunPaths, wanted: Container[str] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the jobs of the run (of these ids, or all) as (id, body), in the order of submission.

    A job that is listed twice comes twice.
    """
    for line in SegmentReader(store, paths.jobs).new_lines():
        if wanted is not None and listed_id(line) not in wanted:
            continue
        try:
            listed = json.loads(line)
            yield listed["id"], listed["job"]
        except (ValueError, TypeError, KeyError):
            continue


def job_ids(store: Store, paths: RunPaths) -> set[str]:
    """Returns the ids of the jobs that are listed."""
    return {listed_id(line) for line in SegmentReader(store, paths.jobs).new_lines()}


def listed_id(line: bytes) -> str:
    """Returns the id in a line of a job list, which begins {"id":"<16 hex digits>"."""
    return line[7:23].decode("ascii", "replace")
