"""Selects and orders the jobs of the table. `model` calls it."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import NamedTuple

from ..job import State
from ..ledger import Fold
from ..ledger.selection import indexes, texts
from ..runs.snapshot import Alive


class Wanted(NamedTuple):
    """What the user selects: a state, a cause, a group of failures (by its example), and words.

    Every word must be in a job's values, id or places. Empty: any.
    """

    state: str = ""
    cause: str = ""
    said: str = ""
    words: tuple[str, ...] = ()
    order: str = ""


def select(fold: Fold, wanted: Wanted, among: Collection[str] | None, *, alive: Alive) -> Sequence[int]:
    """Returns the indexes of the selected jobs in order. `among`: only these ids; `alive`: the machines."""
    stranded: list[int] = []
    if wanted.state in (State.RUNNING, State.WAITING):
        stranded = [each.index for each in fold.running() if alive.state(each) is State.WAITING]
    found = indexes(fold, wanted.state or None, wanted.cause or None, among, wanted.order, stranded)
    for word in wanted.words:
        found = _containing(fold, found, word)
    return found


def _containing(fold: Fold, found: Sequence[int], word: str) -> list[int]:
    word = word.lower()
    needle = json.dumps(word, ensure_ascii=False)[1:-1].encode("utf-8", "replace").lower()
    number = int(word) if word.isascii() and word.isdecimal() and len(word) < 19 else None
    known: dict[str | None, bool] = {None: False}

    def named(text: str | None) -> bool:
        """Returns whether a name that many jobs share has the word."""
        if text not in known:
            known[text] = text is not None and word in text.lower()
        return known[text]

    return [
        each.at
        for each in texts(fold, found)
        if needle in each.body.lower()
        or each.id.startswith(word)
        or each.at == number
        or any(map(named, each.names))
    ]
