"""Which machines a run excludes, and that one that is not bad is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from distributed_something.exclusion import Elsewhere, Failure, Hosts, Pause, Row, rows, stuck, verdict
from distributed_something.job import Cause, Job, Lease, Outcome, State
from distributed_something.ledger import Fold, LedgerWriter, RunPaths, machines, write_jobs
from distributed_something.local.store import FolderStore
from distributed_something.steps.watch.exclude import find_bad


def failures(*each: tuple[str, int, str]) -> list[Failure]:
    return [Failure(machine, job, float(at), cause) for at, (machine, job, cause) in enumerate(each)]


THREE = [("m1", 1, "exit 1"), ("m1", 2, "exit 1"), ("m1", 3, "exit 1")]


@pytest.mark.parametrize(
    ("failed", "count", "found"),
    [
        (THREE, 2, ["m1"]),
        (THREE[:2], 2, []),
        ([*THREE[:2], ("m1", 2, "exit 1")], 2, []),
        ([*THREE, ("m2", 9, "exit 1")], 2, []),
        ([*THREE, ("m2", 9, "exit 1")], 19, []),
        ([*THREE, ("m2", 9, "exit 1")], 20, ["m1"]),
        ([*THREE, ("m2", 9, "exit 2")], 2, ["m1"]),
        ([*THREE[:2], ("m1", 4, "timeout"), ("m1", 3, "exit 1")], 2, []),
        ([("m1", 4, "timeout"), *THREE], 2, ["m1"]),
    ],
)
def test_rows_of_failures_that_others_do_not_have(
    failed: list[tuple[str, int, str]], count: int, found: list[str]
) -> None:
    assert [row.machine for row in rows(failures(*failed), count)] == found


SMALL, LARGE = (
    Row("m1", "exit 1", tuple(failures(*[("m1", n, "exit 1") for n in range(k)]))) for k in (3, 10)
)


@pytest.mark.parametrize(
    ("row", "elsewhere", "ever", "bad"),
    [
        (SMALL, Elsewhere(3, 1), True, True),
        (SMALL, Elsewhere(2, 1), True, False),
        (SMALL, Elsewhere(9, 0), False, False),
        (SMALL.after(0.5), Elsewhere(9, 1), True, False),
        (LARGE, Elsewhere(1, 0), False, True),
        (LARGE, Elsewhere(3, 0), True, False),
        (LARGE._replace(alone=False), Elsewhere(3, 0), False, False),
        (LARGE, Elsewhere(0, 0), False, False),
    ],
)
def test_a_row_is_a_verdict_only_if_jobs_succeed_elsewhere(
    row: Row, elsewhere: Elsewhere, ever: bool, bad: bool
) -> None:
    assert bool(verdict(row, elsewhere, ever_succeeded=ever)) == bad


def test_a_long_pause_that_others_do_not_have() -> None:
    full, away = Pause("m1", 0.0, "full"), [Pause(name, 0.0, "the store is away") for name in ("m2", "m3")]
    assert stuck([full, *away], 120.0) == [full]
    assert stuck([full], 119.0) == []


def test_a_pilot_stands_for_the_node_on_which_it_is() -> None:
    hosts = Hosts({"7_0": [(10.0, "n1"), (20.0, "n2")], "7_1": [(12.0, "n1")], "i-1": []})
    assert [hosts.at("7_0", when) for when in (9, 15, 25)] == ["n1", "n1", "n2"]
    assert hosts.at("i-1", 5) == "i-1"
    assert hosts.spans("n1") == [("7_0", 10.0, 20.0), ("7_1", 12.0, float("inf"))]
    assert hosts.spans("i-1") == [("i-1", float("-inf"), float("inf"))]


class Ledger:
    """A run of 40 jobs, of which the test says what became of them, one a second."""

    def __init__(self, folder: Path) -> None:
        store, paths = FolderStore(folder), RunPaths("App", "run")
        self.jobs = [Job(f"{n:016x}", n, b"{}") for n in range(40)]
        write_jobs(store, paths.jobs + "a", self.jobs)
        self._writer = LedgerWriter(store, paths.events + "w")
        self._now = 100.0
        self.fold = Fold(store, paths)

    def ended(self, name: str, machine: str, numbers: Sequence[int], code: int = 1) -> None:
        for number in numbers:
            self._now += 1
            fine = name == "succeeded"
            outcome = Outcome(State.SUCCEEDED) if fine else Outcome(State.WAITING, Cause.EXIT, exit_code=code)
            lease = Lease(self.jobs[number], "", 0.0)
            self._writer.ended(
                name, self._now, lease, None if name == "retried" else outcome, machine=machine
            )
        self._writer.flush()
        self.fold.update()

    def bad(self, *pauses: Pause) -> list[str]:
        return [*find_bad(self.fold, pauses, Hosts({}), self._now)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def test_a_machine_whose_jobs_succeed_elsewhere_is_bad_and_its_dead_jobs_are_known(ledger: Ledger) -> None:
    ledger.ended("succeeded", "m1", range(4))
    ledger.ended("dead", "m1", range(4, 9))
    ledger.ended("succeeded", "m2", range(20, 23))
    assert ledger.bad() == []
    ledger.ended("succeeded", "m2", [4])
    assert ledger.bad() == ["m1"]
    spans = Hosts({}).spans("m1")
    assert machines.charged_to(ledger.fold, spans) == [job.id for job in ledger.jobs[5:9]]
    ledger.ended("retried", "", range(5, 9))
    ledger.ended("dead", "m2", [5])
    assert machines.charged_to(ledger.fold, spans) == [], "what fails elsewhere after that is the job's own"


def test_a_run_whose_every_job_fails_has_no_bad_machine(ledger: Ledger) -> None:
    ledger.ended("failed", "m1", range(10))
    ledger.ended("failed", "m2", range(10, 20))
    ledger.ended("dead", "m1", range(10))
    assert ledger.bad() == []


def test_one_machine_alone_is_never_bad(ledger: Ledger) -> None:
    ledger.ended("succeeded", "m1", range(10))
    ledger.ended("dead", "m1", range(10, 40))
    assert ledger.bad() == []


def test_bad_jobs_that_one_machine_got_do_not_make_it_bad(ledger: Ledger) -> None:
    ledger.ended("succeeded", "m1", range(5))
    ledger.ended("dead", "m1", range(5, 30))
    ledger.ended("succeeded", "m2", range(30, 40))
    assert ledger.bad() == []


def test_a_machine_that_takes_all_jobs_and_fails_is_bad(ledger: Ledger) -> None:
    ledger.ended("dead", "m1", range(30))
    ledger.ended("succeeded", "m2", range(30, 33))
    assert ledger.bad() == ["m1"]


def test_a_paused_machine_is_bad_only_if_jobs_succeed_elsewhere(ledger: Ledger) -> None:
    pause = Pause("m1", -50.0, "the disk of /tmp is full")
    ledger.ended("succeeded", "m1", range(2))
    assert ledger.bad(pause) == []
    ledger.ended("succeeded", "m2", range(2, 4))
    assert ledger.bad(pause) == ["m1"]
