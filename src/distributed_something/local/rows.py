"""Makes rows of the queue's file from jobs, ids and tokens. `queue` calls it."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate

from ..engine import KnownJob
from ..job import LARGE_BODY, Cause, Job, Lease, NeedyJob, State
from .packed import pack

_INT64 = struct.Struct(">q")

# A batch in one statement, in which Python's lock is free: see `_packed`.
_PUT = """INSERT INTO jobs (id, body)
    SELECT CAST(key AS INTEGER), ifnull(substr(:bodies, (value >> 32) + 1, value & 0xFFFFFFFF), x'')
    FROM json_each(:places) WHERE true ON CONFLICT (id) DO NOTHING"""

_SEQ = "SELECT seq FROM jobs WHERE id = ? AND length(body) = 0"
_LARGE = "INSERT OR IGNORE INTO large VALUES (?, zeroblob(?))"

_RESTORE = """INSERT OR IGNORE INTO jobs (id, state, failed, cause, detail, body)
    VALUES (?, ?, ?, ?, ?, ?)"""


class Rows:
    """A batch of jobs, ready for one transaction."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._packed = _packed(jobs)

    def insert(self, db: sqlite3.Connection) -> int:
        """Adds the jobs whose ids are new. Returns their number."""
        new = db.execute(_PUT, self._packed).rowcount
        _complete(db, self._jobs)
        return new


def restore(db: sqlite3.Connection, jobs: Sequence[KnownJob]) -> None:
    """Adds jobs in the states that they are known to have."""
    rows = [(number_of(job.id), *known, _in_row(job.body)) for job, *known in map(_stored, jobs)]
    db.executemany(_RESTORE, rows)
    _complete(db, [each.job for each in jobs])


def _complete(db: sqlite3.Connection, jobs: Sequence[Job]) -> None:
    """Adds what is not in the rows of new jobs: large bodies, and what jobs need that say it."""
    _fill(db, jobs)
    if needy := [(job.needs, number_of(job.id)) for job in jobs if type(job) is NeedyJob]:
        pack(db, needy)


def _fill(db: sqlite3.Connection, jobs: Iterable[Job]) -> None:
    """Writes the large bodies of new jobs in place: as a value, SQLite would copy one three times."""
    for job in jobs:
        if len(job.body) >= LARGE_BODY:
            for (seq,) in db.execute(_SEQ, (number_of(job.id),)).fetchall():
                if db.execute(_LARGE, (seq, len(job.body))).rowcount:
                    with db.blobopen("large", "body", seq) as body:
                        body.write(job.body)


def _in_row(body: bytes) -> bytes:
    """Returns what a job's row has of its body."""
    return body if len(body) < LARGE_BODY else b""


def _stored(known: KnownJob) -> tuple[Job, int, int, str | None, str | None]:
    """Returns a job and its columns state, failed, cause and detail."""
    if known.state is State.DEAD:
        return known.job, 2, known.attempts, known.cause or Cause.EXIT, known.detail or ""
    state = 3 if known.state is State.DROPPED else int(known.state.final)
    return known.job, state, known.attempts, None, None


def _packed(jobs: Sequence[Job]) -> dict[str, str | bytes]:
    """Jobs for `_PUT`: all bodies in a row, and JSON from each id, as a number, to where its body lies.

    Where it begins and its length are one number, of 32 bits each: so SQLite has one value to read a job.
    A large body is left empty: `_fill` writes it.
    """
    numbers = struct.unpack(f">{len(jobs)}q", bytes.fromhex("".join([job.id for job in jobs])))
    bodies = [_in_row(job.body) for job in jobs]
    starts = accumulate(map(len, bodies), initial=0)
    places = [
        f'"{number}":{start << 32 | len(body)}'
        for number, start, body in zip(numbers, starts, bodies, strict=False)
    ]
    return {"places": f"{{{','.join(places)}}}", "bodies": b"".join(bodies)}


def number_of(job_id: str) -> int:
    """Returns an id as it is stored: SQLite's integers have 64 bits and a sign."""
    number: int = _INT64.unpack(bytes.fromhex(job_id))[0]
    return number


def id_of(number: int) -> str:
    """Returns the id that is stored as this number."""
    return _INT64.pack(number).hex()


def is_id(text: str) -> bool:
    """Whether a text is an id as we write them."""
    try:
        return id_of(number_of(text)) == text
    except (ValueError, struct.error):
        return False


def text_of(token: int) -> str:
    """Returns a token as leases have it."""
    return f"{token:016x}"


def ours(lease: Lease, now: float) -> tuple[int, int, float]:
    """Returns the values for the condition that a lease is not stale."""
    return lease.job.index + 1, int(lease.token, 16), now
