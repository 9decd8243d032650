"""Keeps the states of a run's jobs in an index, and folds into it what is new in the ledger.

A look costs what has changed since the last one, by whichever command. Events count by their time and
attempt, in whatever order they are read. Every command that shows a run uses it.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence, ValuesView
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from ..engine import Store
from ..errors import DsError
from ..job import UNCOUNTED, State
from ..system.collector import uncollected
from .batch import SCALES, STATES, Batch
from .events import MANY_BYTES, Entry, parse_events
from .index import open_index, remove_index, writing
from .records import FACTS, LEFT_QUEUE, JobRecord
from .segments import CHUNK_BYTES, Part, RunPaths, read_parts

_SELECT = f"SELECT id, number - 1, state, {', '.join(FACTS)} FROM jobs LEFT JOIN states USING (number)"  # noqa: S608


def _of(index: str, condition: str) -> str:
    """Query of the records of few jobs, by the index of their state."""
    rows = f"SELECT job, number - 1, state, {', '.join(FACTS)} FROM states INDEXED BY {index}"  # noqa: S608
    return f"{rows} WHERE {condition} ORDER BY number"


_LIST = """INSERT INTO jobs (id, list, place, length) VALUES (?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET list = excluded.list, place = excluded.place, length = excluded.length
    WHERE list IS NULL"""

AGAIN = (
    f"state = 0 AND cause IS NOT NULL AND cause NOT IN ({', '.join(repr(str(each)) for each in UNCOUNTED)})"
)
"""Condition of jobs that wait again after a failure."""


CHECKPOINT_BYTES = 1 << 20
"""Bytes of new lines after which the index's write-ahead log is folded into its file."""

Place = tuple[Any, Any, Any]
"""Where the line of a job list is that has a job's body: segment number, offset, bytes; None: not listed."""


_INDEX = re.compile("0|[1-9][0-9]{0,17}")


class _Behind(Exception):
    """The ledger is not the one that the index was made from."""


class Fold:
    """The state of every job, folded from the ledger. `update` brings it up to date.

    `path` is the index's file; None: in memory. A job that has succeeded stays so, whatever a second delivery
    of it says. `by_state` counts the jobs, `failed` those that wait again after a failure, `broken` the lines
    that are no events.
    """

    def __init__(self, store: Store, paths: RunPaths, path: Path | None = None) -> None:
        self.paths = paths
        self.store = store
        self._path = path
        self._db = open_index(path)
        self._segments: dict[str, tuple[int, int]] = {}
        self._counters: dict[str, float] = {}
        self._version: int | None = None

    def close(self) -> None:
        """Closes the index. Closing twice is no error."""
        self._db.close()

    @uncollected()
    def update(self) -> Fold:
        """Reads what is new in the ledger. Raises what the store raises; what was read by then stays."""
        try:
            self._update()
        except (sqlite3.Error, _Behind):
            self._anew()
            try:
                self._update()
            except sqlite3.Error:  # no room for it, say
                self._path = None
                self._anew()
                self._update()
        return self

    def _anew(self) -> None:
        with suppress(sqlite3.Error):
            self._db.close()
        if self._path is not None:
            remove_index(self._path)
        self._db = open_index(self._path)
        self._version = None

    # -- Reading the ledger

    def _update(self) -> None:
        self._load()
        listed = [*self.store.list(self.paths.jobs), *self.store.list(self.paths.events)]
        sizes = {file.key: file.size for file in listed}
        if any(sizes.get(key, 0) < read for key, (_, read) in self._segments.items()):
            raise _Behind
        grown = ((file, self._segments.get(file.key, (0, 0))[1]) for file in listed)
        batch: list[Part] = []
        size = read = 0
        for part in read_parts(self.store, grown):
            batch.append(part)
            size += len(part.lines)
            read += len(part.lines)
            if size >= CHUNK_BYTES:
                self._take(batch)
                batch, size = [], 0
        if batch:
            self._take(batch)
        if read >= CHECKPOINT_BYTES:  # a long log beside the file would be read by each command
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _load(self) -> None:
        """Takes over what this or another command has written since."""
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        self._segments = {
            key: (number, read)
            for key, number, read in self._db.execute("SELECT key, number, read FROM segments")
        }
        self._counters = dict(self._db.execute("SELECT name, value FROM counters"))
        self._version = version

    def _take(self, parts: Sequence[Part]) -> None:
        """Folds parts in, in one transaction; those that another command has read meanwhile are left out."""
        counters, segments = self._counters, self._segments
        try:
            with writing(self._db):
                self._load()
                counters, segments = dict(self._counters), dict(self._segments)
                entries: list[Entry] = []
                many = sum(len(part.lines) for part in parts) >= MANY_BYTES
                for part in parts:
                    number, read = self._segments.get(part.key, (len(self._segments) + 1, 0))
                    if read != part.start:
                        continue
                    if part.key.startswith(self.paths.jobs):
                        self._list(number, part)
                    else:
                        found, broken = parse_events(part.lines, many=many)
                        entries += found
                        self._add("broken", broken)
                    self._segments[part.key] = number, part.start + len(part.lines)
                if entries:
                    Batch(self._db, self._counters).fold(entries)
                self._count_jobs()
                self._db.executemany(
                    "INSERT OR REPLACE INTO segments VALUES (?, ?, ?)",
                    [(part.key, *self._segments[part.key]) for part in parts],
                )
                self._db.executemany(
                    "INSERT OR REPLACE INTO counters VALUES (?, ?)", list(self._counters.items())
                )
        except BaseException:  # rolled back in the file, so here too, and raised again
            self._counters, self._segments = counters, segments
            raise

    def _list(self, number: int, part: Part) -> None:
        rows, place = [], part.start
        for line in part.lines.splitlines(keepends=True):
            size = len(line)
            rows.append((line[7:23].decode("ascii", "replace"), number, place, size))
            place += size
        self._db.executemany(_LIST, rows)

    def _count_jobs(self) -> None:
        self._counters["total"] = self._db.execute("SELECT ifnull(max(number), 0) FROM jobs").fetchone()[0]

    def _add(self, name: str, value: float) -> None:
        if value:
            self._counters[name] = self._counters.get(name, 0) + value

    # -- Numbers

    def _count(self, name: str) -> int:
        return int(self._counters.get(name, 0))

    @property
    def total(self) -> int:
        """Number of jobs."""
        return self._count("total")

    @property
    def by_state(self) -> dict[State, int]:
        """Number of jobs in each state."""
        counts = {state: self._count(state) for state in STATES}
        counts[State.WAITING] = self.total - sum(counts[state] for state in STATES[1:])
        return counts

    @property
    def failed(self) -> int:
        """Number of jobs that wait again after a failed attempt."""
        return self._count("failed")

    @property
    def attempts(self) -> int:
        """Number of attempts that ended and used up one."""
        return self._count("attempts")

    @property
    def interruptions(self) -> int:
        """Number of attempts that were interrupted."""
        return self._count("interruptions")

    @property
    def broken(self) -> int:
        """Number of lines that are no events."""
        return self._count("broken")

    @property
    def most_bytes(self) -> int:
        """Largest size of an attempt's inputs and outputs together."""
        return self._count("most_bytes")

    @property
    def first(self) -> float | None:
        """When the first attempt began, in Unix seconds."""
        return self._counters.get("first")

    @property
    def last_end(self) -> float | None:
        """When the last job came to its end, in Unix seconds."""
        return self._counters.get("last_end")

    @property
    def spent(self) -> dict[str, float]:
        """Seconds of attempts, by the event that ended them."""
        return self._named("spent.")

    @property
    def phases(self) -> dict[str, float]:
        """Seconds of attempts, by what they went into."""
        return self._named("phase.")

    def _named(self, prefix: str) -> dict[str, float]:
        found = self._counters.items()
        return {name[len(prefix) :]: value for name, value in found if name.startswith(prefix)}

    @property
    def version(self) -> tuple[int, int]:
        """Changes with every event and every job."""
        return self.total, self._count("events")

    def ended_since(self, since: float) -> int:
        """Returns the number of jobs that came to an end since then (Unix seconds)."""
        if self.first is not None and since <= self.first:
            return self._count("ended")
        sql = "SELECT sum(jobs) FROM ended WHERE scale = ? AND at >= ?"
        return self._rows(sql, (SCALES[0], math.floor(since / SCALES[0])))[0][0] or 0

    def ended_in(self, start: float, bucket: float) -> dict[int, int]:
        """Returns how many jobs came to an end in each bucket of this many seconds from `start` on."""
        scale = next((each for each in reversed(SCALES) if each <= bucket / 10), SCALES[0])
        sql = "SELECT max(CAST((at - ?) / ? AS INTEGER), 0), sum(jobs) FROM ended WHERE scale = ? GROUP BY 1"
        return dict(self._rows(sql, (start / scale, bucket / scale, scale)))

    def begun_between(self, since: float | None, until: float | None) -> int:
        """Returns how many attempts that ended began in this time (Unix seconds); None: no bound."""
        low, high = -math.inf if since is None else since, math.inf if until is None else until
        done = "SELECT count(*) FROM states WHERE state IN (2, 4) AND started >= :low AND started < :high"
        began = "t - ifnull(json_extract(facts, '$.seconds'), 0)"
        other = f"""SELECT count(*) FROM past WHERE {began} >= :low AND {began} < :high
            AND json_extract(facts, '$.event') NOT IN ('retried', 'dropped')"""  # noqa: S608
        sql = f"SELECT ({done}) + ({other})"
        return int(self._rows(sql, {"low": low, "high": high})[0][0])

    def done_by(self) -> dict[str, int]:
        """Returns how many jobs have succeeded on each machine."""
        return dict(self._rows("SELECT machine, jobs FROM done_by"))

    # -- Records

    @property
    def jobs(self) -> Jobs:
        """The records by id, in the order of submission."""
        return Jobs(self)

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


class Jobs(Mapping[str, JobRecord]):
    """The records of a fold by id. Each is read when it is asked for."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold

    def __len__(self) -> int:
        return self._fold.total

    def __iter__(self) -> Iterator[str]:
        return (record.id for record in self._fold.records())

    def __getitem__(self, job_id: str) -> JobRecord:
        for record in self._fold.records("id = ?", (job_id,)):
            return record
        raise KeyError(job_id)

    def values(self) -> ValuesView[JobRecord]:
        """Returns the records, in the order of submission."""
        return _Values(self, self._fold)


class _Values(ValuesView[JobRecord]):
    def __init__(self, jobs: Jobs, fold: Fold) -> None:
        super().__init__(jobs)
        self._fold = fold

    def __iter__(self) -> Iterator[JobRecord]:
        return self._fold.records()


def record_of(row: Sequence[Any]) -> JobRecord:
    """Returns the record in a row of id, index, state and facts."""
    record = JobRecord(row[0], row[1])
    if row[2] is not None:
        record.state = STATES[row[2]]
        for name, value in zip(FACTS, row[3:], strict=True):
            setattr(record, name, value)
    return record
