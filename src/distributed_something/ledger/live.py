"""Follows a run in memory that does not grow with its jobs: for the function that watches without a disk.

It knows which jobs are under way, and how many events of each kind there were: enough to size a fleet. The
states of single jobs are `fold`'s. The auto-monitor calls it, and stores its memory between two looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..engine import Store
from ..exclusion import IN_A_ROW
from ..job import State
from .events import MANY_BYTES, Entry, parse_events, time_of
from .records import ENDS, JobRecord
from .segments import CHUNK_BYTES, Part, RunPaths, read_parts

VERSION = 2

WINDOW_SECONDS = 120.0
"""Time of which ends are remembered for the rate, in seconds."""

MOST_ENDS = 100_000
"""Number of ends that are remembered."""


_Result = tuple[bytes, bytes, bytes, bytes]
"""An end with a result: its time, the event's name, the job's id, and the whole line, as they are written."""

_RESULT = re.compile(
    rb'\{"t": ?([0-9.]+), ?"event": ?"(succeeded|skipped)", ?"id": ?"([0-9a-f]{16})"(?:, ?"[^\n]*)?\}'
).fullmatch
_MACHINE = re.compile(rb'"machine": ?"([^"]*)"').search


def _parted(lines: bytes) -> tuple[bytes, list[_Result]]:
    """Parts lines of events: those that need a parser, and the results, which are most and need none."""
    others: list[bytes] = []
    results: list[_Result] = []
    for line in lines.splitlines():
        if found := _RESULT(line):
            when, name, job_id = found.groups()
            results.append((when, name, job_id, line))
        else:
            others.append(line)
    return b"\n".join(others), results


class LiveFold:
    """Counts of a run, and its jobs that are under way. A job that is delivered twice may count twice.

    `known` is what `memory` of another one returned; anything else: it reads the ledger from its beginning.
    """

    def __init__(self, store: Store, paths: RunPaths, known: object = None) -> None:
        self._store = store
        self.paths = paths
        self._read: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._open: dict[str, dict[str, Any]] = {}
        self._ends: list[float] = []
        self._failed: dict[str, dict[str, float]] = {}
        """Jobs that failed on each machine since the latest success there, and when."""
        self.total = 0
        self.first: float | None = None
        self.last_end: float | None = None
        if isinstance(known, Mapping) and known.get("version") == VERSION and known.get("run") == paths.run:
            self._take_over(known)

    def _take_over(self, known: Mapping[str, Any]) -> None:
        self._read, self._counts = dict(known["read"]), dict(known["counts"])
        self._open, self._ends = dict(known["open"]), list(known["ends"])
        self._failed = dict(known["failed"])
        self.total, self.first, self.last_end = known["total"], known["first"], known["last_end"]

    @property
    def memory(self) -> dict[str, Any]:
        """What it knows, as JSON has it: as large as the machines and segments are many."""
        return {
            "version": VERSION,
            "run": self.paths.run,
            "read": self._read,
            "counts": self._counts,
            "open": self._open,
            "ends": self._ends,
            "failed": self._failed,
            "total": self.total,
            "first": self.first,
            "last_end": self.last_end,
        }

    def update(self) -> LiveFold:
        """Reads what is new in the ledger. After a failure the next call goes on from there."""
        for prefix in (self.paths.jobs, self.paths.events):
            files = [(file, self._read.get(file.key, 0)) for file in self._store.list(prefix)]
            batch: list[Part] = []
            for part in read_parts(self._store, files):
                batch.append(part)
                if sum(len(each.lines) for each in batch) >= CHUNK_BYTES:
                    self._take(batch)
                    batch = []
            self._take(batch)
        if self._ends:
            self._ends.sort()
            self._ends = [when for when in self._ends if when > self._ends[-1] - WINDOW_SECONDS]
        return self

    def _take(self, parts: Sequence[Part]) -> None:
        entries: list[Entry] = []
        results: list[_Result] = []
        for part in parts:
            if part.key.startswith(self.paths.jobs):
                self.total += part.lines.count(b"\n")
            else:
                lines, ended = _parted(part.lines)
                results += ended
                entries += parse_events(lines, many=len(lines) >= MANY_BYTES)[0]
        for entry in sorted(entries, key=time_of):
            self._apply(entry)
        self._add_results(results)
        for part in parts:
            self._read[part.key] = part.start + len(part.lines)
        del self._ends[:-MOST_ENDS]

    def _add_results(self, results: Sequence[_Result]) -> None:
        """Counts ends with a result, after the starts of their batch."""
        if not results:
            return
        for name in (b"succeeded", b"skipped"):
            if count := sum(each[1] == name for each in results):
                self._counts[name.decode()] = self._counts.get(name.decode(), 0) + count
        ends = [float(each[0]) for each in results]
        self.first = min(ends) if self.first is None else min(self.first, min(ends))
        self._ends += ends
        self.last_end = max(ends) if self.last_end is None else max(self.last_end, max(ends))
        if self._open:
            for when, (_, _, job_id, _) in zip(ends, results, strict=True):
                known = self._open.get(job_id.decode())
                if known is not None and when >= known["t"]:
                    del self._open[job_id.decode()]
        if self._failed:
            for when, (_, _, _, line) in zip(ends, results, strict=True):
                if found := _MACHINE(line):
                    self._clear(found[1].decode(errors="replace"), when)

    def _apply(self, entry: Entry) -> None:
        name, when = entry.event, entry.t
        self._counts[name] = self._counts.get(name, 0) + 1
        known = self._open.get(entry.id)
        if name == "started":
            self.first = when if self.first is None else min(self.first, when)
            if known is None or when >= known["t"]:
                self._open[entry.id] = {"t": when, "worker": entry.worker, "machine": entry.machine}
            return
        if (
            known is not None
            and when >= known["t"]
            and not (name == "interrupted" and entry.worker != known["worker"])
        ):
            del self._open[entry.id]
        if name == "succeeded":
            self._clear(entry.machine, when)
        if name in ("failed", "dead") and entry.machine:
            failed = self._failed.setdefault(entry.machine, {})
            failed[entry.id] = when
            if len(failed) > IN_A_ROW:
                del failed[next(iter(failed))]
        if name in ("succeeded", "skipped", "dead"):
            self.last_end = when if self.last_end is None else max(when, self.last_end)
            self._ends.append(when)

    def _clear(self, machine: str | None, when: float) -> None:
        """Forgets what failed on a machine before a job succeeded there."""
        if machine in self._failed and when >= max(self._failed[machine].values()):
            del self._failed[machine]

    @property
    def suspects(self) -> list[str]:
        """Machines on which several jobs in a row failed: `exclusion` may find them bad."""
        return [machine for machine, failed in self._failed.items() if len(failed) >= IN_A_ROW]

    @property
    def by_state(self) -> dict[State, int]:
        """Number of jobs in each state, as far as counting ends tells."""
        get = self._counts.get
        ended = {State.SUCCEEDED: get("succeeded", 0), State.SKIPPED: get("skipped", 0)}
        dropped = get("dropped", 0)
        dead = max(get("dead", 0) - get("retried", 0) - dropped, 0)
        running = len(self._open)
        waiting = max(self.total - sum(ended.values()) - dead - dropped - running, 0)
        outs = {State.DEAD: dead, State.DROPPED: dropped}
        return {State.WAITING: waiting, State.RUNNING: running, **outs, **ended}

    @property
    def failed(self) -> int:
        """Not known: 0."""
        return 0

    @property
    def attempts(self) -> int:
        """Number of attempts that ended and used up one."""
        return sum(self._counts.get(name, 0) for name in ENDS if name in ("succeeded", "failed", "dead"))

    @property
    def spent(self) -> dict[str, float]:
        """Not known: empty."""
        return {}

    @property
    def interruptions(self) -> int:
        """Number of attempts that were interrupted."""
        return self._counts.get("interrupted", 0)

    def ended_since(self, since: float) -> int:
        """Returns how many jobs came to an end since then (Unix seconds), of the last two minutes."""
        return sum(when >= since for when in self._ends)

    def proven(self) -> int:
        """Not known: 0."""
        return 0

    def running(self) -> Iterator[JobRecord]:
        """Yields the jobs that are under way."""
        for job_id, known in self._open.items():
            record = JobRecord(job_id, 0)
            record.state, record.started = State.RUNNING, known["t"]
            record.worker, record.machine = known["worker"], known["machine"]
            yield record
