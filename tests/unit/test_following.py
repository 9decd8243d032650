"""Orders for live logs: the worker stores often only what somebody follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_something.ledger import RunPaths
from distributed_something.local.store import FolderStore
from distributed_something.runs.following import ASK_SECONDS, HOLDS_SECONDS, KEPT_SECONDS, Followed, Follower
from distributed_something.testing import FakeClock

PATHS = RunPaths("App", "r")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def test_a_job_is_followed_while_its_follower_asks_whatever_the_clocks_say(store: FolderStore) -> None:
    laptop, machine = FakeClock(1_000.0), FakeClock(9_999_999.0)
    follower, followed = Follower(store, PATHS, laptop), Followed(store, PATHS, machine)
    followed.look()
    assert "job" not in followed
    for _ in range(10):
        follower.ask("job")
        followed.look()
        assert "job" in followed and "other" not in followed
        for clock in (laptop, machine):
            clock.advance(ASK_SECONDS)
    machine.advance(HOLDS_SECONDS)
    followed.look()
    assert "job" not in followed


def test_followers_leave_each_other_s_orders_and_drop_old_ones(store: FolderStore) -> None:
    clock = FakeClock()
    one, other, followed = (
        Follower(store, PATHS, clock),
        Follower(store, PATHS, clock),
        Followed(store, PATHS, clock),
    )
    one.ask("a")
    other.ask("b")
    followed.look()
    assert "a" in followed and "b" in followed
    clock.advance(KEPT_SECONDS)
    other.ask("b")
    assert b'"a"' not in store.read(PATHS.follow)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"job": []}', b"\xff"])
def test_a_file_of_orders_that_makes_no_sense_is_replaced(store: FolderStore, content: bytes) -> None:
    store.write(PATHS.follow, content)
    Followed(store, PATHS, FakeClock()).look()
    Follower(store, PATHS, FakeClock()).ask("other")
    followed = Followed(store, PATHS, FakeClock())
    followed.look()
    assert "other" in followed
