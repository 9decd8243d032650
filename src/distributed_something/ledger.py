"""The ledger: what happened to every job of a run, as lines of JSON in the store, and their fold.

    runs/<APP_NAME>/<run>/jobs/<segment>.jsonl     {"id": "...", "job": {...}}      written by submit
                         /events/<writer>.jsonl    {"t": ..., "event": "...", ...}  written by workers
                         /logs/<writer>.log        what the jobs printed, one after another

Segments only grow, each has one writer, and their order does not matter. A line that is cut short
(its writer was killed, or is writing now) is left for the next look.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from operator import attrgetter
from sys import intern
from typing import Any, NamedTuple, NoReturn, cast

from .collector import uncollected
from .engine import Store
from .job import UNCOUNTED, Job, Lease, Outcome, State

CHUNK_BYTES = 16 << 20
"""Read at a time, unless a line is longer."""

MANY_BYTES = 2 << 20
"""Of events that are read: from here on a library is faster, the time to load it included."""


class RunPaths(NamedTuple):
    """Where a run lies in the store."""

    app: str
    run: str

    @property
    def root(self) -> str:
        """The prefix of everything of the run."""
        return f"runs/{self.app}/{self.run}/"

    @property
    def jobs(self) -> str:
        """The prefix of the job lists."""
        return self.root + "jobs/"

    @property
    def events(self) -> str:
        """The prefix of the event segments."""
        return self.root + "events/"

    @property
    def logs(self) -> str:
        """The prefix of the log segments."""
        return self.root + "logs/"


Event = dict[str, object]


def event(name: str, now: float, lease: Lease, outcome: Outcome | None, facts: Mapping[str, object]) -> Event:
    """One event: what happened when to which job, and what came of it. What is not known is left out."""
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
    """Seconds to whole parts of one, as `round` has it, which takes eight times as long."""
    return int(seconds * parts + 0.5) / parts


_FACTS = (
    "cause", "detail", "exit_code", "max_rss_bytes", "cpu_seconds", "bytes_in", "bytes_out", "output", "log",
)  # fmt: skip
_facts_of = attrgetter(*_FACTS)


def _lines(events: list[Event]) -> bytes:
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
"""What `event` makes an event of."""


class LedgerWriter:
    """Appends events to one segment. Thread-safe; noting an event never waits for the store.

    Events wait in memory until `flush`, which a worker calls before it settles a job: what the queue
    counts as done, the ledger has. A `started` that is still waiting when its job ends is dropped, so
    that a short job costs one line. After a failed flush nothing is lost: the next one writes it.
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

    def ended(self, name: str, now: float, lease: Lease, outcome: Outcome | None, **facts: object) -> None:
        """Note how an attempt ended. Its event is made by `flush`, where many are made at once: faster."""
        with self._lock:
            self._started.pop(lease.job.id, None)
            self._ended.append((name, now, lease, outcome, facts))

    def flush(self) -> None:
        """Write what waits. Raises what the store raises; the events stay.

        What a failed flush could not write goes first, the same bytes in the same way: they may be there, as
        only the answer was lost, and somebody may have read them.
        """
        with self._flushing:
            self._write()
            with self._lock:
                noted = [*self._started.values(), *self._ended]
                self._unwritten = _lines([event(*each) for each in noted])
                self._started.clear()
                self._ended.clear()
            self._write()

    def _write(self) -> None:
        if self._unwritten:
            self._store.append(self._key, self._unwritten)
            self._unwritten = b""


def write_jobs(store: Store, key: str, jobs: Iterable[Job]) -> None:
    """Append jobs to a job list."""
    store.append(key, b"".join(map(job_line, jobs)))


def job_line(job: Job) -> bytes:
    """A job as a line of a job list, the id at a fixed place so that lists are read without parsing."""
    return b'{"id":"%s","job":%s}\n' % (job.id.encode(), job.body)


def parse_job_line(line: bytes) -> tuple[str, bytes]:
    """The (id, body) of a complete line that `job_line` wrote."""
    return _listed_id(line), line[31:-2]


_NUMBERS = ("attempt", "exit_code", "seconds", "cpu_seconds", "max_rss_bytes")
_TEXTS = ("cause", "detail", "worker", "machine", "output", "log")
_OTHERS = ("bytes_in", "bytes_out", "phases")
_ARE_NUMBERS = frozenset((int, float, type(None))).issuperset
_ARE_TEXTS = frozenset((str, type(None))).issuperset


class Entry:
    """An event as it was read. What it does not tell is None; what is none of `_NUMBERS` and `_TEXTS` may be
    of any kind.
    """

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
        """Raises ValueError where a fact is not of its kind, KeyError where time, name or id is missing."""
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
        if not (good and known):
            raise ValueError(found)
        self.event = intern(self.event)  # many events have the same
        self.worker, self.machine = self.worker and intern(self.worker), self.machine and intern(self.machine)

    def facts(self) -> dict[str, Any]:
        """What it tells, by name."""
        found = {name: getattr(self, name) for name in ("t", "event", "id", *_NUMBERS, *_TEXTS, *_OTHERS)}
        return {name: value for name, value in found.items() if value is not None}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_decode = json.JSONDecoder(parse_constant=_refuse).decode  # NaN has no order


def _entry(line: bytes) -> Entry | None:
    """The event in a line; None where it is none."""
    try:
        return Entry(_decode(line.decode()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _entries(lines: bytes, *, many: bool) -> tuple[list[Entry], int]:
    """The events in whole lines, and how many lines are none. `many`: there are more than these."""
    if many:
        with suppress(ImportError, ValueError):  # no such library, or a line that is no event
            return _many_entries()(lines), 0
    read = [_entry(line) for line in lines.splitlines() if line.strip()]
    found = [each for each in read if each is not None]
    return found, len(read) - len(found)


@cache
def _many_entries() -> Callable[[bytes], list[Entry]]:
    """Reads many lines, ten times as fast, by what takes longer to load than few lines to read.

    Raises ImportError; what it gives back raises ValueError where one of the lines is no event.
    """
    from msgspec import defstruct
    from msgspec.json import Decoder

    fields: list[Any] = [("t", float), ("event", str), ("id", str)]
    fields += [(name, int | float | None, None) for name in _NUMBERS]
    fields += [(name, str | None, None) for name in _TEXTS]
    fields += [(name, Any, None) for name in _OTHERS]
    like_entry = defstruct("Entry", fields, gc=False, namespace={"facts": Entry.facts})
    return cast("Callable[[bytes], list[Entry]]", Decoder(like_entry).decode_lines)


class SegmentReader:
    """Reads the segments under a prefix, again and again, each byte once."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._read: dict[str, int] = {}

    def new_lines(self) -> Iterator[bytes]:
        """The complete lines that came since the last call, as `new_pieces` gives them."""
        for piece in self.new_pieces():
            yield from piece.splitlines()

    def new_pieces(self) -> Iterator[bytes]:
        """The complete lines that came since the last call, many in a piece: one list, and reads of what has
        grown.

        They count as read when the last one has been taken: after a failure the next call gives them again.
        """
        grown = [file for file in self._store.list(self._prefix) if file.size > self._read.get(file.key, 0)]
        pieces = ((key, self._read.get(key, 0), min(size, CHUNK_BYTES)) for key, size in grown)
        read = dict[str, int]()
        for file, data in zip(grown, self._store.read_many(pieces), strict=True):
            start, wanted = self._read.get(file.key, 0), CHUNK_BYTES
            while data:
                if end := data.rfind(b"\n") + 1:
                    yield data[:end]
                    start = read[file.key] = start + end
                    wanted = CHUNK_BYTES
                elif len(data) < wanted:
                    break  # a line that is being written
                else:
                    wanted *= 2  # on the local engine a job may have any size
                if start >= file.size:
                    break
                data = next(self._store.read_many([(file.key, start, wanted)]))
        self._read |= read


class JobRecord:
    """What the ledger tells of one job. `attempts` counts the ones that used up an attempt."""

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
        """Waiting again after an attempt that failed."""
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
            self._record(_listed_id(line))
        entries: list[Entry] = []
        none = 0
        for piece in self._events.new_pieces():
            self._bytes += len(piece)
            found, broken = _entries(piece, many=self._bytes >= MANY_BYTES)
            entries += found
            none += broken
        self.broken += none
        entries.sort(key=_time)
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
        """The one copy of a text that many events bring."""
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
    """Every event of one job, in the order of their time."""
    mark = job_id.encode()
    lines = (line for line in SegmentReader(store, paths.events).new_lines() if mark in line)
    found = [entry for entry in map(_entry, lines) if entry is not None and entry.id == job_id]
    return [entry.facts() for entry in sorted(found, key=_time)]


def job_bodies(
    store: Store, paths: RunPaths, wanted: Container[str] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The jobs of the run (of these ids, or all) as (id, body), in the order of submission.

    A job that is listed twice comes twice.
    """
    for line in SegmentReader(store, paths.jobs).new_lines():
        if wanted is not None and _listed_id(line) not in wanted:
            continue
        try:
            listed = json.loads(line)
            yield listed["id"], listed["job"]
        except (ValueError, TypeError, KeyError):
            continue


def job_ids(store: Store, paths: RunPaths) -> set[str]:
    """The ids of the jobs that are listed."""
    return {_listed_id(line) for line in SegmentReader(store, paths.jobs).new_lines()}


_time = attrgetter("t")


def _listed_id(line: bytes) -> str:
    """The id in a line of a job list, which begins {"id":"<16 hex digits>"."""
    return line[7:23].decode("ascii", "replace")


def name_of(outcome: Outcome, *, dead: bool) -> str:
    """The name of the event that an outcome makes."""
    if outcome.state is not State.WAITING:
        return outcome.state.value
    if outcome.cause in UNCOUNTED:
        return "interrupted"
    return "dead" if dead else "failed"
