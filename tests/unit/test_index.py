"""The index of a run: kept between commands, the same in any order of reading, made anew when damaged."""

from __future__ import annotations

import json
import random
import sqlite3
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributed_something.errors import DsError
from distributed_something.job import Job, Lease, State
from distributed_something.ledger import Fold, JobRecord, LedgerWriter, RunPaths, write_jobs
from distributed_something.ledger.live import LiveFold
from distributed_something.ledger.records import FACTS
from distributed_something.local.store import FolderStore
from synthetic import write_run

PATHS = RunPaths("App", "run1")
IDS = [f"{number:016x}" for number in range(3)]


def facts_of(fold: Fold) -> list[tuple[object, ...]]:
    return [(each.id, each.state, *(getattr(each, name) for name in FACTS)) for each in fold.jobs.values()]


def numbers_of(fold: Fold) -> tuple[object, ...]:
    counts = fold.by_state, fold.failed, fold.attempts, fold.interruptions, fold.total
    return *counts, fold.first, fold.last_end


class Counting(FolderStore):
    """Notes how many bytes are read."""

    read_bytes = 0

    def read_many(self, pieces: Any) -> Any:
        for data in super().read_many(pieces):
            self.read_bytes += len(data or b"")
            yield data


def test_the_next_command_reads_what_is_new_only(tmp_path: Path) -> None:
    paths = write_run(tmp_path, "App", 1000)
    index = tmp_path / "looks/run.db"
    before = Fold(FolderStore(tmp_path / "data"), paths, index).update()
    store = Counting(tmp_path / "data")
    again = Fold(store, paths, index).update()
    assert store.read_bytes == 0
    assert (facts_of(again), numbers_of(again)) == (facts_of(before), numbers_of(before))
    line = json.dumps({"t": 9e9, "event": "retried", "id": next(before.dead()).id}) + "\n"
    store.append(paths.events + "retry.jsonl", line.encode())
    again.update()
    assert store.read_bytes == len(line)
    assert again.by_state[State.DEAD] == before.by_state[State.DEAD] - 1


def test_two_commands_share_an_index(tmp_path: Path) -> None:
    paths, index = write_run(tmp_path, "App", 100), tmp_path / "looks/run.db"
    store = Counting(tmp_path / "data")
    first, second = Fold(store, paths, index), Fold(store, paths, index)
    first.update()
    read = store.read_bytes
    assert facts_of(second.update()) == facts_of(first)
    assert store.read_bytes == read, "what one has read, the other does not read"
    store.append(paths.events + "x.jsonl", b'{"t":9e9,"event":"dead","id":"feedfeedfeedfeed"}\n')
    assert second.update().total == 101
    assert first.update().total == 101 and first.by_state == second.by_state


@pytest.mark.parametrize("damage", ["cut", "emptied", "noise", "another version", "no file"])
def test_a_damaged_index_is_made_anew(tmp_path: Path, damage: str) -> None:
    paths, index = write_run(tmp_path, "App", 500), tmp_path / "looks/run.db"
    store = FolderStore(tmp_path / "data")
    fold = Fold(store, paths, index).update()
    whole = facts_of(fold), numbers_of(fold)
    fold.close()
    size = index.stat().st_size
    if damage in ("cut", "emptied"):
        with index.open("r+b") as file:
            file.truncate(size // 2 if damage == "cut" else 0)
    elif damage == "noise":
        index.write_bytes(random.Random(1).randbytes(size))
    elif damage == "no file":
        index.unlink()
    else:
        with sqlite3.connect(index) as db:
            db.execute("PRAGMA user_version = 99")
    again = Fold(store, paths, index).update()
    assert (facts_of(again), numbers_of(again)) == whole


def test_a_ledger_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    paths, index = write_run(tmp_path, "App", 100), tmp_path / "looks/run.db"
    store = FolderStore(tmp_path / "data")
    Fold(store, paths, index).update()
    store.write(paths.events + "w.jsonl", b'{"t":1,"event":"dead","id":"%s"}\n' % IDS[0].encode())
    again = Fold(store, paths, index).update()
    assert (again.by_state[State.DEAD], again.attempts) == (1, 1)


def test_without_a_place_for_the_index_it_lies_in_memory(tmp_path: Path) -> None:
    paths = write_run(tmp_path, "App", 10)
    (tmp_path / "looks").write_text("a file where the folder would be")
    assert Fold(FolderStore(tmp_path / "data"), paths, tmp_path / "looks/run.db").update().total == 10


def test_an_index_is_for_its_user_alone(tmp_path: Path) -> None:
    Fold(FolderStore(tmp_path / "data"), write_run(tmp_path, "App", 10), tmp_path / "looks/run.db").update()
    assert (tmp_path / "looks").stat().st_mode & 0o077 == 0
    assert [each.stat().st_mode & 0o077 for each in (tmp_path / "looks").iterdir()] == [0, 0, 0]


EVENTS = st.builds(
    lambda event, job, t, attempt, worker: {
        "t": t,
        "event": event,
        "id": IDS[job],
        "attempt": attempt,
        "worker": worker,
        "seconds": 0.25,
        **({"cause": "exit"} if event in ("failed", "dead") else {}),
    },
    st.sampled_from(["started", "succeeded", "failed", "interrupted", "skipped", "dead", "retried"]),
    st.integers(0, 2),
    st.integers(0, 1000),
    st.integers(1, 3),
    st.sampled_from(["a", "b"]),
)


@pytest.mark.fault(66)
@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=14, unique_by=lambda each: each["t"]), st.randoms(use_true_random=False))
def test_the_order_of_reading_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]], draw: random.Random
) -> None:
    """Whether events are read at once, or one at a time in any order by one fold that is kept."""
    folder = tmp_path_factory.mktemp("store")
    store, jobs = FolderStore(folder), [Job(job_id, 0, b'{"group":{}}') for job_id in IDS]
    write_jobs(store, PATHS.jobs + "a.jsonl", jobs)
    kept = Fold(store, PATHS, folder / "looks/kept.db").update()
    draw.shuffle(events)
    for number, event in enumerate(events):
        store.append(f"{PATHS.events}{number % 3}.jsonl", json.dumps(event).encode() + b"\n")
        kept.update()
    fresh = Fold(store, PATHS).update()
    assert facts_of(kept) == facts_of(fresh)
    assert numbers_of(kept) == numbers_of(fresh)
    counted = {state: sum(each.state is state for each in fresh.jobs.values()) for state in State}
    assert fresh.by_state == counted
    assert fresh.failed == sum(each.failed for each in fresh.jobs.values())
    assert {each.id for each in fresh.running()} == {
        each.id for each in fresh.jobs.values() if each.state is State.RUNNING
    }


@pytest.mark.fault(66)
def test_an_older_end_that_is_seen_late_changes_no_state(tmp_path: Path) -> None:
    store, fold = FolderStore(tmp_path), Fold(FolderStore(tmp_path), PATHS)
    for segment, when, event in (("a", 2, "dead"), ("b", 1, "failed")):
        facts = {"t": when, "event": event, "id": IDS[0], "attempt": when, "cause": "exit"}
        store.append(f"{PATHS.events}{segment}.jsonl", json.dumps(facts).encode() + b"\n")
        assert [each.state for each in fold.update().jobs.values()] == [State.DEAD]


@pytest.mark.parametrize("seed", range(8))
def test_a_piece_of_an_index_that_is_damaged_is_said_or_mended(tmp_path: Path, seed: int) -> None:
    paths, index = write_run(tmp_path, "App", 500), tmp_path / "looks/run.db"
    store, draw = FolderStore(tmp_path / "data"), random.Random(seed)
    fold = Fold(store, paths, index).update()
    whole = facts_of(fold), numbers_of(fold)
    fold.close()
    with index.open("r+b") as file:
        for page in draw.sample(range(1, index.stat().st_size // 4096), 6):
            file.seek(page * 4096)
            file.write(draw.randbytes(4096))
    try:
        found = Fold(store, paths, index).update()
        assert (facts_of(found), numbers_of(found)) == whole
    except DsError as error:
        assert "made anew" in error.fix
    again = Fold(store, paths, index).update()
    assert (facts_of(again), numbers_of(again)) == whole


def test_a_job_is_found_by_its_id_its_index_or_the_start_of_its_id(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    write_jobs(
        store, PATHS.jobs + "a.jsonl", [Job(each, 0, b"{}") for each in ("0" * 16, "ab" * 8, "ac" * 8)]
    )
    fold = Fold(store, PATHS).update()
    found = {text: [each.index for each in fold.find(text)] for text in ("ab" * 8, "2", "ab", "a", "00", "x")}
    assert found == {"ab" * 8: [1], "2": [2], "ab": [1], "a": [1, 2], "00": [0], "x": []}


def running(fold: LiveFold) -> set[tuple[str, str | None]]:
    return {(each.id, each.worker) for each in fold.running()}


def test_the_function_that_watches_knows_what_runs_from_a_small_memory(tmp_path: Path) -> None:
    store, paths = FolderStore(tmp_path / "data"), write_run(tmp_path, "App", 2000)
    whole = Fold(store, paths).update()
    live = LiveFold(store, paths).update()
    assert live.by_state == whole.by_state
    assert (live.total, live.attempts, live.last_end) == (whole.total, whole.attempts, whole.last_end)
    store.append(
        paths.events + "m.jsonl",
        b'{"t":9e9,"event":"started","id":"%s","worker":"w1","machine":"m1"}\n' % IDS[0].encode(),
    )
    kept = json.loads(json.dumps(live.memory))
    assert len(json.dumps(kept["read"])) < 1000, "it grows with the segments, not with the jobs"
    counting = Counting(tmp_path / "data")
    live = LiveFold(counting, paths, kept).update()
    assert running(live) == {(IDS[0], "w1")}
    assert counting.read_bytes < 100
    for worker, still in (("w2", True), ("w1", False)):
        event = {"t": 9.1e9, "event": "interrupted", "id": IDS[0], "worker": worker}
        store.append(paths.events + "n.jsonl", json.dumps(event).encode() + b"\n")
        assert bool(running(live.update())) is still, "another worker's loss ends no attempt"


def lives() -> list[list[tuple[str, str]]]:
    """Returns two deliveries of one job, each with its end, in every order; the second may have no start."""
    found = []
    for ends in product(("interrupted", "failed", "dead"), repeat=2):
        first, second = ("started", "a"), ("started", "b")
        for order in permutations([first, (ends[0], "a"), second, (ends[1], "b")]):
            if order.index(first) < order.index((ends[0], "a")) and ends != ("dead", "dead"):
                if order.index(second) < order.index((ends[1], "b")):
                    found.append([*order])
                found.append([each for each in order if each != second])
    return found


@pytest.mark.parametrize("life", lives(), ids=str)
def test_all_looks_agree_on_a_job_delivered_twice(tmp_path: Path, life: list[tuple[str, str]]) -> None:
    store = FolderStore(tmp_path)
    write_jobs(store, PATHS.jobs + "a.jsonl", [Job(IDS[0], 0, b'{"group":{}}')])
    kept = Fold(store, PATHS)
    for when, (name, worker) in enumerate(life):
        event = {"t": when, "event": name, "id": IDS[0], "attempt": 3, "worker": worker}
        store.append(PATHS.events + "w.jsonl", json.dumps(event).encode() + b"\n")
        kept.update()
        states = [Fold(store, PATHS).update().by_state, kept.by_state]
        names = [each[0] for each in life[: when + 1]]
        if "dead" not in names or "started" not in names[names.index("dead") :]:
            states.append(LiveFold(store, PATHS).update().by_state)
        assert all(each == states[0] for each in states), life[: when + 1]
    if "dead" in names:
        assert states[0][State.DEAD] == (names[-1] != "started")


@pytest.mark.parametrize("known", [None, "x", {"version": 0}, {"version": 2, "run": "another"}])
def test_a_memory_that_is_not_its_own_is_not_used(tmp_path: Path, known: object) -> None:
    store, paths = FolderStore(tmp_path / "data"), write_run(tmp_path, "App", 20)
    assert LiveFold(store, paths, known).update().total == 20


def test_machines_on_which_jobs_fail_in_a_row_are_known_from_the_small_memory(tmp_path: Path) -> None:
    store, paths = FolderStore(tmp_path), RunPaths("App", "r")
    ledger = LedgerWriter(store, paths.events + "w.jsonl")

    def note(name: str, at: float, machine: str, *jobs: int) -> None:
        for number in jobs:
            lease = Lease(Job(f"{number:016x}", number, b""), "", at)
            ledger.started(at, lease, worker="w", machine=machine)
            ledger.ended(name, at, lease, None, machine=machine)
        ledger.flush()

    note("failed", 1.0, "m1", 1, 2)
    note("dead", 2.0, "m2", 3, 4, 5, 6, 7)
    live = LiveFold(store, paths).update()
    assert live.suspects == ["m2"]
    note("failed", 3.0, "m1", 2, 2)
    live = LiveFold(store, paths, json.loads(json.dumps(live.memory))).update()
    assert live.suspects == ["m2"], "no third job"
    note("succeeded", 4.0, "m2", 8)
    note("failed", 5.0, "m1", 9)
    live = LiveFold(store, paths, json.loads(json.dumps(live.memory))).update()
    assert live.suspects == ["m1"], "one has succeeded on m2 since"


def test_records_are_as_they_were(tmp_path: Path) -> None:
    assert set(JobRecord.__slots__) == {"id", "index", "state", *FACTS}


@pytest.mark.parametrize(
    "facts",
    [
        {"machine": "\ud800"},
        {"phases": {"\ud800": 1}},
        {"phases": {"in": 1}, "bytes_in": 2**70},
        {"detail": "\ud800"},
    ],
)
@pytest.mark.parametrize("event", ["succeeded", "dead"])
def test_a_value_that_no_index_can_hold_spoils_no_look(
    tmp_path: Path, event: str, facts: dict[str, Any]
) -> None:
    store, ended = FolderStore(tmp_path), {"t": 5.0, "event": event, "id": IDS[0], "seconds": 1, **facts}
    store.append(PATHS.events + "w.jsonl", json.dumps(ended).encode() + b"\n")
    fold = Fold(store, PATHS, tmp_path / "index.db").update()
    assert (fold.by_state[State(event)], fold.attempts, fold.first) == (1, 1, 4.0)


@pytest.mark.parametrize("pack", ["compact", "spaced"])
def test_results_count_the_same_however_they_are_written_and_broken_lines_do_not(
    tmp_path: Path, pack: str
) -> None:
    store, paths = FolderStore(tmp_path), RunPaths("App", "r")
    spaces = {} if pack == "spaced" else {"separators": (",", ":")}

    def line(number: int, name: str, when: float, **facts: object) -> str:
        event = {"t": when, "event": name, "id": f"{number:016x}", "attempt": 1, **facts}
        return json.dumps(event, **spaces) + "\n"  # type: ignore[arg-type]

    lines = line(1, "started", 1.0, worker="w") + line(2, "started", 1.0, worker="w")
    lines += line(1, "succeeded", 2.0, seconds=1.0, output='a "b" {}') + line(3, "skipped", 3.0)
    lines += line(4, "dead", 4.0, cause="exit") + line(5, "succeeded", 2.5)[:-3] + "\n"
    lines += '{"t":9,"event":"succeeded","id":"short"}\n'
    store.append(paths.events + "w.jsonl", lines.encode())
    live = LiveFold(store, paths).update()
    assert (live.by_state[State.SUCCEEDED], live.by_state[State.SKIPPED]) == (2, 1)  # "short" is an id too
    assert live.by_state[State.DEAD] == 1 and [each.id for each in live.running()] == [f"{2:016x}"]
    assert (live.first, live.last_end) == (1.0, 9.0)
