"""Keeps the states of a run's jobs in an index, and folds into it what is new in the ledger.

A look costs what has changed since the last one, by whichever command. Events count by their time and
attempt, in whatever order they are read. Every command that shows a run uses it.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from contextlib import suppress
from pathlib import Path

from ..engine import Store
from ..job import State
from ..system.collector import uncollected
from .batch import SCALES, STATES, Batch
from .events import MANY_BYTES, Entry, parse_events
from .index import open_index, remove_index, writing
from .reading import IndexReader
from .records import JobRecord
from .segments import CHUNK_BYTES, Part, RunPaths, read_parts

_LIST = """INSERT INTO jobs (id, list, place, length) VALUES (?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET list = excluded.list, place = excluded.place, length = excluded.length
    WHERE list IS NULL"""


CHECKPOINT_BYTES = 1 << 20
"""Bytes of new lines after which the index's write-ahead log is folded into its file."""


class _Behind(Exception):
    """The ledger is not the one that the index was made from."""


class Fold(IndexReader):
    """The state of every job, folded from the ledger. `update` brings it up to date.

    `path` is the index's file; None: in memory. A job that has succeeded stays so, whatever a second delivery
    of it says. `by_state` counts the jobs, `failed` those that wait again after a failure, `broken` the lines
    that are no events.
    """

    def __init__(self, store: Store, paths: RunPaths, path: Path | None = None) -> None:
        super().__init__(store, path)
        self.paths = paths
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

    @property
    def jobs(self) -> Jobs:
        """The records by id, in the order of submission."""
        return Jobs(self)


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
