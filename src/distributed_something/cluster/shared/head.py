"""The head: one process that holds the queue. Any pilot can be it, and a command for a moment.

Becoming it is three steps: do again what the log says, name the place up to which that was read, and make
the file of the next epoch, which one process only can. What an earlier head acknowledges behind that place
(it was suspended, not dead) never happened: those jobs run again, and none is lost.

A turn takes all requests that are there, writes their records to the log, syncs once, and replies. A head
that cannot write ends: its copy of the queue is then ahead of the log.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from ...background import complain
from ...clock import Clock
from ...engine import KnownJob
from ...errors import DsError, Unreachable
from ...job import Needs
from .mail import Mailbox, Request, Sender
from .place import Look
from .replica import Replica, Room, Terms, told

STATUS_SECONDS = 2.0
"""A head publishes its status so often."""

COPY_BYTES = 32 << 20
"""After this much of the log, or as much as the queue has if that is more, the queue is copied."""

IDLE_FIRST, IDLE_LAST = 0.002, 0.05
"""Pauses between turns in which nothing was asked grow from the first to the last, in seconds."""

TOLD_AT_ONCE = frozenset({"load", "redrive", "drop", "purge"})
"""Verbs that make jobs. The status has those before the reply, lest a watch takes the run for finished."""


class Head:
    """The head of one epoch, from the moment that the epoch is ours. One thread."""

    def __init__(self, replica: Replica, epoch: int, log: str, clock: Clock) -> None:
        place = replica.place
        self.epoch = epoch
        self._place = place
        self._replica = replica
        self._clock = clock
        self._ahead = replica.latest - clock.now()
        """By so much our clock was behind the latest record's time."""
        self._log = os.open(place.folder / log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._mailbox: Mailbox | None = None
        self._records: list[bytes] = []
        self._told = 0
        self._told_at = clock.monotonic() - STATUS_SECONDS
        self._copied_at = 0
        self._copying: threading.Thread | None = None
        self._waiting: dict[Sender, tuple[Request, float]] = {}
        """Who waits for a job, since when."""
        replica.epoch, replica.offset = epoch, 0

    def now(self) -> float:
        """The queue's time: it never goes back, whatever clock the head before had."""
        return max(self._clock.now() + max(self._ahead, 0.0), self._replica.latest)

    # requests

    def serve(self, over: Callable[[], bool]) -> str:
        """Answer until it is `over`, or another head is there; why it ended. Then close the epoch."""
        self._mailbox = Mailbox(self._place, self.epoch)
        self.answer("extend", [])
        self.commit()
        pause = IDLE_FIRST
        while not over():
            if why := self._displaced():
                return why
            if self.turn():
                pause = IDLE_FIRST
            else:
                self._clock.wait(pause)
                pause = min(pause * 1.5, IDLE_LAST)
        self.close()
        return "over"

    def _displaced(self) -> str:
        """Why we are no head any more. Looked for before each status, and after each long pause."""
        if self._clock.monotonic() - self._told_at < STATUS_SECONDS:
            return ""
        look = self._place.look()
        if look.epoch != self.epoch:
            return "another head" if look.there else "the run was removed"
        self._tell()
        self._consider_copy()
        return ""

    def turn(self) -> int:
        """Answer what is asked now; how many requests that were."""
        assert self._mailbox is not None
        monotonic = self._clock.monotonic()
        for request in self._mailbox.requests(monotonic):
            self._waiting[request.sender] = request, monotonic
        replies: list[tuple[Request, list[Any]]] = []
        empty: set[str] = set()
        for request, since in self._waiting.values():
            machine = self._machine_of(request)
            if not (request.verb == "lease" and request.sender.waits and machine in empty):
                reply = self._reply(request, monotonic - since)
            elif monotonic - since >= request.arguments[3]:
                reply = [[]]
            else:
                reply = None
            if request.verb == "lease" and reply in (None, [[]]):
                empty.add(machine)
            request.sender.waits = reply is None
            if reply is not None:
                replies.append((request, reply))
        self.commit()
        if any(request.verb in TOLD_AT_ONCE for request, _ in replies):
            self._tell()
        for request, reply in replies:
            del self._waiting[request.sender]
            request.sender.send(request.number, self.now(), *reply)
        return len(replies)

    def _machine_of(self, request: Request) -> str:
        """Where one worker finds no job, others find none either; where jobs are packed, on its machine."""
        room = request.arguments[4] if request.verb == "lease" else None
        return str(room[0]) if room and self._replica.queue.chooses else ""

    def _reply(self, request: Request, waited: float) -> list[Any] | None:
        """The reply; None for who waits for a job while there is none."""
        try:
            result = self.answer(request.verb, request.arguments)
        except Unreachable:  # a file is not to be seen yet: the next turn tries again
            return None
        except (ValueError, TypeError, KeyError, IndexError) as error:
            return [None, f"the queue does not understand {request.verb!r}: {error}"]
        if request.verb == "lease" and not result:
            _, _, limit, wait, *_ = request.arguments
            return [[]] if limit <= 0 or waited >= wait else None
        return [result]

    def answer(self, verb: str, arguments: list[Any]) -> Any:
        """One verb. What it changes is kept when `commit` returns."""
        queue, now = self._replica.queue, self.now()
        queue.at(now)
        match verb, arguments:
            case "lease", [owner, token, limit, _, room, again]:
                leases = queue.held(owner, token) if again else []
                if not leases and (leases := queue.claim(owner, token, limit, room and Room.of(room))):
                    chosen = [leases[0].job.index] if room and queue.chooses else []
                    self._note(now, verb, owner, token, len(leases), *chosen)
                return [told(each) for each in leases]
            case "counts", []:
                return [*queue.counts()]
            case "finished", []:
                return queue.finished()
            case "next_visible", []:
                return queue.next_visible()
            case "owners", []:
                return queue.owners()
            case "dead", [index]:
                dead = queue.dead_page(index)
                return [[*said_job(each.job), each.attempt, each.cause, each.detail] for each in dead]
            case "load", [name] if (known := self._replica.loaded(name)) is not None:
                return known
            case "redrive" | "release_owner", [asker, request, _] if (
                reply := self._replica.kept(asker, request)
            ) is not None:
                return reply
        result = self._replica.do(verb, arguments)
        self._note(now, verb, *arguments)
        return result

    def _note(self, now: float, verb: str, *arguments: Any) -> None:
        self._records.append(self._replica.record(now, verb, *arguments))

    def commit(self) -> None:
        """Write what was done to the log, and to disk."""
        if not self._records:
            return
        data = b"".join(self._records)
        self._records.clear()
        left = data
        while left:
            left = left[os.write(self._log, left) :]
        os.fsync(self._log)
        self._replica.offset += len(data)
        self._replica.latest = self.now()

    def load_new(self) -> None:
        """Take in what was submitted by a command that was killed before it could say so."""
        for name in self._place.puts():
            if self._replica.loaded(name) is None:
                self.answer("load", [name])
        self.commit()

    # what others see

    def _tell(self) -> None:
        """Publish the status: a sign of life, and what commands show."""
        queue = self._replica.queue
        queue.at(self.now())
        self._told += 1
        self._told_at = self._clock.monotonic()
        status = {
            "at": self.now(),
            "counts": [*queue.counts()],
            "next": queue.next_visible(),
            "owners": queue.owners(),
            "needs": queue.needs(Needs()),
        }
        self._place.tell(self.epoch, self._told, status)
        if self._told == 1:
            self._place.tidy(self.epoch)

    def _consider_copy(self) -> None:
        """Start to copy the queue, where the log that a replay needs has become long."""
        grown = self._replica.offset - self._copied_at
        if self._copying is not None and self._copying.is_alive():
            return
        if grown >= max(COPY_BYTES, self._replica.queue.path.stat().st_size):
            self._copied_at = self._replica.offset
            self.copy()

    def copy(self) -> threading.Thread:
        """Copy the queue as it is now, in a thread of its own."""
        copier = self._replica.copier()

        def copy() -> None:
            try:
                copier.copy()
            except OSError as error:  # a replay is longer, nothing else
                complain(f"the queue could not be copied: {error}")

        self._copying = threading.Thread(target=copy, name="copy", daemon=True)
        self._copying.start()
        return self._copying

    def close(self) -> None:
        """End: tell how the queue is, and that there is no head any more. The replica may go on."""
        self.commit()
        self._tell()
        if self._copying is not None:
            self._copying.join()
        self._place.close(self.epoch, self._replica.offset)
        os.close(self._log)


def said_job(job: Any) -> list[Any]:
    """A job as it goes over the wire."""
    return [job.id, job.index, job.body.decode()]


def stand(replica: Replica, look: Look, terms: Terms, clock: Clock) -> Head | None:
    """Become the head that follows what `look` saw; None where another process was quicker."""
    replica.catch_up(look)
    return _succeed(replica, look.epoch + 1, terms, clock)


def rebuild(replica: Replica, jobs: Iterable[KnownJob], terms: Terms, clock: Clock) -> None:
    """Put a queue of these jobs in the place of a damaged one, by an empty replica.

    It is the copy at the start of a new epoch, so that no earlier log is read again. If this is cut off
    before there is a copy, the queue is as damaged as it was.
    """
    place, epoch = replica.place, replica.place.look().epoch
    replica.queue.restore(jobs)
    for name in place.puts():
        replica.load_again(name)
    replica.offset = max((log.stat().st_size for log in place.folder.glob(f"log-{epoch:08d}-*")), default=0)
    head = _succeed(replica, epoch + 1, terms, clock)
    if head is None:
        raise DsError("another command changed the queue at the same time", "ds repair")
    replica.copier().copy()
    place.withdraw_orders()
    head.close()


def _succeed(replica: Replica, epoch: int, terms: Terms, clock: Clock) -> Head | None:
    place = replica.place
    log = place.new_log(epoch)
    facts = {
        "offset": replica.offset,
        "log": log,
        "terms": terms.facts(),
        "at": clock.now(),
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "job": os.environ.get("SLURM_JOB_ID", ""),
    }
    if not place.claim(epoch, facts):
        place.files.remove(place.folder / log)
        return None
    replica.queue.obey(terms)
    return Head(replica, epoch, log, clock)
