"""Failed jobs in groups: what is said to be the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_something.job import State
from distributed_something.ledger import JobRecord, RunPaths
from distributed_something.local.store import FolderStore
from distributed_something.report.failures import group_failures


@pytest.mark.fault(63)
@pytest.mark.parametrize(
    ("cause", "reason"),
    [("timeout", "we ended it"), ("upload", "we ended it"), ("exit", "step 7 of 9")],
)
def test_a_job_that_we_ended_is_not_blamed_on_its_last_line(tmp_path: Path, cause: str, reason: str) -> None:
    store, paths = FolderStore(tmp_path), RunPaths("App", "20261122T141500Z-3f2a")
    store.append(paths.logs + "w.log", b"step 6 of 9\nstep 7 of 9\n")
    record = JobRecord("0" * 16, 0)
    record.state, record.cause, record.log = State.DEAD, cause, "w.log@0+24"
    record.detail = "we ended it"
    (group,) = group_failures(store, paths, [record])
    assert (group.cause, group.example) == (cause, reason)
