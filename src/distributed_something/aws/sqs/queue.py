"""Implements engine.Queue on SQS. Used by the engine, and by the workers (`worker_queue.py`).

It has three SQS queues: the jobs; the dead, with their cause; and the *carried*, for jobs that run longer
than the twelve hours for which SQS hides a message.

What SQS cannot do, and what is done instead:

- SQS knows no job ids. This object remembers them, and `known` returns those of earlier submissions; so only
  one process should submit to a run at a time.
- A delete does not say whether the message was still ours, and expired handles may work. A lease is stale
  here when it was settled through this object, or when its deadline has passed on this machine and SQS
  refuses to hide the message longer. Two workers may hold one job if a machine slept or an answer took longer
  than the term: both may run it, and the first to finish ends it.
- A failed job is sent again with the next attempt's number, then deleted. A crash between the two leaves
  both: the job runs once more than it should, and no job is lost.
- SQS counts receipts, and never forgets. A job that is given back has not killed its worker: if it was
  received often, it is sent again too, with the same attempt.
- Order is roughly that of submission, and counts may lag a minute.

Carrying over: when a message comes near twelve hours since it was received, its holder sends a copy to the
carried queue, receives that copy there, deletes the old message and renews the copy from then on. In this
nearly empty queue the copy can be found; among a million jobs it could not. Every worker looks there once a
minute. A copy younger than CARRY_GRACE is left to its sender; one that can be received later has lost its
holder, and is leased as any job.
"""

from __future__ import annotations

import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from ...clock import Clock, SystemClock
from ...engine import Counts, PutReport
from ...errors import DsError
from ...job import MAX_DELIVERIES, Cause, DeadJob, Job, Lease, RetryPolicy
from ...s3.session import READ_SECONDS, AwsSession
from ..message import Message, NotAJob, parse, poison, whole_seconds
from .batching import Batcher, Submitted
from .channel import BATCH, LONG_POLL, PURGE_SECONDS, Channel
from .queues import QueueUrls
from .send import Sender

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

HIDDEN_LIMIT = 43_200.0  # SQS's longest time in seconds to hide a message, from its receipt

TERM_LIMIT = 4 * 3600.0
DELAY_LIMIT = 900.0

CARRY_EARLY = 900.0  # seconds before HIDDEN_LIMIT at which a job is carried over: time for many tries

CARRY_GRACE = 60.0
CARRY_TRIES = 5
CARRIED_LOOK = 60.0

MANY_RECEIPTS = MAX_DELIVERIES // 2
"""Receipts from which a job that is given back is sent as a new message, which counts from one."""

GATHER_SECONDS = 120.0
GATHER_RATE = 20
"""Dead jobs are hidden while they are read: for GATHER_SECONDS, and a second more for every GATHER_RATE."""


@dataclass
class _Held:
    """The message of a lease. Renewing and carrying over change it; the lease's token stays.

    `received` and `deadline` are by the monotonic clock.
    """

    message: Message
    channel: Channel
    handle: str
    received: float
    deadline: float
    receipts: int
    carrying: str = ""
    moving: bool = False

    @property
    def worn(self) -> bool:
        """Whether it was received so often that a new message should take its place."""
        return self.receipts >= MANY_RECEIPTS


class SqsQueue:
    """Implements engine.Queue on SQS. Threads may share one object; `close` it when done.

    `term` is the duration of a lease in seconds (at most four hours); `run` travels with each job; `known`
    returns the ids of earlier submissions to the run, and is called once, at the first `put`. `read_seconds`
    is the read timeout of SQS, longer than the longest `wait` for a job.
    Every verb raises DsError if AWS cannot be reached or refuses; leases stay as they were, and the verb can
    be called again.
    """

    def __init__(
        self,
        session: AwsSession,
        urls: QueueUrls,
        *,
        run: str = "",
        policy: RetryPolicy | None = None,
        term: float = 120.0,
        clock: Clock | None = None,
        known: Callable[[], Iterable[str]] = tuple,
        connections: int = 64,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self.urls = urls
        self.run = run
        self._session = session
        self._policy = policy or RetryPolicy()
        self._term = min(term, TERM_LIMIT)
        self._clock = clock or SystemClock()
        self._connections = connections
        client = session.client("sqs", connections, read_seconds=read_seconds)
        self._jobs = Channel(client, urls.jobs, self._clock)
        self._dead = Channel(client, urls.dead, self._clock)
        self._carried = Channel(client, urls.carried, self._clock) if urls.carried else None
        self._next_look = 0.0
        self._held: dict[str, _Held] = {}
        self._lock = threading.Condition()  # notified when a carrying over has ended
        self._submitted = Submitted(known)
        self._sender: Sender | None = None
        self._put_lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections. Leases stay as they are."""
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    # Submitting

    def put(self, jobs: Iterable[Job]) -> PutReport:
        """Send jobs, numbered in the order they come; those that the run knows are left out.

        Each is in SQS once it is counted as sent. One that SQS would refuse or change is in `failed`.
        """
        with self._put_lock:
            return self._put(jobs)

    def _put(self, jobs: Iterable[Job]) -> PutReport:
        if self._sender is None:
            self._sender = Sender(self._session, self.urls.jobs, self._clock, self._connections)
        batcher = Batcher(self._submitted, self.run)
        sent, failed = 0, batcher.failed
        for batch, refused in self._sender.send(batcher.batches(jobs)):
            sent += len(batch) - len(refused)
            failed += refused
            no = {job_id for job_id, _ in refused}
            self._submitted.confirm(message.job_id for message in batch if message.job_id not in no)
        return PutReport(sent=sent, known=batcher.known, failed=tuple(failed))

    # Leasing

    def lease(self, limit: int, wait: float = 0.0) -> list[Lease]:
        """Claim at most `limit` jobs, waiting up to `wait` seconds (whole ones) for the first one."""
        leases = list[Lease]()
        try:
            self._lease_into(leases, limit, wait)
        except DsError:
            if not leases:  # what was claimed before the error is the caller's
                raise
        return leases

    def _lease_into(self, leases: list[Lease], limit: int, wait: float) -> None:
        if limit > 0:
            self._lease_abandoned(leases, limit)
        while len(leases) < limit:
            poll = 0 if leases else min(whole_seconds(max(wait, 0.0)), LONG_POLL)
            received = self._jobs.receive(min(limit - len(leases), BATCH), poll, self._term)
            self._claim(leases, self._jobs, received)
            wait -= poll
            if not received and (leases or wait <= 0):
                break

    def _lease_abandoned(self, leases: list[Lease], limit: int) -> None:
        """Claims jobs that were carried over by a worker that is gone; looked for once a minute."""
        now = self._clock.monotonic()
        if self._carried is None or now < self._next_look:
            return
        self._next_look = now + CARRIED_LOOK
        received = self._carried.receive(min(limit, BATCH), 0, self._term)
        sent_before = self._clock.now() - CARRY_GRACE
        young = [each for each in received if _sent_at(each) > sent_before]
        self._claim(leases, self._carried, [each for each in received if each not in young])
        self._carried.hide([each["ReceiptHandle"] for each in young], 0)

    def _claim(self, leases: list[Lease], channel: Channel, received: Sequence[MessageTypeDef]) -> None:
        broken: list[tuple[MessageTypeDef, NotAJob]] = []
        for each in received:
            try:
                leases.append(self._hold(channel, each, parse(each)))
            except NotAJob as why:
                broken.append((each, why))
        for no_job in broken:
            self._bury(channel, *no_job)

    def _hold(self, channel: Channel, received: MessageTypeDef, message: Message) -> Lease:
        token, now, receipts = received["ReceiptHandle"], self._clock.monotonic(), _receipts(received)
        with self._lock:
            self._held[token] = _Held(message, channel, token, now, now + self._term, receipts)
        deadline = self._clock.now() + self._term
        return Lease(message.job, token, deadline, message.attempt, receipts, message.earlier)

    def _bury(self, channel: Channel, received: MessageTypeDef, why: NotAJob) -> None:
        """Makes a message that is no job a dead one."""
        self._dead.send([poison(received, why)])
        channel.delete([received["ReceiptHandle"]])

    def renew(self, leases: Sequence[Lease]) -> tuple[list[Lease], list[Lease]]:
        """Move deadlines to a full term from now: (renewed, no longer ours).

        Jobs near SQS's limit of twelve hours are carried over; the lease's token stays what it was.
        """
        now, deadline = self._clock.monotonic(), self._clock.now() + self._term
        with self._lock:
            held = self._held_for(leases)
        ours = self._hide(held)
        with self._lock:
            for token in held.keys() - ours.keys():
                self._held.pop(token, None)
        renewed = [lease._replace(deadline=deadline) for lease in leases if lease.token in ours]
        for token in ours:
            # One term for the lease that was just renewed, one for the time until the next renewal.
            if now + 2 * self._term + CARRY_EARLY > ours[token].received + HIDDEN_LIMIT:
                self._carry(token)
        return renewed, [lease for lease in leases if lease.token not in ours]

    def _hide(self, held: Mapping[str, _Held]) -> dict[str, _Held]:
        """Hides messages for a full term from now. Returns those that SQS says are still ours."""
        deadline = self._clock.monotonic() + self._term
        lost: set[str] = set()
        for channel, group in _by_channel(held.values()):
            lost |= channel.hide([each.handle for each in group], self._term)
        ours = {token: each for token, each in held.items() if each.handle not in lost}
        for each in ours.values():
            each.deadline = deadline
        return ours

    def _carry(self, token: str) -> None:
        """Moves a job to the carried queue, unless its lease was settled meanwhile."""
        with self._lock:
            held = self._held.get(token)
            if held is None:
                return
            held.moving = True
        try:
            self._move(held)
        finally:
            with self._lock:
                held.moving = False
                self._lock.notify_all()

    def _move(self, held: _Held) -> None:
        """Replaces a message by a copy of it. If the copy is not found, the next renewal looks again."""
        if self._carried is None:
            return
        if not held.carrying:
            mark = secrets.token_hex(8)
            self._carried.send([replace(held.message, carried=mark)])
            held.carrying = mark
        copy = self._find_carried(held.carrying)
        if copy is None:
            return
        before = held.channel, held.handle
        held.channel, held.handle, held.carrying = self._carried, copy["ReceiptHandle"], ""
        held.received, held.receipts = self._clock.monotonic(), _receipts(copy)
        before[0].delete([before[1]])

    def _find_carried(self, mark: str) -> MessageTypeDef | None:
        """Receives the copy with this mark; other copies are made visible again."""
        assert self._carried is not None
        for _ in range(CARRY_TRIES):
            received = self._carried.receive(BATCH, 1, self._term)
            mine = [each for each in received if parse(each, dead=True).carried == mark]
            self._carried.hide([each["ReceiptHandle"] for each in received if each not in mine], 0)
            if mine:
                return mine[0]
        return None

    # Settling

    def done(self, leases: Sequence[Lease]) -> None:
        """Take finished jobs out."""
        with self._settling(leases) as ours:
            for channel, held in _by_channel(ours.values()):
                channel.delete([each.handle for each in held])

    def release(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Give jobs back after `delay` seconds; until then they count as leased, or as delayed."""
        with self._settling(leases) as ours:
            worn = [held for held in ours.values() if held.worn and delay <= DELAY_LIMIT]
            self._jobs.send((replace(held.message, carried="") for held in worn), delay)
            for channel, held in _by_channel(worn):
                channel.delete([each.handle for each in held])
            rest = (held for held in ours.values() if not held.worn or delay > DELAY_LIMIT)
            for channel, held in _by_channel(rest):
                channel.hide([each.handle for each in held], min(delay, TERM_LIMIT))

    def fail(self, lease: Lease, cause: Cause, detail: str = "", *, final: bool = False) -> DeadJob | None:
        """Count a failed attempt: sent anew, with a delay of at most 15 minutes, or to the dead."""
        retry = self._policy.after(lease.attempt)
        dead = final or retry.dead
        with self._settling([lease]) as ours:
            for held in ours.values():
                message = replace(held.message, attempt=lease.attempt, carried="")
                if dead:
                    self._dead.send([replace(message, cause=cause, detail=detail)])
                else:
                    again = replace(message, attempt=lease.attempt + 1, earlier=message.earlier.after(cause))
                    self._jobs.send([again], min(retry.delay, DELAY_LIMIT))
                held.channel.delete([held.handle])
        return DeadJob(lease.job, lease.attempt, cause, detail) if dead and ours else None

    @contextmanager
    def _settling(self, leases: Sequence[Lease]) -> Iterator[dict[str, _Held]]:
        """Takes the messages of these leases for one verb; after an error they are held as before."""
        with self._lock:
            self._lock.wait_for(lambda: not any(held.moving for held in self._held_for(leases).values()))
            held = self._held_for(leases)
            for token in held:
                del self._held[token]
        try:
            yield self._still_ours(held)
        except BaseException:  # held again, and the error raised
            with self._lock:
                self._held |= held
            raise

    def _held_for(self, leases: Sequence[Lease]) -> dict[str, _Held]:
        """What we hold for these leases, by token. The lock is held."""
        return {lease.token: self._held[lease.token] for lease in leases if lease.token in self._held}

    def _still_ours(self, held: Mapping[str, _Held]) -> dict[str, _Held]:
        """Without the stale: SQS is asked about those whose time is over by our clock."""
        now = self._clock.monotonic()
        late = {token: each for token, each in held.items() if each.deadline <= now}
        ours = self._hide(late)
        return {token: each for token, each in held.items() if token not in late or token in ours}

    # Looking, and starting over

    def counts(self) -> Counts:
        """How many jobs are in which state, as SQS has it: up to a minute or more behind."""
        waiting, leased, delayed = self._jobs.depths()
        if self._carried is not None:
            carried = self._carried.depths()
            waiting, leased = waiting + carried[0] + carried[2], leased + carried[1]
        return Counts(waiting=waiting, leased=leased, delayed=delayed, dead=sum(self._dead.depths()))

    def dead(self) -> Iterator[DeadJob]:
        """The dead jobs, in the order of submission. Who reads them at the same time sees a part of them.

        They are received and shown again: if this process is killed meanwhile, they come back in minutes.
        """
        found = self._gather()
        self._dead.hide([each["ReceiptHandle"] for each in found], 0)
        jobs = {message.job.id: message.dead_job() for _, message in _parsed(found)}
        return iter(sorted(jobs.values(), key=lambda dead: dead.job.index))

    def redrive(self, ids: Iterable[str] | None = None) -> list[str]:
        """Put dead jobs (these ids, or all) back as new. Returns the ids that were dead.

        After a failure part-way a job may be both back and dead for a while; calling again is safe.
        """
        found = _parsed(self._gather())
        jobs = {message.job.id: message for _, message in found}
        in_order = sorted(jobs, key=lambda each: jobs[each].job.index)
        back = in_order if ids is None else [each for each in dict.fromkeys(ids) if each in jobs]
        wanted = set(back)
        self._jobs.send(Message(jobs[each].job, run=jobs[each].run) for each in back)
        self._dead.delete(each["ReceiptHandle"] for each, message in found if message.job.id in wanted)
        self._dead.hide([each["ReceiptHandle"] for each, message in found if message.job.id not in wanted], 0)
        return back

    def drop(self, ids: Iterable[str]) -> list[str]:
        """Take dead jobs out for good. Returns the ids that were dead; SQS finds no waiting job by its id."""
        found, wanted = _parsed(self._gather()), set(ids)
        self._dead.delete(each["ReceiptHandle"] for each, message in found if message.job.id in wanted)
        self._dead.hide([each["ReceiptHandle"] for each, message in found if message.job.id not in wanted], 0)
        return [*dict.fromkeys(message.job.id for _, message in found if message.job.id in wanted)]

    def _gather(self) -> list[MessageTypeDef]:
        """Receive every dead job; each stays hidden until it is shown again, or for a few minutes."""
        hidden = min(GATHER_SECONDS + sum(self._dead.depths()) / GATHER_RATE, HIDDEN_LIMIT)
        found: list[MessageTypeDef] = []
        while received := self._dead.receive(BATCH, 1, hidden):
            found += received
        return found

    def purge(self) -> None:
        """Forget every job. Takes a minute: SQS may delete what is sent while it purges."""
        for channel in filter(None, (self._jobs, self._dead, self._carried)):
            channel.purge()
        self._clock.wait(PURGE_SECONDS)
        with self._lock:
            self._held.clear()
        self._submitted = Submitted(tuple)


def _by_channel(held: Iterable[_Held]) -> Iterable[tuple[Channel, list[_Held]]]:
    groups: dict[Channel, list[_Held]] = defaultdict(list)
    for each in held:
        groups[each.channel].append(each)
    return groups.items()


def _parsed(received: Iterable[MessageTypeDef]) -> list[tuple[MessageTypeDef, Message]]:
    return [(each, parse(each, dead=True)) for each in received]


def _receipts(received: MessageTypeDef) -> int:
    return int(received.get("Attributes", {}).get("ApproximateReceiveCount", "1"))


def _sent_at(received: MessageTypeDef) -> float:
    return int(received.get("Attributes", {}).get("SentTimestamp", "0")) / 1000
