"""Fakes for tests, ours and yours: a clock that a test moves, and a queue in memory.

They keep the promises of `clock.Clock` and `engine.Queue`; the contract suites run over them too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .clock import Clock
from .engine import Counts, PutReport
from .job import NEVER_SHORT, Cause, DeadJob, Earlier, Job, Lease, RetryPolicy


class FakeClock:
    """A clock that moves only by `wait`, `advance` and `set`. Threads may share it."""

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self._now = now
        self._passed = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        """Returns this clock's time, in seconds since the Unix epoch."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """Returns the seconds that have passed on this clock."""
        with self._lock:
            return self._passed

    def advance(self, seconds: float) -> None:
        """Moves the clock by `seconds`."""
        with self._lock:
            self._now += seconds
            self._passed += seconds

    def set(self, now: float) -> None:
        """Sets the time without letting any pass."""
        with self._lock:
            self._now = now

    def wait(self, seconds: float, until: threading.Event | None = None) -> bool:
        """Lets `seconds` pass at once, none if `until` is set; returns whether `until` is set."""
        if until is not None and until.is_set():
            return True
        self.advance(seconds)
        return until is not None and until.is_set()


@dataclass
class _Entry:
    """A job in a MemoryQueue. `visible_at` is 0 for a job that waits in its first place."""

    job: Job
    state: str = "open"
    visible_at: float = 0.0
    failed: int = 0
    deliveries: int = 0
    token: str | None = None
    owner: str = ""
    cause: Cause = Cause.EXIT
    detail: str = ""
    earlier: Earlier = NEVER_SHORT

    def lease(self) -> Lease:
        token = self.token or ""
        return Lease(self.job, token, self.visible_at, self.failed + 1, self.deliveries, self.earlier)

    def back(self, visible_at: float) -> None:
        self.token, self.visible_at = None, visible_at


class MemoryQueue:
    """Implements engine.Queue in memory, for tests: simple rather than fast; keeps nothing on disk.

    The tests compare other queues with it. Threads may share it.
    """

    def __init__(
        self,
        *,
        policy: RetryPolicy | None = None,
        term: float = 120.0,
        owner: str = "",
        clock: Clock | None = None,
    ) -> None:
        self.owner = owner
        self._policy = policy or RetryPolicy()
        self._term = term
        self._clock = clock or FakeClock()
        self._entries: dict[str, _Entry] = {}
        self._leased = 0
        self._lock = threading.RLock()

    def put(self, jobs: Iterable[Job]) -> PutReport:
        """Adds jobs; leaves a known id as it is, whatever its state."""
        sent = known = 0
        for job in jobs:
            with self._lock:
                if job.id in self._entries:
                    known += 1
                else:
                    self._entries[job.id] = _Entry(Job(job.id, len(self._entries), job.body))
                    sent += 1
        return PutReport(sent=sent, known=known)

    def lease(self, limit: int, wait: float = 0.0) -> list[Lease]:
        """Claims at most `limit` jobs: first those whose lease or back-off ended, then as submitted."""
        leases = self._claim(limit)
        while not leases and wait > 0 and limit > 0:
            pause = min(wait, 0.25)
            self._clock.wait(pause)
            wait -= pause
            leases = self._claim(limit)
        return leases

    def renew(self, leases: Sequence[Lease]) -> tuple[list[Lease], list[Lease]]:
        """Moves deadlines to a full term from now; returns (renewed, no longer ours)."""
        renewed: list[Lease] = []
        lost: list[Lease] = []
        with self._lock:
            for lease in leases:
                if entry := self._held(lease):
                    entry.visible_at = self._clock.now() + self._term
                    renewed.append(lease._replace(deadline=entry.visible_at))
                else:
                    lost.append(lease)
        return renewed, lost

    def done(self, leases: Sequence[Lease]) -> None:
        """Removes finished jobs; their ids stay known."""
        with self._lock:
            for entry in filter(None, map(self._ours, leases)):
                entry.state = "done"

    def release(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Gives jobs back after `delay` seconds; no attempt is counted."""
        with self._lock:
            for entry in filter(None, map(self._ours, leases)):
                entry.deliveries = 0
                entry.back(self._clock.now() + delay if delay > 0 else 0.0)

    def fail(self, lease: Lease, cause: Cause, detail: str = "", *, final: bool = False) -> DeadJob | None:
        """Counts a failed attempt: back after the back-off, or dead (returned) with its cause."""
        retry = self._policy.after(lease.attempt)
        with self._lock:
            entry = self._ours(lease)
            if entry is None:
                return None
            entry.failed, entry.deliveries, entry.earlier = lease.attempt, 0, lease.earlier.after(cause)
            entry.back(self._clock.now() + retry.delay)
            if not (final or retry.dead):
                return None
            entry.state, entry.cause, entry.detail = "dead", cause, detail
            return DeadJob(entry.job, entry.failed, cause, detail)

    def counts(self) -> Counts:
        """Counts the jobs in each state now."""
        with self._lock:
            now = self._clock.now()
            entries = self._in("open")
            hidden = [entry for entry in entries if entry.visible_at > now]
            leased = sum(entry.token is not None for entry in hidden)
            return Counts(
                waiting=len(entries) - len(hidden),
                leased=leased,
                delayed=len(hidden) - leased,
                dead=len(self._in("dead")),
            )

    def finished(self) -> int:
        """Counts the jobs that are done."""
        with self._lock:
            return len(self._in("done"))

    def next_visible(self) -> float | None:
        """Returns when (Unix seconds) the next hidden job can be leased; None: none is hidden."""
        with self._lock:
            now = self._clock.now()
            return min((e.visible_at for e in self._in("open") if e.visible_at > now), default=None)

    def dead(self) -> Iterator[DeadJob]:
        """Returns the dead jobs in the order of submission."""
        with self._lock:
            return iter([DeadJob(e.job, e.failed, e.cause, e.detail) for e in self._in("dead")])

    def redrive(self, ids: Iterable[str] | None = None) -> list[str]:
        """Puts dead jobs (these ids, or all) back as new; returns the ids that were dead."""
        with self._lock:
            dead = {entry.job.id: entry for entry in self._in("dead")}
            back = list(dead) if ids is None else [each for each in dict.fromkeys(ids) if each in dead]
            for each in back:
                self._entries[each] = _Entry(dead[each].job)
            return back

    def drop(self, ids: Iterable[str]) -> list[str]:
        """Takes dead and waiting jobs out for good; returns the ids that are out."""
        with self._lock:
            now = self._clock.now()
            out = []
            for each in dict.fromkeys(ids):
                entry = self._entries.get(each)
                if entry is None or entry.state == "done":
                    continue
                if entry.state == "open" and entry.token is not None and entry.visible_at > now:
                    continue
                entry.state, entry.token = "dropped", None
                out.append(each)
            return out

    def purge(self) -> None:
        """Removes every job."""
        with self._lock:
            self._entries.clear()

    def release_owner(self, owner: str) -> list[Lease]:
        """Gives back at once the jobs of a lost worker, attempt not counted; returns its leases."""
        with self._lock:
            held = [e for e in self._in("open") if e.token is not None and e.owner == owner]
            leases = [entry.lease() for entry in held]
            for entry in held:
                entry.back(0.0)
            return leases

    def _claim(self, limit: int) -> list[Lease]:
        with self._lock:
            now = self._clock.now()
            ready = [entry for entry in self._in("open") if entry.visible_at <= now]
            ready.sort(key=lambda e: (e.visible_at == 0, e.visible_at, e.job.index))
            claimed = ready[: max(limit, 0)]
            self._leased += 1
            for entry in claimed:
                entry.token, entry.owner = f"lease-{self._leased}", self.owner
                entry.visible_at = now + self._term
                entry.deliveries += 1
            return [entry.lease() for entry in claimed]

    def _ours(self, lease: Lease) -> _Entry | None:
        """Returns the leased job, unless the lease is stale."""
        entry = self._held(lease)
        return entry if entry and entry.visible_at > self._clock.now() else None

    def _held(self, lease: Lease) -> _Entry | None:
        """Returns the leased job, even if the lease has run out, while no other worker has taken it."""
        entry = self._entries.get(lease.job.id)
        return entry if entry and entry.state == "open" and entry.token == lease.token else None

    def _in(self, state: str) -> list[_Entry]:
        return [entry for entry in self._entries.values() if entry.state == state]
