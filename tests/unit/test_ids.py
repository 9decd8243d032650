"""A job is named by its id, the start of it, or its index: never another job than the one that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_something.cli.views.logs import find
from distributed_something.errors import UsageError
from distributed_something.job import Job
from distributed_something.ledger import Fold, RunPaths, write_jobs
from distributed_something.local.store import FolderStore

IDS = ["0920000000000000", "9200000000000000", "ab10000000000000", "ab20000000000000"]


@pytest.fixture
def fold(tmp_path: Path) -> Fold:
    store, paths = FolderStore(tmp_path), RunPaths("App", "run")
    ids = [*IDS, *(f"f{number:015}" for number in range(4, 100))]
    write_jobs(store, paths.jobs + "a.jsonl", [Job(each, 0, b"{}") for each in ids])
    return Fold(store, paths).update()


@pytest.mark.fault(62)
@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("092", 0),
        ("09", 0),
        ("92", 92),
        ("#92", 92),
        ("920", 1),
        ("AB1", 2),
        (IDS[3], 3),
        ("0", 0),
        ("#1", 1),
    ],
)
def test_a_job_is_found_as_it_was_meant(fold: Fold, wanted: str, index: int) -> None:
    assert find(fold, wanted).index == index


@pytest.mark.fault(62)
@pytest.mark.parametrize("wanted", ["00", "#100", "#ab", "x", ""])
def test_no_other_job_is_found(fold: Fold, wanted: str) -> None:
    with pytest.raises(UsageError):
        find(fold, wanted)


@pytest.mark.fault(62)
def test_an_ambiguous_start_lists_the_jobs(fold: Fold) -> None:
    with pytest.raises(UsageError, match="ab: 2 ids begin so: ab10000000000000, ab20000000000000"):
        find(fold, "ab")
