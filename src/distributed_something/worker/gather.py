"""Gathers logs before they are stored, for a store where each append is a request. Used by AWS workers.

What a job prints waits in memory until there is enough of it, or for a minute; for two seconds while the
job's log is followed. It is stored before the ledger has the attempt's end. An attempt of which nothing has
been stored when it ends goes into the segment that all slots share: many short logs are one request. The
thread that runs the job never waits for the store.
"""

from __future__ import annotations

import math
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

GATHER_BYTES = 256 << 10
GATHER_SECONDS = 60.0
"""Size and age from which gathered text is stored, in bytes and seconds: each time is a paid request."""

FOLLOWED_SECONDS = 2.0
"""Age from which the text of a followed job is stored, in seconds."""

ORDERS_SECONDS = 10.0
"""Interval at which a worker with waiting text reads which jobs are followed, in seconds."""

LOOK_SECONDS = 0.25
RETRY_SECONDS = 2.0
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


class Orders(Protocol):
    """The jobs whose logs are followed: `runs.following.Followed`."""

    def look(self) -> None:
        """Reads the orders. Must not raise."""

    def __contains__(self, job_id: str, /) -> bool:
        """Whether a job's log is followed."""


class Gathered:
    """Text on its way to a segment. Threads may share it."""

    def __init__(self, store: Store, root: str, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.pending = bytearray()
        self.since = 0.0
        """When the oldest of `pending` was added (a time.monotonic() value)."""
        self.taken = 0
        """How often text was taken to be stored."""
        self._store = store
        self._key = root + name
        self._size = 0
        self._not_before = 0.0
        self._storing = threading.Lock()

    def add(self, data: bytes) -> str:
        """Adds text. Returns its place."""
        with self.lock:
            if not self.pending:
                self.since = time.monotonic()
            self.pending += data
            start, self._size = self._size, self._size + len(data)
        return f"{self.name}@{start}+{len(data)}"

    def take_back(self, size: int) -> bytes:
        """Removes and returns the last bytes, of which nothing was taken to be stored. Under the lock."""
        text = bytes(self.pending[len(self.pending) - size :])
        del self.pending[len(self.pending) - size :]
        self._size -= size
        return text

    def due(self, now: float, seconds: float = GATHER_SECONDS) -> bool:
        """Whether the text is to be stored (`now` is a time.monotonic() value)."""
        size = len(self.pending)
        if now < self._not_before:
            return False
        return size >= GATHER_BYTES or (size > 0 and now - self.since >= seconds)

    def store(self) -> bool:
        """Stores what waits. Returns False if that failed; it then waits on."""
        with self._storing:
            with self.lock:
                data = bytes(self.pending)
                self.taken += 1
            if data:
                try:
                    self._store.append(self._key, data)
                except Exception as error:  # noqa: BLE001  whatever the store raises, it is tried again
                    complain(f"{self.name}: {error}")
                    self._not_before = time.monotonic() + RETRY_SECONDS
                    return False
            with self.lock:
                del self.pending[: len(data)]
                self.since = time.monotonic()
        return True


class GatheredLog(SlotLog):
    """A slot's log, whose text waits to be stored. `listener` receives what is kept of it.

    `shared` is the segment for attempts of which nothing was stored before they ended.
    """

    def __init__(
        self, store: Store, root: str, name: str, shared: Gathered, listener: Listener | None = None
    ) -> None:
        self.own = Gathered(store, root, name)
        self.shared = shared
        self.listener = listener
        self.job_id = ""
        self._taken = 0
        self._recent = bytearray()
        self._ended = False
        super().__init__(store, root, name)

    def begin(self) -> None:
        """Starts the text of a new attempt."""
        self._recent.clear()
        self._taken = self.own.taken
        super().begin()

    def end(self) -> str | None:
        """Ends the attempt's text. Returns its place. It is stored before the ledger has the end."""
        place = super().end()
        with self.own.lock:
            if place is None or self._taken != self.own.taken:
                self._ended = self._ended or place is not None
                return place
            text = self.own.take_back(self._size - self._start)
            self._size = self._start
        return self.shared.add(text)

    def tail(self, limit: int) -> bytes:
        """Returns the last bytes of the attempt's text, at most KEPT_BYTES, from memory."""
        return bytes((self._recent + self._tail)[-limit:])

    @property
    def ended(self) -> bool:
        """Whether an attempt has ended whose text may not be stored yet in the slot's own segment."""
        return self._ended

    def store(self) -> bool:
        """Stores what waits in the slot's own segment. Returns False if that failed."""
        ended, stored = self._ended, self.own.store()
        if ended and stored:
            self._ended = False
        return stored

    def _append(self, data: bytes) -> None:
        self.own.add(data)
        self._size += len(data)
        self._recent += data
        del self._recent[:-KEPT_BYTES]
        if self.listener is not None:
            self.listener(data)


class GatheringSlot(Slot):
    """A slot with a GatheredLog: marks the begin and the end of each attempt for the listener."""

    def __init__(
        self, task: Task, store: Store, folder: Path, log: GatheredLog, run: str, worker: str
    ) -> None:
        super().__init__(task, store, folder, log, run, worker)
        self._gathered = log
        self._listener = log.listener

    def run(self, lease: Lease, takes_long: Callable[[Slot], None]) -> Outcome:
        """Runs one attempt."""
        self._gathered.job_id = lease.job.id
        if self._listener is None:
            return super().run(lease, takes_long)
        self._listener.begin(lease.job.id, lease.attempt)
        try:
            return super().run(lease, takes_long)
        finally:
            self._listener.end()


class LogKeeper(Repeating):
    """Stores the logs of a worker's slots in time while entered, several at once, in its own threads."""

    def __init__(
        self, logs: Iterable[GatheredLog], followed: Orders, seconds: float = GATHER_SECONDS
    ) -> None:
        """`seconds`: age from which text is stored while its job is not followed."""
        super().__init__("log-keeper", LOOK_SECONDS, self._keep, SystemClock())
        self._logs = tuple(logs)
        self._shared = tuple({id(log.shared): log.shared for log in self._logs}.values())
        self._followed = followed
        self._gather_seconds = seconds
        self._looked = 0.0
        self._shown: set[str] = set()
        self._pool = ThreadPoolExecutor(LOGS_AT_ONCE, "log")
        self.on_followed: Callable[[], None] = lambda: None
        """Called when somebody begins to follow a job that runs here: the ledger is to have its start."""

    def __exit__(self, *what: object) -> None:
        """Stores all that waits, and ends."""
        super().__exit__(*what)
        self._store((*self._logs, *self._shared))
        self._pool.shutdown()

    def store_ended(self) -> None:
        """Stores the text of ended attempts. What cannot be stored now is tried again later."""
        self._store([log for log in self._logs if log.ended])
        self._store([each for each in self._shared if each.pending])

    def _keep(self) -> None:
        now = time.monotonic()
        if now - self._looked >= ORDERS_SECONDS and any(log.own.pending for log in self._logs):
            self._looked = now
            self._followed.look()
        followed = {log.job_id for log in self._logs if log.job_id in self._followed}
        self._store([log for log in self._logs if log.own.due(now, self._patience(log, followed))])
        self._store([each for each in self._shared if each.due(now, self._gather_seconds)])
        if followed - self._shown:
            try:
                self.on_followed()
            except Exception as error:  # noqa: BLE001  the ledger's next flush does it
                complain(f"a followed job's start is not written yet: {error}")
        self._shown = followed

    def _patience(self, log: GatheredLog, followed: set[str]) -> float:
        return FOLLOWED_SECONDS if log.job_id in followed else self._gather_seconds

    def _store(self, logs: Iterable[GatheredLog | Gathered]) -> None:
        list(self._pool.map(lambda log: log.store(), logs))


class KeptLedger(LedgerWriter):
    """A ledger that has an attempt's end only when its log can be read."""

    def __init__(self, store: Store, key: str, keeper: LogKeeper) -> None:
        super().__init__(store, key)
        self._keeper = keeper
        keeper.on_followed = self.flush

    def flush(self, started_before: float = math.inf) -> None:
        """Stores the logs of ended attempts, then writes the events that wait."""
        self._keeper.store_ended()
        super().flush(started_before)
