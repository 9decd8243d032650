"""Jobs as the page selects, orders and searches them."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_something.job import Job, Lease, Outcome, State
from distributed_something.ledger import Fold, LedgerWriter, RunPaths, write_jobs
from distributed_something.ledger.selection import Wanted, containing, indexes
from distributed_something.local.store import FolderStore
from synthetic import write_run

ENDED = {3: 5.0, 1: 9.0, 4: 1.0}
"""Jobs that have ended, and after how many seconds; 0, 2 and 5 have only waited."""


@pytest.fixture(scope="module")
def fold(tmp_path_factory: pytest.TempPathFactory) -> Fold:
    store, paths = FolderStore(tmp_path_factory.mktemp("store")), RunPaths("App", "run")
    jobs = [Job(f"{n:x}{n:015x}", n, f'{{"group":{{"Plate":"P{n % 2}"}}}}'.encode()) for n in range(6)]
    write_jobs(store, paths.jobs + "a", jobs)
    ledger = LedgerWriter(store, paths.events + "w")
    for n, seconds in ENDED.items():
        state = State.DEAD if n == 4 else State.SUCCEEDED
        lease = Lease(jobs[n], "", 0, attempt=n)
        ledger.ended(state.value, 10.0, lease, Outcome(state, seconds=seconds), machine=f"m{n}", worker="w")
    ledger.flush()
    return Fold(store, paths).update()


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("", [0, 1, 2, 3, 4, 5]),
        ("-index", [5, 4, 3, 2, 1, 0]),
        ("id", [0, 1, 2, 3, 4, 5]),
        ("time", [4, 3, 1, 0, 2, 5]),
        ("-time", [1, 3, 4, 0, 2, 5]),
        ("state", [0, 2, 5, 1, 3, 4]),
        ("-state", [4, 1, 3, 0, 2, 5]),
        ("attempts", [0, 2, 5, 1, 3, 4]),
        ("-machine", [4, 3, 1, 0, 2, 5]),
        ("key:Plate", [0, 2, 4, 1, 3, 5]),
        ("-key:Plate", [5, 3, 1, 4, 2, 0]),
        ("key:None", [0, 1, 2, 3, 4, 5]),
        ("nonsense", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_jobs_that_have_only_waited_have_their_place_in_every_order(
    fold: Fold, order: str, found: list[int]
) -> None:
    assert list(indexes(fold, Wanted(order=order))) == found
    odd = [n for n in found if n % 2]
    assert list(indexes(fold, Wanted(keys=(("Plate", "P1"),), order=order))) == odd
    among = {f"{n:x}{n:015x}" for n in (1, 2, 4)}
    assert list(indexes(fold, Wanted(order=order), among)) == [n for n in found if n in (1, 2, 4)]


@pytest.mark.parametrize(
    ("word", "matching"),
    [
        ("br00003", [*range(288, 384)]),
        ('Well": "95', []),  # values are searched, not how they are written
        ("m3", [*range(3, 600, 10)]),
        ("W39", [39, 79, 119, 159, 199, 239, 279, 319, 359, 399, 439, 479, 519, 559, 599]),
        ("EXIT", [*range(49, 600, 50)]),
        ("9e3779b97f", [1]),
        ("3779b97f", [256]),  # the begin of its id; that of job 1 has it in its middle
        ("v2", [*range(600)]),
        ("pipeline", [*range(600)]),
        ("group", [*range(600)]),
        ("group_", []),
    ],
)
def test_a_word_is_found_among_many_jobs_and_few(tmp_path: Path, word: str, matching: list[int]) -> None:
    store, paths = FolderStore(tmp_path / "data"), write_run(tmp_path, "App", 600)
    fold = Fold(store, paths).update()
    assert containing(fold, range(600), word) == matching
    few = [599, 479, 300, 49, 3, 1]
    assert containing(fold, few, word) == [n for n in few if n in matching]
    assert 599 in containing(fold, few, "599")  # its index, or text anywhere
