"""Plans what goes wrong in a rehearsal: read from a text, drawn from a seed. Pure.

    notice=0.2/min,kill=0.1/min,throttle=5%,error=2%,lag=30s,capacity=3of5,pull=10%,broken=10%,boot=20s,speed=10x,seed=7

The same text and the same order of events bring the same misfortunes.
"""

from __future__ import annotations

import math
import random
import re
from typing import Any, NamedTuple

from ..errors import UsageError

ROUGH_DAY = "notice=0.5/min,kill=0.5/min,throttle=5%,error=2%,lag=5s,seed=7"
"""What `--faults rough-day` stands for."""

NOTICE_SECONDS = 120.0  # between the notice of a spot machine's end and that end

_FIX = "--faults 'notice=0.2/min,kill=0.1/min,throttle=5%,error=2%,lag=30s,capacity=3of5', or rough-day"


class Share(NamedTuple):
    """How many machines can be had: `had` of each `asked`; where `asked` is 0, `had` at most."""

    had: int
    asked: int = 0

    def limit(self, target: int) -> int:
        """Returns how many of `target` machines there can be at a time."""
        return min(target, self.had) if not self.asked else math.ceil(target * self.had / self.asked)


class Faults(NamedTuple):
    """What goes wrong. `notice` and `kill` are per machine and minute, `throttle` and `error` shares of the
    calls, `pull` and `broken` of the machines: those that cannot pull images, and those that lack every
    program; `lag` (how old SQS's counts may be) and `boot` are seconds. All this time passes `speed` times as
    fast as the machine's own."""

    notice: float = 0.0
    kill: float = 0.0
    throttle: float = 0.0
    error: float = 0.0
    lag: float = 0.0
    boot: float = 0.0
    pull: float = 0.0
    broken: float = 0.0
    capacity: Share | None = None
    speed: float = 1.0
    seed: int = 0

    def seconds(self, pretended: float) -> float:
        """Returns how long something takes on this machine's clock."""
        return pretended / self.speed


def parse_faults(text: str) -> Faults:
    """Returns the faults that a text asks for; "": none. Raises UsageError for the first mistake."""
    found: dict[str, Any] = {}
    for item in (ROUGH_DAY if text.strip() == "rough-day" else text).split(","):
        if item := item.strip():
            name, _, value = (part.strip() for part in item.partition("="))
            if name not in _READERS:
                names = ", ".join(_READERS)
                raise UsageError(f"--faults: {item!r}: no such fault (there are {names})", _FIX)
            found[name] = _read(name, value)
    return Faults(**found)


class Fate(NamedTuple):
    """When a machine is to end, in seconds after its start; math.inf is never. `pulls`: it gets images.

    `works`: jobs find their programs there.
    """

    notice: float
    kill: float
    pulls: bool = True
    works: bool = True

    @property
    def kept(self) -> Fate:
        """The fate of a machine on demand: it is not taken back."""
        return self._replace(notice=math.inf, kill=math.inf)


def fate(faults: Faults, machine: int) -> Fate:
    """Returns what becomes of the machine that was started as number `machine`."""
    draw = random.Random(f"{faults.seed}/{machine}")  # noqa: S311  to be repeatable, not secret
    notice, kill = (_draw(draw, rate) for rate in (faults.notice, faults.kill))
    return Fate(notice, kill, draw.random() >= faults.pull, draw.random() >= faults.broken)


def _draw(draw: random.Random, rate: float) -> float:
    """Seconds until something that happens `rate` times a minute."""
    whole = draw.random()
    return -math.log(1.0 - whole) * 60.0 / rate if rate else math.inf


class Misfortune:
    """The faults of one call after another: "throttle", "error" or nothing. Threads must not share it."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._draw = random.Random(f"{faults.seed}/calls")  # noqa: S311  to be repeatable, not secret

    def next(self) -> str | None:
        """Returns the fault of this call; None: it succeeds."""
        drawn = self._draw.random()
        if drawn < self._faults.throttle:
            return "throttle"
        return "error" if drawn < self._faults.throttle + self._faults.error else None


def _read(name: str, value: str) -> Any:
    shape, what, make = _READERS[name]
    match = re.fullmatch(shape, value, re.ASCII)
    made = make(match) if match else None
    if made is None:
        raise UsageError(f"--faults: {name}={value}: must be {what}", _FIX)
    return made


def _rate(match: re.Match[str]) -> float:
    return float(match[1]) * {"s": 60.0, "min": 1.0, "h": 1 / 60}[match[2]]


def _percent(match: re.Match[str]) -> float | None:
    return share if (share := float(match[1]) / 100) < 1 else None


def _percent_or_all(match: re.Match[str]) -> float | None:
    return share if (share := float(match[1]) / 100) <= 1 else None


def _duration(match: re.Match[str]) -> float:
    return float(match[1]) * {"s": 1.0, "min": 60.0, "": 1.0}[match[2]]


def _share(match: re.Match[str]) -> Share | None:
    share = Share(int(match[1]), int(match[2] or 0))
    return share if not match[2] or share.had <= share.asked else None


def _speed(match: re.Match[str]) -> float | None:
    return speed if (speed := float(match[1])) > 0 else None


_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_RATE = (rf"{_NUMBER}/(s|min|h)", "so many a machine and time, such as 0.2/min", _rate)
_PERCENT = (rf"{_NUMBER}%", "a share of the calls below 100%, such as 5%", _percent)
_MACHINES = (rf"{_NUMBER}%", "a share of the machines, such as 10%", _percent_or_all)
_DURATION = (rf"{_NUMBER}(s|min|)", "a time, such as 30s", _duration)
_READERS = {
    "notice": _RATE,
    "kill": _RATE,
    "throttle": _PERCENT,
    "error": _PERCENT,
    "lag": _DURATION,
    "boot": _DURATION,
    "pull": _MACHINES,
    "broken": _MACHINES,
    "capacity": ("([0-9]{1,6})(?:of([1-9][0-9]{0,5}))?", "machines at most, such as 3, or 3of5", _share),
    "speed": (rf"{_NUMBER}x?", "how many times as fast, such as 10x", _speed),
    "seed": ("([0-9]{1,18})", "a whole number", lambda match: int(match[1])),
}
