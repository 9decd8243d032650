"""Implements the queue of the local engine: one SQLite file that many worker processes share.

One table holds every job of a run. An open job (state 0) carries the time from which it may be leased:
0 where it was never tried or was given back at once, the end of its back-off after a failure, the
deadline of its lease while it is leased. So one partial index serves waiting, back-off and expiry, and
finding the next job costs the same in a queue of a thousand and of a million. Finished jobs keep their
row: the queue knows every id it was ever given.

Writers take a file lock before they begin: SQLite's own lock is unfair when many processes want it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from ..clock import Clock, SystemClock
from ..engine import Counts, KnownJob, PutReport
from ..errors import DsError
from ..job import (
    NEVER_SHORT,
    Cause,
    DeadJob,
    Earlier,
    Job,
    Lease,
    Needs,
    RetryPolicy,
    in_batches,
)
from ..packing import Capacity
from .packed import IS_PACKED, WAITING, next_job, of_number, unpack
from .queue_file import BODY, QueueFile, damaged
from .rows import Rows, id_of, is_id, number_of, ours, restore, text_of

BATCH = 50_000
"""Jobs a transaction of `put`: few enough that workers get their turn in between, within half a second.

Ids come in no order, and so each transaction writes the whole index of them anew: with 10,000 a million jobs
made SQLite write 1.6 GB, with 50,000 it is 0.6.
"""

BATCH_BYTES = 64 << 20

PUT_CACHE_KIB = 32_768

PUT_CHECKPOINT_PAGES = 16_000
"""Length of the write-ahead log while jobs are submitted (64 MB): a submission writes the same pages of the
index again and again, so that the later they are folded, the fewer times.
"""

needs_of = itemgetter(6)
"""Returns the needs in a row that is to be leased, as a number; 0: nothing is said."""

CLOCK_SLACK = 60.0
"""Seconds by which a clock may be set back without a change to waiting jobs."""

POLL_FIRST = 0.01
POLL_LAST = 0.25

_LEASABLE = "SELECT 1 FROM jobs INDEXED BY jobs_open WHERE state = 0 AND visible_at <= ? LIMIT 1"

# Jobs whose back-off or lease has ended were submitted before those never tried, as a rule.
_DUE = f"""SELECT seq, id, failed, deliveries, {BODY}, cause, need FROM jobs INDEXED BY jobs_open
    WHERE state = 0 AND visible_at > 0 AND visible_at <= ? ORDER BY visible_at, seq LIMIT ?"""  # noqa: S608
_FRESH = f"""SELECT seq, id, failed, deliveries, {BODY}, cause, need FROM jobs INDEXED BY jobs_open
    WHERE state = 0 AND visible_at = 0 ORDER BY seq LIMIT ?"""  # noqa: S608
_ONE = f"""SELECT seq, id, failed, deliveries, {BODY}, cause, need FROM jobs
    WHERE seq = ? AND state = 0 AND visible_at <= ?"""  # noqa: S608

# No wait is longer than the longest back-off or a lease: a job further ahead waits as the clock was set back.
_AHEAD = "SELECT 1 FROM jobs INDEXED BY jobs_open WHERE state = 0 AND visible_at > ? LIMIT 1"
_PULL = """UPDATE jobs INDEXED BY jobs_open SET visible_at = CASE WHEN token IS NULL THEN ? ELSE ? END
    WHERE state = 0 AND visible_at > ?"""

_CLAIM = "UPDATE jobs SET visible_at = ?, token = ?, owner = ?, deliveries = deliveries + 1 WHERE seq = ?"

# Each of these changes nothing where the lease is stale.
_RENEW = "UPDATE jobs SET visible_at = ? WHERE seq = ? AND token = ? AND state = 0"
_DONE = """UPDATE jobs SET state = 1, token = NULL, owner = NULL
    WHERE seq = ? AND token = ? AND state = 0 AND visible_at > ?"""
_RELEASE = """UPDATE jobs SET visible_at = ?, deliveries = 0, token = NULL, owner = NULL
    WHERE seq = ? AND token = ? AND state = 0 AND visible_at > ?"""
_FAIL = """UPDATE jobs SET failed = ?, state = ?, visible_at = ?, cause = ?, detail = ?,
    deliveries = 0, token = NULL, owner = NULL
    WHERE seq = ? AND token = ? AND state = 0 AND visible_at > ?"""

# Jobs never tried have visible_at = 0: leaving them out spares a look at each of a million rows.
_OWNED = f"""SELECT seq, id, failed, deliveries, {BODY}, token, visible_at FROM jobs INDEXED BY jobs_open
    WHERE state = 0 AND visible_at > 0 AND owner = ? AND token IS NOT NULL ORDER BY seq"""  # noqa: S608
_OWNERS = """SELECT DISTINCT owner FROM jobs INDEXED BY jobs_open
    WHERE state = 0 AND visible_at > 0 AND token IS NOT NULL"""
_DISOWN = "UPDATE jobs SET visible_at = 0, token = NULL, owner = NULL WHERE seq = ?"

_REDRIVE = """UPDATE jobs SET state = 0, visible_at = 0, failed = 0, deliveries = 0,
    cause = NULL, detail = NULL WHERE id = ? AND state = 2"""

# State 3: taken out by the user. `_OUT` tells it from a job that is done.
_DROP = """UPDATE jobs SET state = 3, visible_at = 0, token = NULL, owner = NULL
    WHERE id = ? AND (state = 2 OR (state = 0 AND (token IS NULL OR visible_at <= ?)))"""
_OUT = "SELECT 1 FROM jobs WHERE id = ? AND state = 3"

_COUNTS = """SELECT
    (SELECT count(*) FROM jobs INDEXED BY jobs_open WHERE state = 0 AND visible_at <= :now),
    (SELECT count(*) FROM jobs INDEXED BY jobs_open
        WHERE state = 0 AND visible_at > :now AND token IS NOT NULL),
    (SELECT count(*) FROM jobs INDEXED BY jobs_open WHERE state = 0 AND visible_at > :now),
    (SELECT count(*) FROM jobs INDEXED BY jobs_dead WHERE state = 2)"""

# Rows are never deleted one by one, so the last number is how many there are.
_FINISHED = """SELECT ifnull((SELECT max(seq) FROM jobs), 0)
    - (SELECT count(*) FROM jobs INDEXED BY jobs_open WHERE state = 0)
    - (SELECT count(*) FROM jobs INDEXED BY jobs_dead WHERE state = 2)
    - (SELECT count(*) FROM jobs WHERE state = 3)"""

_TYPES = (int, int, int, int, bytes)
_CAUSES = frozenset(Cause)

_ODD = """SELECT seq FROM jobs NOT INDEXED WHERE typeof(id) <> 'integer' OR state NOT IN (0, 1, 2, 3)
    OR typeof(visible_at) NOT IN ('real', 'integer') OR typeof(failed) <> 'integer'
    OR typeof(deliveries) <> 'integer' OR typeof(need) <> 'integer'
    OR typeof(token) NOT IN ('integer', 'null') OR typeof(body) <> 'blob' LIMIT 1"""

_NEXT = "SELECT min(visible_at) FROM jobs INDEXED BY jobs_open WHERE state = 0 AND visible_at > ?"

_DEAD_IDS = "SELECT id FROM jobs INDEXED BY jobs_dead WHERE state = 2 ORDER BY seq"
_DEAD_PAGE = f"""SELECT seq, id, failed, cause, detail, {BODY} FROM jobs INDEXED BY jobs_dead
    WHERE state = 2 AND seq > ? ORDER BY seq LIMIT 1000"""  # noqa: S608
_BODY = f"SELECT state, {BODY} FROM jobs WHERE id = ?"  # noqa: S608


class SqliteQueue(QueueFile):
    """Implements engine.Queue on a file, for the processes of one machine.

    Order: jobs whose lease or back-off has ended come first, then the others as they were submitted.
    `term` is how many seconds a lease lasts; `owner` names the worker that leases through this object.
    `capacity`: what the machine has, on which all workers of the queue are. With it, once a job of the queue
    says what it needs, a lease is of one job that fits into what is free (`packing.choose`).
    `volatile`: the file is a copy that can be made again, and nothing of it needs to survive a power cut.
    Submitting, redriving and purging survive a power cut once they return; a power cut may undo the last
    lease, renewal or outcome, so that a job runs again.
    Threads may share one object. A process that forks must open its own after the fork.
    Every verb raises DsError where the file is damaged, the disk is full or may not be written; what was
    acknowledged before stays.
    """

    def __init__(
        self,
        path: Path,
        *,
        policy: RetryPolicy | None = None,
        term: float = 120.0,
        owner: str = "",
        clock: Clock | None = None,
        volatile: bool = False,
        capacity: Callable[[], Capacity] | None = None,
    ) -> None:
        super().__init__(path, volatile=volatile)
        self.owner = owner
        self._policy = policy or RetryPolicy()
        self._term = term
        self._longest = max(self._policy.limit, term) + CLOCK_SLACK
        self._clock = clock or SystemClock()
        self._find_capacity = capacity
        self._capacity: Capacity | None = None

    def put(self, jobs: Iterable[Job]) -> PutReport:
        """Add jobs, numbered in the order they come (an `index` they bring is not used)."""
        sent = given = 0
        self._make_room()
        for batch in in_batches(jobs, BATCH, BATCH_BYTES):
            rows = Rows(batch)
            with self._writing(durable=True) as db:
                sent += rows.insert(db)
            given += len(batch)
        with suppress(DsError):  # all is stored, if only in the log: the disk may be full
            self._read("PRAGMA wal_checkpoint")  # here, as the first worker would wait for it otherwise
        return PutReport(sent=sent, known=given - sent)

    def lease(self, limit: int, wait: float = 0.0) -> list[Lease]:
        """Claim at most `limit` jobs, waiting up to `wait` seconds for the first one."""
        if limit <= 0:
            return []
        leases = self._claim(limit)
        pause = POLL_FIRST
        while not leases and wait > 0:
            pause = min(pause, wait)
            self._clock.wait(pause)
            wait -= pause
            pause = min(pause * 2, POLL_LAST)
            now = self._clock.now()
            if self._read(_LEASABLE, (now,)) or self._read(_AHEAD, (now + self._longest,)):
                leases = self._claim(limit)
        return leases

    def renew(self, leases: Sequence[Lease]) -> tuple[list[Lease], list[Lease]]:
        """Move deadlines to a full term from now: (renewed, no longer ours).

        An expired lease is still ours until another worker takes the job: the machine was suspended.
        """
        if not leases:
            return [], []
        renewed: list[Lease] = []
        lost: list[Lease] = []
        with self._writing() as db:
            now = self._clock.now()
            for lease in leases:
                if db.execute(_RENEW, (now + self._term, *ours(lease, now)[:2])).rowcount:
                    renewed.append(lease._replace(deadline=now + self._term))
                else:
                    lost.append(lease)
        return renewed, lost

    def done(self, leases: Sequence[Lease]) -> None:
        """Take finished jobs out; their ids stay known."""
        if leases:
            with self._writing() as db:
                now = self._clock.now()
                db.executemany(_DONE, [ours(lease, now) for lease in leases])

    def release(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Give jobs back after `delay` seconds, or at once to the place they had; no attempt is counted.

        A delay is at most about the longest back-off, or a lease's term.

        Their deliveries count from 0 again: they did not take their worker down.
        """
        if leases:
            with self._writing() as db:
                now = self._clock.now()
                back = now + min(delay, self._longest) if delay > 0 else 0.0
                db.executemany(_RELEASE, [(back, *ours(lease, now)) for lease in leases])

    def fail(self, lease: Lease, cause: Cause, detail: str = "", *, final: bool = False) -> DeadJob | None:
        """Count a failed attempt: back after the back-off, or dead (returned) with its cause.

        The job's deliveries count from 0 again: it did not take its worker down.
        """
        retry = self._policy.after(lease.attempt)
        dead = final or retry.dead
        detail = detail.encode(errors="backslashreplace").decode()  # SQLite refuses half a surrogate pair
        with self._writing() as db:
            now = self._clock.now()
            earlier = lease.earlier.after(cause).to_text() or None
            change = (2, 0.0, cause, detail) if dead else (0, now + retry.delay, earlier, None)
            counted = db.execute(_FAIL, (lease.attempt, *change, *ours(lease, now))).rowcount
        return DeadJob(lease.job, lease.attempt, cause, detail) if dead and counted else None

    def counts(self) -> Counts:
        """Returns how many jobs are in which state now; tens of milliseconds with a million jobs."""
        waiting, leased, timed, dead = self._read(_COUNTS, {"now": self._clock.now()})[0]
        return Counts(waiting=waiting, leased=leased, delayed=timed - leased, dead=dead)

    def finished(self) -> int:
        """Returns how many jobs are done."""
        return int(self._read(_FINISHED)[0][0])

    def next_visible(self) -> float | None:
        """Returns when (Unix seconds) the next hidden job can be leased; None: none is hidden."""
        earliest: float | None = self._read(_NEXT, (self._clock.now(),))[0][0]
        return earliest

    def dead(self) -> Iterator[DeadJob]:
        """Yields the dead jobs, in the order of submission; read in pages, so workers go on meanwhile."""
        last = -1
        while page := self.dead_page(last):
            yield from page
            last = page[-1].job.index

    def dead_page(self, index: int) -> list[DeadJob]:
        """The first dead jobs behind this index: a thousand at most."""
        return [self._dead_of(row) for row in self._read(_DEAD_PAGE, (index + 1,))]

    def _dead_of(self, row: Sequence[Any]) -> DeadJob:
        seq, number, failed, cause, detail, body = row
        self._check_types((seq, number, failed, 0, body))
        if not isinstance(detail, str) or cause not in _CAUSES:
            raise damaged(self.path, f"job {seq} is dead without a known cause")
        return DeadJob(Job(id_of(number), seq - 1, body), failed, Cause(cause), detail)

    def redrive(self, ids: Iterable[str] | None = None) -> list[str]:
        """Put dead jobs (these ids, or all) back as new. Returns the ids that were dead.

        After a failure part-way some are back and the others still dead: calling again is safe.
        """
        if ids is None:
            ids = [id_of(number) for (number,) in self._read(_DEAD_IDS)]
        wanted = filter(is_id, ids)
        back: list[str] = []
        while batch := list(islice(wanted, BATCH)):
            with self._writing(durable=True) as db:
                back += [each for each in batch if db.execute(_REDRIVE, (number_of(each),)).rowcount]
        return back

    def drop(self, ids: Iterable[str]) -> list[str]:
        """Take dead and waiting jobs out for good. Returns the ids that are out."""
        wanted = filter(is_id, dict.fromkeys(ids))
        out: list[str] = []
        while batch := list(islice(wanted, BATCH)):
            with self._writing(durable=True) as db:
                now = self._clock.now()
                db.executemany(_DROP, [(number_of(each), now) for each in batch])
                out += [each for each in batch if db.execute(_OUT, (number_of(each),)).fetchone()]
        return out

    def purge(self) -> None:
        """Forget every job, the dead and the finished ones included. What set_meta keeps stays."""
        with self._writing(durable=True) as db:
            db.execute("DELETE FROM jobs")
            db.execute("DELETE FROM large")
            unpack(db)
            self._capacity = None

    def release_owner(self, owner: str) -> list[Lease]:
        """Give back at once what a lost worker holds, attempt not counted; returns its leases.

        Only for a worker that is known to be gone: one that still lives would lose its leases.
        """
        with self._writing() as db:
            rows = db.execute(_OWNED, (owner,)).fetchall()
            for row in rows:
                self._check_types(row[:5])
            db.executemany(_DISOWN, [(row[0],) for row in rows])
        return [
            Lease(Job(id_of(number), seq - 1, body), text_of(token), deadline, failed + 1, deliveries)
            for seq, number, failed, deliveries, body, token, deadline in rows
        ]

    def owners(self) -> list[str]:
        """Returns the workers that hold leases, whether they still live or not."""
        return [str(owner) for (owner,) in self._read(_OWNERS)]

    def _claim(self, limit: int, token: int | None = None) -> list[Lease]:
        token = int.from_bytes(os.urandom(8), "big") >> 1 if token is None else token
        with self._writing() as db:
            now = self._clock.now()
            deadline = now + self._term
            db.execute(_PULL, (now, deadline, now + self._longest))
            rows = self._choose(db, now, limit)
            for row in rows:
                self._check_types(row[:5])
                if not row[4]:
                    raise damaged(self.path, f"job {row[0]} has lost its body")
            db.executemany(_CLAIM, [(deadline, token, self.owner, row[0]) for row in rows])
        text = text_of(token)
        return [
            Lease(
                Job(id_of(number), seq - 1, body),
                text,
                deadline,
                failed + 1,
                deliveries + 1,
                Earlier.from_text(earlier) if earlier else NEVER_SHORT,
            )
            for seq, number, failed, deliveries, body, earlier, _ in rows
        ]

    def _choose(self, db: sqlite3.Connection, now: float, limit: int) -> list[Any]:
        rows = [] if self.packs else self._first(db, now, limit)
        if self._capacity is None and self._find_capacity is not None and any(map(needs_of, rows)):
            self._capacity = self._find_capacity()
        return rows if self._capacity is None else self._fitting(db, now, self._capacity)

    def _first(self, db: sqlite3.Connection, now: float, limit: int) -> list[Any]:
        rows = db.execute(_DUE, (now, limit)).fetchall()
        if len(rows) < limit:
            rows += db.execute(_FRESH, (limit - len(rows),)).fetchall()
        return rows

    def _fitting(
        self, db: sqlite3.Connection, now: float, capacity: Capacity, machine: str = ""
    ) -> list[Any]:
        """Returns one job that fits into what is free; more would take room before they run."""
        job = next_job(db, now, capacity, machine)
        return [] if job is None else self._one(db, now, job)

    def _one(self, db: sqlite3.Connection, now: float, seq: int) -> list[Any]:
        return db.execute(_ONE, (seq, now)).fetchall()

    @property
    def packs(self) -> bool:
        """Whether this worker has seen a job that says what it needs."""
        return self._capacity is not None

    def needs(self, default: Needs) -> list[tuple[Needs, int]]:
        """Returns what waiting jobs need, and how many; empty: no job of the queue says it."""
        if not self._read(IS_PACKED):
            return []
        found = self._read(WAITING, (self._clock.now(),))
        return [(of_number(number, default), count) for number, count in found]

    def unlike(self, jobs: Iterable[KnownJob], *, states: bool) -> int:
        """Returns how many jobs are missing, have another body, or (`states`) are open though they ended."""
        count = 0
        for job, state, *_ in jobs:
            rows = self._read(_BODY, (number_of(job.id),))
            open_again = states and state.final and bool(rows) and rows[0][0] == 0
            count += not rows or open_again or (bool(job.body) and rows[0][1] != job.body)
        return count

    def check(self) -> None:
        """Reads the whole file. Raises QueueDamaged where it is not what was written."""
        said = str(self._read("PRAGMA quick_check(1)")[0][0])
        if said != "ok":
            raise damaged(self.path, said)
        for (seq,) in self._read(_ODD):
            raise damaged(self.path, f"job {seq} has a value of the wrong type")

    def restore(self, jobs: Iterable[KnownJob]) -> None:
        """Adds jobs to a new queue in the states that they are known to have, in the given order."""
        rows = iter(jobs)
        while batch := list(islice(rows, BATCH)):
            with self._writing(durable=True) as db:
                restore(db, batch)

    def _check_types(self, row: Sequence[Any]) -> None:
        """Raises QueueDamaged for a row (seq, id, failed, deliveries, body) that no verb of ours wrote."""
        if tuple(map(type, row)) != _TYPES:
            raise damaged(self.path, f"job {row[0]} has a value of the wrong type")

    def _make_room(self) -> None:
        """Enlarges the cache for the index of a million ids in no order; leasing needs none."""
        self._read(f"PRAGMA cache_size = -{PUT_CACHE_KIB}")
        self._read(f"PRAGMA wal_autocheckpoint = {PUT_CHECKPOINT_PAGES}")
