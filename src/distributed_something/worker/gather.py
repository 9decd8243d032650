"""Gathers logs before they are stored, for a store where each append is a request. Used by AWS workers.

What a job prints waits in memory until there is enough of it, or for two seconds. It is stored before the
ledger has the attempt's end. The thread that runs the job never waits for the store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from ..background import complain
from ..clock import SystemClock
from ..engine import Store
from ..job import Lease, Outcome
from ..ledger import LedgerWriter
from ..system.repeating import Repeating
from .attempt.logs import SlotLog
from .attempt.slot import Slot
from .attempt.task import Task
from .health import Health

GATHER_BYTES = 64 << 10
GATHER_SECONDS = 2.0
"""Size and age from which gathered text is stored, in bytes and seconds."""

LOOK_SECONDS = 0.25
KEPT_BYTES = 8 << 10
LOGS_AT_ONCE = 8


class Listener(Protocol):
    """Receives what the attempts of a slot print."""

    def begin(self, job_id: str, attempt: int) -> None:
        """Starts an attempt: what follows belongs to it."""

    def __call__(self, data: bytes) -> None:
        """Receives text. Must not wait, and must not raise."""

    def end(self) -> None:
        """Ends the attempt."""


class GatheredLog(SlotLog):
    """A slot's log segment, whose text waits to be stored. `listener` receives all text."""

    def __init__(self, store: Store, root: str, name: str, listener: Listener | None = None) -> None:
        self._pending = bytearray()
        self._since = 0.0
        self._not_before = 0.0
        self._recent = bytearray()
        self._ended = False
        self.listener = listener
        self._pending_lock = threading.Lock()
        self._storing = threading.Lock()
        super().__init__(store, root, name)

    def begin(self) -> None:
        """Starts the text of a new attempt."""
        self._recent.clear()
        super().begin()

    def write(self, data: bytes) -> None:
        """Adds to the attempt's text."""
        if self.listener is not None:
            self.listener(data)
        super().write(data)

    def end(self) -> str | None:
        """Ends the attempt's text. Returns its place. It is stored before the ledger has the end."""
        place = super().end()
        self._ended = True
        return place

    def tail(self, limit: int) -> bytes:
        """Returns the last bytes of the attempt's text, at most KEPT_BYTES, from memory."""
        return bytes((self._recent + self._tail)[-limit:])

    def due(self, now: float) -> bool:
        """Whether gathered text is to be stored (`now` is a time.monotonic() value)."""
        size = len(self._pending)
        if now < self._not_before:
            return False
        return size >= GATHER_BYTES or (size > 0 and now - self._since >= GATHER_SECONDS)

    @property
    def ended(self) -> bool:
        """Whether an attempt has ended whose text may not be stored yet."""
        return self._ended

    def store(self) -> bool:
        """Stores what waits. Returns False if that failed; it then waits on."""
        with self._storing:
            with self._pending_lock:
                data, ended = bytes(self._pending), self._ended
            if data:
                try:
                    self._store.append(self._key, data)
                except Exception as error:  # noqa: BLE001  whatever the store raises, it is tried again
                    complain(f"{self._name}: {error}")
                    self._not_before = time.monotonic() + GATHER_SECONDS
                    return False
            with self._pending_lock:
                del self._pending[: len(data)]
                self._since = time.monotonic()
                if ended and not self._pending:
                    self._ended = False
        return True

    def _append(self, data: bytes) -> None:
        with self._pending_lock:
            if not self._pending:
                self._since = time.monotonic()
            self._pending += data
        self._size += len(data)
        self._recent += data
        del self._recent[:-KEPT_BYTES]


class GatheringSlot(Slot):
    """A slot with a GatheredLog: marks the begin and the end of each attempt for the listener."""

    def __init__(
        self,
        task: Task,
        store: Store,
        folder: Path,
        log: GatheredLog,
        run: str,
        worker: str,
        health: Health | None = None,
    ) -> None:
        super().__init__(task, store, folder, log, run, worker, health=health)
        self._listener = log.listener

    def run(self, lease: Lease, takes_long: Callable[[Slot], None]) -> Outcome:
        """Runs one attempt."""
        if self._listener is None:
            return super().run(lease, takes_long)
        self._listener.begin(lease.job.id, lease.attempt)
        try:
            return super().run(lease, takes_long)
        finally:
            self._listener.end()


class LogKeeper(Repeating):
    """Stores the logs of a worker's slots in time while entered, several at once, in its own threads."""

    def __init__(self, logs: Iterable[GatheredLog]) -> None:
        super().__init__("log-keeper", LOOK_SECONDS, self._keep, SystemClock())
        self._logs = tuple(logs)
        self._pool = ThreadPoolExecutor(LOGS_AT_ONCE, "log")

    def __exit__(self, *what: object) -> None:
        """Stores all that waits, and ends."""
        super().__exit__(*what)
        self._store(self._logs)
        self._pool.shutdown()

    def store_ended(self) -> None:
        """Stores the text of ended attempts. What cannot be stored now is tried again later."""
        self._store([log for log in self._logs if log.ended])

    def _keep(self) -> None:
        now = time.monotonic()
        self._store([log for log in self._logs if log.due(now)])

    def _store(self, logs: Iterable[GatheredLog]) -> None:
        list(self._pool.map(GatheredLog.store, logs))


class KeptLedger(LedgerWriter):
    """A ledger that has an attempt's end only when its log can be read."""

    def __init__(self, store: Store, key: str, keeper: LogKeeper) -> None:
        super().__init__(store, key)
        self._keeper = keeper

    def flush(self) -> None:
        """Stores the logs of ended attempts, then writes the events that wait."""
        self._keeper.store_ended()
        super().flush()
