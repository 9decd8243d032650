"""The ledger's events and their fold, on a store in memory-sized folders."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributed_something.engine import StoredFile
from distributed_something.job import Cause, Job, Lease, Outcome, State
from distributed_something.ledger import (
    Fold,
    LedgerWriter,
    RunPaths,
    SegmentReader,
    job_bodies,
    job_ids,
    write_jobs,
)
from distributed_something.ledger.events import parse_events
from distributed_something.ledger.segments import CHUNK_BYTES
from distributed_something.local.store import FolderStore

PATHS = RunPaths("App", "run1")
JOBS = [Job(f"{number:016x}", number, b'{"group":{"n":%d}}' % number) for number in range(3)]
DONE = Outcome(State.SUCCEEDED, exit_code=0, seconds=2.0, log="w.log@0+5")
FAILED = Outcome(State.WAITING, Cause.EXIT, "exit code 4", 4, seconds=1.0)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    found = FolderStore(tmp_path)
    write_jobs(found, PATHS.jobs + "a.jsonl", JOBS)
    return found


def lease(number: int, attempt: int = 1) -> Lease:
    return Lease(JOBS[number], "token", 0.0, attempt)


def test_jobs_without_events_wait_in_the_order_of_submission(store: FolderStore) -> None:
    fold = Fold(store, PATHS).update()
    assert [(job.index, job.state) for job in fold.jobs.values()] == [(n, State.WAITING) for n in range(3)]
    assert list(job_bodies(store, PATHS))[1] == (JOBS[1].id, {"group": {"n": 1}})


def test_a_job_listed_twice_is_one_job(store: FolderStore) -> None:
    write_jobs(store, PATHS.jobs + "b.jsonl", JOBS)
    assert len(Fold(store, PATHS).update().jobs) == 3
    assert job_ids(store, PATHS) == {job.id for job in JOBS}


def test_the_life_of_a_job(store: FolderStore) -> None:
    ledger = LedgerWriter(store, PATHS.events + "w.jsonl")
    fold = Fold(store, PATHS)
    ledger.started(10, lease(0), worker="w", log="w.log@0")
    ledger.flush()
    assert fold.update().jobs[JOBS[0].id].state is State.RUNNING
    ledger.ended("failed", 11, lease(0), FAILED, worker="w")
    ledger.flush()
    record = fold.update().jobs[JOBS[0].id]
    assert (record.state, record.failed, record.attempts, record.cause) == (State.WAITING, True, 1, "exit")
    ledger.ended("dead", 20, lease(0, 2), FAILED, worker="w")
    ledger.flush()
    record = fold.update().jobs[JOBS[0].id]
    assert (record.state, record.failed, record.attempts) == (State.DEAD, False, 2)
    ledger.ended("retried", 30, lease(0), None)
    ledger.ended("succeeded", 40, lease(0), DONE, worker="w")
    ledger.flush()
    record = fold.update().jobs[JOBS[0].id]
    assert (record.state, record.attempts, record.cause, record.log) == (
        State.SUCCEEDED,
        1,
        None,
        "w.log@0+5",
    )
    assert (fold.first, fold.last_end, fold.attempts) == (10, 40, 3)


def test_a_dropped_job_stays_dropped_unless_it_has_succeeded(store: FolderStore) -> None:
    ledger = LedgerWriter(store, PATHS.events + "w.jsonl")
    for number in (0, 1, 2):
        ledger.ended("dead", 10, lease(number), FAILED, worker="w")
    for number in (0, 1):
        ledger.ended("dropped", 11, lease(number), None)
    ledger.ended("failed", 12, lease(0, 2), FAILED, worker="another delivery")
    ledger.ended("succeeded", 13, lease(1, 2), DONE, worker="another delivery")
    ledger.flush()
    fold = Fold(store, PATHS).update()
    first, second, third = fold.jobs.values()
    assert (first.state, first.cause, first.log) == (State.DROPPED, "exit", None)
    assert (second.state, third.state) == (State.SUCCEEDED, State.DEAD)
    assert [fold.by_state[each] for each in (State.DROPPED, State.SUCCEEDED, State.DEAD)] == [1, 1, 1]
    assert [each.id for each in fold.failing()] == [third.id]


def test_a_short_job_is_one_line(store: FolderStore) -> None:
    ledger = LedgerWriter(store, PATHS.events + "w.jsonl")
    ledger.started(10, lease(0))
    ledger.ended("succeeded", 12, lease(0), DONE)
    ledger.flush()
    lines = store.read(PATHS.events + "w.jsonl").splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["succeeded"]
    assert Fold(store, PATHS).update().first == 10  # it began when it ended less what it took


def test_what_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    class FullStore(FolderStore):
        full = True

        def append(self, key: str, data: bytes) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().append(key, data)

    store = FullStore(tmp_path)
    ledger = LedgerWriter(store, PATHS.events + "w.jsonl")
    ledger.ended("succeeded", 12, lease(0), DONE)
    with pytest.raises(OSError, match="No space"):
        ledger.flush()
    store.full = False
    ledger.flush()
    assert Fold(store, PATHS).update().jobs[JOBS[0].id].state is State.SUCCEEDED


class RewritingStore(FolderStore):
    """Appends as to an object: what there was is written anew, with more. Answers can be lost or late."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._known = b""
        self.answers = True
        self.asked = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def append(self, key: str, data: bytes) -> None:
        self.asked.set()
        self.open.wait(20)
        self.write(key, self._known + data)
        if not self.answers:
            raise OSError("the answer was lost")
        self._known += data


def test_what_was_written_without_an_answer_stays_where_somebody_may_have_read_it(tmp_path: Path) -> None:
    store = RewritingStore(tmp_path)
    write_jobs(FolderStore(tmp_path), PATHS.jobs + "a.jsonl", JOBS)
    fold, ledger = Fold(store, PATHS), LedgerWriter(store, PATHS.events + "w.jsonl")
    ledger.started(10, lease(0), worker="w", log="w.log@0")
    ledger.started(11, lease(1), worker="w", log="w.log@0")
    store.answers = False
    with pytest.raises(OSError, match="lost"):
        ledger.flush()
    fold.update()
    for number in range(3):
        ledger.ended("succeeded", 12 + number, lease(number), DONE, worker="w")
    store.answers = True
    ledger.flush()
    for found in (fold.update(), Fold(store, PATHS).update()):
        assert [job.state for job in found.jobs.values()] == [State.SUCCEEDED] * 3
        assert (found.broken, found.attempts) == (0, 3)


def test_an_event_is_noted_while_the_store_does_not_answer(tmp_path: Path) -> None:
    store = RewritingStore(tmp_path)
    store.open.clear()
    ledger = LedgerWriter(store, PATHS.events + "w.jsonl")
    ledger.ended("succeeded", 10, lease(0), DONE)

    def note() -> None:
        ledger.started(11, lease(1))
        ledger.ended("succeeded", 12, lease(1), DONE)

    flushing, noting = threading.Thread(target=ledger.flush), threading.Thread(target=note, daemon=True)
    flushing.start()
    store.asked.wait(10)
    noting.start()
    noting.join(10)
    in_time = not noting.is_alive()
    store.open.set()
    flushing.join()
    assert in_time
    ledger.flush()
    lines = store.read(PATHS.events + "w.jsonl").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [JOBS[0].id, JOBS[1].id]


@pytest.mark.fault(15)
def test_success_stays_whatever_a_second_delivery_says(store: FolderStore) -> None:
    ledger = LedgerWriter(store, PATHS.events + "w.jsonl")
    ledger.ended("succeeded", 10, lease(0), DONE, worker="a")
    ledger.ended("dead", 11, lease(0), FAILED, worker="b")
    ledger.flush()
    assert Fold(store, PATHS).update().jobs[JOBS[0].id].state is State.SUCCEEDED


@pytest.mark.fault(17)
def test_an_interruption_charges_no_attempt(store: FolderStore) -> None:
    ledger = LedgerWriter(store, PATHS.events + "w.jsonl")
    ledger.ended("interrupted", 10, lease(0), Outcome(State.WAITING, Cause.WORKER_LOST))
    ledger.flush()
    record = Fold(store, PATHS).update().jobs[JOBS[0].id]
    assert (record.state, record.failed, record.attempts, record.interruptions) == (
        State.WAITING,
        False,
        0,
        1,
    )


def test_a_lost_workers_end_does_not_stop_the_clock_of_the_next_one(store: FolderStore) -> None:
    ledger = LedgerWriter(store, PATHS.events + "w.jsonl")
    ledger.started(10, lease(0), worker="new")
    ledger.flush()
    lost = Outcome(State.WAITING, Cause.LEASE_LOST)
    ledger.ended("interrupted", 11, lease(0), lost, worker="old")
    ledger.flush()
    assert Fold(store, PATHS).update().jobs[JOBS[0].id].state is State.RUNNING


def test_events_of_several_segments_count_by_their_time(store: FolderStore) -> None:
    for name, when, outcome in (("b", 10, FAILED), ("a", 20, DONE)):
        ledger = LedgerWriter(store, f"{PATHS.events}{name}.jsonl")
        ledger.ended("failed" if outcome is FAILED else "succeeded", when, lease(0), outcome)
        ledger.flush()
    assert Fold(store, PATHS).update().jobs[JOBS[0].id].state is State.SUCCEEDED


def test_a_line_cut_short_is_left_for_the_next_look(store: FolderStore) -> None:
    line = b'{"t":1,"event":"succeeded","id":"0000000000000000","attempt":1}\n'
    store.append(PATHS.events + "w.jsonl", line[:20])
    fold = Fold(store, PATHS)
    assert fold.update().jobs[JOBS[0].id].state is State.WAITING
    store.append(PATHS.events + "w.jsonl", line[20:])
    assert fold.update().jobs[JOBS[0].id].state is State.SUCCEEDED
    assert fold.broken == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["started", "succeeded", "failed", "interrupted", "skipped", "dead", "retried", "x"])
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "t": JSON | st.floats(0, 1e10),
        "event": NAMES | JSON,
        "id": st.sampled_from([job.id for job in JOBS]) | JSON,
        "attempt": JSON,
        "seconds": JSON,
        "cause": JSON,
        "worker": JSON,
        "log": JSON,
        "max_rss_bytes": JSON,
    },
)


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS.map(json.dumps).map(str.encode) | st.binary(max_size=40), max_size=8))
def test_broken_lines_are_counted_and_never_stop_the_fold(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    store = FolderStore(tmp_path_factory.mktemp("store"))
    write_jobs(store, PATHS.jobs + "a.jsonl", JOBS)
    good = b'{"t":1e11,"event":"succeeded","id":"0000000000000002","attempt":1}'
    store.append(PATHS.events + "w.jsonl", b"\n".join([*lines, good, b""]))
    fold = Fold(store, PATHS).update()
    assert fold.jobs[JOBS[2].id].state in (State.SUCCEEDED, State.SKIPPED)


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS.map(json.dumps).map(str.encode) | st.binary(max_size=40), max_size=8))
def test_many_events_are_read_as_few_are(lines: list[bytes]) -> None:
    few, broken = parse_events(b"\n".join([*lines, b""]), many=False)
    found, lost = parse_events(b"\n".join([*lines, b""]), many=True)
    assert [each.facts() for each in found] == [each.facts() for each in few]
    assert lost == broken


def test_many_events_are_read_by_the_library(store: FolderStore) -> None:
    """A line that is no event among them loses none of the others."""
    ledger = LedgerWriter(store, PATHS.events + "w.jsonl")
    ids = [f"{number:016x}" for number in range(20_000)]
    for number, job_id in enumerate(ids):
        found = Lease(Job(job_id, number, b"{}"), "", 0.0)
        ledger.ended("succeeded", 1.0, found, DONE, worker="a worker whose name is as long as they are")
    ledger.flush()
    store.append(PATHS.events + "x.jsonl", b"none\n" + b'{"t":1,"event":"dead","id":"one more"}\n')
    fold = Fold(store, PATHS).update()
    assert fold.by_state[State.SUCCEEDED] == 20_000
    assert (fold.by_state[State.DEAD], fold.broken) == (1, 1)


class CountingStore(FolderStore):
    """Notes what is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.lists = 0
        self.reads: list[str] = []

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        self.lists += 1
        return super().list(prefix)

    def read_many(self, pieces: Iterable[tuple[str, int, int]]) -> Iterator[bytes | None]:
        wanted = list(pieces)
        self.reads += [key for key, _, _ in wanted]
        return super().read_many(wanted)


def test_a_look_lists_once_and_reads_only_what_has_grown(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    for number in range(50):
        store.append(f"events/w{number:02d}.jsonl", b"%d\n" % number)
    reader = SegmentReader(store, "events/")
    assert sorted(map(int, reader.new_lines())) == list(range(50))
    store.reads.clear()
    store.append("events/w07.jsonl", b"more\n")
    store.append("events/w99.jsonl", b"new\n")
    assert [*reader.new_lines()] == [b"more", b"new"]
    assert store.reads == ["events/w07.jsonl", "events/w99.jsonl"]
    assert [*reader.new_lines()] == []
    assert store.lists == 3 and len(store.reads) == 2


def test_a_file_larger_than_a_chunk_is_read_whole_and_in_order(tmp_path: Path) -> None:
    store, line = FolderStore(tmp_path), b"x" * (1 << 20) + b"%03d\n"
    for number in range(40):
        store.append("events/a.jsonl", line % number)
    store.append("events/b.jsonl", b"last\n")
    lines = [line[-3:] for line in SegmentReader(store, "events/").new_lines()]
    assert lines == [b"%03d" % number for number in range(40)] + [b"ast"]


def test_a_line_longer_than_a_chunk_hides_nothing(tmp_path: Path) -> None:
    store, long = FolderStore(tmp_path), b"x" * (2 * CHUNK_BYTES + 1)
    store.append("events/a.jsonl", b"first\n" + long + b"\nlast\n" + long)
    reader = SegmentReader(store, "events/")
    assert [*reader.new_lines()] == [b"first", long, b"last"], "the end is being written"
    store.append("events/a.jsonl", b"\n")
    assert [*reader.new_lines()] == [long]


def test_a_look_that_fails_half_way_loses_no_event(store: FolderStore) -> None:
    class Failing(FolderStore):
        failing = True

        def read_many(self, pieces: Iterable[tuple[str, int, int]]) -> Iterator[bytes | None]:
            for number, data in enumerate(super().read_many(pieces)):
                if number == 1 and self.failing:
                    raise OSError("the connection broke")
                yield data

    for name in ("a", "b"):
        store.append(f"events/{name}.jsonl", name.encode() + b"\n")
    shaky = Failing(store.root)
    reader = SegmentReader(shaky, "events/")
    with pytest.raises(OSError, match="broke"):
        list(reader.new_lines())
    shaky.failing = False
    assert [*reader.new_lines()] == [b"a", b"b"]
    assert [*reader.new_lines()] == []
