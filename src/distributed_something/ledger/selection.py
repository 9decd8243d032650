"""Selects jobs of a fold by state, cause, words and order, as the page shows them. `dashboard` calls it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from ..job import State
from .batch import STATES
from .fold import AGAIN, Fold, record_of
from .records import FACTS, JobRecord

ORDERS = {
    "longest": "ifnull(seconds, 0) DESC",
    "memory": "ifnull(max_rss_bytes, 0) DESC",
    "attempts": "ifnull(attempts, 0) DESC",
    "latest": "coalesce(ended, started, 0) DESC",
}
"""Orders besides the order of submission."""

_PAGE = 5000


class Text(NamedTuple):
    """What of a job is searched."""

    at: int
    """Its index."""
    id: str
    names: tuple[str | None, ...]
    """Its cause, machine and worker."""
    body: bytes


def indexes(
    fold: Fold,
    state: str | None = None,
    cause: str | None = None,
    among: Collection[str] | None = None,
    order: str = "",
    stranded: Collection[int] = (),
) -> Sequence[int]:
    """Returns the indexes of jobs in order; None: any. `stranded` jobs wait, but run by the ledger."""
    conditions: list[str] = []
    values: list[object] = []
    numbers = json.dumps([index + 1 for index in stranded])
    if state == "failed":
        conditions.append(AGAIN)
    elif state == State.RUNNING:
        conditions.append("state = 1 AND number NOT IN (SELECT value FROM json_each(?))")
        values.append(numbers)
    elif state == State.WAITING:
        conditions.append("(ifnull(state, 0) = 0 OR number IN (SELECT value FROM json_each(?)))")
        values.append(numbers)
    elif state:
        known = [code for code, each in enumerate(STATES) if each == state]
        conditions.append(f"state = {known[0]}" if known else "false")
    if cause:
        conditions.append("cause = ?")
        values.append(cause)
    if among is not None:
        conditions.append("id IN (SELECT value FROM json_each(?))")
        values.append(json.dumps([*among]))
    if not conditions and order not in ORDERS:
        return range(fold.total)
    join = "JOIN" if state and state != State.WAITING else "LEFT JOIN"
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    by = f"{ORDERS[order]}, number" if order in ORDERS else "number"
    sql = f"SELECT number - 1 FROM jobs {join} states USING (number) {where} ORDER BY {by}"  # noqa: S608
    return [index for (index,) in fold.query(sql, values)]


def records_at(fold: Fold, wanted: Sequence[int]) -> list[JobRecord]:
    """Returns the records of a few jobs by their indexes, in this order."""
    columns = ", ".join(FACTS)
    sql = f"""SELECT jobs.id, jobs.number - 1, state, {columns} FROM json_each(?) AS wanted
        JOIN jobs ON jobs.number = wanted.value LEFT JOIN states ON states.number = jobs.number"""  # noqa: S608
    rows = fold.query(sql, (json.dumps([index + 1 for index in wanted]),))
    found = {row[1]: record_of(row) for row in rows}
    return [found[index] for index in wanted if index in found]


def texts(fold: Fold, wanted: Sequence[int]) -> Iterator[Text]:
    """Yields what of these jobs is searched, page by page."""
    every = iter(wanted)
    while page := list(islice(every, _PAGE)):
        sql = """SELECT list, place, length, jobs.number - 1, jobs.id, cause, machine, worker
            FROM json_each(?) AS wanted JOIN jobs ON jobs.number = wanted.value
            LEFT JOIN states ON states.number = jobs.number ORDER BY jobs.number"""
        rows: list[Any] = [*fold.query(sql, (json.dumps([index + 1 for index in page]),))]
        bodies = fold.bodies_at([row[:3] for row in rows])
        found = {row[3]: Text(row[3], row[4], row[5:], body) for row, body in zip(rows, bodies, strict=True)}
        yield from (found[index] for index in page if index in found)
