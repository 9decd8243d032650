"""Folds a batch of events into the index of a run, within one transaction. `fold` calls it."""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from typing import Any

from ..job import UNCOUNTED, State
from .events import Entry, time_of
from .index import MORE
from .records import ENDS, FACTS, JobRecord, fold_job

STATES = (State.WAITING, State.RUNNING, State.SUCCEEDED, State.DEAD, State.SKIPPED, State.DROPPED)
"""The states by their number in the index."""

_CODES = {state: code for code, state in enumerate(STATES)}
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
        self.row: tuple[object, ...] | None = None
        """The row of a job that has succeeded, where the batch changes it."""

    @property
    def final(self) -> bool:
        return self.state in (_SUCCEEDED, _SKIPPED)

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
        self._ended: Counter[int] = Counter()
        self._done_by: Counter[str] = Counter()
        self._past: list[tuple[int, float, str]] = []

    def fold(self, entries: list[Entry]) -> None:
        """Folds the events; those of a job may be of any age."""
        entries.sort(key=time_of)
        self._look_up({entry.id for entry in entries})
        self._sums["events"] += len(entries)
        before = {job_id: (job.state, job.failed) for job_id, job in self._jobs.items()}
        for entry in entries:
            job = self._jobs[entry.id]
            name = entry.event
            if name in ("succeeded", "skipped"):
                self._succeed(job, entry)
            elif name == "started":
                self._start(job, entry)
            elif name in ENDS:
                self._end(job, entry)
            else:
                self._sums["broken"] += 1
        self._db.executemany("INSERT INTO past VALUES (?, ?, ?)", self._past)
        self._write()
        for job_id, (state, failed) in before.items():
            job = self._jobs[job_id]
            if job.state != state:
                self._sums[STATES[state]] -= 1
                self._sums[STATES[job.state]] += 1
            self._sums["failed"] += job.failed - failed
        self._count()

    def _look_up(self, ids: set[str]) -> None:
        ordered = sorted(ids)
        for job_id, *facts in self._db.execute(_KNOWN, (json.dumps(ordered),)):
            self._jobs[job_id] = _Known(*facts)
        for job_id in ordered if len(self._jobs) < len(ordered) else ():
            if job_id not in self._jobs:  # its job list is still to come, or was lost
                number = self._db.execute("INSERT INTO jobs (id) VALUES (?)", (job_id,)).lastrowid
                self._jobs[job_id] = _Known(number or 0, None, None, None, None, None, None)

    def _began(self, when: float) -> None:
        first = self._counters.get("first")
        if first is None or when < first:
            self._counters["first"] = when

    def _came_to_end(self, when: float) -> None:
        last = self._counters.get("last_end")
        if last is None or when > last:
            self._counters["last_end"] = when

    def _count_end(self, when: float) -> None:
        self._ended[_part(when)] += 1
        self._sums["ended"] += 1

    def _spend(self, entry: Entry) -> None:
        if entry.seconds is None:
            return
        self._sums[f"spent.{entry.event}"] += entry.seconds  # type: ignore[assignment]
        self._began(entry.t - entry.seconds)
        if entry.phases:
            for name, seconds in entry.phases.items() if isinstance(entry.phases, dict) else ():
                if type(seconds) in (int, float):
                    self._sums[f"phase.{name}"] += seconds
            given, made = entry.bytes_in or 0, entry.bytes_out or 0
            if (
                type(given) is int
                and type(made) is int
                and given + made > self._counters.get("most_bytes", 0)
            ):
                self._counters["most_bytes"] = given + made

    def _succeed(self, job: _Known, entry: Entry) -> None:
        self._came_to_end(entry.t)
        self._sums["attempts"] += entry.event == "succeeded"
        self._spend(entry)
        if job.final and (job.ended is None or entry.t >= job.ended):
            return  # a second delivery
        if not job.final:
            self._count_end(entry.t)
            if entry.event == "succeeded":
                machine = entry.machine or (job.start and job.start.machine) or entry.worker or ""
                self._done_by[machine] += 1
        start, seconds = job.start, entry.seconds
        job.state, job.ended, job.cause = _CODES[State(entry.event)], entry.t, entry.cause
        began = entry.t - seconds if seconds is not None else start.t if start else job.started
        job.row = (
            job.number, job.state, entry.attempt or 0, _attempts(entry), job.interruptions, began, entry.t,
            entry.cause, entry.detail, entry.exit_code, seconds, entry.cpu_seconds, entry.max_rss_bytes,
            entry.worker or (start and start.worker), entry.machine or (start and start.machine),
            entry.output, entry.log or (start and start.log), _whole(entry.bytes_in), _whole(entry.bytes_out),
            json.dumps(entry.phases) if entry.phases else None, None,
        )  # fmt: skip

    def _start(self, job: _Known, entry: Entry) -> None:
        self._began(entry.t)
        if not job.final and (job.start is None or entry.t >= job.start.t):
            job.start = entry
            job.new = job.new or []

    def _end(self, job: _Known, entry: Entry) -> None:
        self._past.append((job.number, entry.t, json.dumps(entry.facts())))
        if entry.event == "interrupted":
            self._sums["interruptions"] += 1
            job.interruptions += 1
        elif entry.event == "dropped":
            self._came_to_end(entry.t)
        elif entry.event != "retried":
            self._sums["attempts"] += 1
            if entry.event == "dead":
                self._came_to_end(entry.t)
                self._count_end(entry.t)
        self._spend(entry)
        job.new = [*(job.new or ()), entry]

    def _write(self) -> None:
        """Writes the rows of the jobs that changed."""
        rows: list[tuple[object, ...]] = []
        interrupted: list[tuple[int, int]] = []
        mixed: list[tuple[str, _Known]] = []
        for job_id, job in self._jobs.items():
            if job.row is not None:
                rows.append((*job.row[:4], job.interruptions, *job.row[5:]))
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
            rows.append((job.number, job.state, *facts, None, None, None, start))
        self._put(rows)
        self._db.executemany("UPDATE states SET interruptions = ? WHERE number = ?", interrupted)

    def _past_of(self, numbers: list[int]) -> dict[int, list[Entry]]:
        found: dict[int, list[Entry]] = {}
        sql = "SELECT number, facts FROM json_each(?) AS wanted JOIN past ON number = wanted.value"
        for number, facts in self._db.execute(sql, (json.dumps(numbers),)) if numbers else ():
            found.setdefault(number, []).append(Entry(json.loads(facts)))
        return found

    def _put(self, rows: list[tuple[object, ...]]) -> None:
        rows.sort(key=_number_of)
        try:
            self._db.executemany(_PUT, rows)
        except (OverflowError, UnicodeEncodeError):  # a number of more than 64 bits, half a surrogate pair
            self._db.executemany(_PUT, [tuple(map(_storable, row)) for row in rows])

    def _ended_by(self, scale: float) -> Counter[int]:
        found = Counter[int]()
        for part, jobs in self._ended.items():
            found[math.floor(part * SCALES[0] / scale + 1e-6)] += jobs
        return found

    def _count(self) -> None:
        for name, value in self._sums.items():
            if value:
                self._counters[name] = self._counters.get(name, 0) + value
        self._db.executemany(
            "INSERT INTO ended VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs",
            [(scale, at, jobs) for scale in SCALES for at, jobs in self._ended_by(scale).items()],
        )
        self._db.executemany(
            "INSERT INTO done_by VALUES (?, ?) ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs",
            list(self._done_by.items()),
        )


def _attempts(entry: Entry) -> int:
    """Attempts of a job that has succeeded: the queue numbers them; one that skips the job uses none up."""
    return max((entry.attempt or 1) - (entry.event == "skipped"), 0)


def _number_of(row: tuple[Any, ...]) -> int:
    number: int = row[0]
    return number


def _part(when: float) -> int:
    return math.floor(min(max(when, -1e15), 1e15) / SCALES[0])


def _whole(value: object) -> int | None:
    return value if type(value) is int else None


def _storable(value: object) -> object:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value) if abs(value) < 10**300 else None
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
