"""How many jobs may be dead before a run drains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distributed_something.engine import Counts, Machines
from distributed_something.failing import Failing, Limits, may_be_too_many, too_many
from distributed_something.job import Cause, Job, Lease, Outcome, State
from distributed_something.ledger import Fold, LedgerWriter, RunPaths, write_jobs
from distributed_something.local.store import FolderStore
from distributed_something.runs.snapshot import take
from distributed_something.steps.watch.limits import too_many_dead

X, RATE = "exit: x", " (MAX_FAILURE_RATE = 0.1)"
FIFTY, TENTH = Limits(jobs=50), Limits(rate=0.1)


@pytest.mark.parametrize(
    ("limits", "found", "why"),
    [
        (Limits(), Failing(1000, 1000, 1000, "exit"), None),
        (FIFTY, Failing(1000, 50, 1), None),
        (FIFTY, Failing(1000, 51, 1), "51 jobs are dead (MAX_FAILURES = 50)"),
        (FIFTY, Failing(1000, 25, 25, "exit: x"), None),
        (FIFTY, Failing(26, 26, 26, X), "26 jobs are dead: 26 of them alike: exit: x (MAX_FAILURES = 50)"),
        (FIFTY, Failing(90, 40, 11, X), "40 jobs are dead: 11 of them alike: exit: x (MAX_FAILURES = 50)"),
        (Limits(jobs=0), Failing(9, 1), "1 job is dead (MAX_FAILURES = 0)"),
        (TENTH, Failing(19, 19), None),
        (TENTH, Failing(20, 2), None),
        (TENTH, Failing(20, 3), "of 20 ended jobs 3 jobs are dead (MAX_FAILURE_RATE = 0.1)"),
        (
            TENTH,
            Failing(40, 3, 2, X),
            "of 40 ended jobs 3 jobs are dead: 2 of them alike: exit: x" + RATE,
        ),
        (Limits(canary=5), Failing(4, 4), None),
        (Limits(canary=5), Failing(5, 1), "of 5 ended jobs 1 job is dead (MAX_FAILURE_RATE = 0.1)"),
        (Limits(rate=0.5, canary=5), Failing(5, 2), None),
    ],
)
def test_the_limit(limits: Limits, found: Failing, why: str | None) -> None:
    assert too_many(limits, found) == why


def test_logs_are_read_only_if_the_answer_may_depend_on_them() -> None:
    assert not may_be_too_many(FIFTY, 1000, 25)
    assert may_be_too_many(FIFTY, 1000, 26)
    assert not may_be_too_many(Limits(), 1000, 1000)


WORDS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay", "kite", "lynx")


def test_jobs_that_were_not_looked_at_are_not_taken_for_alike(tmp_path: Path) -> None:
    store, paths = FolderStore(tmp_path), RunPaths("App", "run")
    jobs = [Job(f"{n:016x}", n, b"{}") for n in range(12)]
    write_jobs(store, paths.jobs + "a", jobs)
    ledger = LedgerWriter(store, paths.events + "w")
    for job, word in zip(
        jobs,
        ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay", "kite", "lynx"],
        strict=True,
    ):
        outcome = Outcome(State.WAITING, Cause.UPLOAD, f"no {word} in here")
        ledger.ended("dead", 1.0, Lease(job, "", 0.0), outcome)
    ledger.flush()
    project: Any = SimpleNamespace(
        config=SimpleNamespace(failure_limits=Limits(jobs=15)),
        engine=SimpleNamespace(store=store),
        paths=lambda: paths,
    )
    fold = Fold(store, paths).update()
    counts, machines = Counts(dead=12), Machines(running=1)
    look = take(fold, app="App", engine="local", run="run", machines=machines, counts=counts, now=2.0)
    assert too_many_dead(project, look, fold, most=3) is None
    project.config.failure_limits = Limits(jobs=11)
    assert too_many_dead(project, look, fold, most=3) == "12 jobs are dead (MAX_FAILURES = 11)"
