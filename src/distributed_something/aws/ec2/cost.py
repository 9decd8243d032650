"""Computes the cost of a run's machines: the observed life of each, at the spot price of its type and zone.

EC2 forgets a machine an hour after its end, so observed lives are kept in the store, in
`runs/<APP_NAME>/<run>/machines.json`. Prices are today's spot prices: AWS's own bill may differ, as prices
move, and adds disks, traffic and requests. Called by the engine.
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
"""EC2's shortest billed time of a machine, in seconds."""

WRITE_SECONDS = 300.0
"""Interval of saving observed lives, in seconds: so much of a life may be lost with this process."""

PRICES_SECONDS = 3600.0
"""Age in seconds at which prices are read again."""

ASK_SECONDS = 60.0
"""Shortest interval of reading prices, in seconds: some pairs of type and zone have none."""


class Life(NamedTuple):
    """A machine's life in Unix seconds: `until` is its end, or the time it was last seen running."""

    kind: str
    zone: str
    since: float
    until: float
    over: bool = False

    @property
    def hours(self) -> float:
        """Billed hours."""
        return max(self.until - self.since, SHORTEST_SECONDS) / 3600


def seen(lives: Mapping[str, Life], machines: Sequence[Machine], now: float) -> dict[str, Life]:
    """Updates the lives with a look at the machines."""
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
    """Cost of the machines in dollars; the bid replaces an unknown price. None: unknown."""
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
    """Dollars an hour of the machines that run, priced as in `dollars`."""
    found = [prices.get((life.kind, life.zone), bid) for life in lives.values() if not life.over]
    known = [price for price in found if price is not None]
    return sum(known) if len(known) == len(found) else None


class RunCost:
    """The cost of one run's machines so far. It never raises: an unknown cost is None.

    `ask`: read spot prices; else the bid is the price.
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

    def usd(self, machines: Sequence[Machine], now: float) -> float | None:
        """Dollars so far, after this look at the machines; None: unknown."""
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
        """Dollars an hour, as of the latest look; None: unknown."""
        return hourly(self._lives or {}, self._prices, self._bid)

    def _read(self) -> dict[str, Life]:
        try:
            stored = json.loads(self._store.read(self._key))
            return {name: Life(*life) for name, life in stored.items()}
        except (KeyMissing, ValueError, TypeError, AttributeError):
            return {}

    def _ask_prices(self, now: float) -> None:
        """Reads the newest price of each type in each zone, once an hour or for a new pair."""
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
