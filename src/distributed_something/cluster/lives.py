"""How long pilots have lived: each keeps a file whose name says it, so that one listing adds them up.

    lives/<start>-<latest>-<over>-<pilot>-<node>    in Unix seconds; over: 1 where it has ended

A pilot that is requeued has a file for each of its lives. One that is killed is a minute off at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .shared.files import Files

BEAT_SECONDS = 60.0
"""A pilot renames its file this often."""


class Life(NamedTuple):
    """One life of a pilot, up to its `latest` sign, in Unix seconds."""

    start: int
    latest: int
    over: bool
    pilot: str
    node: str

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.start}-{self.latest}-{self.over:d}-{self.pilot}-{self.node}"

    @classmethod
    def of(cls, name: str) -> Life:
        """What a file's name says."""
        start, latest, over, pilot, node = name.split("-", 4)
        return cls(int(start), int(latest), over == "1", pilot, node)


def lives(run: Path, files: Files) -> list[Life]:
    """Every life of a run's pilots; the latest sign of each."""
    latest: dict[tuple[str, int], Life] = {}
    for life in map(Life.of, files.names(run / "lives")):  # a listing may show a file under both of its names
        known = latest.get((life.pilot, life.start))
        latest[life.pilot, life.start] = life if known is None else max(known, life)
    return [*latest.values()]


def signs(lived: Iterable[Life]) -> Counter[str]:
    """How often each pilot has begun or ended."""
    found = Counter[str]()
    for life in lived:
        found[life.pilot] += 1 + life.over
    return found


def hours(lived: Iterable[Life], now: float) -> float:
    """How long these lives were together. One that goes on lasts until now, and for one beat at most.

    So clocks of two nodes that are minutes apart make a minute's difference.
    """
    return sum(life.latest - life.start + _since_beat(life, now) for life in lived) / 3600


def _since_beat(life: Life, now: float) -> float:
    return 0.0 if life.over else min(max(now - life.latest, 0.0), BEAT_SECONDS)


class OwnLife:
    """The file of this pilot's life."""

    def __init__(self, run: Path, pilot: str, node: str, now: float) -> None:
        self._folder = run / "lives"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._life = Life(int(now), int(now), False, pilot, node)
        (self._folder / self._life.name).touch(mode=0o600)

    def beat(self, now: float, *, over: bool = False) -> bool:
        """Note that it lives, where the latest note is old, or that it is over; whether that was done."""
        if not over and now - self._life.latest < BEAT_SECONDS:
            return False
        later = self._life._replace(latest=max(int(now), self._life.latest), over=over)
        (self._folder / self._life.name).rename(self._folder / later.name)
        self._life = later
        return True
