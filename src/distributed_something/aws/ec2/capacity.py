"""Judges types of machines by how often AWS took them back, from the lives that past runs have noted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress

from ...engine import Store
from ...errors import DsError
from ...ledger import RunPaths
from ...words import many
from .cost import Life, read_lives

RUNS = 4  # latest runs of the app by which types are judged

TAKEN_BACK = 3
TAKEN_BACK_SHARE = 0.5
"""Least number, and least share, of its spot machines that AWS took back, from which a type is left out."""


def left_out(lives: Iterable[Life], types: Sequence[str]) -> dict[str, str]:
    """Returns the types that are not asked for, and why. Some type always stays."""
    asked, lost = Counter[str](), Counter[str]()
    for life in lives:
        if life.spot:
            asked[life.kind] += 1
            lost[life.kind] += life.lost
    found = {
        kind: f"{lost[kind]} of {many(asked[kind], 'machine')} taken back"
        for kind in types
        if lost[kind] >= max(TAKEN_BACK, TAKEN_BACK_SHARE * asked[kind])
    }
    return found if found.keys() < {*types} else {}


def past_lives(store: Store, app: str) -> list[Life]:
    """Returns the lives of the machines of the app's latest runs."""
    found: list[Life] = []
    for run in sorted(store.folders(f"runs/{app}/"))[-RUNS:]:
        with suppress(DsError, ValueError, TypeError, AttributeError):
            found += read_lives(store.read(lives_key(app, run))).values()
    return found


def lives_key(app: str, run: str) -> str:
    """Returns where a run's lives of machines are kept."""
    return RunPaths(app, run).root + "machines.json"
