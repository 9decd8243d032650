"""Defines what every engine promises. The core uses these protocols only and never imports an engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from .budget import Quote
from .errors import KeyRefused
from .job import Cause, DeadJob, Job, Lease, Needs, State
from .packing import Capacity
from .words import many, time_text


class Counts(NamedTuple):
    """Jobs in a queue: `waiting` can be leased now, `leased` are claimed, `delayed` wait out a back-off."""

    waiting: int = 0
    leased: int = 0
    delayed: int = 0
    dead: int = 0

    @property
    def open(self) -> int:
        """Jobs that are not finished and not dead."""
        return self.waiting + self.leased + self.delayed

    def explain_delay(self, next_at: float | None, now: float) -> str | None:
        """Returns why no job runs, if all that is left waits out a back-off, the first until `next_at`."""
        if next_at is None or not self.delayed or self.waiting or self.leased:
            return None
        jobs = many(self.delayed, "job", "failed and waits", "failed and wait")
        return f"{jobs} before the next attempt, until {time_text(next_at, now)}"


class PutReport(NamedTuple):
    """What became of a submission: `sent` are new, `known` were in the run before; `failed` are the rest."""

    sent: int = 0
    known: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    """(job id, reason) of each job that the queue refused even after retries."""


class Queue(Protocol):
    """The durable list of jobs. Delivery is at least once.

    Several processes may hold one queue open, and threads may share one object.

    A lease that has expired, was settled, or belongs to someone else is *stale*: every verb that
    takes leases leaves the job alone where the lease is stale, and never raises for it.
    """

    def put(self, jobs: Iterable[Job]) -> PutReport:
        """Add jobs, streaming. Jobs whose id the run already knows (in whatever state) are left as they are.

        The others get the next indexes: those that they bring are not used.

        After a failure part-way, the jobs stored so far stay, and putting all of them again is safe.
        Once it returns, a power cut loses none of them.
        """

    def lease(self, limit: int, wait: float = 0.0) -> list[Lease]:
        """Claim at most `limit` jobs, oldest first, waiting up to `wait` seconds for the first one.

        Each stays hidden from others until its deadline. If the caller dies, it comes back then.
        """

    def renew(self, leases: Sequence[Lease]) -> tuple[list[Lease], list[Lease]]:
        """Move deadlines to a full term from now: (renewed, with their new deadlines; no longer ours).

        Tokens stay: a lease from before settles the job as well.

        A queue that can tell renews an expired lease if no other worker has taken the job since.
        """

    def done(self, leases: Sequence[Lease]) -> None:
        """Take finished jobs out. After a crash before it returns a job may come back, and run again."""

    def release(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Give jobs back, to be leased again after `delay` seconds; no attempt is counted."""

    def fail(self, lease: Lease, cause: Cause, detail: str = "", *, final: bool = False) -> DeadJob | None:
        """Count a failed attempt: back after the retry policy's back-off, or dead (returned) with its cause.

        `final` makes it dead whatever attempts are left.
        """

    def counts(self) -> Counts:
        """Returns how many jobs are in which state now (on SQS: may lag a minute)."""

    def dead(self) -> Iterator[DeadJob]:
        """Yields the dead jobs, in the order of submission."""

    def redrive(self, ids: Iterable[str] | None = None) -> list[str]:
        """Put dead jobs (these ids, or all) back as new: attempt 1. Returns the ids that were dead."""

    def drop(self, ids: Iterable[str]) -> list[str]:
        """Take dead jobs out for good, and waiting ones where the queue can find a job by its id.

        Returns the ids that it took out, perhaps with those that were out before. A leased job stays. `put`
        still knows the ids. After a failure part-way some are out; calling again is safe.
        """

    def purge(self) -> None:
        """Forget every job, the dead and the finished ones included."""


class StoredFile(NamedTuple):
    """A file in a store: its `key` ("a/b.txt", never absolute, no "..") and `size` in bytes.

    `tag` changes when the content does: S3's ETag, or in a folder the time of modification.
    """

    key: str
    size: int
    tag: str = ""


def check_key(key: str) -> str:
    """Returns the key, where it can be one. Raises KeyRefused where it could lead out of a store."""
    if "\0" in key or not {"", ".", ".."}.isdisjoint(key.split("/")):
        raise KeyRefused(
            f"store key {key!r}: must be a relative path without '.', '..' and empty parts",
            "use keys such as 'images/plate1.tif', relative to the store",
        )
    return key


class Store(Protocol):
    """Where inputs, outputs, logs and ledger live: a folder, or a bucket. Threads may share one object.

    Keys use "/" on every system. A key that is empty, absolute, or holds NUL or a part "", "." or ".."
    raises KeyRefused before anything is touched.
    """

    @property
    def folds_case(self) -> bool:
        """Whether `a` and `A` are one name."""

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yields every file whose key starts with the string `prefix`, in key order, all pages."""

    def folders(self, prefix: str) -> Iterator[str]:
        """Yields the next part of the keys that start with `prefix` and go on below it, each once, in order.

        It costs what it yields, not what lies below: of "runs/App/" it yields the runs.
        """

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Returns the file's content, or `length` bytes of it from `start` on. Raises KeyMissing."""

    def read_many(self, pieces: Iterable[tuple[str, int, int]]) -> Iterator[bytes | None]:
        """Yields the bytes of each (key, start, length), in the given order; None: no such file.

        Several are read at a time where that is faster. The first failure is raised in its place.
        """

    def stat(self, keys: Iterable[str]) -> Sequence[StoredFile | None]:
        """Returns each file as `list` does, in the given order; None: there is no such file.

        It knows files that were written or published; one that was appended may come out as None.
        """

    def write(self, key: str, data: bytes) -> None:
        """Replace the file: others see the old or the new content, never a part."""

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Create the file with this content, unless it exists; whether it was created. Exactly one of many
        racing writers gets True."""

    def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Replaces the file if its content is still `old`. Returns whether it was replaced.

        Exactly one of many racing callers with the same `old` gets True. Where the answer to a successful
        call is lost, the repeated one may return False.
        """

    def append(self, key: str, data: bytes) -> None:
        """Add to the end of a segment that only this process writes.

        Where a store cannot append, numbered parts are written: `list(key)` yields them in order.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files; one that is not there is no error."""

    def fetch(self, key: str, path: Path) -> int:
        """Copy a stored file to a new local path (its folder exists); its size in bytes. Raises KeyMissing.

        After a failure there may be part of a file at `path`.
        """

    def publish(self, path: Path, key: str) -> int:
        """Move or copy a local file into the store, replacing what is there; its size in bytes.

        Others see all of it or nothing of it. `path` may be gone afterwards.
        """

    def fetch_many(self, files: Iterable[tuple[str, Path]]) -> Sequence[int]:
        """Fetch each (key, path), several at a time where that is faster; their sizes, in the given order.

        The first failure is raised once nothing is under way any more; the others may have been fetched.
        """

    def publish_many(self, files: Iterable[tuple[Path, str]]) -> Sequence[int]:
        """Publish each (path, key), as `fetch_many` fetches: each file is seen whole or not at all."""

    def locate(self, key: str) -> str:
        """Returns the address a person can open: a path, or s3://bucket/key."""


def files_at(store: Store, wanted: str) -> Iterator[StoredFile]:
    """Yields the files that an entry of INPUTS names: that key, or all keys below it if it ends in "/"."""
    key = "/".join(part for part in wanted.split("/") if part)
    if wanted.endswith("/"):
        yield from store.list(key + "/")
    else:  # of the keys that begin so, it would be the first
        yield from (file for file in islice(store.list(key), 1) if file.key == key)


class RentedMachine(NamedTuple):
    """One machine of a run, in its life or after it: `since` and `ended` in Unix seconds, where known.

    `id` is the name that its workers have for it in the ledger.
    `why`: the reason of its end, in words; `lost`: we did not ask for that end.
    """

    id: str
    running: bool
    kind: str = ""
    since: float | None = None
    ended: float | None = None
    why: str = ""
    lost: bool = False
    hosts: tuple[tuple[float, str], ...] = ()
    """Since when (Unix seconds) it has been on which host; empty: it is one itself."""


class Diagnosis(NamedTuple):
    """Why a fleet has fewer machines than its target: what is wrong, and what the user can do about it."""

    what: str
    fix: str = ""
    final: bool = False
    """Waiting does not help: the request cannot be fulfilled."""


class Cost(NamedTuple):
    """What machines cost, in dollars."""

    usd: float
    """All machines of the run, so far."""
    usd_per_hour: float | None = None
    """The machines that run now; None: unknown."""
    usd_per_attempt: float = 0.0
    """Requests that an attempt at a job takes, by estimate."""


class Machines(NamedTuple):
    """The machines of an engine, at one look.

    If jobs are left and no machine runs, the monitor gives up with the reason in `ended`. Without a reason it
    calls `start` again, unless the engine `replaces_lost` machines or there is no `target`.
    """

    target: int = 0
    running: int = 0
    lost: int = 0
    slots: int = 0
    """Jobs at a time, on the machines that run."""
    draining: bool = False
    ended: str | None = None
    """Why the machines ended on purpose: "stopped", "drained", "out of time"; None while they should run."""
    replaces_lost: bool = False
    """The engine itself replaces lost machines."""
    tasks: int | None = None
    """Workers' containers that run; None: unknown."""
    diagnosis: Diagnosis | None = None
    """Why machines are missing, where the fleet gives a reason."""
    cost: Cost | None = None
    """None: unknown, or the machines cost nothing."""
    details: tuple[tuple[str, str], ...] = ()
    """Names and lines for `ds status`: what else is known of the machines, and of those that are to come."""
    hours: float | None = None
    """Hours that all machines of the run have run, added up; None: unknown."""
    needs: tuple[tuple[Needs, int], ...] = ()
    """What waiting jobs need, and how many of them; empty: none says it, or the queue does not know."""
    queue_lost: str = ""
    """Why the queue is gone; empty: it is there, or somebody removed it."""
    rented: tuple[RentedMachine, ...] = ()
    """Every machine of the run, ended ones included, if the engine rents them."""

    @property
    def unfulfillable(self) -> bool:
        """Whether no machine will ever come."""
        return bool(self.diagnosis and self.diagnosis.final) and not self.running


class Engine(Protocol):
    """Where jobs wait, run and leave their results. Every verb may be repeated after a failure."""

    name: str
    poll_interval: float
    """Default time between two looks of the monitor, in seconds."""
    final_poll_interval: float
    """Time between the looks that must agree at the end, in seconds; the queue's counts may lag less."""
    tasks_per_machine: int
    """Number of workers' containers on a machine."""

    @property
    def job_bytes(self) -> int | None:
        """Maximum job body in bytes; None: no limit."""

    @property
    def store(self) -> Store:
        """The store of the project."""

    def capacity(self) -> Capacity:
        """Returns what a machine has for jobs, by the config. Raises DsError."""

    def current_run(self) -> str | None:
        """Returns the run that the queue belongs to; None where nothing is set up."""

    def plan(self, run: str) -> Sequence[str]:
        """Returns what `setup` would do, a line each. Changes nothing."""

    def setup(self, run: str, on_created: Callable[[str], None]) -> None:
        """Creates what a run needs and is missing. Empties an earlier run's queue.

        `on_created` is called with each resource ("queue NAME") before the next one is made. So a failure
        leaves nothing unknown, and a second call makes the rest.
        """

    def queue(self) -> Queue:
        """Returns the queue of the current run. Raises DsError where nothing is set up."""

    def start(
        self, run: str, fleet_file: Path | None, on_created: Callable[[str], None], most: int | None = None
    ) -> str:
        """Asks for machines, `most` at most, and returns the fleet's id. `on_created` as in `setup`.

        On one machine nothing changes where its workers run already; elsewhere a second start adds a fleet.
        """

    def machines(self) -> Machines:
        """Returns how the machines are."""

    def explain(self, counts: Counts) -> str | None:
        """Returns why no job runs although some wait, as far as the engine can tell from its latest look."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the app for one `ds run` at a time; entering raises DsError where another one is under way."""

    def stop(self, *, now: bool = False) -> None:
        """Stops leasing; running jobs finish, or (`now`) go back to the queue. Returns at once."""

    def end(self) -> Sequence[str]:
        """Ends the machines and whatever costs money, after the queue has drained; returns what is left.

        Dead jobs stay, so that they can be put back.
        """

    def remove(self) -> Sequence[str]:
        """Removes everything that `setup` and `start` made; returns what a last look still finds."""


DAMAGED = "the queue is damaged"
"""Why machines ended that found a value in the queue which no verb wrote (`Machines.ended`)."""


class KnownJob(NamedTuple):
    """What the ledger knows of a job: its state, and the attempts that it has used up."""

    job: Job
    state: State
    attempts: int = 0
    cause: Cause | None = None
    detail: str = ""


@runtime_checkable
class Repairing(Protocol):
    """Verbs of an engine whose queue is a file of this machine, which may be damaged."""

    def damage(self) -> str:
        """Returns what is wrong with the queue and can be seen in it; empty: nothing is."""

    def unlike(self, jobs: Iterable[KnownJob]) -> int:
        """Returns how many jobs the queue does not have as they are known."""

    def rebuild(self, run: str, jobs: Iterable[KnownJob]) -> None:
        """Ends the workers, and makes the run's queue anew with these jobs, in this order."""


@runtime_checkable
class Renting(Protocol):
    """Verbs of an engine that rents machines. The others do not have them."""

    def check_fleet(self, fleet_file: Path) -> None:
        """Raises UsageError if `start` would refuse the fleet file. Changes nothing."""

    def quote(self, fleet_file: Path | None) -> Quote:
        """Returns what `start` would ask for, and its price now. Changes nothing. Raises DsError."""

    def cancel(self, fleet: str) -> None:
        """Cancels a fleet that cannot get a machine, and removes what was made for it."""

    def shrink(self, target: int, spare: int, busy: Collection[str]) -> Sequence[str]:
        """Lowers the fleet to `target` machines, and terminates at most `spare` idle ones.

        `busy` names the workers that have a job, each as "MACHINE WORKER" in the words of the ledger. Called
        only if `Machines.replaces_lost`. Returns the ids of the terminated machines.
        """

    def grow(self, target: int) -> None:
        """Raises the newest fleet, so that the fleets have `target` machines together. Never lowers one."""

    def tried(self) -> Sequence[str]:
        """Returns what machines this engine has asked for since the last call, in words."""

    def exclude(self, hosts: Collection[str]) -> None:
        """Ends the machines on these hosts, and keeps the run off them; the fleet's target stays.

        The run record names the hosts already. It is called again after a failure, and for machines that come
        there all the same.
        """

    def guard(self) -> Sequence[str]:
        """Terminates machines that have sent no heartbeat, after the latest look. Returns a line for each.

        A machine whose heartbeat is back is left alone. After a failure the next call does what is missing.
        """
