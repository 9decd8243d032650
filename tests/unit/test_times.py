"""Clocks that are set: no wait is longer than a back-off, and times of another day have their day."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from distributed_something.job import Cause, Job, RetryPolicy
from distributed_something.local.queue import SqliteQueue
from distributed_something.testing import FakeClock
from distributed_something.words import time_text

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
