"""Asks for spot prices, and adds up what a machine cost while its price moved. Only `ask` calls AWS."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence

from ..session import AwsSession, aws_errors

Pool = tuple[str, str]
"""A type of machine and a zone."""

History = Mapping[Pool, Sequence[tuple[float, float]]]
"""For each pool: (Unix seconds, dollars an hour from then on), the oldest first."""

DISK_USD_PER_GB_HOUR = 0.08 / 730
"""A gp3 disk in most regions, in dollars a GB and hour."""


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
