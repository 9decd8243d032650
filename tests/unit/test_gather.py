"""Logs gathered for a store where each append is a request: few appends, nothing lost, in time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from conftest import until
from distributed_something.job import Job, Lease, Outcome, State
from distributed_something.local.store import FolderStore
from distributed_something.worker.attempt.logs import HEAD_BYTES, TAIL_BYTES
from distributed_something.worker.gather import GATHER_BYTES, GatheredLog, KeptLedger, LogKeeper

JOB = Job("0" * 16, 0, b"{}")
LEASE = Lease(JOB, "token", 0.0)
DONE = Outcome(State.SUCCEEDED)


class CountingStore(FolderStore):
    """Notes the appends; some fail, or wait for a gate."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.appends: list[tuple[str, int]] = []
        self.failing = False
        self.gate = threading.Event()
        self.gate.set()

    def append(self, key: str, data: bytes) -> None:
        self.gate.wait(10)
        if self.failing:
            raise OSError("no network")
        super().append(key, data)
        self.appends.append((key, len(data)))

    def text(self) -> bytes:
        return b"".join(self.read(file.key) for file in self.list("logs/"))


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path)


def test_small_pieces_are_one_append(store: CountingStore) -> None:
    log = GatheredLog(store, "logs/", "w.log")
    log.begin()
    assert log.place == "w.log@0"
    for number in range(1000):
        log.write(b"%03d\n" % number)
    assert store.appends == [] and log.end() == "w.log@0+4000"
    assert log.store() and store.appends == [("logs/w.log", 4000)]
    log.begin()
    log.write(b"second")
    assert log.end() == "w.log@4000+6"
    assert log.store() and store.text()[4000:] == b"second"


def test_what_is_printed_is_stored_when_it_is_old_or_much(store: CountingStore) -> None:
    log = GatheredLog(store, "logs/", "w.log")
    log.write(b"x")
    now = log._since
    assert not log.due(now + 1.9) and log.due(now + 2.0)
    log.write(b"x" * GATHER_BYTES)
    assert log.due(now)
    log.store()
    assert not log.due(now + 100)


def test_a_running_job_s_line_is_there_within_seconds(store: CountingStore) -> None:
    log = GatheredLog(store, "logs/", "w.log")
    with LogKeeper([log]):
        log.begin()
        log.write(b"begun\n")
        until(lambda: [*store.list("logs/")], "the line", 4.0)
        assert store.text() == b"begun\n"


def test_the_log_of_an_attempt_is_there_before_its_end_is_in_the_ledger(store: CountingStore) -> None:
    ended, running = GatheredLog(store, "logs/", "a.log"), GatheredLog(store, "logs/", "b.log")
    with LogKeeper([ended, running]) as keeper:
        ledger = KeptLedger(store, "events/w.jsonl", keeper)
        for log in (ended, running):
            log.begin()
            log.write(b"text\n")
        ended.end()
        ledger.ended("succeeded", 1.0, LEASE, DONE)
        ledger.flush()
        assert [key for key, _ in store.appends] == ["logs/a.log", "events/w.jsonl"]
    assert [key for key, _ in store.appends][2:] == ["logs/b.log"]


def test_a_log_that_cannot_be_stored_holds_nobody_up_and_is_stored_later(
    store: CountingStore, capfd: pytest.CaptureFixture[str]
) -> None:
    log = GatheredLog(store, "logs/", "w.log")
    store.failing = True
    log.begin()
    log.write(b"first\n")
    assert log.end() == "w.log@0+6"
    assert not log.store() and log.ended
    assert not log.due(log._since + 1)
    store.failing = False
    log.begin()
    log.write(b"second\n")
    assert log.store() and not log.ended
    assert store.text() == b"first\nsecond\n"
    assert "w.log: no network" in capfd.readouterr().err


def test_the_job_does_not_wait_for_the_store(store: CountingStore) -> None:
    log = GatheredLog(store, "logs/", "w.log")
    log.write(b"one")
    store.gate.clear()
    storing = threading.Thread(target=log.store)
    storing.start()
    log.write(b" two")
    assert log.tail(100) == b"one two"
    store.gate.set()
    storing.join()
    assert store.text() == b"one" and log.store() and store.text() == b"one two"


def test_the_middle_of_a_long_text_is_left_out_as_ever(store: CountingStore) -> None:
    log = GatheredLog(store, "logs/", "w.log")
    log.begin()
    for number in range(4 * (HEAD_BYTES + TAIL_BYTES) // 10):
        log.write(b"%09d\n" % number)
    assert log.tail(10) == b"%09d\n" % (4 * (HEAD_BYTES + TAIL_BYTES) // 10 - 1)
    place = log.end()
    assert log.store()
    text = store.text()
    assert place == f"w.log@0+{len(text)}" and b" bytes left out ..." in text
    assert text.startswith(b"000000000\n") and len(text) < HEAD_BYTES + TAIL_BYTES + 100


def test_the_tail_is_that_of_this_attempt_only(store: CountingStore) -> None:
    log = GatheredLog(store, "logs/", "w.log")
    log.begin()
    log.write(b"old")
    log.end()
    log.begin()
    assert log.tail(100) == b""
    log.write(b"new")
    assert log.tail(100) == b"new"


class Notes:
    """A listener that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def begin(self, job_id: str, attempt: int) -> None:
        self.told.append((job_id, attempt))

    def __call__(self, data: bytes) -> None:
        self.told.append(data)

    def end(self) -> None:
        self.told.append("end")


def test_a_listener_is_told_all_that_is_printed_and_noted(store: CountingStore) -> None:
    log = GatheredLog(store, "logs/", "w.log", notes := Notes())
    log.write(b"x\n")
    log.note("killed")
    assert notes.told == [b"x\n", b"[ds] killed\n"]
