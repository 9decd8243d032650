"""Reads the jobs of a run from its index: their records, events and listed bodies. `fold` keeps the index."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..engine import Store
from ..errors import DsError
from ..job import UNCOUNTED, State
from .batch import STATES
from .index import open_index, remove_index, writing
from .records import FACTS, LEFT_QUEUE, JobRecord
from .segments import CHUNK_BYTES

_SELECT = f"SELECT id, number - 1, state, {', '.join(FACTS)} FROM jobs LEFT JOIN states USING (number)"  # noqa: S608


def _of(index: str, condition: str) -> str:
    """Query of the records of few jobs, by the index of their state."""
    rows = f"SELECT job, number - 1, state, {', '.join(FACTS)} FROM states INDEXED BY {index}"  # noqa: S608
    return f"{rows} WHERE {condition} ORDER BY number"


AGAIN = (
    f"state = 0 AND cause IS NOT NULL AND cause NOT IN ({', '.join(repr(str(each)) for each in UNCOUNTED)})"
)
"""Condition of jobs that wait again after a failure."""

Place = tuple[Any, Any, Any]
"""Where the line of a job list is that has a job's body: segment number, offset, bytes; None: not listed."""

_INDEX = re.compile("0|[1-9][0-9]{0,17}")


class IndexReader:
    """Queries of a run's index. Each raises DsError if the index is damaged, and removes it then."""

    def __init__(self, store: Store, path: Path | None) -> None:
        self.store = store
        self._path = path
        self._db: sqlite3.Connection = open_index(path)
        self._segments: dict[str, tuple[int, int]] = {}
        """The number of each segment, and how much of it is in the index, in bytes."""

    def records(
        self, where: str = "", values: Sequence[object] = (), tail: str = "ORDER BY number"
    ) -> Iterator[JobRecord]:
        """Yields records; `where` is SQL over the columns of jobs and states."""
        condition = f"WHERE {where}" if where else ""
        yield from map(record_of, self.query(f"{_SELECT} {condition} {tail}", values))

    def running(self) -> Iterator[JobRecord]:
        """Yields the jobs that run by the ledger."""
        return map(record_of, self.query(_of("running", "state = 1")))

    def proven(self) -> int:
        """Returns how many jobs have succeeded, by more than that they left the queue."""
        unproven = "output IS NULL AND ifnull(detail, '') LIKE ?"
        sql = f"SELECT count(*) FROM states WHERE state = 2 AND NOT ({unproven})"  # noqa: S608
        return int(self._rows(sql, (f"{LEFT_QUEUE}%",))[0][0])

    def dead(self) -> Iterator[JobRecord]:
        """Yields the dead jobs."""
        return map(record_of, self.query(_of("dead", "state = 3")))

    def failing(self) -> Iterator[JobRecord]:
        """Yields the jobs that are dead, or wait again after a failure."""
        again = map(record_of, self.query(_of("waiting", AGAIN)))
        return iter(sorted((*self.dead(), *again), key=lambda record: record.index))

    def find(self, wanted: str) -> list[JobRecord]:
        """Returns the jobs with this id, or else this index (`92`, `#92`), or else an id that starts so."""
        found = [*self.records("id = ?", (wanted,))]
        digits = wanted.removeprefix("#")
        if not found and _INDEX.fullmatch(digits):
            found = [*self.records("number = ?", (int(digits) + 1,))]
        if not found and wanted:
            start = wanted.lower()
            found = [
                *self.records(
                    "id >= ? AND id < ?", (start, f"{start}\U0010ffff"), "ORDER BY number LIMIT 100"
                )
            ]
        return found

    def figures(self, column: str) -> list[float]:
        """Returns a fact of all jobs that have it."""
        assert column in FACTS
        return [value for (value,) in self.query(f"SELECT {column} FROM states WHERE {column} IS NOT NULL")]  # noqa: S608

    def slowest(self, most: int) -> list[JobRecord]:
        """Returns the jobs whose latest attempt took longest, skipped ones left out."""
        where = f"seconds IS NOT NULL AND state <> {STATES.index(State.SKIPPED)}"
        return [*self.records(where, (), f"ORDER BY seconds DESC, number LIMIT {most:d}")]

    def ids(self) -> Iterator[str]:
        """Yields the ids of all jobs, sorted."""
        return (job_id for (job_id,) in self.query("SELECT id FROM jobs ORDER BY id"))

    def past(self, record: JobRecord) -> list[dict[str, Any]]:
        """Returns the events of a job that brought no result, in the order of their time."""
        sql = "SELECT facts FROM past WHERE number = ? ORDER BY t"
        return [json.loads(facts) for (facts,) in self._rows(sql, (record.index + 1,))]

    def events(self, record: JobRecord) -> list[dict[str, Any]]:
        """Returns the known events of a job in the order of their time: all ends, and the latest start."""
        found = self.past(record)
        if record.state in (State.SUCCEEDED, State.SKIPPED):
            facts = {name: getattr(record, name) for name in FACTS}
            found.append({**facts, "event": record.state.value, "t": record.ended, **self.result(record)})
        for (start,) in self._rows("SELECT start FROM states WHERE number = ?", (record.index + 1,)):
            found += [json.loads(start)] if start else []
        return sorted(found, key=lambda event: float(event["t"] or 0.0))

    def result(self, record: JobRecord) -> dict[str, Any]:
        """Returns sizes and phases of a job that has succeeded."""
        sql = "SELECT bytes_in, bytes_out, phases FROM states WHERE number = ?"
        for given, made, phases in self._rows(sql, (record.index + 1,)):
            facts = {"bytes_in": given, "bytes_out": made, "phases": json.loads(phases) if phases else None}
            return {name: value for name, value in facts.items() if value}
        return {}

    def pages(self, names: Sequence[str], size: int, *, stranded: bool) -> Iterator[list[list[object]]]:
        """Yields all jobs in pages, in the order of submission: these facts, and the body as text.

        `stranded`: jobs that run by the ledger wait, as no machine is there.
        """
        columns = ", ".join(_shown(name, stranded=stranded) for name in names)
        sql = (
            f"SELECT list, place, length, {columns} FROM jobs LEFT JOIN states USING (number) ORDER BY number"  # noqa: S608
        )
        rows = self.query(sql)
        while page := list(islice(rows, size)):
            bodies = self.bodies_at([row[:3] for row in page])
            yield [[*row[3:], body.decode(errors="replace")] for row, body in zip(page, bodies, strict=True)]

    def with_bodies(self, size: int = 10_000) -> Iterator[tuple[JobRecord, bytes]]:
        """Yields all jobs with their listed bodies, in the order of submission; b"": not listed."""
        columns = f"list, place, length, id, number - 1, state, {', '.join(FACTS)}"
        rows = self.query(f"SELECT {columns} FROM jobs LEFT JOIN states USING (number) ORDER BY number")  # noqa: S608
        while page := list(islice(rows, size)):
            bodies = self.bodies_at([row[:3] for row in page])
            yield from ((record_of(row[3:]), body) for row, body in zip(page, bodies, strict=True))

    def bodies(self, records: Iterable[JobRecord]) -> dict[str, bytes]:
        """Returns the listed bodies of a few jobs by id."""
        numbers = json.dumps([record.index + 1 for record in records])
        sql = """SELECT jobs.id, list, place, length
            FROM json_each(?) AS wanted JOIN jobs ON number = wanted.value WHERE list IS NOT NULL"""
        found = sorted(self._rows(sql, (numbers,)), key=_place_of)
        return {
            row[0]: body for row, body in zip(found, self.bodies_at([row[1:] for row in found]), strict=True)
        }

    def bodies_at(self, places: Sequence[Place]) -> list[bytes]:
        """Returns the bodies at these places of job lists; b"" where there is none.

        Places that follow each other are read together.
        """
        keys = {number: key for key, (number, _) in self._segments.items()}
        spans: list[list[Place]] = []
        for place in places:
            if spans and _near(spans[-1], place):
                spans[-1].append(place)
            else:
                spans.append([place])
        read = self.store.read_many(
            (keys[span[0][0]], span[0][1], span[-1][1] + span[-1][2] - span[0][1])
            for span in spans
            if span[0][0] is not None
        )
        found: list[bytes] = []
        for span in spans:
            data, first = b"" if span[0][0] is None else next(read) or b"", span[0][1] or 0
            for number, start, size in span:
                found.append(b"" if number is None else data[start - first + 31 : start - first + size - 2])
        return found

    def blocks(self, jobs: int) -> Iterator[tuple[int, int, bytes]]:
        """Yields all listed jobs in blocks of at most so many: least and largest number, and a text.

        The text has the bodies of these jobs in it, and may have others.
        """
        keys = {number: key for key, (number, _) in self._segments.items()}
        mean = self._rows("SELECT avg(length) FROM (SELECT length FROM jobs LIMIT 1000)")[0][0] or 1.0
        sql = """SELECT list, min(place), max(place + length), min(number), max(number)
            FROM jobs WHERE list IS NOT NULL GROUP BY list, number / ? ORDER BY min(number)"""
        found = self._rows(sql, (max(min(jobs, int(CHUNK_BYTES / mean)), 1),))
        read = self.store.read_many((keys[each[0]], each[1], each[2] - each[1]) for each in found)
        yield from ((each[3], each[4], data or b"") for each, data in zip(found, read, strict=True))

    def _rows(self, sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[Any]:
        return [*self.query(sql, values)]

    def write(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Adds rows to the index, in one transaction. Raises DsError if it cannot be written."""
        try:
            with writing(self._db):
                self._db.executemany(sql, rows)
        except sqlite3.Error as error:
            raise DsError(
                f"the index {self._path} cannot be written: {error}", "make room on the disk"
            ) from error

    def query(self, sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> Iterator[Any]:
        """Yields the rows of a query over the index. Raises DsError if that is damaged."""
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.DatabaseError as error:
            if self._path is not None:
                remove_index(self._path)
            raise DsError(
                f"the index {self._path} is damaged: {error}", "run the command again: it is made anew"
            ) from error


def _near(span: list[Place], place: Place) -> bool:
    """Whether a place is read together with those before it."""
    number, first, _ = span[0]
    _, last, size = span[-1]
    if place[0] is None or number != place[0]:
        return number is place[0]
    return bool(0 <= place[1] - last - size < _GAP and place[1] - first < CHUNK_BYTES)


_GAP = 1 << 14
"""Bytes between two places that are read over."""


def _place_of(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(row[1:3])


def _shown(name: str, *, stranded: bool) -> str:
    """SQL for a fact as `ds jobs` shows it."""
    if name == "index":
        return "number - 1"
    if name == "attempts":
        return "ifnull(attempts, 0)"
    if name != "state":
        return name
    texts = [State.WAITING if stranded and each is State.RUNNING else each for each in STATES]
    cases = " ".join(f"WHEN {code} THEN '{text}'" for code, text in enumerate(texts))
    return f"CASE ifnull(state, 0) {cases} END"


def record_of(row: Sequence[Any]) -> JobRecord:
    """Returns the record in a row of id, index, state and facts."""
    record = JobRecord(row[0], row[1])
    if row[2] is not None:
        record.state = STATES[row[2]]
        record.take(row[3:])
    return record
