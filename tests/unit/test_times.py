"""Clocks that are set: no wait is longer than a back-off, and times of another day have their day."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distributed_something.aws.watch.cloudwatch import LineBuffer, Stream
from distributed_something.errors import Unreachable
from distributed_something.job import Cause, Job, Lease, RetryPolicy
from distributed_something.ledger import LedgerWriter, RunPaths
from distributed_something.local.queue import SqliteQueue
from distributed_something.local.store import FolderStore
from distributed_something.runs.following import ASK_SECONDS, Follower
from distributed_something.steps.start import patiently
from distributed_something.testing import FakeClock, MemoryQueue
from distributed_something.words import time_text
from distributed_something.worker.health import pauses
from distributed_something.worker.settler import Settler

NOON = datetime(2026, 3, 4, 12).timestamp()


@pytest.mark.fault(76)
@pytest.mark.parametrize(
    ("hours", "text"),
    [(3, "15:00:00"), (-3, "09:00:00"), (13, "2026-03-05 01:00:00"), (-36, "2026-03-03 00:00:00")],
)
def test_a_time_of_another_day_has_its_day(hours: int, text: str) -> None:
    assert time_text(NOON + hours * 3600, NOON) == text


@pytest.mark.fault(76)
def test_a_clock_that_is_set_back_stretches_no_back_off(tmp_path: Path) -> None:
    clock = FakeClock()
    policy = RetryPolicy(3, backoff=30.0, limit=60.0)
    with SqliteQueue(tmp_path / "queue.db", policy=policy, term=50.0, clock=clock) as queue:
        queue.put([Job(f"{number:016x}", 0, b"{}") for number in range(2)])
        failed, lost = queue.lease(2)
        queue.fail(failed, Cause.EXIT)
        clock.set(clock.now() - 3 * 3600)
        assert [each.job.id for each in queue.lease(1, wait=1.0)] == [failed.job.id], (
            "it has waited long enough"
        )
        clock.advance(51)
        assert lost.job.id in [each.job.id for each in queue.lease(2)], "its worker is lost, for all we know"


@pytest.mark.fault(76)
def test_a_network_that_fails_is_waited_for_whatever_the_clock_does() -> None:
    clock, looks = FakeClock(), list[float]()
    project: Any = SimpleNamespace(clock=clock, engine=SimpleNamespace(poll_interval=1.0))

    def look() -> str:
        looks.append(clock.now())
        clock.set(clock.now() + (-1) ** len(looks) * 3 * 3600)
        if len(looks) < 5:
            raise Unreachable("no answer")
        return "there"

    assert patiently(project, clock.monotonic() + 60, look, lambda _: None) == "there"


@pytest.mark.fault(76)
def test_a_start_is_written_down_though_the_clock_is_set_back(tmp_path: Path) -> None:
    clock, store = FakeClock(), FolderStore(tmp_path)
    ledger = LedgerWriter(store, "events/w.jsonl")
    who = {"worker": "w", "machine": "m"}
    settler = Settler(MemoryQueue(clock=clock, term=120.0), ledger, who, RetryPolicy(), clock, 30.0)
    settler.started(Lease(Job("0" * 16, 0, b"{}"), "token", 0.0), "log")
    clock.set(clock.now() - 3 * 3600)
    assert settler.is_due()
    settler.flush()
    assert b'"started"' in store.read("events/w.jsonl")
    assert not settler.is_due()


@pytest.mark.fault(76)
def test_a_log_can_be_asked_for_after_the_clock_was_set_back(tmp_path: Path) -> None:
    clock, store, paths = FakeClock(), FolderStore(tmp_path), RunPaths("App", "run")
    follower = Follower(store, paths, clock)
    follower.ask("a")
    clock.set(clock.now() - 3 * 3600)
    clock.advance(ASK_SECONDS + 1)
    store.delete([paths.follow])
    follower.ask("a")
    assert b'"a"' in store.read(paths.follow)


@pytest.mark.fault(76)
def test_the_pause_of_a_lost_worker_is_not_shown_for_hours(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write("paused/w", json.dumps({"why": "no memory left", "until": 10_000.0}).encode())
    assert [pause.why for pause in pauses(store, "paused/", 10_001.0)] == ["no memory left"]
    assert pauses(store, "paused/", 6_400.0) == pauses(store, "paused/", 13_600.0) == []


@pytest.mark.fault(76)
def test_lines_of_a_clock_that_was_set_back_do_not_wait_for_it() -> None:
    buffer = LineBuffer()
    buffer.add(Stream("group", "one"), b"line", 10_000.0)
    assert buffer.take(9_999.0, 10_000.5) is None, "it waits for more"
    assert buffer.take(9_000.0, 9_001.0) is not None
