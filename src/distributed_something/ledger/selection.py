"""Selects jobs of a fold by state, cause, words and order, as the page shows them. `dashboard` calls it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from ..job import State
from .batch import STATES
from .fold import Fold
from .keyed import comparable, keep
from .reading import AGAIN, record_of
from .records import FACTS, JobRecord

ORDERS = {
    "index": "number",
    "id": "id",
    "state": "state",
    "attempts": "attempts",
    "cause": "cause",
    "time": "seconds",
    "memory": "max_rss_bytes",
    "machine": "ifnull(machine, worker)",
    "ended": "coalesce(ended, started)",
}
"""What jobs are sorted by, besides their keys (`key:NAME`)."""

LEAST = ("state", "attempts")
"""Columns of which a job that has only waited has the least value, 0, and no row."""

KEY = "key:"

_PAGE = 5000

_MANY = 10
"""Jobs are looked through one by one if there are so many times as many in the run."""


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
        conditions.append(
            "number IN (SELECT jobs.number FROM json_each(?) AS given JOIN jobs ON jobs.id = given.value)"
        )
        values.append(json.dumps([*among]))
    order = wanted.order.removeprefix("-")
    down = " DESC" if wanted.order.startswith("-") else ""
    if order.startswith(KEY):
        return _by_key(fold, order.removeprefix(KEY), down, conditions, values)
    column = ORDERS.get(order, "number")
    if column in ("number", "id"):
        if not conditions and column == "number":
            return range(fold.total)[:: -1 if down else 1]
        join = "JOIN" if wanted.state and wanted.state != State.WAITING else "LEFT JOIN"
        return _numbers(fold, f"jobs {join} states USING (number)", conditions, values, column + down)
    found = _numbers(
        fold, "states", [f"{column} IS NOT NULL", *conditions], values, f"{column}{down}, number"
    )
    if len(found) == fold.total:
        return found
    every, least = "jobs LEFT JOIN states USING (number)", column in LEAST and not down
    rest = _numbers(fold, every, [f"{column} IS NULL", *conditions], values, "number")
    return [*rest, *found] if least else [*found, *rest]


def _numbers(
    fold: Fold, tables: str, conditions: Sequence[str], values: Sequence[object], order: str
) -> list[int]:
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    sql = f"SELECT number - 1 FROM {tables} {where} ORDER BY {order}"  # noqa: S608
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
    tables = "LEFT JOIN states USING (number)" if conditions else ""
    by = f"value{down}, number{down}"
    found = _numbers(fold, f"keyed {tables}", ["name = ?", *conditions], (name, *values), by)
    if len(found) < fold.total:
        without = "number NOT IN (SELECT number FROM keyed WHERE name = ?)"
        found += _numbers(fold, f"jobs {tables}", [without, *conditions], (name, *values), "number")
    return found


def records_at(fold: Fold, wanted: Sequence[int]) -> list[JobRecord]:
    """Returns the records of a few jobs by their indexes, in this order."""
    columns = ", ".join(FACTS)
    sql = f"""SELECT jobs.id, jobs.number - 1, state, {columns} FROM json_each(?) AS wanted
        JOIN jobs ON jobs.number = wanted.value LEFT JOIN states ON states.number = jobs.number"""  # noqa: S608
    rows = fold.query(sql, (json.dumps([index + 1 for index in wanted]),))
    found = {row[1]: record_of(row) for row in rows}
    return [found[index] for index in wanted if index in found]


def containing(fold: Fold, found: Sequence[int], word: str) -> list[int]:
    """Returns those of these jobs that have a word in their values, cause, machine or worker.

    Also those whose id begins with it, and the job whose index it is.
    """
    word = word.lower()
    needle = json.dumps(word, ensure_ascii=False)[1:-1].encode("utf-8", "replace").lower()
    matching = _named(fold, word) | _in_bodies(fold, found, needle)
    return [index for index in found if index in matching]


def _named(fold: Fold, word: str) -> set[int]:
    ids = "SELECT number - 1 FROM jobs WHERE id >= ? AND id < ?"
    matching = {index for (index,) in fold.query(ids, (word, word + chr(0x10FFFF)))}
    if word.isascii() and word.isdecimal() and len(word) < 19:
        matching.add(int(word))
    columns = ("cause", "machine", "worker")
    seen = [*fold.query(f"SELECT DISTINCT {', '.join(columns)} FROM states")]  # noqa: S608
    for column, values in zip(columns, map(set, zip(*seen, strict=True)), strict=False):
        if names := [value for value in values if value is not None and word in value.lower()]:
            sql = f"SELECT number - 1 FROM states WHERE {column} IN (SELECT value FROM json_each(?))"  # noqa: S608
            matching.update(index for (index,) in fold.query(sql, (json.dumps(names),)))
    return matching


def _in_bodies(fold: Fold, found: Sequence[int], needle: bytes) -> set[int]:
    """Returns the jobs with this in their bodies: all such jobs, or at least those among `found`.

    Many jobs are looked through block by block, and only the blocks that have it job by job.
    """
    given: Iterable[tuple[str, tuple[object, ...]]]
    sql, matching = "SELECT list, place, length, number - 1 FROM jobs WHERE number", set[int]()
    if len(found) * _MANY < fold.total:
        few = iter(found)
        pages = iter(lambda: [*islice(few, _PAGE)], [])
        given = (("IN (SELECT value + 1 FROM json_each(?))", (json.dumps(page),)) for page in pages)
    else:
        blocks = (each for each in fold.blocks(_PAGE) if needle in each[2].lower())
        given = (("BETWEEN ? AND ?", (low, high)) for low, high, _ in blocks)
    for condition, values in given:
        rows: list[Any] = [*fold.query(f"{sql} {condition} ORDER BY number", values)]
        bodies = fold.bodies_at([row[:3] for row in rows])
        matching.update(row[3] for row, body in zip(rows, bodies, strict=True) if needle in body.lower())
    return matching
