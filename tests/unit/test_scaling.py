"""When a fleet is larger than what is left to do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_something.scaling import (
    AGREEING_LOOKS,
    CHEAPEST_SECONDS,
    Load,
    Look,
    Shrink,
    drained,
    machines_for,
    shrink,
)

FULL = Load(open_jobs=1000, target=10, running=10, busy=10)


def agreed(look: Load, **more: float) -> Shrink | None:
    """The decision where every look sees the same: 4 slots a task, 2 tasks a machine."""
    return shrink([look] * AGREEING_LOOKS, slots=4, tasks=2, **more)  # type: ignore[arg-type]


@pytest.mark.fault(13)
@pytest.mark.parametrize(
    ("jobs", "slots", "tasks", "machines"),
    [(0, 4, 2, 0), (1, 4, 2, 1), (8, 4, 2, 1), (9, 4, 2, 2), (80, 4, 2, 10), (80, 1, 1, 80), (5, 0, 0, 5)],
)
def test_machines_are_counted_by_tasks_and_slots(jobs: int, slots: int, tasks: int, machines: int) -> None:
    assert machines_for(jobs, slots=slots, tasks=tasks) == machines


def test_a_fleet_with_work_for_all_stays() -> None:
    assert agreed(FULL) is None
    assert agreed(FULL._replace(open_jobs=73)) is None


@pytest.mark.fault(13)
def test_idle_machines_go_when_few_jobs_are_left() -> None:
    assert agreed(Load(open_jobs=16, target=10, running=10, busy=2)) == Shrink(target=2, spare=8)


def test_machines_with_a_job_stay_however_few_jobs_there_are() -> None:
    assert agreed(Load(open_jobs=7, target=10, running=10, busy=7)) == Shrink(target=7, spare=3)
    assert agreed(Load(open_jobs=10, target=10, running=10, busy=10)) is None


@pytest.mark.fault(7)
def test_looks_must_agree() -> None:
    low = FULL._replace(open_jobs=3, busy=1)
    assert shrink([low], slots=4, tasks=2) is None
    assert shrink([low, FULL, low], slots=4, tasks=2) is None
    assert shrink([low, low._replace(open_jobs=1000), low], slots=4, tasks=2) is None
    assert shrink([FULL, low, low, low], slots=4, tasks=2) == Shrink(target=1, spare=9)


@pytest.mark.fault(7)
def test_one_machine_stays_until_the_run_has_ended() -> None:
    assert agreed(Load(open_jobs=0, target=10, running=10, busy=0)) == Shrink(target=1, spare=9)
    assert agreed(Load(open_jobs=0, target=1, running=1, busy=0)) is None


def test_machines_that_have_not_come_are_not_waited_for() -> None:
    assert agreed(Load(open_jobs=8, target=10, running=3, busy=1)) == Shrink(target=1, spare=2)
    assert agreed(Load(open_jobs=24, target=10, running=3, busy=3)) == Shrink(target=3, spare=0)


def test_the_target_never_rises() -> None:
    assert agreed(Load(open_jobs=1000, target=2, running=2, busy=2)) is None
    assert agreed(Load(open_jobs=1000, target=2, running=5, busy=2)) is None


@pytest.mark.fault(14)
def test_cheapest_does_not_replace_machines_after_a_while_and_ends_none_with_work() -> None:
    assert agreed(FULL, cheapest=True, age=CHEAPEST_SECONDS - 1) is None
    assert agreed(FULL, cheapest=True, age=CHEAPEST_SECONDS) == Shrink(target=1, spare=0)
    assert agreed(FULL, cheapest=True, age=CHEAPEST_SECONDS * 7.3) == Shrink(target=1, spare=0)
    assert agreed(FULL._replace(target=1), cheapest=True, age=1e6) is None
    assert agreed(FULL, cheapest=False, age=1e6) is None


NUMBERS = st.integers(0, 50)
LOADS = st.builds(Load, open_jobs=st.integers(0, 400), target=NUMBERS, running=NUMBERS, busy=NUMBERS)


@given(st.lists(LOADS, min_size=1, max_size=5), st.booleans(), st.floats(0, 1e5))
def test_a_decision_never_costs_work_or_money(looks: list[Load], cheapest: bool, age: float) -> None:
    decision = shrink(looks, slots=2, tasks=2, cheapest=cheapest, age=age)
    if decision is not None:
        last = looks[-1]
        assert 0 <= decision.target <= last.target
        assert 0 <= decision.spare <= max(last.running - last.busy, 0)
        assert cheapest or decision.target >= min(last.target, machines_for(last.open_jobs, slots=2, tasks=2))


def test_a_run_is_drained_when_looks_agree_that_jobs_are_left_and_no_machine() -> None:
    none, one = Look(5, 0, 0), Look(5, 0, 1)
    assert drained([one, none, none, none])
    assert not drained([none, none])
    assert not drained([none, one, none])
    assert not drained([none, none, Look(0, 0, 0)])
