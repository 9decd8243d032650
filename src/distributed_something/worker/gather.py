"""Gathers logs before they are stored, for a store where each append is a request. Used by AWS workers.

What a job prints waits in memory until the job ends, and is stored before the ledger has that; where the
store does not take it, it waits on, and the ledger does not wait for it. At the job's end it goes into a
segment that all slots share: many logs are one request. While a job's log is followed (or once there is much
of it), its text goes into a segment of its slot's own, every two seconds, and stays there.

Once a minute the last text of all running jobs is written to one file, for `ds logs JOB`, and for the case
that the worker is lost. The thread that runs a job never waits for the store.
"""

from __future__ import annotations

import json
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
from .attempt.container import Containers
from .attempt.logs import SlotLog
from .attempt.slot import Slot
from .attempt.task import Task
from .health import Health

GATHER_BYTES = 256 << 10
"""Size from which the text of a running job is stored in its slot's segment, in bytes."""

LIVE_SECONDS = 60.0
LIVE_BYTES = 64 << 10
"""Interval of writing the last text of all running jobs, in seconds, and the most of each, in bytes."""

FOLLOWED_SECONDS = 2.0
"""Age from which the text of a followed job is stored, in seconds."""

ORDERS_SECONDS = 10.0
"""Interval of reading which jobs are followed, in seconds. Text that waits as long has it read first."""

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

    def due(self, now: float, *, followed: bool = False) -> bool:
        """Whether the text is to be stored (`now` is a time.monotonic() value)."""
        size = len(self.pending)
        if now < self._not_before:
            return False
        return size >= GATHER_BYTES or (followed and size > 0 and now - self.since >= FOLLOWED_SECONDS)

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
        self.attempt = 0
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

    def waits(self, seconds: float) -> bool:
        """Whether text has waited for these seconds."""
        return bool(self.own.pending) and time.monotonic() - self.own.since >= seconds

    def live(self) -> dict[str, object] | None:
        """Returns the last text of the running attempt that is not stored, and where it begins in the whole.

        None: all is stored.
        """
        with self.own.lock:
            size = min(len(self.own.pending), self._size - self._start)
            text = bytes(self.own.pending[len(self.own.pending) - min(size, LIVE_BYTES) :])
            begin = self._size - self._start - len(text)
        if not text:
            return None
        return {"attempt": self.attempt, "begin": begin, "text": text.decode("utf-8", "surrogateescape")}

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
        self,
        task: Task,
        store: Store,
        folder: Path,
        log: GatheredLog,
        run: str,
        worker: str,
        health: Health | None = None,
        containers: Containers | None = None,
    ) -> None:
        super().__init__(task, store, folder, log, run, worker, containers, health=health)
        self._gathered = log
        self._listener = log.listener

    def run(self, lease: Lease, takes_long: Callable[[Slot], None]) -> Outcome:
        """Runs one attempt."""
        self._gathered.job_id, self._gathered.attempt = lease.job.id, lease.attempt
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
        self,
        logs: Iterable[GatheredLog],
        followed: Orders,
        write_live: Callable[[bytes], None],
        seconds: float = LIVE_SECONDS,
    ) -> None:
        """`write_live` replaces the file of running jobs' last text, every `seconds`."""
        super().__init__("log-keeper", LOOK_SECONDS, self._keep, SystemClock())
        self._logs = tuple(logs)
        self._shared = tuple({id(log.shared): log.shared for log in self._logs}.values())
        self._followed = followed
        self._write_live = write_live
        self._live_seconds = seconds
        self._live, self._live_at = b"", time.monotonic()
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
        if now - self._looked >= ORDERS_SECONDS and any(log.waits(ORDERS_SECONDS) for log in self._logs):
            self._looked = now
            self._followed.look()
        followed = {log.job_id for log in self._logs if log.job_id in self._followed}
        self._store([log for log in self._logs if log.own.due(now, followed=log.job_id in followed)])
        self._store([each for each in self._shared if each.due(now)])
        if now - self._live_at >= self._live_seconds:
            self._live_at = now
            self._show_live()
        if followed - self._shown:
            try:
                self.on_followed()
            except Exception as error:  # noqa: BLE001  the ledger's next flush does it
                complain(f"a followed job's start is not written yet: {error}")
        self._shown = followed

    def _show_live(self) -> None:
        """Writes the last text of the running jobs, if there is new text."""
        waiting = [log for log in self._logs if log.waits(self._live_seconds / 2)]
        texts = {log.job_id: live for log in waiting if (live := log.live()) is not None}
        found = json.dumps(texts).encode()
        if texts and found != self._live:
            try:
                self._write_live(found)
            except Exception as error:  # noqa: BLE001  the next minute may succeed; ends are stored anyway
                complain(f"the last text of running jobs was not stored: {error}")
            else:
                self._live = found

    def _store(self, logs: Iterable[GatheredLog | Gathered]) -> None:
        list(self._pool.map(lambda log: log.store(), logs))


class KeptLedger(LedgerWriter):
    """A ledger that tries to store an attempt's log before it has its end; the log may follow later."""

    def __init__(self, store: Store, key: str, keeper: LogKeeper) -> None:
        super().__init__(store, key)
        self._keeper = keeper
        keeper.on_followed = self.flush

    def flush(self, started_before: float = math.inf) -> None:
        """Stores the logs of ended attempts, then writes the events that wait."""
        self._keeper.store_ended()
        super().flush(started_before)
