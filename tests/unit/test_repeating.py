"""What is done at intervals, in a thread, as long as a context is entered."""

from __future__ import annotations

import threading

from distributed_something.clock import SystemClock
from distributed_something.system.repeating import Repeating
from distributed_something.testing import FakeClock


def threads() -> set[str]:
    return {each.name for each in threading.enumerate()}


def test_it_acts_at_once_and_after_each_interval_until_it_is_left() -> None:
    clock, times, enough = FakeClock(0.0), list[float](), threading.Event()

    def act() -> None:
        times.append(clock.now())
        if len(times) >= 4:
            enough.set()

    with Repeating("test-of-intervals", 60.0, act, clock):
        assert enough.wait(20.0)
        assert "test-of-intervals" in threads()
    assert times[:4] == [0.0, 60.0, 120.0, 180.0]
    assert "test-of-intervals" not in threads()


def test_leaving_does_not_wait_for_the_interval_but_for_what_is_under_way() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), list[str]()

    def act() -> None:
        begun.set()
        go_on.wait(20.0)
        done.append("done")

    with Repeating("test", 3600.0, act, SystemClock()):
        assert begun.wait(20.0)
        go_on.set()
    assert done == ["done"]
