"""What is decided, without doing it: scaling, retries, snapshots, failure groups, the run record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_something.engine import Cost, Counts, Machines, RentedMachine
from distributed_something.errors import UsageError
from distributed_something.inputs.config import parse_config
from distributed_something.job import Cause, Job, Lease, Outcome, Retry, RetryPolicy, State
from distributed_something.ledger import Fold, LedgerWriter, RunPaths, write_jobs
from distributed_something.local.store import FolderStore
from distributed_something.report.alike import fold_line
from distributed_something.runs.record import RunRecord, new_run_id
from distributed_something.runs.snapshot import Snapshot, take
from distributed_something.scaling import Finish, GiveUp, Look, Replace, decide
from distributed_something.words import bytes_text, duration, rate_text

BUSY = Look(open_jobs=5, machines_target=1, machines_running=1)
EMPTY = Look(open_jobs=0, machines_target=1, machines_running=1)


@pytest.mark.fault(7)
def test_one_empty_look_does_not_end_a_run() -> None:
    assert decide([BUSY, EMPTY]) is None
    assert decide([EMPTY, EMPTY]) is None
    assert decide([EMPTY, EMPTY, BUSY]) is None
    assert decide([EMPTY, BUSY, EMPTY, EMPTY]) is None
    assert decide([BUSY, EMPTY, EMPTY, EMPTY]) == Finish()


@pytest.mark.fault(61)
@pytest.mark.parametrize(
    ("cause", "code", "attempt", "config", "permanent"),
    [
        (Cause.EXIT, 1, 1, "", False),
        (Cause.EXIT, 126, 1, "", True),
        (Cause.EXIT, 127, 1, "", True),
        (Cause.EXIT, 127, 1, "RETRY_ON = ['exit 127']", False),
        (Cause.EXIT, 3, 1, "NO_RETRY_ON = ['exit 3', 'exit 4']", True),
        (Cause.EXIT, 5, 1, "NO_RETRY_ON = ['exit']", True),
        (Cause.TIMEOUT, None, 1, "", False),
        (Cause.TIMEOUT, None, 1, "NO_RETRY_ON = ['timeout']", True),
        (Cause.INPUT_MISSING, None, 1, "", False),  # a store may show a new file late
        (Cause.INPUT_MISSING, None, 2, "", True),
        (Cause.UPLOAD, None, 1, "", False),
    ],
)
def test_what_another_attempt_does_not_mend_is_not_tried_again(
    cause: Cause, code: int | None, attempt: int, config: str, permanent: bool
) -> None:
    policy = parse_config(f"APP_NAME = 'App'\nENGINE = 'local'\nCOMMAND = 'true'\n{config}\n").retry_policy
    assert policy.is_permanent(attempt, cause, code) is permanent


def test_a_run_that_was_ended_before_has_no_counts_that_may_lag() -> None:
    assert decide([EMPTY._replace(queue_gone=True)]) == Finish()
    assert decide([BUSY._replace(queue_gone=True)]) is None


def test_machines_that_died_are_replaced_and_machines_that_were_stopped_are_not() -> None:
    assert decide([BUSY._replace(machines_running=0)]) == Replace()
    assert decide([BUSY._replace(machines_running=0, machines_target=0, ended="drain")]) == GiveUp("drain")
    assert decide([BUSY._replace(machines_running=0, machines_target=0)]) is None


def test_a_retry_waits_longer_each_time_and_ends() -> None:
    policy = RetryPolicy(attempts=12, backoff=1, limit=300)
    assert [policy.after(n).delay for n in (1, 2, 3, 9, 10, 11)] == [1, 2, 4, 256, 300, 300]
    assert policy.after(12) == Retry(dead=True)
    assert policy.after(10**9).dead


@pytest.fixture
def fold(tmp_path: Path) -> Fold:
    store, paths = FolderStore(tmp_path), RunPaths("App", "run")
    jobs = [Job(f"{n:016x}", n, b'{"group":{}}') for n in range(6)]
    write_jobs(store, paths.jobs + "a", jobs)
    ledger = LedgerWriter(store, paths.events + "w")
    failed = Outcome(State.WAITING, Cause.EXIT)
    ends = [("succeeded", Outcome(State.SUCCEEDED)), ("skipped", Outcome(State.SKIPPED)), ("dead", failed)]
    for number, (name, outcome) in enumerate([*ends, ("failed", failed)]):
        lease = Lease(jobs[number], "", 0)
        ledger.ended(name, 100 + number, lease, outcome)
    ledger.started(104, Lease(jobs[4], "", 0))
    ledger.flush()
    return Fold(store, paths).update()


def snapshot(
    fold: Fold, machines: Machines, counts: Counts | None, why: str | None = None
) -> dict[str, object]:
    taken = take(
        fold, app="App", engine="local", run="r", machines=machines, counts=counts, now=110, why_idle=why
    )
    return taken.to_json()


def test_a_snapshot_adds_up(fold: Fold) -> None:
    found = snapshot(fold, Machines(target=1, running=1), Counts(waiting=2, leased=1, dead=1))
    assert found["jobs"] == {
        "total": 6, "waiting": 2, "running": 1, "succeeded": 1, "failed": 1, "dead": 1, "skipped": 1,
        "dropped": 0, "unproven": 0,
    }  # fmt: skip
    assert (found["state"], found["attempts"], found["started"]) == ("running", 3, "1970-01-01T00:01:40Z")


def test_without_workers_nothing_runs_and_the_reason_is_said(fold: Fold) -> None:
    found = snapshot(fold, Machines(), Counts(waiting=3, dead=1), "no workers")
    assert (found["state"], found["why_idle"]) == ("idle", "no workers")
    assert isinstance(found["jobs"], dict)
    assert (found["jobs"]["waiting"], found["jobs"]["running"]) == (3, 0)


def test_a_job_on_a_machine_that_has_ended_does_not_run(tmp_path: Path) -> None:
    store, paths = FolderStore(tmp_path), RunPaths("App", "run")
    leases = [Lease(Job(f"{n:016x}", n, b"{}"), "", 0) for n in range(3)]
    write_jobs(store, paths.jobs + "a", [lease.job for lease in leases])
    ledger = LedgerWriter(store, paths.events + "w")
    for lease, machine in zip(leases, ("i-1", "i-1", "i-2"), strict=True):
        ledger.started(100, lease, machine=machine)
    ledger.flush()
    fold = Fold(store, paths).update()
    one_gone = (RentedMachine("i-1", running=False), RentedMachine("i-2", running=True))
    found = snapshot(fold, Machines(running=1, rented=one_gone), Counts(leased=3), "hidden")
    assert found["jobs"] == {
        "total": 3, "waiting": 2, "running": 1, "succeeded": 0, "failed": 0, "dead": 0, "skipped": 0,
        "dropped": 0, "unproven": 0,
    }  # fmt: skip
    assert found["why_idle"] is None, "one of them runs"
    gone = (*one_gone[:1], RentedMachine("i-2", running=False), RentedMachine("i-3", running=True))
    found = snapshot(fold, Machines(running=1, rented=gone), Counts(leased=3), "hidden")
    assert found["why_idle"] == "3 jobs were on machines that are gone; hidden"


def test_an_empty_queue_is_said_to_be_empty(fold: Fold, tmp_path: Path) -> None:
    none = Fold(FolderStore(tmp_path / "none"), RunPaths("App", "run"))
    assert snapshot(none, Machines(), Counts())["why_idle"] == "the queue is empty: ds submit JOBFILE"
    said = snapshot(fold, Machines(), Counts(dead=1))["why_idle"]
    assert said == (
        "the queue is empty, and 3 jobs have not ended: its counts may be a minute old; "
        "if that lasts, ds cleanup, then ds run JOBFILE"
    )


@pytest.mark.fault(68)
def test_just_after_a_submission_no_one_is_told_to_clean_up(tmp_path: Path) -> None:
    store, paths = FolderStore(tmp_path), RunPaths("App", "run")
    write_jobs(store, paths.jobs + "a", [Job(f"{n:016x}", n, b"{}") for n in range(5)])
    found = snapshot(Fold(store, paths).update(), Machines(running=1), Counts())
    assert found["why_idle"] == "the queue does not count the jobs yet: its counts may be a minute old"


def test_a_queue_that_is_gone_is_said_to_be_gone(fold: Fold, tmp_path: Path) -> None:
    none = Fold(FolderStore(tmp_path / "none"), RunPaths("App", "run"))
    assert snapshot(none, Machines(), None)["why_idle"] == "nothing is set up: ds run JOBFILE"
    for machines in (Machines(), Machines(running=1)):
        said = snapshot(fold, machines, None)["why_idle"]
        assert said == "the queue is gone, and 3 jobs have not ended: ds run JOBFILE begins a new run"


def run_of(folder: Path, jobs: int, ends: Sequence[tuple[str, float, float]], started: float = 0) -> Fold:
    """A run of so many jobs, with ends (event, time, seconds) and two jobs under way from `started` on."""
    store, paths = FolderStore(folder), RunPaths("App", "run")
    leases = [Lease(Job(f"{n:016x}", n, b"{}"), "", 0) for n in range(jobs)]
    write_jobs(store, paths.jobs + "a", [lease.job for lease in leases])
    ledger = LedgerWriter(store, paths.events + "w")
    for lease, (name, when, seconds) in zip(leases, ends, strict=False):
        state = State.SUCCEEDED if name == "succeeded" else State.WAITING
        ledger.ended(name, when, lease, Outcome(state, seconds=seconds))
    for lease in leases[-2:]:
        ledger.started(started, lease)
    ledger.flush()
    return Fold(store, paths).update()


def left(fold: Fold, now: float = 1000) -> Snapshot:
    machines, counts = Machines(target=1, running=1, cost=Cost(2.0, 1.5)), Counts(waiting=5, leased=2)
    return take(fold, app="App", engine="aws", run="r", machines=machines, counts=counts, now=now)


def test_the_time_left_is_that_of_what_remains(tmp_path: Path) -> None:
    done = [("succeeded", 900.0, 100.0)] * 2
    found = left(run_of(tmp_path, 10, done, started=960))
    assert found.eta == pytest.approx((8 * 100 - 2 * 40) / 2)  # eight are left, two had 40 s
    assert found.no_eta is None
    assert left(run_of(tmp_path / "more", 20, done, started=960)).eta == pytest.approx((18 * 100 - 80) / 2)


@pytest.mark.parametrize("name", ["dead", "skipped"])
def test_jobs_that_end_at_once_say_nothing_of_the_time_left(tmp_path: Path, name: str) -> None:
    ends = [("succeeded", 900.0, 100.0), *[(name, 990.0, 0.01)] * 50]
    assert left(run_of(tmp_path, 100, ends, started=1000)).eta == pytest.approx(49 * 100 / 2)


def test_many_short_jobs_take_as_long_as_their_rate_says(tmp_path: Path) -> None:
    ends = [("succeeded", 950.0, 0.01)] * 60
    found = left(run_of(tmp_path, 120, ends, started=1000))
    assert found.eta == pytest.approx(60 / (60 / (1000 - 949.99)), rel=0.01)


def test_a_time_left_that_cannot_be_known_is_not_told(tmp_path: Path) -> None:
    found = left(run_of(tmp_path, 10, [("dead", 999.0, 0.01)] * 3))
    assert (found.eta, found.no_eta) == (None, "not known until a job has succeeded")
    found = left(run_of(tmp_path / "last", 3, [("succeeded", 10.0, 1.0)]))
    assert (found.eta, found.no_eta) == (None, "not known: the last jobs take longer than the others did")
    stopped = run_of(tmp_path / "stopped", 10, [("succeeded", 10.0, 1.0)])
    assert snapshot(stopped, Machines(), Counts(waiting=3))["eta_s"] is None


def test_what_a_run_will_cost_is_known_where_its_time_and_its_prices_are(tmp_path: Path) -> None:
    found = left(run_of(tmp_path, 10, [("succeeded", 900.0, 100.0)] * 2, started=960))
    assert found.expected_usd == pytest.approx(2.0 + 1.5 * 360 / 3600)
    assert found._replace(eta=None).expected_usd is None
    assert found._replace(machines=Machines(cost=Cost(2.0))).expected_usd is None
    assert found._replace(state="finished", eta=None).expected_usd == 2.0


def test_a_draining_fleet_is_draining(fold: Fold) -> None:
    assert snapshot(fold, Machines(running=1, draining=True), Counts(leased=1))["state"] == "draining"


@pytest.mark.parametrize(
    ("counts", "seen", "state"),
    [
        (
            Counts(waiting=3, leased=2, dead=1),
            {"waiting": 3, "running": 2, "dead": 1, "succeeded": 2, "unproven": 2},
            "running",
        ),
        (Counts(dead=1), {"dead": 1, "succeeded": 7, "unproven": 7}, "finished"),
        (Counts(waiting=9, leased=1), {"waiting": 7, "running": 1}, "running"),
    ],
)
def test_where_workers_write_no_ledger_the_queue_tells_how_the_jobs_are(
    tmp_path: Path, counts: Counts, seen: dict[str, int], state: str
) -> None:
    store, paths = FolderStore(tmp_path), RunPaths("App", "run")
    write_jobs(store, paths.jobs + "a", [Job(f"{n:016x}", n, b'{"group":{}}') for n in range(8)])
    found = take(
        Fold(store, paths).update(),
        app="App",
        engine="aws",
        run="r",
        machines=Machines(running=1),
        counts=counts,
        now=110,
        silent=True,
    )
    assert {k: v for k, v in found.jobs._asdict().items() if v} == {"total": 8, **seen}
    assert found.state == state


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("could not open /data/p1/a.tif", "could not open /data/p2/b.tif"),
        ("exit code 3 after 12.5 s", "exit code 4 after 1.25 s"),
        ("object 0x7f3a9c001230 is gone", "object 0x7f3a9c00ffff is gone"),
    ],
)
def test_failures_that_differ_in_numbers_and_paths_are_alike(one: str, other: str) -> None:
    assert fold_line(one) == fold_line(other)


RECORD = RunRecord("App", "run1", "local", "default", "AppQueue", "data", "App", 1700000000000)


@pytest.mark.fault(3, 11)
def test_a_record_reads_back_and_a_second_fleet_is_added() -> None:
    record = RECORD.with_fleet("one").with_fleet("two").with_fleet("one").with_resources(("queue",))
    assert RunRecord.from_json(record.to_json(), "x") == record
    assert record.fleets == ("one", "two")


@pytest.mark.fault(3)
@pytest.mark.parametrize(
    ("mended", "written"), [("", ""), ('"False"}', '"False"}\n}\n'), (', "CLEAN', '},\n"CLEAN')]
)
def test_a_record_of_the_reference_is_read(mended: str, written: str) -> None:
    """Also as it wrote them: with a closing brace too many."""
    text = (
        '{"MONITOR_FLEET_ID": "sfr-1", "MONITOR_APP_NAME": "My_AppQueue", "MONITOR_ECS_CLUSTER": "default",'
        ' "MONITOR_QUEUE_NAME": "My_AppQQueue", "MONITOR_BUCKET_NAME": "b", "MONITOR_LOG_GROUP_NAME": "",'
        ' "MONITOR_START_TIME": "1700000000000", "CLEAN_DASHBOARD": "False"}'
    )
    record = RunRecord.from_json(text.replace(mended, written), "x")
    assert (record.app, record.fleets, record.clean_dashboard) == ("My_AppQueue", ("sfr-1",), False)


@given(st.text() | st.from_regex(r'\{"MONITOR_APP_NAME": .*\}', fullmatch=True))
def test_a_broken_record_is_one_clear_error(text: str) -> None:
    with pytest.raises(UsageError, match="x:"):
        RunRecord.from_json(text, "x")


def test_run_ids_sort_by_time_and_differ() -> None:
    assert new_run_id(0) < new_run_id(10**9) < new_run_id(2 * 10**9)
    assert new_run_id(10.25) < new_run_id(10.5), "in one second too"
    assert len({new_run_id(0) for _ in range(20)}) > 10


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "40 ms"),
        (4.51, "4.5 s"),
        (45, "45 s"),
        (59.7, "1 min"),
        (750, "12 min 30 s"),
        (12000, "3 h 20 min"),
        (187200, "2 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rates_and_sizes() -> None:
    assert [rate_text(rate) for rate in (1234.5, 1.25, 0.5, 0.001)] == [
        "1,234/s",
        "1.2/s",
        "30.0/min",
        "3.6/h",
    ]
    assert [bytes_text(size) for size in (None, 999, 1500, 2.5e9)] == ["", "999 B", "1.5 kB", "2.5 GB"]
