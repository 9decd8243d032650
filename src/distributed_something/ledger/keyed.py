"""Keeps the values of a job key in the index of a run, so that jobs are sorted and found by them.

A key's values are read from the job lists when they are first wanted, and added to when jobs were added.
`selection` calls it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..job import keys_of
from .fold import Fold

TEXT_CHARACTERS = 200
"""Longest text of a value that is compared, in characters."""

_PAGE = 50_000

Value = int | float | str


def keep(fold: Fold, name: str) -> None:
    """Adds the values of a key to the index, for the jobs that it does not have yet."""
    known = [*fold.query("SELECT upto FROM keys WHERE name = ?", (name,))]
    upto = known[0][0] if known else 0
    if upto >= fold.total:
        return
    sql = f"SELECT list, place, length, number FROM jobs WHERE number > ? ORDER BY number LIMIT {_PAGE}"  # noqa: S608
    while page := [*fold.query(sql, (upto,))]:
        bodies = fold.bodies_at([row[:3] for row in page])
        found = ((value_of(body, name), row[3]) for row, body in zip(page, bodies, strict=True))
        rows = [(name, value, number) for value, number in found if value is not None]
        rows.sort(key=lambda row: (isinstance(row[1], str), row[1]))
        fold.write("INSERT OR REPLACE INTO keyed VALUES (?, ?, ?)", rows)
        upto = page[-1][3]
        fold.write("INSERT OR REPLACE INTO keys VALUES (?, ?)", [(name, upto)])


def value_of(body: bytes, name: str) -> Value | None:
    """Returns the value of a key in a job's body, as it is compared; None: the job has no such key."""
    found = parsed(body).get(name)
    if found is None or isinstance(found, bool | list | dict):
        return None if found is None else json.dumps(found)[:TEXT_CHARACTERS]
    return comparable(found)


def comparable(value: Any) -> Value:
    """Returns a number for what is written as one, so that 9 comes before 10; else a text."""
    if isinstance(value, int | float):
        return value if abs(value) < 1e15 else str(value)
    text = str(value)[:TEXT_CHARACTERS].encode("utf-8", "replace").decode()
    return int(text) if text.isascii() and text.isdecimal() and str(int(text[:16])) == text else text


def parsed(body: bytes | None) -> dict[str, Any]:
    """Returns the keys of a body, shared and own ones together; empty if it is no job's."""
    try:
        found = _decode(body or b"{}")
    except ValueError:
        return {}
    return keys_of(found) if isinstance(found, dict) else {}


def _decode(body: bytes) -> Any:
    from msgspec.json import decode

    return decode(body)


def key_names(bodies: Iterable[bytes]) -> list[str]:
    """Returns the names of the jobs' own keys, in the order they come; where none has a group: of all."""
    names: dict[str, None] = {}
    shared: dict[str, None] = {}
    for body in bodies:
        try:
            found = _decode(body or b"{}")
        except ValueError:
            continue
        if isinstance(found, dict):
            group = found.get("group")
            if isinstance(group, dict):
                names.update(dict.fromkeys(name for name in keys_of(group) if isinstance(name, str)))
            shared.update(dict.fromkeys(name for name in found if name != "group"))
    return list(names or shared)
