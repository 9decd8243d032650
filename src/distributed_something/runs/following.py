"""Tells workers which jobs' logs are followed now: only those are worth a request every two seconds.

    runs/<APP_NAME>/<run>/follow      {"<job id>": <Unix seconds of the latest order>}

The follower renews its order, the worker reads the orders while it has text that waits. No clocks are
compared: an order holds for a while after the worker sees that it is new.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from ..clock import Clock
from ..engine import Store
from ..errors import DsError
from ..ledger import RunPaths

ASK_SECONDS = 20.0
"""Interval at which a follower renews its order, in seconds."""

HOLDS_SECONDS = 60.0
"""How long a worker obeys an order that is not renewed, in seconds."""

KEPT_SECONDS = 600.0
"""Age from which the orders of others are dropped from the file, in seconds."""


class Follower:
    """Orders the live logs of jobs. A failed order is given again with the next one."""

    def __init__(self, store: Store, paths: RunPaths, clock: Clock) -> None:
        self._store = store
        self.paths = paths
        self._clock = clock
        self._asked: dict[str, float] = {}

    def ask(self, job_id: str) -> None:
        """Orders a job's log, unless that was done just now."""
        now = self._clock.now()
        tick = self._clock.monotonic()
        if tick - self._asked.get(job_id, float("-inf")) < ASK_SECONDS:
            return
        self._asked[job_id] = tick
        orders = {each: when for each, when in _read(self._store, self.paths).items() if _is_late(when, now)}
        with suppress(DsError, OSError):
            self._store.write(self.paths.follow, json.dumps({**orders, job_id: now}).encode())


class Followed:
    """The jobs whose logs are followed, as a worker sees them."""

    def __init__(self, store: Store, paths: RunPaths, clock: Clock) -> None:
        self._store = store
        self._paths = paths
        self._clock = clock
        self._known: dict[str, Any] = {}
        self._seen: dict[str, float] = {}

    def look(self) -> None:
        """Reads the orders."""
        now, orders = self._clock.monotonic(), _read(self._store, self._paths)
        new = [each for each, when in orders.items() if self._known.get(each) != when]
        self._seen |= dict.fromkeys(new, now)
        self._known = orders

    def __contains__(self, job_id: str, /) -> bool:
        """Whether a job's log is followed."""
        return self._clock.monotonic() - self._seen.get(job_id, float("-inf")) < HOLDS_SECONDS


def _is_late(when: object, now: float) -> bool:
    """Whether an order is so late that its follower may still be there."""
    return isinstance(when, int | float) and abs(now - when) < KEPT_SECONDS


def _read(store: Store, paths: RunPaths) -> dict[str, Any]:
    try:
        found = json.loads(store.read(paths.follow))
    except (DsError, OSError, ValueError):  # no order was ever given, or the store does not answer
        return {}
    return found if isinstance(found, dict) else {}
