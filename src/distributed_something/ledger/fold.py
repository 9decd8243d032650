"""Folds the events of a run into the state of each of its jobs."""

from __future__ import annotations

from typing import Any

from ..engine import Store
from ..job import UNCOUNTED, State
from ..system.collector import uncollected
from .events import MANY_BYTES, Entry, _entry, parse_events, time_of
from .joblist import listed_id
from .segments import RunPaths, SegmentReader


class JobRecord:
    """The state of one job by the ledger. `attempts` counts those that used up an attempt."""

    __slots__ = (
        "attempt", "attempts", "cause", "cpu_seconds", "detail", "ended", "exit_code", "id", "index",
        "interruptions", "log", "machine", "max_rss_bytes", "output", "seconds", "started", "state", "worker",
    )  # fmt: skip

    def __init__(self, job_id: str, index: int) -> None:
        self.id = job_id
        self.index = index
        self.state = State.WAITING
        self.attempt = 0
        self.attempts = 0
        self.interruptions = 0
        self.started: float | None = None
        self.ended: float | None = None
        self.cause: str | None = None
        self.detail: str | None = None
        self.exit_code: int | None = None
        self.seconds: float | None = None
        self.cpu_seconds: float | None = None
        self.max_rss_bytes: int | None = None
        self.worker: str | None = None
        self.machine: str | None = None
        self.output: str | None = None
        self.log: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the job waits again after a failed attempt."""
        return self.state is State.WAITING and self.cause is not None and self.cause not in UNCOUNTED


_ENDS = {
    "succeeded": State.SUCCEEDED,
    "skipped": State.SKIPPED,
    "failed": State.WAITING,
    "interrupted": State.WAITING,
    "dead": State.DEAD,
    "retried": State.WAITING,
}


class Fold:
    """The state of every job, folded from the ledger. Feed it again to bring it up to date.

    Events may come in any order between segments; for each job they are taken by their time. A job
    that has succeeded stays so, whatever a second delivery of it says. `by_state` counts the jobs,
    `failed` those that wait again after a failure, `broken` the lines that are no events. `spent` and
    `phases` add up the seconds of attempts, by the event that ended them and by what they went into.
    `most_bytes` is the largest that inputs and outputs of an attempt were together.
    """

    def __init__(self, store: Store, paths: RunPaths) -> None:
        self.jobs: dict[str, JobRecord] = {}
        self.by_state = dict.fromkeys(State, 0)
        self.failed = 0
        self.attempts = 0
        self.interruptions = 0
        self.broken = 0
        self.first: float | None = None
        self.last_end: float | None = None
        self.ends: list[float] = []
        self.spent: dict[str, float] = {}
        self.phases: dict[str, float] = {}
        self.most_bytes = 0
        self._texts: dict[str, str] = {}
        self._bytes = 0
        self._jobs = SegmentReader(store, paths.jobs)
        self._events = SegmentReader(store, paths.events)

    @uncollected()
    def update(self) -> Fold:
        """Read what is new in the store."""
        for line in self._jobs.new_lines():
            self._record(listed_id(line))
        entries: list[Entry] = []
        none = 0
        for piece in self._events.new_pieces():
            self._bytes += len(piece)
            found, broken = parse_events(piece, many=self._bytes >= MANY_BYTES)
            entries += found
            none += broken
        self.broken += none
        entries.sort(key=time_of)
        entries.reverse()
        while entries:  # each is let go of as its record takes it in: a million take a gigabyte
            entry = entries.pop()
            record = self.jobs.get(entry.id) or self._record(entry.id)
            state, failed = record.state, record.failed
            self._apply(record, entry)
            if record.state is not state:
                self.by_state[state] -= 1
                self.by_state[record.state] += 1
            self.failed += record.failed - failed
        return self

    def _record(self, job_id: str) -> JobRecord:
        record = self.jobs.get(job_id)
        if record is None:
            record = self.jobs[job_id] = JobRecord(job_id, len(self.jobs))
            self.by_state[record.state] += 1
        return record

    def _same(self, text: str | None) -> str | None:
        """Returns one shared copy of a text that many events have."""
        return text if text is None else self._texts.setdefault(text, text)

    def _apply(self, record: JobRecord, entry: Entry) -> None:
        if record.state in (State.SUCCEEDED, State.SKIPPED):
            return
        when = entry.t
        if entry.event == "started":
            if record.ended is None or when >= record.ended:
                record.state = State.RUNNING
                record.started = when
                self.first = when if self.first is None else min(self.first, when)
                record.worker = self._same(entry.worker)
                record.machine = self._same(entry.machine)
                record.log = entry.log
                record.attempt = entry.attempt or 1
            return
        state = _ENDS.get(entry.event)
        if state is None:
            self.broken += 1
            return
        self._end(state, record, entry)

    def _end(self, state: State, record: JobRecord, entry: Entry) -> None:
        name, when = entry.event, entry.t
        if name == "retried":
            record.state, record.ended = state, when
            record.cause = record.detail = record.exit_code = None
            record.attempts = 0
            return
        if name == "interrupted":
            self.interruptions += 1
            record.interruptions += 1
            if record.worker != entry.worker and record.state is State.RUNNING:
                return  # another worker has the job by now
        elif name != "skipped":
            self.attempts += 1
            # one whose worker was killed before the queue heard of it is made again, under its number
            record.attempts = max(record.attempts, entry.attempt or record.attempts + 1)
        record.state, record.ended = state, when
        if state is not State.WAITING:
            self.last_end = when if self.last_end is None else max(when, self.last_end)
            self.ends.append(when)
        record.attempt = entry.attempt or record.attempt
        record.cause = self._same(entry.cause)
        record.detail = entry.detail
        record.exit_code = entry.exit_code
        record.seconds = entry.seconds
        record.cpu_seconds = entry.cpu_seconds
        record.max_rss_bytes = entry.max_rss_bytes
        record.worker = self._same(entry.worker) or record.worker
        record.machine = self._same(entry.machine) or record.machine
        record.output = entry.output
        record.log = entry.log or record.log
        if record.seconds is not None:
            self.spent[name] = self.spent.get(name, 0.0) + record.seconds
            if entry.phases:
                self._add_phases(entry.phases)
                self._add_bytes(entry.bytes_in or 0, entry.bytes_out or 0)
            record.started = when - record.seconds
            self.first = record.started if self.first is None else min(self.first, record.started)

    def _add_bytes(self, given: object, made: object) -> None:
        if type(given) is int and type(made) is int and given + made > self.most_bytes:
            self.most_bytes = given + made

    def _add_phases(self, phases: object) -> None:
        for name, seconds in phases.items() if isinstance(phases, dict) else ():
            if type(seconds) in (int, float):
                self.phases[name] = self.phases.get(name, 0.0) + seconds


def events_of(store: Store, paths: RunPaths, job_id: str) -> list[dict[str, Any]]:
    """Returns every event of one job, in the order of their time."""
    mark = job_id.encode()
    lines = (line for line in SegmentReader(store, paths.events).new_lines() if mark in line)
    found = [entry for entry in map(_entry, lines) if entry is not None and entry.id == job_id]
    return [entry.facts() for entry in sorted(found, key=time_of)]
