"""Machines on demand where spot machines do not come, what they cost, and types that are left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("boto3")
from botocore.stub import Stubber

from distributed_something.aws.checks.findings import on_demand_findings, score_findings
from distributed_something.aws.ec2.capacity import left_out, lives_key, past_lives
from distributed_something.aws.ec2.cost import Life, dollars, hourly
from distributed_something.aws.ec2.fleets import Fleet, Machine
from distributed_something.aws.ec2.prices import ON_DEMAND, PRICING_REGION, ask_on_demand
from distributed_something.aws.ec2.shrinking import idle, instead_of_spot
from distributed_something.inputs.checks.findings import Severity
from distributed_something.inputs.config import Config, parse_config
from distributed_something.local.store import FolderStore
from distributed_something.s3.session import AwsSession

TEN = Fleet("fleet-1", alive=True, target=10, made=0.0)


def running(count: int, since: float = 0.0, *, spot: bool = True) -> list[Machine]:
    return [Machine(f"i-{spot}{n}", "running", since=since, spot=spot) for n in range(count)]


@pytest.mark.parametrize(
    ("fleet", "machines", "now", "wanted"),
    [
        (TEN, running(4), 599, None),
        (TEN, running(4), 600, 6),
        (TEN, running(4, since=500), 600, None),
        (TEN, running(10), 600, None),
        (TEN, [], 600, 10),
        (TEN._replace(on_demand=6), running(4), 700, None),
        (TEN._replace(on_demand=6), [*running(3), *running(6, spot=False)], 700, 7),
        (TEN._replace(on_demand=10), running(2), 700, None),
    ],
)
def test_what_is_missing_is_asked_for_on_demand_if_none_has_come(
    fleet: Fleet, machines: list[Machine], now: float, wanted: int | None
) -> None:
    found = instead_of_spot([fleet], machines, now, 600)
    assert found == (None if wanted is None else (fleet, wanted))


def test_machines_on_demand_end_first() -> None:
    assert idle([*running(2), *running(1, spot=False)], ()) == ["i-False0", "i-True0", "i-True1"]


def test_a_machine_on_demand_has_its_own_price_and_no_bid_stands_for_it() -> None:
    lives = {
        "i-1": Life("m5.large", "a", 0.0, 3600.0),
        "i-2": Life("m5.large", "a", 0.0, 3600.0, spot=False),
    }
    prices = {("m5.large", "a"): [(0.0, 0.04)], ("m5.large", ON_DEMAND): [(0.0, 0.1)]}
    assert dollars(lives, prices, None) == pytest.approx(0.14)
    assert hourly(lives, prices, None) == pytest.approx(0.14)
    assert dollars(lives, {}, 0.05) is None and hourly(lives, {}, 0.05) is None


def test_the_price_on_demand_is_read_from_the_price_list() -> None:
    price = {"unit": "Hrs", "pricePerUnit": {"USD": "0.0960000000"}}
    listed = {"terms": {"OnDemand": {"X.Y": {"priceDimensions": {"X.Y.Z": price}}}}}
    session = AwsSession("eu-west-1", endpoint="http://127.0.0.1:9")
    with Stubber(session.client("pricing", region=PRICING_REGION)) as stub:
        stub.add_response("get_products", {"PriceList": [json.dumps(listed)]})
        assert ask_on_demand(session, ["m5.large"]) == {("m5.large", ON_DEMAND): [(0.0, 0.096)]}


def lives(kind: str, count: int, lost: int) -> list[Life]:
    return [Life(kind, "a", 0.0, 9.0, over=True, lost=n < lost) for n in range(count)]


@pytest.mark.parametrize(
    ("past", "out"),
    [
        (lives("a", 4, 3), {"a": "3 of 4 machines taken back"}),
        (lives("a", 2, 2), {}),
        (lives("a", 8, 3), {}),
        ([*lives("a", 4, 4), *lives("b", 4, 4)], {}),
        (lives("other", 9, 9), {}),
        ([each._replace(spot=False) for each in lives("a", 4, 4)], {}),
    ],
)
def test_a_type_that_is_taken_back_again_and_again_is_left_out(past: list[Life], out: dict[str, str]) -> None:
    assert left_out(past, ["a", "b"]) == out


def test_lives_of_earlier_versions_and_damaged_ones_are_read_or_left_out(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write(lives_key("App", "1"), b'{"i-1": ["a", "z", 0.0, 9.0, true]}')
    store.write(lives_key("App", "2"), b"[]")
    assert past_lives(store, "App") == [Life("a", "z", 0.0, 9.0, over=True)]


def config(**keys: object) -> Config:
    given: dict[str, object] = {"APP_NAME": "App", "AWS_REGION": "us-east-1", "COMMAND": "true"}
    given |= {"MACHINE_TYPE": ["m5.large"], **keys}
    return parse_config("".join(f"{name} = {value!r}\n" for name, value in given.items()))


@pytest.mark.parametrize(
    ("scores", "severity", "said"),
    [
        ({"us-east-1": 9}, Severity.OK, "us-east-1: 9 of 10"),
        ({"us-east-1": 3, "eu-west-1": 8}, Severity.WARNING, "3 of 10; better: eu-west-1 8"),
        ({"eu-west-1": 8}, Severity.WARNING, "not among the ten best regions; better: eu-west-1 8"),
    ],
)
def test_placement_scores(scores: dict[str, int], severity: Severity, said: str) -> None:
    (found,) = score_findings(config(), scores)
    assert found.severity is severity and said in found.what


def test_an_unknown_price_on_demand_is_a_warning() -> None:
    found: list[Any] = [*on_demand_findings(config(), {})]
    assert [each.severity for each in found] == [Severity.WARNING]
    assert [each.severity for each in on_demand_findings(config(), {"m5.large": 0.1})] == [Severity.OK]
