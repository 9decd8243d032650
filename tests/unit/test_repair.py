"""A queue that is damaged at any moment is rebuilt: no job is lost, and what has ended stays ended."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, seed, settings
from hypothesis import strategies as st

from distributed_something.cli.entry import main
from distributed_something.cluster.engine import PilotEngine
from distributed_something.cluster.shared.queue import CommandQueue
from distributed_something.cluster.slurm.engine import make
from distributed_something.console import Console
from distributed_something.errors import DsError, QueueDamaged, UsageError
from distributed_something.inputs.config import parse_config
from distributed_something.job import Cause, Job, Lease, Outcome, State
from distributed_something.ledger import LedgerWriter
from distributed_something.local.engine import LocalEngine
from distributed_something.local.place import Place
from distributed_something.local.queue import SqliteQueue
from distributed_something.steps.project import Project
from distributed_something.steps.repair import Repaired, repair
from distributed_something.steps.setup import setup
from distributed_something.steps.start import mend
from distributed_something.steps.submit import queue_jobs
from distributed_something.system.state import state_folder
from distributed_something.testing import FakeClock

CONFIG = "APP_NAME = 'App'\nENGINE = 'local'\nCOMMAND = 'true'\nJOB_RETRIES = 3\nBACKOFF = 0\n"


def job(number: int) -> Job:
    body = json.dumps({"group": {"n": number, "more": "x" * 200}}, separators=(",", ":")).encode()
    return Job(hashlib.sha256(body).hexdigest()[:16], number, body)


class Run:
    """A run of an engine `local` whose worker is the test, and what its ledger has acknowledged."""

    config_text = CONFIG

    def __init__(self, folder: Path, jobs: int) -> None:
        (folder / "config.py").write_text(self.config_text)
        self.folder = folder
        self.clock = FakeClock()
        self.config = parse_config(self.config_text)
        self.said = io.StringIO()
        self.place = Place(state_folder(folder, "App"))
        self.project = self.opened()
        setup(self.project)
        paths = self.project.paths()
        store = self.project.engine.store
        queue_jobs(map(job, range(jobs)), self.project.engine.queue(), store, paths, lambda _: None)
        self.ids = {job(number).id for number in range(jobs)}
        self.ledger = LedgerWriter(store, f"{paths.events}w.jsonl")
        self.ended: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self.queue = self.worker()

    def opened(self) -> Project:
        """The project as another command opens it."""
        console = Console(yes=True, out=self.said, err=self.said)
        return Project(self.folder, self.config, console, self.clock, engine=self.engine())

    def engine(self) -> LocalEngine | PilotEngine:
        return LocalEngine(self.folder, self.config, self.clock)

    def worker(self) -> SqliteQueue | CommandQueue:
        policy = self.config.retry_policy
        return SqliteQueue(self.place.database, policy=policy, term=60.0, owner="w", clock=self.clock)

    def settle(self, lease: Lease, how: str) -> None:
        """End an attempt as a worker does: the ledger first, then the queue."""
        self.clock.advance(1.0)
        states = {"done": State.SUCCEEDED, "dead": State.DEAD, "fail": State.WAITING}
        outcome = Outcome(states[how], None if how == "done" else Cause.EXIT, "it broke", exit_code=1)
        how = "dead" if how == "fail" and lease.attempt == 3 else how
        event = {"done": "succeeded", "dead": "dead", "fail": "failed"}[how]
        self.ledger.ended(event, self.clock.now(), lease, outcome, worker="w")
        self.ledger.flush()
        self.attempts[lease.job.id] = lease.attempt
        if how != "fail":
            self.ended.setdefault(lease.job.id, how)
        if how == "done":
            self.queue.done([lease])
        else:
            self.queue.fail(lease, Cause.EXIT, "it broke", final=how == "dead")

    def work(self, random: Random, rounds: int) -> None:
        for _ in range(rounds):
            for lease in self.queue.lease(random.randrange(5)):
                if how := random.choice(["done", "done", "dead", "fail", ""]):
                    self.settle(lease, how)

    def close(self) -> None:
        with suppress(Exception):
            self.queue.close()

    def repaired(self) -> Repaired:
        self.close()
        return repair(self.opened())

    def check(self) -> None:
        """Work the queue off: each job that has not ended comes once, and no other."""
        self.queue = self.worker()
        dead = {each.job.id: each for each in self.queue.dead()}
        assert dead.keys() == {key for key, how in self.ended.items() if how == "dead"}
        assert all(each.cause is Cause.EXIT and each.detail == "it broke" for each in dead.values())
        self.clock.advance(1000.0)  # back-offs, and leases of before
        left = []
        while leases := self.queue.lease(7):
            left += [lease.job.id for lease in leases]
            for lease in leases:
                assert lease.attempt == self.attempts.get(lease.job.id, 0) + 1
                assert lease.job == job(lease.job.index)
            self.queue.done(leases)
        assert sorted(left) == sorted(self.ids - self.ended.keys())
        assert self.queue.counts().open == 0
        self.close()


class SharedRun(Run):
    """The same on the engine `slurm`, whose queue is a log in the project's folder."""

    config_text = CONFIG.replace("local", "slurm")
    queue: CommandQueue

    def engine(self) -> PilotEngine:
        return make(self.folder, self.config, self.clock, say=self.said.write)

    def worker(self) -> CommandQueue:
        return self.engine().queue()

    def files(self) -> list[Path]:
        """What a queue is read from."""
        folder = self.folder / ".ds/App.slurm" / str(self.engine().current_run())
        return sorted(each for kind in ("log-*", "epoch-*", "copy-*", "puts/*") for each in folder.glob(kind))


@contextmanager
def a_run(jobs: int = 30, kind: type[Run] = Run) -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="ds-repair-") as folder:
        run = kind(Path(folder), jobs)
        yield run
        run.close()


# Damage


def cut(path: Path, random: Random) -> None:
    os.truncate(path, random.choice([0, 0, 100, 4096, random.randrange(path.stat().st_size + 1)]))


def scribble(path: Path, random: Random) -> None:
    size = max(path.stat().st_size, 1)
    with path.open("r+b") as file:
        for _ in range(random.randrange(1, 20)):
            file.seek(random.randrange(size))
            file.write(random.randbytes(random.choice([1, 8, 4096])))


def scribble_log(path: Path, random: Random) -> None:
    log = path.with_name(path.name + "-wal")
    if log.exists():
        scribble(log, random)


def vanish(path: Path, random: Random) -> None:
    for ending in ("", "-wal", "-shm", ".lock")[: random.choice([1, 3, 4])]:
        path.with_name(path.name + ending).unlink(missing_ok=True)


def lose_log(path: Path, _random: Random) -> None:
    path.with_name(path.name + "-wal").unlink(missing_ok=True)


def replaced(path: Path, _random: Random) -> None:
    path.write_bytes(b"# not a queue\n")


def other_tables(path: Path, _random: Random) -> None:
    changed(path, "DROP TABLE meta")


def wrong_type(path: Path, random: Random) -> None:
    column = random.choice(["failed", "deliveries", "visible_at", "state", "body", "id"])
    changed(path, f"UPDATE jobs SET {column} = 'abc' WHERE seq = {random.randrange(1, 30)}")


def lose_row(path: Path, random: Random) -> None:
    changed(path, f"DELETE FROM jobs WHERE seq = {random.randrange(1, 30)}")


def changed(path: Path, sql: str) -> None:
    with suppress(sqlite3.Error):
        db = sqlite3.connect(path, timeout=1)
        db.execute(sql)
        db.commit()
        db.close()


DAMAGES: list[Callable[[Path, Random], None]] = [
    cut,
    scribble,
    scribble_log,
    vanish,
    lose_log,
    replaced,
    other_tables,
    wrong_type,
    lose_row,
]


@pytest.mark.fault(75)
@seed(75)
@settings(max_examples=60, deadline=None)
@given(number=st.integers(0, 2**32), before=st.integers(0, 8), after=st.integers(0, 3), closed=st.booleans())
@example(number=1, before=0, after=0, closed=True)
def test_random_damage_at_a_random_moment_loses_no_job(
    number: int, before: int, after: int, closed: bool
) -> None:
    random = Random(number)
    with a_run() as run:
        run.work(random, before)
        if closed:
            run.close()
        for damage in random.sample(DAMAGES, random.choice([1, 1, 2])):
            with suppress(FileNotFoundError):
                damage(run.place.database, random)
        if not closed:
            with suppress(DsError):
                run.work(random, after)
        run.repaired()
        run.check()


@pytest.mark.fault(75)
@seed(75)
@settings(max_examples=30, deadline=None)
@given(number=st.integers(0, 2**32), before=st.integers(0, 5), after=st.integers(0, 2))
def test_random_damage_to_a_shared_queue_loses_no_job(number: int, before: int, after: int) -> None:
    random = Random(number)
    with a_run(kind=SharedRun) as run:
        assert isinstance(run, SharedRun)
        run.work(random, before)
        for path in random.sample(run.files(), random.choice([1, 1, 3])):
            random.choice([cut, scribble, vanish, replaced])(path, random)
        with suppress(DsError):
            run.work(random, after)
        run.repaired()
        run.check()


@pytest.mark.fault(75)
@pytest.mark.parametrize(
    "damage", [cut, vanish, replaced, other_tables, wrong_type, lose_row], ids=lambda damage: damage.__name__
)
def test_each_kind_of_damage_is_found_and_mended(damage: Callable[[Path, Random], None]) -> None:
    with a_run() as run:
        run.work(Random(1), 6)
        run.close()
        damage(run.place.database, Random(1))
        assert run.repaired().damage
        run.check()


@pytest.mark.fault(75)
@pytest.mark.parametrize("kind", ["epoch-", "log-"])
@pytest.mark.parametrize("damage", [cut, vanish, replaced], ids=lambda damage: damage.__name__)
def test_damage_to_a_shared_queue_is_found(damage: Callable[[Path, Random], None], kind: str) -> None:
    with a_run(kind=SharedRun) as run:
        assert isinstance(run, SharedRun)
        run.work(Random(1), 6)
        for path in [each for each in run.files() if each.name.startswith(kind)][1:3]:
            damage(path, Random(1))
        assert run.repaired().damage
        run.check()


@pytest.mark.fault(75)
def test_a_repair_that_is_cut_off_is_done_again() -> None:
    with a_run() as run:
        run.work(Random(2), 6)
        run.close()
        run.place.database.replace(run.place.folder / "damaged.db")
        (run.place.folder / "rebuilt.db").write_bytes(b"half")
        assert "gone" in run.repaired().damage
        run.check()
        assert not list(run.place.folder.glob("rebuilt*"))


@pytest.mark.fault(75)
def test_a_start_mends_the_queue_and_says_what_is_not_known() -> None:
    with a_run() as run:
        run.work(Random(3), 6)
        run.close()
        os.truncate(run.place.database, 0)
        with pytest.raises(QueueDamaged, match="it is empty") as caught:
            run.opened().snapshot()
        assert "ds repair" in caught.value.fix
        mend(run.opened())
        assert "30 jobs again" in run.said.getvalue()
        assert "not known: which jobs were running" in run.said.getvalue()
        run.check()


@pytest.mark.fault(75)
@pytest.mark.parametrize(
    "change, said",
    [("failed = 'abc'", "job 5 has a value of the wrong type"), ("body = x''", "job 5 has lost")],
)
def test_a_row_that_is_damaged_is_not_leased(change: str, said: str) -> None:
    with a_run() as run:
        run.close()
        changed(run.place.database, f"UPDATE jobs SET {change} WHERE seq = 5")
        queue = run.worker()
        with pytest.raises(QueueDamaged, match=said):
            queue.lease(10)
        assert len(queue.lease(4)) == 4  # nothing was leased with it
        queue.close()


def test_a_whole_queue_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with a_run() as run:
        run.work(Random(4), 3)
        before = run.queue.counts()
        assert main(["-C", str(run.folder), "repair"]) == 0
        assert "nothing to repair" in "".join(capsys.readouterr())
        assert run.queue.counts() == before


def test_only_a_queue_of_this_machine_is_repaired() -> None:
    with a_run() as run:
        elsewhere = Project(run.folder, run.config, Console(), run.clock, engine=ElsewhereEngine())  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="no queue on this machine"):
            repair(elsewhere)


class ElsewhereEngine:
    """An engine whose queue is a service."""

    name = "aws"
