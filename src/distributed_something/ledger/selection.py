"""Selects jobs of a fold by state, cause, words and order, as the page shows them. `dashboard` calls it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from ..job import State
from .batch import STATES
from .fold import AGAIN, Fold, record_of
from .keyed import comparable, keep
from .records import FACTS, JobRecord

ORDERS = {
    "index": "number",
    "id": "id",
    "state": "ifnull(state, 0)",
    "attempts": "ifnull(attempts, 0)",
    "cause": "cause",
    "time": "seconds",
    "memory": "max_rss_bytes",
    "machine": "ifnull(machine, worker)",
    "ended": "coalesce(ended, started)",
}
"""What jobs are sorted by, besides their keys (`key:NAME`)."""

KEY = "key:"

_PAGE = 5000


class Text(NamedTuple):
    """What of a job is searched."""

    at: int
    """Its index."""
    id: str
    names: tuple[str | None, ...]
    """Its cause, machine and worker."""
    body: bytes


class Wanted(NamedTuple):
    """Which jobs, and in which order; empty: any, as submitted.

    `keys` are names and values that a job must have. `order` is one of ORDERS, or `key:NAME`; `-` before it:
    the largest first. Jobs without a value come last.
    """

    state: str = ""
    cause: str = ""
    machine: str = ""
    keys: tuple[tuple[str, str], ...] = ()
    order: str = ""


def indexes(
    fold: Fold, wanted: Wanted, among: Collection[str] | None = None, stranded: Collection[int] = ()
) -> Sequence[int]:
    """Returns the indexes of jobs in order. `stranded` jobs wait, but run by the ledger."""
    conditions, values = _conditions(wanted, stranded)
    for name, value in wanted.keys:
        keep(fold, name)
        conditions.append("number IN (SELECT number FROM keyed WHERE name = ? AND value = ?)")
        values += [name, comparable(value)]
    if among is not None:
        conditions.append("id IN (SELECT value FROM json_each(?))")
        values.append(json.dumps([*among]))
    order = wanted.order.removeprefix("-")
    down = " DESC" if wanted.order.startswith("-") else ""
    if order.startswith(KEY):
        return _by_key(fold, order.removeprefix(KEY), down, conditions, values)
    column = ORDERS.get(order, "number")
    if not conditions and column == "number":
        return range(fold.total) if not down else range(fold.total)[::-1]
    join = "JOIN" if wanted.state and wanted.state != State.WAITING else "LEFT JOIN"
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    by = f"number{down}" if column == "number" else f"{column} IS NULL, {column}{down}, number"
    sql = f"SELECT number - 1 FROM jobs {join} states USING (number) {where} ORDER BY {by}"  # noqa: S608
    return [index for (index,) in fold.query(sql, values)]


def _conditions(wanted: Wanted, stranded: Collection[int]) -> tuple[list[str], list[object]]:
    """Returns SQL conditions over jobs and states, and their values."""
    conditions: list[str] = []
    values: list[object] = []
    state, numbers = wanted.state, json.dumps([index + 1 for index in stranded])
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
    for column, value in (("cause", wanted.cause), ("ifnull(machine, worker)", wanted.machine)):
        if value:
            conditions.append(f"{column} = ?")
            values.append(value)
    return conditions, values


def _by_key(
    fold: Fold, name: str, down: str, conditions: Sequence[str], values: Sequence[object]
) -> Sequence[int]:
    """Returns the indexes of jobs by the value of a key; those without the key last."""
    keep(fold, name)
    tables = "LEFT JOIN states USING (number)"
    more = "".join(f" AND {each}" for each in conditions)
    sql = f"""SELECT number - 1 FROM keyed JOIN jobs USING (number) {tables}
        WHERE name = ?{more} ORDER BY value{down}, number{down}"""  # noqa: S608
    found = [index for (index,) in fold.query(sql, (name, *values))]
    if len(found) < fold.total:
        sql = f"""SELECT number - 1 FROM jobs {tables}
            WHERE number NOT IN (SELECT number FROM keyed WHERE name = ?){more} ORDER BY number"""  # noqa: S608
        found += [index for (index,) in fold.query(sql, (name, *values))]
    return found


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
