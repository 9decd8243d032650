"""What a watch does between two looks."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from distributed_something.console import Console
from distributed_something.engine import Counts, Machines
from distributed_something.errors import Unreachable
from distributed_something.job import Job, Lease, Outcome, State
from distributed_something.ledger import Fold, LedgerWriter, RunPaths, write_jobs
from distributed_something.local.store import FolderStore
from distributed_something.runs.snapshot import Snapshot, take
from distributed_something.steps.watch.monitor import Watch
from distributed_something.testing import FakeClock


class SilentQueue:
    """The engine of a queue that cannot be asked."""

    poll_interval = 60.0
    final_poll_interval = 1.0

    def queue(self) -> NoReturn:
        raise Unreachable("counting the queue: no answer")


class Halfway:
    """A project half of whose jobs have ended, one in a second."""

    config = SimpleNamespace(failure_limits=None, canary=None)

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.engine = SilentQueue()
        self._store, self._paths = FolderStore(folder), RunPaths("App", "run")
        jobs = [Job(f"{n:016x}", n, b"{}") for n in range(20)]
        write_jobs(self._store, self._paths.jobs + "a", jobs)
        ledger = LedgerWriter(self._store, self._paths.events + "w")
        for job in jobs[:10]:
            self.clock.advance(1.0)
            ledger.ended("succeeded", self.clock.now(), Lease(job, "", 0.0), Outcome(State.SUCCEEDED))
        ledger.flush()

    def fold(self) -> Fold:
        return Fold(self._store, self._paths)

    def snapshot(self, fold: Fold) -> Snapshot:
        machines, counts = Machines(target=1, running=1), Counts(waiting=10)
        now = self.clock.now()
        return take(
            fold.update(), app="App", engine="aws", run="run", machines=machines, counts=counts, now=now
        )


@pytest.mark.fault(8)
def test_a_queue_that_does_not_answer_between_two_looks_ends_no_watch(tmp_path: Path) -> None:
    project: Any = Halfway(tmp_path)
    watch = Watch(project)
    assert watch.look(Console(err=io.StringIO()).watch()) is None
    began = project.clock.now()
    watch.rest()
    assert 0 < project.clock.now() - began < SilentQueue.poll_interval, "the queue was asked on the way"
