"""What goes wrong in a rehearsal: read from a text, drawn from a seed."""

from __future__ import annotations

import math
from typing import Any

import pytest

from distributed_something.errors import UsageError
from distributed_something.rehearsal.faults import (
    Faults,
    Misfortune,
    Share,
    fate,
    parse_faults,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Faults()),
        ("notice=0.2/min", Faults(notice=0.2)),
        ("kill=6/h", Faults(kill=0.1)),
        ("kill=1/s", Faults(kill=60.0)),
        ("throttle=5%,error=2.5%", Faults(throttle=0.05, error=0.025)),
        ("lag=30s, boot=2min", Faults(lag=30.0, boot=120.0)),
        ("capacity=3of5", Faults(capacity=Share(3, 5))),
        ("capacity=3", Faults(capacity=Share(3))),
        ("pull=100%,broken=50%", Faults(pull=1.0, broken=0.5)),
        ("speed=10x,seed=7", Faults(speed=10.0, seed=7)),
        ("speed=10,", Faults(speed=10.0)),
    ],
)
def test_a_text_says_what_goes_wrong(text: str, expected: Faults) -> None:
    assert parse_faults(text) == expected


def test_a_rough_day_brings_something_of_everything() -> None:
    day = parse_faults("rough-day")

    assert day.notice and day.kill and day.throttle and day.error and day.lag


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kill", "kill=: must be"),
        ("kills=1/min", "no such fault"),
        ("kill=often", "kill=often"),
        ("kill=1", "0.2/min"),
        ("throttle=5", "5%"),
        ("throttle=100%", "below 100%"),
        ("lag=soon", "30s"),
        ("capacity=5of3", "3of5"),
        ("pull=101%", "10%"),
        ("capacity=1of0", "3of5"),
        ("speed=0x", "10x"),
        ("seed=x", "whole number"),
        ("kill=1/min;notice=1/min", "kill=1/min;notice"),
    ],
)
def test_a_text_that_cannot_be_meant_is_one_line_and_a_fix(text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_faults(text)

    assert said in raised.value.what and "\n" not in raised.value.what
    assert "--faults" in raised.value.fix


@pytest.mark.parametrize(
    ("share", "target", "had"),
    [(Share(3, 5), 5, 3), (Share(3, 5), 10, 6), (Share(3, 5), 1, 1), (Share(3), 5, 3), (Share(0), 5, 0)],
)
def test_capacity_limits_machines(share: Share, target: int, had: int) -> None:
    assert share.limit(target) == had


def test_the_same_seed_brings_the_same_fates() -> None:
    faults = Faults(notice=1.0, kill=1.0, seed=3)
    fates = [fate(faults, number) for number in range(500)]

    assert fates == [fate(faults, number) for number in range(500)]
    assert fates != [fate(faults._replace(seed=4), number) for number in range(500)]
    assert len(set(fates)) == 500
    assert 50 < sum(each.kill for each in fates) / 500 < 70  # once a minute


def test_some_machines_cannot_pull_images_and_end_as_they_would_have() -> None:
    faults = Faults(kill=1.0, seed=3)
    some = [fate(faults._replace(pull=0.3), number) for number in range(500)]
    assert 100 < sum(not each.pulls for each in some) < 200
    assert [each.kill for each in some] == [fate(faults, number).kill for number in range(500)]
    assert not any(fate(faults._replace(pull=1.0), number).pulls for number in range(500))


def test_without_faults_nothing_befalls() -> None:
    assert fate(Faults(), 1) == (math.inf, math.inf, True, True)
    misfortune = Misfortune(Faults())
    assert not any(misfortune.next() for _ in range(1000))


def test_calls_fail_as_often_as_is_asked_for() -> None:
    misfortunes: list[Any] = [Misfortune(Faults(throttle=0.1, error=0.3, seed=1)) for _ in range(2)]
    befallen = [[each.next() for _ in range(5000)] for each in misfortunes]

    assert befallen[0] == befallen[1]
    assert 400 < befallen[0].count("throttle") < 600
    assert 1300 < befallen[0].count("error") < 1700


def test_pretended_time_passes_faster() -> None:
    assert Faults(speed=10.0).seconds(120.0) == 12.0
