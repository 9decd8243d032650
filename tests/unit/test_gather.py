"""Logs gathered for a store where each append is a request: few appends, nothing lost, in time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from conftest import until
from distributed_something.job import Job, Lease, Outcome, State
from distributed_something.ledger import RunPaths
from distributed_something.local.store import FolderStore
from distributed_something.runs.joblog import live_key, read_running
from distributed_something.worker.attempt.logs import HEAD_BYTES, TAIL_BYTES
from distributed_something.worker.gather import (
    FOLLOWED_SECONDS,
    GATHER_BYTES,
    LIVE_BYTES,
    Gathered,
    GatheredLog,
    KeptLedger,
    Listener,
    LogKeeper,
)

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


class Orders:
    """The jobs that are followed."""

    def __init__(self, *jobs: str) -> None:
        self.jobs = jobs

    def look(self) -> None:
        pass

    def __contains__(self, job_id: str) -> bool:
        return job_id in self.jobs


def ignore(_: bytes) -> None:
    pass


def log_of(store: CountingStore, name: str = "w-0.log", listener: Listener | None = None) -> GatheredLog:
    return GatheredLog(store, "logs/", name, Gathered(store, "logs/", "w.log"), listener)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path)


def test_attempts_that_end_soon_share_a_segment_and_a_request(store: CountingStore) -> None:
    shared = Gathered(store, "logs/", "w.log")
    first, second = (GatheredLog(store, "logs/", f"w-{n}.log", shared) for n in range(2))
    with LogKeeper([first, second], Orders(), ignore) as keeper:
        ledger = KeptLedger(store, "events/w.jsonl", keeper)
        places = []
        for number in range(4):
            for log in (first, second):
                log.begin()
                assert log.place == f"{log.own.name}@0"
                log.write(b"line %d\n" % number)
                places.append(log.end())
        assert places[:3] == ["w.log@0+7", "w.log@7+7", "w.log@14+7"]
        ledger.ended("succeeded", 1.0, LEASE, DONE)
        ledger.flush()
    assert [key for key, _ in store.appends] == ["logs/w.log", "events/w.jsonl"]
    assert store.text() == b"".join(b"line %d\n" % n for n in range(4) for _ in range(2))


def test_a_text_of_which_something_is_stored_goes_on_in_its_own_segment(store: CountingStore) -> None:
    log = log_of(store)
    log.begin()
    log.write(b"one ")
    assert log.store()
    log.write(b"two")
    assert log.end() == "w-0.log@0+7" and log.ended
    log.begin()
    log.write(b"short")
    assert log.end() == "w.log@0+5" and log.ended
    assert log.store() and not log.ended and log.shared.store()
    assert store.read("logs/w-0.log") == b"one two" and store.read("logs/w.log") == b"short"


def test_what_is_printed_is_stored_when_it_is_followed_or_much(store: CountingStore) -> None:
    own = log_of(store).own
    own.add(b"x")
    now = own.since
    assert not own.due(now + 3600) and not own.due(now + FOLLOWED_SECONDS - 0.1, followed=True)
    assert own.due(now + FOLLOWED_SECONDS, followed=True)
    own.add(b"x" * GATHER_BYTES)
    assert own.due(now)
    own.store()
    assert not own.due(now + 100)


def test_a_line_is_stored_within_seconds_only_while_its_job_is_followed(store: CountingStore) -> None:
    followed, other = log_of(store, "a.log"), log_of(store, "b.log")
    started = threading.Event()
    with LogKeeper([followed, other], Orders("followed"), ignore) as keeper:
        keeper.on_followed = started.set
        for log, job_id in ((followed, "followed"), (other, "other")):
            log.job_id = job_id
            log.begin()
            log.write(b"begun\n")
        until(lambda: [*store.list("logs/")], "the line", 4.0)
        assert [key for key, _ in store.appends] == ["logs/a.log"]
        assert started.is_set()  # the follower must learn where the text begins


def test_the_last_text_of_running_jobs_is_written_once_a_minute_in_one_file(store: CountingStore) -> None:
    paths = RunPaths("App", "r")
    store_text = lambda texts: store.write(live_key(paths, "w"), texts)  # noqa: E731
    logs = [log_of(store, f"w-{number}.log") for number in range(3)]
    with LogKeeper(logs, Orders(), store_text, 0.3):
        for number, log in enumerate(logs[:2]):
            log.job_id, log.attempt = f"job{number}", 1
            log.begin()
            log.write(b"line\n" * (number * LIVE_BYTES * 2 // 5))
            log.write(b"last\xff\n")
        until(lambda: [*store.list("runs/")], "the text", 10.0)
        first = read_running(store, paths, logs[0].place, "job0", "w", 1)
        second = read_running(store, paths, logs[1].place, "job1", "w", 1)
        assert first == b"last\xff\n"
        assert second.startswith(b"[ds] ... 65540 bytes are not stored yet ...\n")
        assert second.endswith(b"line\nlast\xff\n")
        assert read_running(store, paths, logs[0].place, "job0", "w", 2) == b""
        assert not store.appends
    assert len(store.appends) == 2  # the end stores what waits


def test_the_log_of_an_attempt_is_there_before_its_end_is_in_the_ledger(store: CountingStore) -> None:
    ended, running = log_of(store, "a.log"), log_of(store, "b.log")
    with LogKeeper([ended, running], Orders(), ignore) as keeper:
        ledger = KeptLedger(store, "events/w.jsonl", keeper)
        for log in (ended, running):
            log.begin()
            log.write(b"text\n")
        ended.store()
        ended.write(b"more\n")
        ended.end()
        ledger.ended("succeeded", 1.0, LEASE, DONE)
        ledger.flush()
        assert [key for key, _ in store.appends][1:] == ["logs/a.log", "events/w.jsonl"]
    assert [key for key, _ in store.appends][3:] == ["logs/b.log"]


def test_a_log_that_cannot_be_stored_holds_nobody_up_and_is_stored_later(
    store: CountingStore, capfd: pytest.CaptureFixture[str]
) -> None:
    log = log_of(store)
    store.failing = True
    log.begin()
    log.write(b"first\n")
    assert not log.store()
    assert log.end() == "w-0.log@0+6"
    assert not log.store() and log.ended
    assert not log.own.due(log.own.since + 1)
    store.failing = False
    log.begin()
    log.write(b"second\n")
    assert log.store() and not log.ended
    assert store.text() == b"first\nsecond\n"
    assert "w-0.log: no network" in capfd.readouterr().err


def test_the_job_does_not_wait_for_the_store(store: CountingStore) -> None:
    log = log_of(store)
    log.write(b"one")
    store.gate.clear()
    storing = threading.Thread(target=log.store)
    storing.start()
    until(lambda: log.own.taken, "the store")
    log.write(b" two")
    assert log.tail(100) == b"one two"
    assert log.end() == "w-0.log@0+7"
    store.gate.set()
    storing.join()
    assert store.text() == b"one" and log.store() and store.text() == b"one two"


def test_the_middle_of_a_long_text_is_left_out_as_ever(store: CountingStore) -> None:
    log = log_of(store)
    log.begin()
    for number in range(4 * (HEAD_BYTES + TAIL_BYTES) // 10):
        log.write(b"%09d\n" % number)
    assert log.tail(10) == b"%09d\n" % (4 * (HEAD_BYTES + TAIL_BYTES) // 10 - 1)
    place = log.end()
    assert log.shared.store()
    text = store.text()
    assert place == f"w.log@0+{len(text)}" and b" bytes left out ..." in text
    assert text.startswith(b"000000000\n") and len(text) < HEAD_BYTES + TAIL_BYTES + 100


def test_the_tail_is_that_of_this_attempt_only(store: CountingStore) -> None:
    log = log_of(store)
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


def test_a_listener_gets_what_the_bucket_keeps(store: CountingStore) -> None:
    log = log_of(store, listener=(notes := Notes()))
    for _ in range(4 * (HEAD_BYTES + TAIL_BYTES) // 10):
        log.write(b"123456789\n")
    log.end()
    log.shared.store()
    assert b"".join(each for each in notes.told if isinstance(each, bytes)) == store.text()


def test_a_listener_is_told_all_that_is_printed_and_noted(store: CountingStore) -> None:
    log = log_of(store, listener=(notes := Notes()))
    log.write(b"x\n")
    log.note("killed")
    assert notes.told == [b"x\n", b"[ds] killed\n"]
