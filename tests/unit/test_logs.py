"""What `ds logs` prints while a job goes on."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distributed_something.cli.views.logs import logs
from distributed_something.console import Console
from distributed_something.engine import Machines
from distributed_something.job import Cause, Job, Lease, Outcome, State
from distributed_something.ledger import Fold, LedgerWriter, RunPaths, write_jobs
from distributed_something.local.store import FolderStore
from distributed_something.testing import FakeClock

JOB = Job("0123456789abcdef", 0, b"{}")
LEASE = Lease(JOB, "", 0.0)


class Followed:
    """A project with one job; each wait of who follows lets the next thing happen."""

    poll_interval = 0.25

    def __init__(self, folder: Path) -> None:
        self.clock = self
        self.engine = self
        self.out, self.err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
        self.console = Console(out=self.out, err=self.err)
        self.store, self._paths = FolderStore(folder), RunPaths("App", "run")
        self.ledger = LedgerWriter(self.store, self._paths.events + "w")
        self.then: list[Callable[[], None]] = []
        self._clock = FakeClock()
        write_jobs(self.store, self._paths.jobs + "a", [JOB])

    def paths(self) -> RunPaths:
        return self._paths

    def fold(self) -> Fold:
        return Fold(self.store, self._paths)

    def machines(self) -> Machines:
        return Machines(target=1, running=1)

    def wait(self, seconds: float) -> None:
        self._clock.advance(seconds)
        self.then.pop(0)()

    def begins(self, worker: str, printed: bytes) -> None:
        self._clock.advance(1.0)
        self.ledger.started(self._clock.now(), LEASE, worker=worker, log=f"{worker}.log@0")
        self.ledger.flush()
        self.prints(worker, printed)

    def prints(self, worker: str, text: bytes) -> None:
        self.store.append(f"{self._paths.logs}{worker}.log", text)

    def ends(self, worker: str, outcome: Outcome, name: str) -> None:
        self._clock.advance(1.0)
        self.ledger.ended(name, self._clock.now(), LEASE, outcome, worker=worker)
        self.ledger.flush()


@pytest.fixture
def project(tmp_path: Path) -> Followed:
    return Followed(tmp_path)


def followed(project: Any) -> bytes:
    assert logs(project, "0", follow=True, attempt=None) == 0
    shown: bytes = project.out.buffer.getvalue()
    return shown


def test_a_log_is_followed_to_its_end(project: Followed) -> None:
    project.begins("a", b"one\n")
    project.then = [
        lambda: project.prints("a", b"two\n"),
        lambda: project.ends("a", Outcome(State.SUCCEEDED, log="a.log@0+8"), "succeeded"),
    ]
    assert followed(project) == b"one\ntwo\n"
    assert project.err.getvalue() == ""


@pytest.mark.parametrize("told", [True, False], ids=["interrupted", "killed"])
def test_who_follows_sees_all_of_an_attempt_and_of_the_next_one(project: Followed, told: bool) -> None:
    """An attempt may end and the next one begin, elsewhere, between two looks."""
    place = "a.log@0+14" if told else None

    def elsewhere() -> None:
        project.prints("a", b"the end\n")
        project.ends("a", Outcome(State.WAITING, Cause.INTERRUPTED, log=place), "interrupted")
        if told:
            project.prints("a", b"another job's\n")
        project.begins("b", b"anew\n")

    project.begins("a", b"begin\n")
    project.then = [
        elsewhere,
        lambda: project.ends("b", Outcome(State.SUCCEEDED, log="b.log@0+5"), "succeeded"),
    ]
    assert followed(project) == b"begin\nthe end\nanew\n"
    assert project.err.getvalue() == "attempt 1 begins\n"
