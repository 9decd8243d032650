"""Writes events to a segment of the ledger, and reads them back."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from operator import attrgetter
from sys import intern
from typing import Any, NoReturn, cast

from ..engine import Store
from ..job import UNCOUNTED, Lease, Outcome, State

MANY_BYTES = 512 << 10
"""Size of the events, in bytes, from which msgspec is faster than json, its import included."""


Event = dict[str, object]


def event(name: str, now: float, lease: Lease, outcome: Outcome | None, facts: Mapping[str, object]) -> Event:
    """Returns an event: what happened when to which job, and its outcome. Unknown facts are left out."""
    found: Event = {
        "t": _whole(now, 1e3),
        "event": name,
        "id": lease.job.id,
        "attempt": lease.attempt,
        **facts,
    }
    if outcome is None:
        return found
    found["seconds"] = _whole(outcome.seconds, 1e6)
    for fact, value in zip(_FACTS, _facts_of(outcome), strict=True):
        if value is not None and value != "":
            found[fact] = value
    if outcome.cpu_seconds is not None:
        found["cpu_seconds"] = _whole(outcome.cpu_seconds, 1e6)
    if outcome.phases:
        found["phases"] = {name: _whole(seconds, 1e6) for name, seconds in outcome.phases.items()}
    return found


def _whole(seconds: float, parts: float) -> float:
    """Rounds seconds to a fraction; `round` takes eight times as long."""
    return int(seconds * parts + 0.5) / parts


_FACTS = (
    "cause", "detail", "exit_code", "max_rss_bytes", "cpu_seconds", "bytes_in", "bytes_out", "output", "log",
)  # fmt: skip
_facts_of = attrgetter(*_FACTS)


def event_lines(events: list[Event]) -> bytes:
    """Events as stored."""
    try:
        from msgspec.json import Encoder
    except ImportError:  # AWS's own Python, in which the auto-monitor runs
        return b"".join(json.dumps(each).encode() + b"\n" for each in events)

    encode = Encoder().encode_lines
    try:
        return encode(events)
    except UnicodeEncodeError:  # a name that is not UTF-8, as Python has it
        return encode([{key: _shown(value) for key, value in each.items()} for each in events])


def _shown(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


_Noted = tuple[str, float, Lease, Outcome | None, Mapping[str, object]]
"""The arguments of `event`."""


class LedgerWriter:
    """Appends events to one segment. Thread-safe; noting an event never waits for the store.

    Events wait in memory until `flush`, which a worker calls before it settles a job: what the queue
    counts as done, the ledger has. A `started` that is still waiting when its job ends is dropped
    (`forget_start`), so that a short job costs one line. What a failed flush could not write, the next does.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        self._started: dict[str, _Noted] = {}
        self._ended: list[_Noted] = []
        self._lock = threading.Lock()
        self._unwritten = b""
        self._flushing = threading.Lock()

    def started(self, now: float, lease: Lease, **facts: object) -> None:
        """Note that an attempt began."""
        with self._lock:
            self._started[lease.job.id] = "started", now, lease, None, facts

    def forget_start(self, job_id: str) -> None:
        """Drops a start that is not written: the attempt has ended, and its end tells all."""
        if job_id in self._started:
            with self._lock:
                self._started.pop(job_id, None)

    def ended(self, name: str, now: float, lease: Lease, outcome: Outcome | None, **facts: object) -> None:
        """Note how an attempt ended. `flush` makes the events, many at once, which is faster."""
        with self._lock:
            self._started.pop(lease.job.id, None)
            self._ended.append((name, now, lease, outcome, facts))

    @property
    def oldest_started(self) -> float | None:
        """When the oldest start that is not written happened, in Unix seconds; None: all are written."""
        try:
            return next(iter(self._started.values()))[1]
        except (StopIteration, RuntimeError):  # none, or another thread adds one just now
            return None

    def flush(self, started_before: float = math.inf) -> None:
        """Writes the waiting events; of the starts, those before a time. Raises what the store raises.

        The events stay then. What a failed flush could not write goes first, as the same bytes: they may
        have been stored and read, and only the answer was lost.
        """
        with self._flushing:
            self._write()
            with self._lock:
                started = [each for each in self._started.values() if each[1] < started_before]
                noted = [*started, *self._ended]
                self._unwritten = event_lines([event(*each) for each in noted])
                for each in started:
                    del self._started[each[2].job.id]
                self._ended.clear()
            self._write()

    def _write(self) -> None:
        if self._unwritten:
            self._store.append(self._key, self._unwritten)
            self._unwritten = b""


_NUMBERS = ("attempt", "exit_code", "seconds", "cpu_seconds", "max_rss_bytes")
_TEXTS = ("cause", "detail", "worker", "machine", "output", "log")
_OTHERS = ("bytes_in", "bytes_out", "phases")
_ARE_NUMBERS = frozenset((int, float, type(None))).issuperset
_ARE_TEXTS = frozenset((str, type(None))).issuperset


class Entry:
    """An event as it was read; a missing fact is None. Facts in `_OTHERS` may have any type."""

    __slots__ = ("event", "id", "t", *_NUMBERS, *_TEXTS, *_OTHERS)
    t: float
    event: str
    id: str
    attempt: int | None
    exit_code: int | None
    seconds: float | None
    cpu_seconds: float | None
    max_rss_bytes: int | None
    cause: str | None
    detail: str | None
    worker: str | None
    machine: str | None
    output: str | None
    log: str | None
    bytes_in: Any
    bytes_out: Any
    phases: Any

    def __init__(self, found: Mapping[str, Any]) -> None:
        """Raises ValueError if a fact has the wrong type, KeyError if time, name or id is missing."""
        self.t, self.event, self.id = found["t"], found["event"], found["id"]
        get = found.get
        self.attempt, self.exit_code, self.seconds, self.cpu_seconds, self.max_rss_bytes = numbers = [
            *map(get, _NUMBERS)
        ]
        self.cause, self.detail, self.worker, self.machine, self.output, self.log = texts = [
            *map(get, _TEXTS)
        ]
        self.bytes_in, self.bytes_out, self.phases = map(get, _OTHERS)
        good = _ARE_NUMBERS(map(type, numbers)) and _ARE_TEXTS(map(type, texts))
        known = type(self.t) in (int, float) and type(self.event) is type(self.id) is str
        if not (good and known and self.id.isascii()):
            raise ValueError(found)
        self.event = intern(self.event)  # many events have the same
        self.worker, self.machine = self.worker and intern(self.worker), self.machine and intern(self.machine)

    def facts(self) -> dict[str, Any]:
        """Returns the known facts by name."""
        found = {name: getattr(self, name) for name in ("t", "event", "id", *_NUMBERS, *_TEXTS, *_OTHERS)}
        return {name: value for name, value in found.items() if value is not None}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


decode = json.JSONDecoder(parse_constant=_refuse).decode  # NaN has no order


def _entry(line: bytes) -> Entry | None:
    """Returns the event in a line; None: the line is no event."""
    try:
        return Entry(decode(line.decode()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def parse_events(lines: bytes, *, many: bool) -> tuple[list[Entry], int]:
    """Returns the events in whole lines, and how many lines are no events. `many`: more follow."""
    if many:
        with suppress(ImportError, ValueError):  # no such library, or a line that is no event
            return _many_entries()(lines), 0
    read = [_entry(line) for line in lines.splitlines() if line.strip()]
    found = [each for each in read if each is not None]
    return found, len(read) - len(found)


@cache
def _many_entries() -> Callable[[bytes], list[Entry]]:
    """Returns a decoder of many lines: ten times as fast as json, and slow to import.

    Raises ImportError. The decoder raises ValueError if one of the lines is no event.
    """
    from msgspec import defstruct
    from msgspec.json import Decoder

    fields: list[Any] = [("t", float), ("event", str), ("id", str)]
    fields += [(name, int | float | None, None) for name in _NUMBERS]
    fields += [(name, str | None, None) for name in _TEXTS]
    fields += [(name, Any, None) for name in _OTHERS]
    like_entry = defstruct("Entry", fields, gc=False, namespace={"facts": Entry.facts})
    return cast("Callable[[bytes], list[Entry]]", Decoder(like_entry).decode_lines)


time_of = attrgetter("t")


def name_of(outcome: Outcome, *, dead: bool) -> str:
    """Returns the name of the event that an outcome makes."""
    if outcome.state is not State.WAITING:
        return outcome.state.value
    if outcome.cause in UNCOUNTED:
        return "interrupted"
    return "dead" if dead else "failed"
