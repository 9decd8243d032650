"""Asks for prices, and adds up what a machine cost while its price moved. Only `ask…` calls AWS."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ...s3.session import AwsSession, aws_errors

Pool = tuple[str, str]
"""A type of machine and a zone; ON_DEMAND in place of the zone: the type's price on demand."""

ON_DEMAND = "on demand"

PRICING_REGION = "us-east-1"  # one of the few regions that answer for the prices of all

History = Mapping[Pool, Sequence[tuple[float, float]]]
"""For each pool: (Unix seconds, dollars an hour from then on), the oldest first."""

DISK_USD_PER_GB_HOUR = 0.08 / 730  # a gp3 disk in most regions, in dollars a GB and hour


def price_now(history: History, pool: Pool) -> float | None:
    """Returns the newest price of a pool in dollars an hour; None: unknown."""
    found = history.get(pool)
    return found[-1][1] if found else None


def paid(prices: Sequence[tuple[float, float]], since: float, until: float) -> float:
    """Returns the dollars for a machine from `since` to `until`, each second at the price of its time.

    The first known price holds before its time too.
    """
    begin = max(bisect_right(prices, (since, float("inf"))) - 1, 0)
    total = 0.0
    for at in range(begin, len(prices)):
        start = since if at == begin else max(prices[at][0], since)
        end = min(prices[at + 1][0], until) if at + 1 < len(prices) else until
        total += max(end - start, 0.0) * prices[at][1] / 3600
    return total


def ask(session: AwsSession, kinds: Collection[str], since: float) -> dict[Pool, list[tuple[float, float]]]:
    """Returns the prices of these types in every zone: the one at `since`, and each change after it.

    Raises DsError.
    """
    found: dict[Pool, list[tuple[float, float]]] = {}
    with aws_errors("asking for spot prices"):
        pages = session.client("ec2").get_paginator("describe_spot_price_history")
        for page in pages.paginate(
            InstanceTypes=sorted(kinds), ProductDescriptions=["Linux/UNIX"], StartTime=since
        ):
            for each in page["SpotPriceHistory"]:
                point = each["Timestamp"].timestamp(), float(each["SpotPrice"])
                found.setdefault((each["InstanceType"], each["AvailabilityZone"]), []).append(point)
    return {pool: sorted(points) for pool, points in found.items()}


def ask_on_demand(session: AwsSession, kinds: Collection[str]) -> dict[Pool, list[tuple[float, float]]]:
    """Returns the prices of these types on demand, in the session's region. Raises DsError."""
    found: dict[Pool, list[tuple[float, float]]] = {}
    pricing = session.client("pricing", region=PRICING_REGION)
    with aws_errors("asking for on-demand prices"):
        for kind in sorted(kinds):
            wanted = {**_PLAIN_LINUX, "instanceType": kind, "regionCode": session.region}
            filters = [
                {"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in wanted.items()
            ]
            answer = pricing.get_products(ServiceCode="AmazonEC2", Filters=filters)
            prices = [price for text in answer["PriceList"] for price in _hourly(json.loads(text))]
            if prices:
                found[kind, ON_DEMAND] = [(0.0, max(prices))]
    return found


_PLAIN_LINUX = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}


def _hourly(product: Mapping[str, Any]) -> Iterator[float]:
    """Yields the prices by the hour in an entry of the price list."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            if dimension.get("unit") == "Hrs" and "USD" in dimension.get("pricePerUnit", {}):
                yield float(dimension["pricePerUnit"]["USD"])
