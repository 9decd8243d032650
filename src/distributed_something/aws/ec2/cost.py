"""Computes the cost of a run's machines: the observed life of each, at the spot price of its type and zone.

EC2 forgets a machine an hour after its end, so what was seen is kept in the store, in
`runs/<APP_NAME>/<run>/machines.json`. Each hour has the spot price of its time, and disks the price of most
regions. Requests are an estimate by attempts. AWS's own bill has traffic beside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...engine import Store
from ...errors import DsError, KeyMissing
from ...s3.session import AwsSession
from .prices import DISK_USD_PER_GB_HOUR, ON_DEMAND, History, Pool, ask, ask_on_demand, paid, price_now

if TYPE_CHECKING:
    from .fleets import Machine

USD_PER_ATTEMPT = 2e-5
"""Requests of an attempt, in dollars: three of SQS, and of S3 about three writes and a few reads."""

SHORTEST_SECONDS = 60.0  # EC2's shortest billed time of a machine, in seconds

WRITE_SECONDS = 300.0
"""Interval of saving observed lives, in seconds: so much of a life may be lost with this process."""

PRICES_SECONDS = 900.0  # age in seconds at which prices are read again

ASK_SECONDS = 60.0
"""Shortest interval of reading prices again, in seconds: some pairs of type and zone have none."""


class Life(NamedTuple):
    """A machine's life in Unix seconds: `until` is its end, or the time it was last seen running."""

    kind: str
    zone: str
    since: float
    until: float
    over: bool = False
    spot: bool = True
    lost: bool = False
    """AWS took it back."""

    @property
    def pool(self) -> Pool:
        """Where its price is found."""
        return self.kind, self.zone if self.spot else ON_DEMAND

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
            found[machine.id] = Life(machine.kind, machine.zone, machine.since, now, spot=machine.spot)
        elif known is None or not known.over:
            last = known.until if known else machine.since
            until = last if machine.ended is None else machine.ended
            facts = machine.kind, machine.zone, machine.since, until
            found[machine.id] = Life(*facts, over=True, spot=machine.spot, lost=machine.interrupted)
    listed = {machine.id for machine in machines}
    return {name: life if name in listed else life._replace(over=True) for name, life in found.items()}


def dollars(lives: Mapping[str, Life], history: History, bid: float | None, disk_gb: int = 0) -> float | None:
    """Returns what machines and their disks have cost; the bid stands for an unknown spot price.

    None: unknown.
    """
    costs = []
    for life in lives.values():
        prices = history.get(life.pool) or ([] if bid is None or not life.spot else [(life.since, bid)])
        if not prices:
            return None
        costs.append(paid(prices, life.since, life.since + life.hours * 3600))
    disks = sum(life.hours for life in lives.values()) * disk_gb * DISK_USD_PER_GB_HOUR
    return round(sum(costs) + disks, 6)


def hourly(lives: Mapping[str, Life], history: History, bid: float | None, disk_gb: int = 0) -> float | None:
    """Returns what running machines cost in an hour at the prices of now, priced as `dollars` does."""
    running = [life for life in lives.values() if not life.over]
    found = [price_now(history, life.pool) or (bid if life.spot else None) for life in running]
    known = [price for price in found if price is not None]
    disks = len(running) * disk_gb * DISK_USD_PER_GB_HOUR
    return sum(known) + disks if len(known) == len(found) else None


def read_lives(data: bytes) -> dict[str, Life]:
    """Returns lives as stored. Raises ValueError, TypeError or AttributeError if it is something else."""
    return {name: Life(*life) for name, life in json.loads(data).items()}


class RunCost:
    """The cost of one run's machines so far. It never raises: an unknown cost is None.

    `ask`: for prices; else the bid is the price of every machine. `disk_gb`: size of each machine's disk.
    """

    def __init__(
        self,
        session: AwsSession,
        store: Store,
        key: str,
        bid: float | None,
        disk_gb: int = 0,
        *,
        ask: bool = True,
    ) -> None:
        self._ask = ask
        self._session = session
        self._store = store
        self._key = key
        self._bid = bid
        self._disk_gb = disk_gb
        self._lives: dict[str, Life] | None = None
        self._written = 0.0
        self._prices: dict[Pool, list[tuple[float, float]]] = {}
        self._priced = 0.0
        self._asked: set[Pool] = set()

    def usd(self, machines: Sequence[Machine], now: float) -> float | None:
        """Dollars so far, after this look at the machines; None: unknown."""
        try:
            if self._lives is None:
                self._lives = self._read()
            machines = machines if self._ask else [each._replace(spot=True) for each in machines]
            before, self._lives = self._lives, seen(self._lives, machines, now)
            if _ends(before) != _ends(self._lives) or now - self._written > WRITE_SECONDS:
                self._store.write(self._key, json.dumps(self._lives).encode())
                self._written = now
            self._ask_prices(now)
        except (DsError, OSError):
            return None
        return dollars(self._lives, self._prices, self._bid, self._disk_gb)

    @property
    def per_hour(self) -> float | None:
        """In dollars an hour, as of the latest look."""
        return hourly(self._lives or {}, self._prices, self._bid, self._disk_gb)

    @property
    def hours(self) -> float | None:
        """Hours that all machines of the run have run, as of the latest look; None: there was no look."""
        return None if self._lives is None else sum(life.hours for life in self._lives.values())

    def _read(self) -> dict[str, Life]:
        try:
            return read_lives(self._store.read(self._key))
        except (KeyMissing, ValueError, TypeError, AttributeError):
            return {}

    def _ask_prices(self, now: float) -> None:
        """Asks for the prices since the first machine: every PRICES_SECONDS, and for a new pool."""
        lives = (self._lives or {}).values()
        pools = {life.pool for life in lives}
        known, new = pools <= self._prices.keys(), pools - self._asked
        pause = 0.0 if new else PRICES_SECONDS if known else ASK_SECONDS
        if not self._ask or not pools or now - self._priced < pause:
            return
        self._priced = now
        self._asked |= pools
        on_demand = {kind for kind, zone in pools if zone == ON_DEMAND}
        if spot := {kind for kind, zone in pools if zone != ON_DEMAND}:
            self._prices |= ask(self._session, spot, min(life.since for life in lives))
        if missing := {kind for kind in on_demand if (kind, ON_DEMAND) not in self._prices}:
            self._prices |= ask_on_demand(self._session, missing)


def _ends(lives: Mapping[str, Life]) -> dict[str, bool]:
    return {name: life.over for name, life in lives.items()}
