"""The queue as the log of the shared folder tells it: a copy in a file on this computer's own disk.

Every change is a record `[time, verb, arguments]`, and doing the records again, each at its time, leads to
the same queue: what a verb does follows from the queue and the time alone. A token comes with its request.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import Unreachable
from ...job import Cause, Earlier, Job, Lease, Needs, NeedyJob, RetryPolicy
from ...local.queue import SqliteQueue, needs_of
from ...local.queue_file import BODY, damaged
from ...packing import Capacity
from ..own_folder import OwnFolder
from .place import Copy, Look, Place, from_json, to_json, unseen

_LEASED = "UPDATE jobs SET visible_at = ? WHERE state = 0 AND visible_at > 0 AND token IS NOT NULL"
_HELD = f"""SELECT seq, id, failed, deliveries, {BODY}, visible_at, cause FROM jobs INDEXED BY jobs_open
    WHERE state = 0 AND visible_at > 0 AND owner = ? AND token = ? ORDER BY seq"""  # noqa: S608


CHUNK_BYTES = 16 << 20
"""Bytes of a log that are read at a time: more than a record has."""


class Terms(NamedTuple):
    """What a head goes by: attempts of a job, the back-off between two, and a lease's term in seconds."""

    policy: RetryPolicy
    lease_seconds: float

    def facts(self) -> list[float]:
        """As it is written down with an epoch."""
        attempts, backoff, limit, _ = self.policy  # what is permanent is decided by workers
        return [attempts, backoff, limit, self.lease_seconds]

    @classmethod
    def of(cls, facts: Sequence[float]) -> Terms:
        """What was written down."""
        attempts, backoff, limit, lease_seconds = facts
        return cls(RetryPolicy(int(attempts), backoff, limit), lease_seconds)


class _Moment:
    """A clock that stands where it is set: a whole verb happens at one time."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def wait(self, _seconds: float, _until: threading.Event | None = None) -> bool:
        return False


class Room(NamedTuple):
    """A pilot: what the names of its workers begin with, and what it has for jobs."""

    machine: str
    capacity: Capacity

    def facts(self) -> list[Any]:
        """As it goes over the wire."""
        return [self.machine, self.capacity.whole, self.capacity.default, self.capacity.shares_gpus]

    @classmethod
    def of(cls, facts: Sequence[Any]) -> Room:
        """What went over the wire."""
        machine, whole, default, shares = facts
        return cls(str(machine), Capacity(Needs(*whole), Needs(*default), shares_gpus=bool(shares)))


class LoggedQueue(SqliteQueue):
    """The queue's verbs at a given time, with tokens that are given. One thread.

    Once a job says what it needs, a lease is of one job that fits into the pilot's room. The log has its
    number, so that a replay chooses nothing.
    """

    def __init__(self, path: Path, terms: Terms) -> None:
        self._moment = _Moment()
        super().__init__(path, clock=self._moment, volatile=True)
        self._room: Room | None = None
        self._given: int | None = None
        self.chooses = False
        """Whether a job has been seen that says what it needs."""
        self.obey(terms)

    def obey(self, terms: Terms) -> None:
        """Go by these terms from now on."""
        self._policy, self._term = terms.policy, terms.lease_seconds

    def at(self, now: float) -> None:
        """Set the time."""
        self._moment.at = now

    def claim(
        self, owner: str, token: str, limit: int, room: Room | None = None, given: int | None = None
    ) -> list[Lease]:
        """Lease jobs under a token: those that fit into `room`, or the `given` one (its index)."""
        self.owner, self._room, self._given = owner, room, given
        return self._claim(limit, int(token, 16)) if limit > 0 else []

    def _choose(self, db: sqlite3.Connection, now: float, limit: int) -> list[Any]:
        if self._given is not None:
            return self._one(db, now, self._given + 1)
        rows = [] if self._room and self.chooses else self._first(db, now, limit)
        self.chooses |= any(map(needs_of, rows))
        if self._room is None or not self.chooses:
            return rows
        return self._fitting(db, now, self._room.capacity, self._room.machine)

    def held(self, owner: str, token: str) -> list[Lease]:
        """What is leased under a token: the reply to that request was lost."""
        rows = self._read(_HELD, (owner, int(token, 16)))
        return [
            Lease(
                Job(f"{number & (1 << 64) - 1:016x}", seq - 1, body),
                token,
                until,
                failed + 1,
                deliveries,
                Earlier.from_text(earlier or ""),
            )
            for seq, number, failed, deliveries, body, until, earlier in rows
        ]

    def extend(self) -> None:
        """Give every lease a full term: while there was no head its worker could not renew it."""
        with self._writing() as db:
            db.execute(_LEASED, (self._moment.at + self._term,))


class Replica:
    """A copy of the queue, brought up to date by the log. One thread.

    Raises QueueDamaged where the log cannot have led to what it says.
    """

    def __init__(self, place: Place, terms: Terms, scratch: Path | None = None) -> None:
        self.place = place
        self.epoch = 0
        self.offset = 0
        """So far (bytes of this epoch's log) the replica goes."""
        self.latest = 0.0
        """The time of the latest record."""
        self._terms = terms
        self._folder = OwnFolder("ds-queue-", scratch)
        self._file = self._folder.path / "queue.db"
        self.queue = LoggedQueue(self._file, terms)

    def close(self) -> None:
        """Remove the copy; the end of the process does, too."""
        self.queue.close()
        self._folder.remove()

    def catch_up(self, look: Look) -> None:
        """Do what the log says that was not done here yet."""
        self._begin(look)
        for epoch in range(max(self.epoch, 1), look.epoch + 1):
            if epoch != self.epoch:
                self.epoch, self.offset = epoch, 0
            self.queue.obey(Terms.of(self.place.facts(epoch)["terms"]))
            self._replay(self._end(epoch, look))

    def _begin(self, look: Look) -> None:
        """Start from a copy, where that is further; or anew, where what was done here never happened."""
        useful = [copy for copy in look.copies if self._counts(copy.epoch, copy.offset, look)]
        best = max(useful, default=Copy(0, 0, ""))
        void = self.epoch and not self._counts(self.epoch, self.offset, look)
        if (best.epoch, best.offset) > (self.epoch, self.offset) or void:
            self.queue.close()
            for leftover in self._folder.path.glob(f"{self._file.name}*"):
                leftover.unlink()
            if best.name:
                shutil.copyfile(self.place.folder / best.name, self._file)
            self.epoch, self.offset = best.epoch, best.offset
            self.queue = LoggedQueue(self._file, self._terms)

    def _counts(self, epoch: int, offset: int, look: Look) -> bool:
        """Whether the log of this epoch counts up to this offset."""
        end = self._end(epoch, look)
        return epoch <= look.epoch and (end is None or offset <= end)

    def _end(self, epoch: int, look: Look) -> int | None:
        """Up to where the log of an epoch counts; None: as far as it can be read, as its head may live."""
        if epoch < look.epoch:
            return int(self.place.facts(epoch + 1)["offset"])
        return self.place.closed_at(epoch) if look.closed else None

    def _replay(self, end: int | None) -> None:
        log = self.place.log(self.epoch)
        while most := CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - self.offset):
            try:
                text = self.place.files.read(log, self.offset, most)
            except FileNotFoundError as error:  # its epoch names it: no log to be seen is no empty log
                raise unseen(log) from error
            whole, newline, _ = text.rpartition(b"\n")
            if not newline:  # what a killed head wrote of a line is none
                if len(text) == most:  # what counts of a log are whole lines, each shorter than this
                    raise damaged(log, f"no line ends after byte {self.offset}")
                break
            for line in whole.split(b"\n"):
                self._line(line)
                self.offset += len(line) + 1
        if end is not None and self.offset < end:
            raise unseen(log)

    def _line(self, line: bytes) -> None:
        try:
            at, verb, *arguments = from_json(line)
            self._redo(at, verb, arguments)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise damaged(self.place.log(self.epoch), f"at byte {self.offset}: {error}") from error

    def _redo(self, at: float, verb: str, arguments: list[Any]) -> None:
        self.queue.at(at)
        self.latest = max(at, self.latest)
        if verb == "lease":
            owner, token, granted, *given = arguments
            if len(self.queue.claim(owner, token, granted, given=given[0] if given else None)) != granted:
                raise ValueError(f"{granted} jobs were leased, and fewer are there")
        else:
            self.do(verb, arguments)

    # what heads and replays do alike

    def do(self, verb: str, arguments: list[Any]) -> Any:
        """One verb that changes the queue, as it is said on the wire and in the log."""
        queue = self.queue
        match verb, arguments:
            case "load", [name]:
                return self._load(name)
            case "done", [leases]:
                return queue.done([*map(lease_of, leases)])
            case "release", [leases, delay]:
                return queue.release([*map(lease_of, leases)], delay)
            case "renew", [leases]:
                renewed, lost = queue.renew([*map(lease_of, leases)])
                return [[[*said(each), each.deadline] for each in renewed], [said(each) for each in lost]]
            case "fail", [lease, cause, detail, final]:
                dead = queue.fail(lease_of(lease), Cause(cause), detail, final=final)
                return None if dead is None else dead.attempt
            case "redrive", [*asked, ids]:
                return self._keep(asked, queue.redrive(ids))
            case "drop", [ids]:
                return queue.drop(ids)
            case "release_owner", [*asked, owner]:
                return self._keep(asked, [told(each) for each in queue.release_owner(owner)])
            case "extend", []:
                return queue.extend()
            case "purge", []:
                return queue.purge()
        raise ValueError(f"no verb {verb!r} with {len(arguments)} arguments")

    def kept(self, asker: str, request: str) -> Any:
        """The reply to a request that is asked again; None: it is new."""
        found = self.queue.get_meta(f"asked by {asker}")
        known, reply = from_json(found.encode()) if found else ("", None)
        return reply if known == request else None

    def _keep(self, asked: Sequence[str], reply: Any) -> Any:
        """Keep the latest reply to each asker: done again, the request would find nothing to do."""
        if asked:  # not in the log of an earlier version
            asker, request = asked
            self.queue.set_meta(f"asked by {asker}", to_json([request, reply]).decode())
        return reply

    def loaded(self, name: str) -> list[int] | None:
        """How many jobs of a submission were new and known; None where it was not taken in yet."""
        found = self.queue.get_meta(f"put {name}")
        return None if found is None else [int(each) for each in found.split()]

    def _load(self, name: str) -> list[int]:
        if (known := self.loaded(name)) is not None:
            return known
        report = self.queue.put(map(_job_of, self.place.submitted(name)))
        self.queue.set_meta(f"put {name}", f"{report.sent} {report.known}")
        return [report.sent, report.known]

    def load_again(self, name: str) -> None:
        """Take in what a rebuilt queue lacks of a submission; nothing where that is damaged itself."""
        try:
            self._load(name)
        except (ValueError, Unreachable):
            self.queue.set_meta(f"put {name}", "0 0")

    def record(self, at: float, verb: str, *arguments: Any) -> bytes:
        """A line of the log."""
        return to_json([at, verb, *arguments]) + b"\n"

    def copier(self) -> Copier:
        """What can copy the queue as it is now, while it goes on."""
        return Copier(self.queue.path, self.place, self.epoch, self.offset)


class Copier:
    """Copies the queue, as it was when this was made, to the shared folder. Any one thread."""

    def __init__(self, path: Path, place: Place, epoch: int, offset: int) -> None:
        self._place = place
        self._target = place.copy(epoch, offset)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("BEGIN")
        self._db.execute("SELECT count(*) FROM meta").fetchone()  # from now on it reads this state

    def copy(self) -> None:
        """Write the copy, and remove all but the one before it."""
        earlier = self._place.look().copies
        with tempfile.TemporaryDirectory(prefix="ds-copy-") as own, closing(self._db):
            local = Path(own, "queue.db")
            with closing(sqlite3.connect(local)) as target:
                self._db.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")
            self._place.files.publish(self._target, local.read_bytes())
        for copy in sorted(earlier)[:-1]:
            self._place.files.remove(self._place.folder / copy.name)


def put_down(job: Job) -> list[Any]:
    """A job as it is kept when it is submitted."""
    return [job.id, job.body.decode(), *([job.needs] if isinstance(job, NeedyJob) else [])]


def _job_of(found: Sequence[Any]) -> Job:
    job_id, body, *needs = found
    job = Job(job_id, 0, body.encode())
    return NeedyJob(job, Needs(*needs[0])) if needs else job


def said(lease: Lease) -> list[Any]:
    """A lease as it goes over the wire and into the log."""
    return [lease.job.index, lease.token, lease.attempt, lease.earlier.to_text()]


def lease_of(found: Sequence[Any]) -> Lease:
    """As much of a lease as the queue needs of it."""
    index, token, attempt, earlier = found[:4]
    return Lease(Job("", index, b""), token, 0.0, attempt, earlier=Earlier.from_text(earlier))


def told(lease: Lease) -> list[Any]:
    """A lease with its job."""
    job, token, deadline, attempt, deliveries, earlier = lease
    return [job.id, job.index, job.body.decode(), token, deadline, attempt, deliveries, earlier.to_text()]


def heard(found: Sequence[Any]) -> Lease:
    """A lease with its job, as `told` gave it."""
    job_id, index, body, token, deadline, attempt, deliveries, earlier = found
    job = Job(job_id, index, body.encode())
    return Lease(job, token, deadline, attempt, deliveries, Earlier.from_text(earlier))
