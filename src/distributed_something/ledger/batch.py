"""Folds a batch of events into the index of a run, within one transaction. `fold` calls it."""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from math import floor
from operator import itemgetter

from ..job import UNCOUNTED, State
from .events import Entry, time_of
from .index import MORE
from .records import ENDS, FACTS, JobRecord, fold_job

STATES = (State.WAITING, State.RUNNING, State.SUCCEEDED, State.DEAD, State.SKIPPED, State.DROPPED)
"""The states by their number in the index."""

_CODES = {state: code for code, state in enumerate(STATES)}
RESULTS = {"succeeded": 2, "skipped": 4}
"""The states of jobs that need nothing more, by the event that leads there."""
LAST = {*RESULTS, "dead", "dropped"}
"""Events that a job ends with."""
MANY = 2000
"""Events from which on msgspec is faster than json, its import included."""
MOST_TIME = 1e15
"""Unix seconds, beyond which a time counts as this."""

_WAITING, _RUNNING, _SUCCEEDED, _DEAD, _SKIPPED, _DROPPED = range(6)

SCALES = (0.1, 1.0, 60.0)
"""Ends are counted by parts of these lengths, in seconds."""

_ROW = (*FACTS, *MORE)
_KNOWN = """SELECT jobs.id, number, state, ended, interruptions, cause, start, started
    FROM json_each(?) AS wanted JOIN jobs ON jobs.id = wanted.value LEFT JOIN states USING (number)"""
_PUT = f"INSERT OR REPLACE INTO states VALUES ({', '.join('?' * (2 + len(_ROW)))})"  # noqa: S608


class _Known:
    """A job of which a batch has events: what the index knows of it, and what the batch brings."""

    __slots__ = ("cause", "ended", "interruptions", "new", "number", "row", "start", "started", "state")

    def __init__(self, number: int, state: int | None, ended: float | None, interruptions: int | None,
                 cause: str | None, start: str | None, started: float | None) -> None:  # fmt: skip
        self.number = number
        self.state = state or 0
        self.ended = ended
        self.interruptions = interruptions or 0
        self.cause = cause
        self.start: Entry | None = Entry(json.loads(start)) if start else None
        self.started = started
        self.new: list[Entry] | None = None
        """Ends without a result that the batch brings; None: neither such ends nor a start."""
        self.row: list[object] | None = None
        """The row of a job that has succeeded, where the batch changes it."""

    @property
    def final(self) -> bool:
        return self.state == 2 or self.state == 4

    @property
    def failed(self) -> bool:
        return self.state == _WAITING and self.cause is not None and self.cause not in UNCOUNTED


class Batch:
    """Folds many events into the index, within a transaction."""

    def __init__(self, db: sqlite3.Connection, counters: dict[str, float]) -> None:
        self._db = db
        self._counters = counters
        self._jobs: dict[str, _Known] = {}
        self._sums: Counter[str] = Counter()
        self._ends: list[float] = []
        """When jobs came to an end that they had not come to before."""
        self._done_by: Counter[str] = Counter()
        self._past: list[tuple[int, float, str]] = []

    def fold(self, entries: list[Entry]) -> None:
        """Folds the events; those of a job may be of any age."""
        entries.sort(key=time_of)
        self._text = _encoder() if len(entries) >= MANY else json.dumps
        self._look_up({entry.id for entry in entries})
        self._tally(-1)
        for entry in entries:
            job = self._jobs[entry.id]
            name = entry.event
            if name in RESULTS:
                self._succeed(job, entry)
            elif name == "started":
                if not job.final and (job.start is None or entry.t >= job.start.t):
                    job.start = entry
                    job.new = job.new or []
            elif name in ENDS:
                self._past.append((job.number, entry.t, json.dumps(entry.facts())))
                if name == "dead":
                    self._ends.append(entry.t)
                job.interruptions += name == "interrupted"
                job.new = [*(job.new or ()), entry]
        self._db.executemany("INSERT INTO past VALUES (?, ?, ?)", self._past)
        self._write()
        self._tally(1)
        self._sum_up(entries)
        self._count()

    def _look_up(self, ids: set[str]) -> None:
        ordered = sorted(ids)
        for job_id, *facts in self._db.execute(_KNOWN, (json.dumps(ordered),)):
            self._jobs[job_id] = _Known(*facts)
        for job_id in ordered if len(self._jobs) < len(ordered) else ():
            if job_id not in self._jobs:  # its job list is still to come, or was lost
                number = self._db.execute("INSERT INTO jobs (id) VALUES (?)", (job_id,)).lastrowid
                self._jobs[job_id] = _Known(number or 0, None, None, None, None, None, None)

    def _tally(self, sign: int) -> None:
        """Adds the numbers of jobs by state, or takes them off."""
        for code, jobs in Counter([job.state for job in self._jobs.values()]).items():
            self._sums[STATES[code]] += sign * jobs
        self._sums["failed"] += sign * sum([job.failed for job in self._jobs.values() if job.cause])

    def _sum_up(self, entries: list[Entry]) -> None:
        """Counts the events, and adds up their seconds; they are in the order of their time."""
        sums, counters, events = self._sums, self._counters, Counter([entry.event for entry in entries])
        sums["events"] += len(entries)
        sums["broken"] += sum(
            count for name, count in events.items() if name not in ENDS and name != "started"
        )
        sums["attempts"] += events["succeeded"] + events["failed"] + events["dead"]
        sums["interruptions"] += events["interrupted"]
        begun = [entry.t for entry in entries if entry.event == "started"][:1]
        most = counters.get("most_bytes", 0)
        for name in events.keys() & ENDS.keys():
            timed = [entry for entry in entries if entry.event == name and entry.seconds is not None]
            begun += [entry.t - entry.seconds for entry in timed]  # type: ignore[operator]
            sums[f"spent.{name}"] += sum([entry.seconds for entry in timed])  # type: ignore[misc]
            for entry in timed:
                if entry.phases:
                    for phase, seconds in entry.phases.items() if isinstance(entry.phases, dict) else ():
                        if type(seconds) in (int, float):
                            sums[f"phase.{phase}"] += seconds
                    given, made = entry.bytes_in or 0, entry.bytes_out or 0
                    if type(given) is type(made) is int and most < given + made < 2**63:
                        most = counters["most_bytes"] = given + made
        if begun:
            counters["first"] = min(*begun, counters.get("first", math.inf))
        last = next((entry.t for entry in reversed(entries) if entry.event in LAST), None)
        if last is not None:
            counters["last_end"] = max(last, counters.get("last_end", -math.inf))

    def _succeed(self, job: _Known, entry: Entry) -> None:
        when, start, seconds = entry.t, job.start, entry.seconds
        if not job.final:
            self._ends.append(when)
            if entry.event == "succeeded":
                self._done_by[entry.machine or (start and start.machine) or entry.worker or ""] += 1
        elif job.ended is None or when >= job.ended:
            return  # a second delivery
        attempt = entry.attempt or 0
        job.state, job.ended, job.cause = RESULTS[entry.event], when, entry.cause
        began = when - seconds if seconds is not None else start.t if start else job.started
        job.row = [
            job.number, job.state, attempt, max((attempt or 1) - (entry.event == "skipped"), 0),
            None, began, when, entry.cause, entry.detail, entry.exit_code, seconds, entry.cpu_seconds,
            entry.max_rss_bytes, entry.worker or (start and start.worker),
            entry.machine or (start and start.machine), entry.output, entry.log or (start and start.log),
            _whole(entry.bytes_in), _whole(entry.bytes_out),
            self._text(entry.phases) if entry.phases else None, None, None,
        ]  # fmt: skip

    def _write(self) -> None:
        """Writes the rows of the jobs that changed."""
        rows: list[Sequence[object]] = []
        interrupted: list[tuple[int, int]] = []
        mixed: list[tuple[str, _Known]] = []
        for job_id, job in self._jobs.items():
            if job.row is not None:
                job.row[4] = job.interruptions
                rows.append(job.row)
            elif job.new is not None:
                if job.final:
                    interrupted.append((job.interruptions, job.number))
                else:
                    mixed.append((job_id, job))
        past = self._past_of([job.number for _, job in mixed])
        for job_id, job in mixed:
            events = past.get(job.number, [])
            record = fold_job(
                JobRecord(job_id, job.number - 1), [*events, *([job.start] if job.start else [])]
            )
            job.state, job.cause, job.ended = _CODES[record.state], record.cause, record.ended
            start = json.dumps(job.start.facts()) if job.start else None
            facts = [getattr(record, name) for name in FACTS]
            rows.append((job.number, job.state, *facts, None, None, None, start, job_id))
        self._put(rows)
        self._db.executemany("UPDATE states SET interruptions = ? WHERE number = ?", interrupted)

    def _past_of(self, numbers: list[int]) -> dict[int, list[Entry]]:
        found: dict[int, list[Entry]] = {}
        sql = "SELECT number, facts FROM json_each(?) AS wanted JOIN past ON number = wanted.value"
        for number, facts in self._db.execute(sql, (json.dumps(numbers),)) if numbers else ():
            found.setdefault(number, []).append(Entry(json.loads(facts)))
        return found

    def _put(self, rows: list[Sequence[object]]) -> None:
        rows.sort(key=itemgetter(0))
        try:
            self._db.executemany(_PUT, rows)
        except (OverflowError, UnicodeEncodeError):  # a number of more than 64 bits, half a surrogate pair
            self._db.executemany(_PUT, [tuple(map(_storable, row)) for row in rows])

    def _count(self) -> None:
        self._sums["ended"] += len(self._ends)
        for name, value in self._sums.items():
            if value:
                name = str(_storable(name))
                self._counters[name] = self._counters.get(name, 0) + value
        self._db.executemany(
            "INSERT INTO ended VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs",
            [(scale, at, jobs) for scale in SCALES for at, jobs in _by_part(self._ends, scale).items()],
        )
        self._db.executemany(
            "INSERT INTO done_by VALUES (?, ?) ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs",
            [(_storable(machine), jobs) for machine, jobs in self._done_by.items()],
        )


@cache
def _encoder() -> Callable[[object], str]:
    try:
        from msgspec.json import encode
    except ImportError:  # AWS's own Python
        return json.dumps

    def text(value: object) -> str:
        try:
            return encode(value).decode()
        except (OverflowError, UnicodeEncodeError):  # a number of more than 64 bits, half a surrogate pair
            return json.dumps(value)

    return text


def _by_part(times: list[float], scale: float) -> Counter[int]:
    """Counts times by parts of this length, in seconds."""
    if times and max(map(abs, times)) > MOST_TIME:
        times = [min(max(each, -MOST_TIME), MOST_TIME) for each in times]
    return Counter([floor(each / scale) for each in times])


def _whole(value: object) -> int | None:
    return value if type(value) is int else None


def _storable(value: object) -> object:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value) if abs(value) < 10**300 else None
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
