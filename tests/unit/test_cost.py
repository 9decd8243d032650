"""What machines cost, from what was seen of them: pure, and with a store in a folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from distributed_something.aws.ec2.cost import Life, RunCost, dollars, seen
from distributed_something.aws.ec2.fleets import Machine, _ended
from distributed_something.errors import DsError
from distributed_something.local.store import FolderStore
from distributed_something.s3.session import AwsSession

PRICES = {("m5.large", "a"): [(0.0, 0.04)], ("c5.large", "b"): [(0.0, 0.10)]}


def machine(name: str, state: str = "running", since: float = 0.0, ended: float | None = None) -> Machine:
    return Machine(name, state, "", since, ended, "m5.large", "a")


def test_a_machine_costs_from_its_start_to_its_end() -> None:
    lives = seen({}, [machine("i-1")], 1800.0)
    lives = seen(lives, [machine("i-1")], 3600.0)
    assert dollars(lives, PRICES, None) == pytest.approx(0.04)
    lives = seen(lives, [machine("i-1", "terminated", ended=7200.0)], 9000.0)
    assert dollars(lives, PRICES, None) == pytest.approx(0.08)
    assert seen(lives, [machine("i-1", "terminated", ended=7200.0)], 99_000.0) == lives


def test_a_machine_that_ec2_has_forgotten_costs_no_more_and_stays_on_the_cost() -> None:
    lives = seen(seen({}, [machine("i-1")], 3600.0), [], 9_999_999.0)
    assert lives["i-1"] == Life("m5.large", "a", 0.0, 3600.0, over=True)
    assert dollars(lives, PRICES, None) == pytest.approx(0.04)


def test_the_least_that_is_costed_is_a_minute() -> None:
    lives = seen({}, [machine("i-1", "terminated")], 5.0)
    assert dollars(lives, PRICES, None) == pytest.approx(0.04 / 60, abs=1e-6)


def test_without_a_price_the_bid_stands_for_it_and_without_both_the_cost_is_not_known() -> None:
    lives = {"i-1": Life("p5.large", "z", 0.0, 3600.0)}
    assert dollars(lives, PRICES, 0.5) == pytest.approx(0.5)
    assert dollars(lives, PRICES, None) is None
    assert dollars({}, {}, None) == 0.0


@pytest.mark.parametrize(
    ("said", "when"),
    [
        ("User initiated (1970-01-01 01:00:00 GMT)", 3600.0),
        ("Server.SpotInstanceTermination", None),
        ("", None),
        ("(", None),
    ],
)
def test_when_a_machine_ended(said: str, when: float | None) -> None:
    assert _ended(said) == when


class Ec2:
    """Answers with prices, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.history = [(0.0, "0.04")]

    def client(self, _service: str) -> Ec2:
        return self

    def get_paginator(self, _name: str) -> Ec2:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        self.asked += 1
        facts = {"InstanceType": "m5.large", "AvailabilityZone": "a", "ProductDescription": "Linux/UNIX"}
        return [
            {
                "SpotPriceHistory": [
                    {**facts, "SpotPrice": price, "Timestamp": datetime.fromtimestamp(when, UTC)}
                    for when, price in reversed(self.history)
                ]
            }
        ]


@pytest.mark.fault(12)
def test_another_process_goes_on_with_what_was_seen_and_prices_are_asked_for_once(tmp_path: Path) -> None:
    ec2, store = Ec2(), FolderStore(tmp_path)
    first = RunCost(cast(AwsSession, ec2), store, "runs/a/machines.json", None)
    assert first.usd([machine("i-1"), machine("i-2")], 3600.0) == pytest.approx(0.08)
    assert first.usd([machine("i-1")], 3700.0) == pytest.approx(0.04 * 3700 / 3600 + 0.04, abs=1e-6)
    assert ec2.asked == 1
    assert first.per_hour == pytest.approx(0.04), "of the one that still runs"
    second = RunCost(cast(AwsSession, ec2), store, "runs/a/machines.json", None)
    assert second.usd([], 999_999.0) == pytest.approx(0.04 * 3700 / 3600 + 0.04, abs=1e-6)


def test_prices_that_have_moved_are_those_of_now_a_quarter_of_an_hour_later(tmp_path: Path) -> None:
    ec2 = Ec2()
    cost = RunCost(cast(AwsSession, ec2), FolderStore(tmp_path), "machines.json", None)
    cost.usd([machine("i-1")], 3600.0)
    ec2.history.append((3900.0, "0.06"))
    cost.usd([machine("i-1")], 4499.0)
    assert (cost.per_hour, ec2.asked) == (pytest.approx(0.04), 1)
    cost.usd([machine("i-1")], 4500.0)
    assert (cost.per_hour, ec2.asked) == (pytest.approx(0.06), 2)


def test_a_price_that_nobody_knows_is_asked_for_once_a_minute(tmp_path: Path) -> None:
    ec2 = Ec2()
    cost = RunCost(cast(AwsSession, ec2), FolderStore(tmp_path), "machines.json", None)
    odd = machine("i-1")._replace(kind="p5.large")
    for now in (3600.0, 3601.0, 3659.0, 3660.0):
        assert cost.usd([odd], now) is None
    assert ec2.asked == 2


def test_where_prices_are_not_asked_for_the_bid_is_the_price(tmp_path: Path) -> None:
    ec2 = Ec2()
    cost = RunCost(cast(AwsSession, ec2), FolderStore(tmp_path), "machines.json", 0.1, ask=False)
    assert cost.usd([machine("i-1"), machine("i-2")], 3600.0) == pytest.approx(0.2)
    assert cost.per_hour == pytest.approx(0.2) and ec2.asked == 0


@pytest.mark.parametrize("stored", [b"", b"[]", b"{", json.dumps({"i-1": [1]}).encode(), b"null"])
def test_a_broken_file_of_machines_is_begun_anew(tmp_path: Path, stored: bytes) -> None:
    store = FolderStore(tmp_path)
    store.write("machines.json", stored)
    cost = RunCost(cast(AwsSession, Ec2()), store, "machines.json", None)
    assert cost.usd([machine("i-1")], 3600.0) == pytest.approx(0.04)


def test_what_cannot_be_asked_is_not_known_and_no_look_fails_for_it(tmp_path: Path) -> None:
    class Denied(Ec2):
        def get_paginator(self, _name: str) -> Ec2:
            raise DsError("asking for spot prices: denied")

    cost = RunCost(cast(AwsSession, Denied()), FolderStore(tmp_path), "machines.json", None)
    assert cost.usd([machine("i-1")], 3600.0) is None


@pytest.mark.parametrize("seed", range(5))
def test_the_cost_is_that_of_a_sum_made_outside_while_prices_move(seed: int) -> None:
    """The sum outside: each second of each machine at the price of that second, and its disk."""
    random, seconds, gb = Random(seed), 6 * 3600, 100
    pools = [("m5.large", "a"), ("m5.large", "b"), ("c5.large", "a")]
    price = {pool: [random.uniform(0.03, 0.12)] * seconds for pool in pools}  # of each second
    history = {pool: [(0.0, price[pool][0])] for pool in pools}
    for pool in pools:
        for at in range(random.randint(600, 5400), seconds, random.randint(600, 5400)):
            price[pool][at:] = [random.uniform(0.03, 0.12)] * (seconds - at)
            history[pool].append((float(at), price[pool][at]))
    lives = {f"i-{n}": (random.randint(0, seconds - 1), random.randint(20, 7200)) for n in range(40)}
    of = {name: random.choice(pools) for name in lives}
    outside = 0.0
    for name, (since, lasts) in lives.items():
        paid = price[of[name]][since : since + max(lasts, 60)]
        outside += sum(each + gb * 0.08 / 730 for each in paid) / 3600
    known: dict[str, Life] = {}
    now = 0
    while now < seconds:  # most looks are a minute apart, some half an hour: the laptop slept
        now = min(now + random.choice([60] * 9 + [1800]), seconds)
        machines = []
        for name, (since, lasts) in lives.items():
            ended = since + lasts
            if since <= now < ended + 3600:  # EC2 forgets a machine an hour after its end
                state, over = ("running", None) if now < ended else ("terminated", float(ended))
                machines.append(Machine(name, state, "", float(since), over, *of[name]))
        known = seen(known, machines, float(now))
    found = dollars(known, history, None, gb)
    assert found == pytest.approx(outside, rel=0.02)
