"""What a job is, what can happen to it, and what a failure does to it. Pure: no IO, no clock.

The life of a job (each edge is a ledger event):

    waiting --started--> running --succeeded--> succeeded
                                 --skipped----> skipped      (its outputs were there already)
                                 --failed-----> waiting      (an attempt is used up; after a back-off)
                                 --interrupted> waiting      (no attempt is used up)
                                 --dead-------> dead         (out of attempts, or killed worker after worker)
    dead    --retried--> waiting
    dead    --dropped--> dropped     (the user took it out; waiting jobs too, where the queue finds them)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

MAX_DELIVERIES = 20
"""Deliveries of a job without any outcome until it is dead (`worker-lost`): it kills its workers."""

LEASE_SECONDS = 120.0
"""Default term of a lease, in seconds: workers renew at a third of it."""

LARGE_BODY = 1 << 20
"""Bytes of a job's body from which no copy of it is made that can be spared."""

BACKOFF_FIRST = 1.0
"""Wait after the first failed attempt, in seconds."""

BACKOFF_LIMIT = 300.0
"""Longest wait between two attempts, in seconds."""


class Cause(StrEnum):
    """Why an attempt did not succeed."""

    EXIT = "exit"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out-of-memory"
    DISK_FULL = "disk-full"
    INPUT_MISSING = "input-missing"
    OUTPUT_MISSING = "output-missing"
    UPLOAD = "upload"
    INTERRUPTED = "interrupted"
    LEASE_LOST = "lease-lost"
    WORKER_LOST = "worker-lost"


UNCOUNTED = frozenset({Cause.INTERRUPTED, Cause.LEASE_LOST, Cause.WORKER_LOST})
"""Causes that are no fault of the job: they use up none of its attempts."""


class State(StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    DEAD = "dead"
    DROPPED = "dropped"

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self not in (State.WAITING, State.RUNNING)


class Job:
    """One unit of work: the shared keys and one group of a job file. A value: nothing changes it.

    `id` is 16 hex digits of the SHA-256 of `body`; `body` is the canonical JSON
    `{shared..., "group": {...}}`; `index` is its place in the order of submission, from 0.
    """

    __slots__ = ("body", "id", "index")

    def __init__(self, id: str, index: int, body: bytes) -> None:  # noqa: A002
        self.id = id
        self.index = index
        self.body = body

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and (self.id, self.index, self.body) == (
            other.id,
            other.index,
            other.body,
        )

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Job({self.id!r}, {self.index}, {self.body!r})"

    @property
    def keys(self) -> dict[str, Any]:
        """Returns shared and group keys together; a group's key overrides a shared key of the same name."""
        return keys_of(_decoder()(self.body))


class Needs(NamedTuple):
    """What a job needs of its machine: processors, memory in MB, GPUs."""

    cpus: int = 1
    memory: int = 0
    gpus: int = 0

    def fit(self, room: Needs) -> bool:
        """Whether there is room for it."""
        return self.cpus <= room.cpus and self.memory <= room.memory and self.gpus <= room.gpus

    def less(self, needs: Needs, times: int = 1) -> Needs:
        """Returns what `times` jobs leave of it; below zero: they need more."""
        return Needs(*(has - each * times for has, each in zip(self, needs, strict=True)))

    def most(self, other: Needs) -> Needs:
        """Returns the larger of each."""
        return Needs(*map(max, self, other))

    def __str__(self) -> str:
        cpus = f"{self.cpus:,} processor{'' if self.cpus == 1 else 's'}"
        gpus = f"{self.gpus:,} GPU{'' if self.gpus == 1 else 's'}" if self.gpus else ""
        return ", ".join(filter(None, [cpus, f"{self.memory:,} MB" if self.memory else "", gpus]))


class NeedyJob(Job):
    """A job that says what it needs."""

    __slots__ = ("needs",)

    def __init__(self, job: Job, needs: Needs) -> None:
        super().__init__(job.id, job.index, job.body)
        self.needs = needs


def keys_of(document: dict[str, Any]) -> dict[str, Any]:
    """Returns the keys of a body, whichever family's form it has: those of a group stand beside the others.

    `Metadata` may be a list as CellProfiler's --print-groups writes it, [{name: value}, [image numbers]]: it
    becomes the text that CellProfiler's -g takes, and its names are keys too.
    """
    group = document.get("group")
    if isinstance(group, dict):
        document = {**document, **group}
    metadata = document.get("Metadata")
    if isinstance(metadata, dict):
        return {**document, **metadata}
    if isinstance(metadata, list) and metadata and isinstance(metadata[0], dict):
        text = ",".join(f"{name}={value}" for name, value in metadata[0].items())
        return {**document, **metadata[0], "Metadata": text}
    return document


@cache
def _decoder() -> Callable[[bytes], Any]:
    from msgspec.json import Decoder

    return Decoder().decode


def in_batches(jobs: Iterable[Job], count: int, size: int) -> Iterator[list[Job]]:
    """Yields lists of at most `count` jobs; a list also ends when its bodies have `size` bytes or more."""
    batch: list[Job] = []
    held = 0
    for job in jobs:
        batch.append(job)
        held += len(job.body)
        if len(batch) >= count or held >= size:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


class Earlier(NamedTuple):
    """How many failed attempts of a job ended for lack of time, and of memory: the next may get more."""

    timeouts: int = 0
    memory: int = 0

    def after(self, cause: Cause) -> Earlier:
        """Returns the same after an attempt that failed with this cause."""
        return Earlier(self.timeouts + (cause is Cause.TIMEOUT), self.memory + (cause is Cause.OUT_OF_MEMORY))

    def to_text(self) -> str:
        """Returns it as queues keep it; empty: none."""
        return f"{self.timeouts},{self.memory}" if any(self) else ""

    @classmethod
    def from_text(cls, text: str | None) -> Earlier:
        """Reads it; what is no such text counts as none."""
        found = str(text or "").split(",")
        good = len(found) == 2 and all(
            each.isascii() and each.isdecimal() and len(each) < 7 for each in found
        )
        return cls(*map(int, found)) if good else cls()


NEVER_SHORT = Earlier()
"""No attempt ended for lack of time or memory."""


class Lease(NamedTuple):
    """A worker's time-limited claim on a job.

    `token` proves the claim; `deadline` (Unix seconds) is when it ends unless renewed;
    `attempt` counts from 1; `deliveries` is how often the job was handed out, this time included.
    """

    job: Job
    token: str
    deadline: float
    attempt: int = 1
    deliveries: int = 1
    earlier: Earlier = NEVER_SHORT


class DeadJob(NamedTuple):
    """A job out of attempts, parked with its reason. `attempt` is the last one made."""

    job: Job
    attempt: int
    cause: Cause
    detail: str


class Retry(NamedTuple):
    """Decision after a failed attempt: `dead`, or waiting again in `delay` seconds."""

    dead: bool
    delay: float = 0.0


PERMANENT = frozenset({"exit 126", "exit 127", "input-missing"})
"""Failures that another attempt does not mend: the program cannot be executed, is missing, or an input is."""

SECOND_LOOK = frozenset({Cause.INPUT_MISSING})
"""Permanent causes that get a second attempt: a store may show a new file late."""


class RetryPolicy(NamedTuple):
    """Decides whether and when a failed job is tried again.

    The wait doubles from `backoff` seconds with each failed attempt, up to `limit` seconds. `permanent` has
    causes ("timeout") and exit codes ("exit 3") that are not tried again.
    """

    attempts: int = 3
    backoff: float = BACKOFF_FIRST
    limit: float = BACKOFF_LIMIT
    permanent: frozenset[str] = PERMANENT

    def is_permanent(self, attempt: int, cause: Cause, exit_code: int | None) -> bool:
        """Whether no further attempt follows attempt number `attempt` (from 1), whatever is left of them."""
        if cause in SECOND_LOOK and attempt < 2:
            return False
        return cause in self.permanent or (cause is Cause.EXIT and f"exit {exit_code}" in self.permanent)

    def after(self, attempt: int) -> Retry:
        """The decision after failed attempt number `attempt` (from 1)."""
        if attempt >= self.attempts:
            return Retry(dead=True)
        return Retry(dead=False, delay=min(self.backoff * 2 ** min(attempt - 1, 32), self.limit))


class Outcome(NamedTuple):
    """How one attempt ended. `cause` is None where `state` is succeeded or skipped.

    A `state` of WAITING with a cause in UNCOUNTED means: back in the queue, attempt not counted;
    with any other cause: the attempt failed, and the retry policy decides. DEAD: no further attempt.
    `seconds` is the wall time of the attempt, `log` its place in a log segment (`file@offset+length`).
    """

    state: State
    cause: Cause | None = None
    detail: str = ""
    exit_code: int | None = None
    seconds: float = 0.0
    max_rss_bytes: int | None = None
    cpu_seconds: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    output: str | None = None
    log: str | None = None
    phases: Mapping[str, float] = {}
