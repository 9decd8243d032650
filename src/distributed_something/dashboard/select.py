"""Selects and orders the jobs of the table. `model` calls it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ..job import State
from ..ledger import Fold
from ..ledger.selection import Wanted, containing, indexes
from ..runs.snapshot import Alive

WORDS = 8  # most words of a search

_WORD = re.compile(r'([^\s="]+)=("[^"]*"|\S+)|\S+')


class Asked(NamedTuple):
    """What the user selects: `wanted`, the jobs of a group of failures (by its example), and words.

    Every word must be in a job's values, id or places. Empty: any.
    """

    wanted: Wanted = Wanted()
    said: str = ""
    words: tuple[str, ...] = ()


def asked(query: Mapping[str, object]) -> Asked:
    """Reads a request of the page. NAME=VALUE asks for jobs whose key has just this value; NAME="A B" too."""
    given = {name: value for name, value in query.items() if isinstance(value, str)}
    get, words = given.get, [*_WORD.finditer(given.get("q", ""))][:WORDS]
    keys = tuple((word[1], word[2].strip('"')) for word in words if word[1])
    wanted = Wanted(get("state", ""), get("cause", ""), get("machine", ""), keys, get("order", ""))
    return Asked(wanted, get("said", ""), tuple(word[0] for word in words if not word[1]))


def select(fold: Fold, given: Asked, among: Collection[str] | None, *, alive: Alive) -> Sequence[int]:
    """Returns the indexes of the selected jobs in order. `among`: only these ids; `alive`: the machines."""
    stranded: list[int] = []
    if given.wanted.state in (State.RUNNING, State.WAITING):
        stranded = [each.index for each in fold.running() if alive.state(each) is State.WAITING]
    found = indexes(fold, given.wanted, among, stranded)
    for word in given.words:
        found = containing(fold, found, word)
    return found
