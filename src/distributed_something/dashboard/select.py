"""Selects and orders the jobs of the table. Pure; `model` calls it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import NamedTuple

from ..ledger import JobRecord
from ..runs.snapshot import Alive, shown
from .history import History

ORDERS: dict[str, Callable[[JobRecord], float]] = {
    "longest": lambda record: -(record.seconds or 0.0),
    "memory": lambda record: -(record.max_rss_bytes or 0),
    "attempts": lambda record: -record.attempts,
    "latest": lambda record: -(record.ended or record.started or 0.0),
}
"""Orders of the table, besides the order of submission."""


class Wanted(NamedTuple):
    """What the user selects: a state, a cause, a group of failures (by its example), and words.

    Every word must be in a job's values, id or places. Empty: any.
    """

    state: str = ""
    cause: str = ""
    said: str = ""
    words: tuple[str, ...] = ()
    order: str = ""


def select(
    history: History, wanted: Wanted, among: Collection[str] | None, *, alive: Alive
) -> list[JobRecord]:
    """Returns the selected jobs in order. `among`: only these ids; `alive`: the running machines."""
    state, cause = wanted.state or None, wanted.cause or None
    records: list[JobRecord]
    if among is None:
        records = list(history.jobs.values())
    else:
        records = [history.jobs[job_id] for job_id in among if job_id in history.jobs]
    if state or cause:
        records = [record for record in records if shown(record, state, cause, alive=alive)]
    for word in wanted.words:
        records = _containing(history, records, word)
    order = ORDERS.get(wanted.order)
    records.sort(key=order or _index)
    return records


def _index(record: JobRecord) -> float:
    return record.index


def _containing(history: History, records: list[JobRecord], word: str) -> list[JobRecord]:
    word = word.lower()
    needle = json.dumps(word, ensure_ascii=False)[1:-1].encode("utf-8", "replace").lower()
    number = int(word) if word.isascii() and word.isdecimal() and len(word) < 19 else None
    texts = history.texts
    known: dict[str | None, bool] = {None: False}

    def named(text: str | None) -> bool:
        """Returns whether a name that many jobs share contains the word."""
        if text not in known:
            known[text] = text is not None and word in text.lower()
        return known[text]

    return [
        record
        for record in records
        if needle in texts.get(record.id, b"")
        or record.id.startswith(word)
        or record.index == number
        or named(record.cause)
        or named(record.machine)
        or named(record.worker)
    ]
