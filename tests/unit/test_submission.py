"""From a job file to queue and job list: what is on its way is finished, and what is missing is added."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from distributed_something.engine import PutReport
from distributed_something.errors import DsError, UsageError
from distributed_something.job import Job
from distributed_something.ledger import Fold, RunPaths, job_ids
from distributed_something.local.store import FolderStore
from distributed_something.steps.submit import BATCH_JOBS, held_interrupt, queue_jobs
from distributed_something.testing import MemoryQueue

PATHS = RunPaths("App", "20261122T141500Z-3f2a")


def jobs(count: int) -> list[Job]:
    return [Job(f"{number:016x}", number, b'{"group":{"n":%d}}' % number) for number in range(count)]


class Choosy(MemoryQueue):
    """Refuses jobs whose id ends in 1."""

    def put(self, jobs: Iterable[Job]) -> PutReport:
        good, bad = [], []
        for job in jobs:
            (bad if job.id.endswith("1") else good).append(job)
        return super().put(good)._replace(failed=tuple((job.id, "too strange") for job in bad))


def test_jobs_are_queued_and_listed_and_it_is_told_how_many(tmp_path: Path) -> None:
    queue, store, told = MemoryQueue(), FolderStore(tmp_path), list[int]()
    assert queue_jobs(jobs(3), queue, store, PATHS, told.append) == PutReport(sent=3)
    assert job_ids(store, PATHS) == {job.id for job in jobs(3)}
    assert told == [3]
    assert queue.counts().waiting == 3


def test_jobs_that_were_queued_and_not_listed_are_listed_the_next_time(tmp_path: Path) -> None:
    """The submission before was killed between the two."""
    queue, store = MemoryQueue(), FolderStore(tmp_path)
    queue.put(jobs(2))
    assert queue_jobs(jobs(4), queue, store, PATHS, lambda _: None) == PutReport(sent=2, known=2)
    assert job_ids(store, PATHS) == {job.id for job in jobs(4)}
    queue_jobs(jobs(4), queue, store, PATHS, lambda _: None)
    assert sum(store.read(file.key).count(b"\n") for file in store.list(PATHS.jobs)) == 4, "none twice"


def test_a_job_that_the_queue_refuses_is_told_and_not_listed(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    report = queue_jobs(jobs(3), Choosy(), store, PATHS, lambda _: None)
    assert report == PutReport(sent=2, failed=((jobs(2)[1].id, "too strange"),))
    assert job_ids(store, PATHS) == {jobs(3)[0].id, jobs(3)[2].id}


class Full(MemoryQueue):
    """Takes so many batches, and then its disk is full."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def put(self, jobs: Iterable[Job]) -> PutReport:
        self.room -= 1
        if self.room < 0:
            raise DsError("the disk is full")
        return super().put(jobs)


THREE = 3 * BATCH_JOBS
"""As many jobs as make three batches."""


def test_what_was_queued_before_a_failure_is_listed_and_nothing_more_is_queued(tmp_path: Path) -> None:
    queue, store, told = Full(1), FolderStore(tmp_path), list[int]()
    with pytest.raises(DsError, match="full"):
        queue_jobs(jobs(THREE), queue, store, PATHS, told.append)
    assert queue.counts().waiting == len(job_ids(store, PATHS)) == BATCH_JOBS
    assert told == [BATCH_JOBS]
    assert queue.room == -1, "after the failure nothing is tried any more"


def test_what_is_on_its_way_is_finished_where_the_jobs_come_to_a_wrong_one(tmp_path: Path) -> None:
    def wrong_at_last() -> Iterator[Job]:
        yield from jobs(THREE)
        raise UsageError("job 150001: wrong")

    queue, store = MemoryQueue(), FolderStore(tmp_path)
    with pytest.raises(UsageError, match="job 150001"):
        queue_jobs(wrong_at_last(), queue, store, PATHS, lambda _: None)
    assert queue.counts().waiting == len(job_ids(store, PATHS)) == THREE


def test_a_later_submission_leaves_the_jobs_before_it_their_numbers(tmp_path: Path) -> None:
    queue, store = MemoryQueue(), FolderStore(tmp_path)
    for end in range(1, 9):
        queue_jobs(jobs(end)[end - 1 :], queue, store, PATHS, lambda _: None)
    found = Fold(store, PATHS).update().jobs.values()
    assert [(record.index, record.id) for record in found] == [(job.index, job.id) for job in jobs(8)]


def test_the_first_interrupt_is_noted_and_the_second_is_one() -> None:
    before = signal.getsignal(signal.SIGINT)
    with held_interrupt() as interrupted:
        assert not interrupted.is_set()
        signal.raise_signal(signal.SIGINT)
        assert interrupted.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
