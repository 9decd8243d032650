"""What a run's machines cost: how long each was seen to live, at the spot price of its type and zone.

EC2 forgets a machine an hour after its end, so what was seen is kept in the store, in
`runs/<APP_NAME>/<run>/machines.json`. Prices are the spot prices of now: AWS's own bill may differ, as prices
move, and has disks, traffic and requests beside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...engine import Store
from ...errors import DsError, KeyMissing
from ..session import AwsSession, aws_errors

if TYPE_CHECKING:
    from .fleets import Machine

SHORTEST_SECONDS = 60.0
"""What EC2 bills at least for a machine."""

WRITE_SECONDS = 300.0
"""So much of a machine's life may be missing where nobody looked any more before EC2 forgot it."""

PRICES_SECONDS = 3600.0
"""Prices that are older than this are asked for anew."""

ASK_SECONDS = 60.0
"""Between two questions at least: a pair of type and zone without a price is not asked for at every look."""


class Life(NamedTuple):
    """A machine's life in Unix seconds: `until` is its end, or when it was last seen alive."""

    kind: str
    zone: str
    since: float
    until: float
    over: bool = False

    @property
    def hours(self) -> float:
        """What is billed."""
        return max(self.until - self.since, SHORTEST_SECONDS) / 3600


def seen(lives: Mapping[str, Life], machines: Sequence[Machine], now: float) -> dict[str, Life]:
    """What is known of the machines' lives after a look at them."""
    found = dict(lives)
    for machine in machines:
        if machine.since is None:
            continue
        known = lives.get(machine.id)
        if machine.running:
            found[machine.id] = Life(machine.kind, machine.zone, machine.since, now)
        elif known is None or not known.over:
            last = known.until if known else machine.since
            until = last if machine.ended is None else machine.ended
            found[machine.id] = Life(machine.kind, machine.zone, machine.since, until, over=True)
    listed = {machine.id for machine in machines}
    return {name: life if name in listed else life._replace(over=True) for name, life in found.items()}


def dollars(
    lives: Mapping[str, Life], prices: Mapping[tuple[str, str], float], bid: float | None
) -> float | None:
    """What the machines have cost; the bid stands for a price that is not known, and None is not known."""
    costs = []
    for life in lives.values():
        price = prices.get((life.kind, life.zone), bid)
        if price is None:
            return None
        costs.append(life.hours * price)
    return round(sum(costs), 6)


def hourly(
    lives: Mapping[str, Life], prices: Mapping[tuple[str, str], float], bid: float | None
) -> float | None:
    """What the machines that run cost in an hour, priced as `dollars` does."""
    found = [prices.get((life.kind, life.zone), bid) for life in lives.values() if not life.over]
    known = [price for price in found if price is not None]
    return sum(known) if len(known) == len(found) else None


class Bill:
    """The cost of one run's machines so far. It never raises: what cannot be known is None.

    `ask`: for the prices of now; else the bid is the price.
    """

    def __init__(
        self, session: AwsSession, store: Store, key: str, bid: float | None, *, ask: bool = True
    ) -> None:
        self._ask = ask
        self._session = session
        self._store = store
        self._key = key
        self._bid = bid
        self._lives: dict[str, Life] | None = None
        self._written = 0.0
        self._prices: dict[tuple[str, str], float] = {}
        self._priced = 0.0

    def cost(self, machines: Sequence[Machine], now: float) -> float | None:
        """In dollars, after this look at the machines."""
        try:
            if self._lives is None:
                self._lives = self._read()
            before, self._lives = self._lives, seen(self._lives, machines, now)
            if _ends(before) != _ends(self._lives) or now - self._written > WRITE_SECONDS:
                self._store.write(self._key, json.dumps(self._lives).encode())
                self._written = now
            self._ask_prices(now)
        except (DsError, OSError):
            return None
        return dollars(self._lives, self._prices, self._bid)

    @property
    def per_hour(self) -> float | None:
        """In dollars an hour, as of the latest look."""
        return hourly(self._lives or {}, self._prices, self._bid)

    def _read(self) -> dict[str, Life]:
        try:
            stored = json.loads(self._store.read(self._key))
            return {name: Life(*life) for name, life in stored.items()}
        except (KeyMissing, ValueError, TypeError, AttributeError):
            return {}

    def _ask_prices(self, now: float) -> None:
        """The newest price of each type in each zone, once an hour, or where a new pair has come."""
        pairs = {(life.kind, life.zone) for life in (self._lives or {}).values()}
        known = pairs <= self._prices.keys()
        if not self._ask or not pairs or now - self._priced < (PRICES_SECONDS if known else ASK_SECONDS):
            return
        self._priced = now
        newest: dict[tuple[str, str], float] = {}
        with aws_errors("asking for spot prices"):
            pages = self._session.client("ec2").get_paginator("describe_spot_price_history")
            for page in pages.paginate(
                InstanceTypes=sorted({kind for kind, _ in pairs}),
                ProductDescriptions=["Linux/UNIX"],
                StartTime=now,
            ):
                for each in page["SpotPriceHistory"]:  # the newest price of a pair comes first
                    newest.setdefault(
                        (each["InstanceType"], each["AvailabilityZone"]), float(each["SpotPrice"])
                    )
        self._prices |= newest


def _ends(lives: Mapping[str, Life]) -> dict[str, bool]:
    return {name: life.over for name, life in lives.items()}
