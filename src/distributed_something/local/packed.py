"""Chooses the next job of a queue by what it needs. `queue` calls it inside its transactions.

The indexes are made with the first job that says what it needs: a queue without such jobs does nothing more.
Memory is rounded up to one of eight steps between two powers of 2: so there are few different needs, and a
choice costs the same however many jobs wait.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from functools import lru_cache

from ..job import Needs
from ..packing import Capacity, Head, Passed, choose

_INDEXES = (
    "CREATE INDEX IF NOT EXISTS jobs_needs ON jobs(need, visible_at) WHERE state = 0",
    "CREATE INDEX IF NOT EXISTS jobs_held ON jobs(owner, need, visible_at)"
    " WHERE state = 0 AND token IS NOT NULL",
)

IS_PACKED = "SELECT 1 FROM sqlite_master WHERE name = 'jobs_needs'"

_SET = "UPDATE jobs SET need = ? WHERE id = ?"

_TURN = """SELECT need, seq FROM jobs INDEXED BY jobs_open
    WHERE state = 0 AND visible_at > 0 AND visible_at <= ? ORDER BY visible_at, seq LIMIT 1"""
_TURN_FRESH = """SELECT need, seq FROM jobs INDEXED BY jobs_open
    WHERE state = 0 AND visible_at = 0 ORDER BY seq LIMIT 1"""

# Each different need below a bound, by steps from one to the next in the index; of each the first job. A step
# leads past all that have the same processors and GPUs, and need more memory than is free.
_HEADS = """WITH RECURSIVE kinds(need) AS (
    SELECT min(need) FROM jobs INDEXED BY jobs_needs WHERE state = 0
    UNION ALL SELECT (SELECT min(need) FROM jobs INDEXED BY jobs_needs WHERE state = 0
        AND need > iif(kinds.need & :mask > :memory, kinds.need | :mask, kinds.need))
    FROM kinds WHERE kinds.need < :bound)
    SELECT need, (SELECT seq FROM jobs INDEXED BY jobs_needs WHERE state = 0 AND need = kinds.need
        AND visible_at > 0 AND visible_at <= :now ORDER BY visible_at, seq LIMIT 1),
    (SELECT seq FROM jobs INDEXED BY jobs_needs WHERE state = 0 AND need = kinds.need
        AND visible_at = 0 ORDER BY seq LIMIT 1)
    FROM kinds WHERE need < :bound AND need & :mask <= :memory"""

_HELD = """SELECT need, count(*) FROM jobs INDEXED BY jobs_held WHERE state = 0 AND token IS NOT NULL
    AND owner >= ? AND owner < ? AND visible_at > ? GROUP BY need"""

WAITING = """SELECT need, count(*) FROM jobs INDEXED BY jobs_needs
    WHERE state = 0 AND (visible_at <= ? OR token IS NULL) GROUP BY need"""

_PASSED = "SELECT value FROM meta WHERE key = ?"
_NOTE_PASSED = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"
_FORGET_PASSED = "DELETE FROM meta WHERE key = ?"

_MEMORY_BITS, _GPU_BITS = 40, 8


def pack(db: sqlite3.Connection, needs: Iterable[tuple[Needs, int]]) -> None:
    """Stores what jobs need, by their ids as the queue has them."""
    for index in _INDEXES:
        db.execute(index)
    db.executemany(_SET, ((to_number(each), job) for each, job in needs))


def unpack(db: sqlite3.Connection) -> None:
    """Removes the indexes: a queue that is emptied is as quick as a new one."""
    for name in ("jobs_needs", "jobs_held"):
        db.execute(f"DROP INDEX IF EXISTS {name}")


def next_job(db: sqlite3.Connection, now: float, capacity: Capacity, machine: str = "") -> int | None:
    """Returns the number of the job to lease on a machine; None: none fits now.

    `machine` begins the names of its workers; empty: every worker of the queue is on it.
    """
    free = whole = capacity.whole
    for need, count in db.execute(_HELD, (machine, machine + "\U0010ffff", now)):
        free = capacity.left(free, _needs(need, capacity), count)
    first = db.execute(_TURN, (now,)).fetchone() or db.execute(_TURN_FRESH).fetchone()
    oldest = first and Head(_needs(first[0], capacity), (False, 0), first[1])
    key = f"passed {machine}"
    found = db.execute(_PASSED, (key,)).fetchone()
    before = _passed(found[0]) if found else None
    head, after = choose(oldest, _heads(db, now, free, capacity), free, whole, before, now)
    if after != before:
        db.execute(
            *((_NOTE_PASSED, (key, f"{after.job} {after.since!r}")) if after else (_FORGET_PASSED, (key,)))
        )
    return head.job if head else None


def _heads(db: sqlite3.Connection, now: float, free: Needs, capacity: Capacity) -> Iterator[Head]:
    """Yields the first job of each different need, of those that do not need too many processors."""
    bound = max(free.cpus + 1, 0) << (_GPU_BITS + _MEMORY_BITS)
    memory = free.memory if free.memory < capacity.whole.memory else _of_whole(free.memory)
    values = {"now": now, "bound": bound, "mask": (1 << _MEMORY_BITS) - 1, "memory": memory}
    for need, due, fresh in db.execute(_HEADS, values):
        if due or fresh:
            yield Head(_needs(need, capacity), (due is None, due or fresh), due or fresh)


def to_number(needs: Needs) -> int:
    """Returns needs as the queue has them; 0: nothing is said."""
    cpus, memory, gpus = needs
    step = 1 << max(memory.bit_length() - 4, 0)
    rounded = -(-memory // step) * step
    return (min(cpus, (1 << 14) - 1) << _GPU_BITS | min(gpus, (1 << _GPU_BITS) - 1)) << _MEMORY_BITS | rounded


def of_number(number: int, default: Needs) -> Needs:
    """Returns needs that the queue has; `default`: of a job that says nothing."""
    if not number:
        return default
    counts, memory = divmod(number, 1 << _MEMORY_BITS)
    cpus, gpus = divmod(counts, 1 << _GPU_BITS)
    return Needs(cpus, memory, gpus)


@lru_cache(1024)
def _needs(number: int, capacity: Capacity) -> Needs:
    """Returns needs as they count on a machine. A rounding up beyond its whole memory is taken back."""
    needs, most = of_number(number, capacity.default), capacity.whole.memory
    return needs._replace(memory=most) if most < needs.memory <= _of_whole(most) else needs


def _of_whole(memory: int) -> int:
    """Returns the most that a need of a whole memory is rounded up to."""
    return memory * 9 // 8


def _passed(text: str) -> Passed:
    job, since = text.split()
    return Passed(int(job), float(since))
