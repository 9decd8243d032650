"""The queue as workers and commands see it: every verb is a request to the head, whichever that is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...clock import Clock, SystemClock
from ...engine import Counts, PutReport
from ...errors import DsError, Unreachable
from ...job import Cause, DeadJob, Job, Lease, in_batches
from ...worker.health import FULL
from .head import Head, stand
from .mail import Letters, Reply
from .place import STALE_SECONDS, Look, Place, Pulse
from .replica import Replica, Room, Terms, heard, put_down, said

BATCH = 50_000
BATCH_BYTES = 32 << 20
"""Jobs, and bytes of their bodies, in one file of submitted jobs."""

IDS = 1000
"""Ids of jobs in one request."""

LOOK_SECONDS = 1.0
"""Who waits for a reply looks this often whether there is another head."""

PATIENCE_SECONDS = 10.0
"""A worker waits for a head this long before it says so; then it asks again."""

SKEW_SECONDS = 5.0
"""A clock that is this far from the head's is corrected."""


class FolderUnusable(Unreachable):
    """The shared folder is `full`, or away."""

    full = False


@contextmanager
def usable(place: Place) -> Iterator[None]:
    """Raises FolderUnusable where an operation on the folder fails."""
    try:
        yield
    except OSError as error:
        what = f"the queue's folder {place.folder} cannot be used: {error.strerror or error}"
        fix = "make room there (`df -h`, `df -i`, your quota); what was submitted is kept"
        unusable = FolderUnusable(what, fix)
        unusable.full = error.errno in FULL
        raise unusable from error


class SharedQueue:
    """Implements engine.Queue for a worker: each request waits for the head's reply.

    A reply that is lost with its head is asked for again: leases carry the token that the request names, what
    a redrive or a release put back is kept, and every other verb leaves a job alone that it has changed.
    Threads may share one object.
    Raises Unreachable where there is no head for PATIENCE_SECONDS, and DsError where the run was removed.
    """

    def __init__(
        self,
        place: Place,
        owner: str,
        clock: Clock | None = None,
        *,
        patience: float = PATIENCE_SECONDS,
        is_ending: Callable[[], bool] = lambda: False,
        room: Room | None = None,
    ) -> None:
        """`is_ending`: the worker is about to end, and waits for no head to give it a job.

        `room`: the worker's pilot, into whose room a job has to fit; None: any job is leased.
        """
        self._room = room.facts() if room else None
        self._place = place
        self._owner = owner
        self._clock = clock or SystemClock()
        self._patience = patience
        self._is_ending = is_ending
        self._lock = threading.Lock()
        self._letters: Letters | None = None
        self._unanswered: str = ""
        """The token of a lease whose reply did not come."""
        self.shift = 0.0
        """By so much the head's clock is ahead of this computer's, where that matters."""

    def put(self, jobs: Iterable[Job]) -> PutReport:
        """Add jobs: files of them are in the shared folder before the head is asked to take them in."""
        sent = known = 0
        for batch in in_batches(jobs, BATCH, BATCH_BYTES):
            with usable(self._place):
                name = self._place.put([*map(put_down, batch)], self._clock.now())
            new, old = self._ask("load", name)
            sent, known = sent + new, known + old
        return PutReport(sent=sent, known=known)

    def lease(self, limit: int, wait: float = 0.0) -> list[Lease]:
        """Claim at most `limit` jobs, waiting up to `wait` seconds for the first one."""
        if limit <= 0:
            return []
        again = bool(self._unanswered)
        self._unanswered = self._unanswered or f"{int.from_bytes(os.urandom(8), 'big') >> 1:016x}"
        found = self._ask("lease", self._owner, self._unanswered, limit, wait, self._room, again)
        self._unanswered = ""
        return [heard(each) for each in found]

    def renew(self, leases: Sequence[Lease]) -> tuple[list[Lease], list[Lease]]:
        """Move deadlines to a full term from now: (renewed, no longer ours)."""
        if not leases:
            return [], []
        ours = {(lease.job.index, lease.token): lease for lease in leases}
        renewed, lost = self._ask("renew", [said(lease) for lease in leases])
        return (
            [ours[index, token]._replace(deadline=deadline) for index, token, *_, deadline in renewed],
            [ours[index, token] for index, token, *_ in lost],
        )

    def done(self, leases: Sequence[Lease]) -> None:
        """Take finished jobs out; their ids stay known."""
        if leases:
            self._ask("done", [said(lease) for lease in leases])

    def release(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Give jobs back after `delay` seconds, or at once to the place they had; no attempt is counted."""
        if leases:
            self._ask("release", [said(lease) for lease in leases], delay)

    def fail(self, lease: Lease, cause: Cause, detail: str = "", *, final: bool = False) -> DeadJob | None:
        """Count a failed attempt: back after the back-off, or dead (returned) with its cause."""
        detail = detail.encode(errors="backslashreplace").decode()
        dead = self._ask("fail", said(lease), cause, detail, final)
        return None if dead is None else DeadJob(lease.job, dead, cause, detail)

    def counts(self) -> Counts:
        """How many jobs are in which state now."""
        return Counts(*self._ask("counts"))

    def finished(self) -> int:
        """How many jobs are done."""
        return int(self._ask("finished"))

    def next_visible(self) -> float | None:
        """When (Unix seconds) the next job that cannot be leased now can be."""
        when: float | None = self._ask("next_visible")
        return when

    def owners(self) -> list[str]:
        """The workers that hold leases, whether they still live or not."""
        return [str(owner) for owner in self._ask("owners")]

    def dead(self) -> Iterator[DeadJob]:
        """The dead jobs, in the order of submission."""
        last = -1
        while page := self._ask("dead", last):
            for job_id, last, body, attempt, cause, detail in page:
                yield DeadJob(Job(job_id, last, body.encode()), attempt, Cause(cause), detail)

    def redrive(self, ids: Iterable[str] | None = None) -> list[str]:
        """Put dead jobs (these ids, or all) back as new. Returns the ids that were dead."""
        wanted = (dead.job.id for dead in [*self.dead()]) if ids is None else ids
        return [each for part in in_parts(wanted) for each in self._ask_once("redrive", part)]

    def drop(self, ids: Iterable[str]) -> list[str]:
        """Take dead and waiting jobs out for good; returns the ids that are out."""
        return [each for part in in_parts(ids) for each in self._ask("drop", part)]

    def purge(self) -> None:
        """Forget every job, the dead and the finished ones included."""
        self._ask("purge")

    def release_owner(self, owner: str) -> list[Lease]:
        """Give back at once what a lost worker holds, attempt not counted; returns its leases."""
        return [heard(each) for each in self._ask_once("release_owner", owner)]

    # asking

    def _ask_once(self, verb: str, argument: Any) -> Any:
        """Asks for what has a reply only the first time: the head knows a request that is asked again."""
        return self._ask(verb, self._owner, os.urandom(8).hex(), argument)

    def _ask(self, verb: str, *arguments: Any) -> Any:
        given = list(arguments)
        with self._lock:
            until = self._clock.monotonic() + self._patience
            while (reply := self._try_exchange(verb, given)) is None:
                if verb == "lease" and self._is_ending():
                    return []
                if self._clock.monotonic() > until:
                    raise Unreachable("the queue has no head that answers", "wait: another pilot takes over")
                if verb == "lease":
                    given[-1] = True
        self._note_time(reply.at)
        return reply.result

    def _try_exchange(self, verb: str, arguments: list[Any]) -> Reply | None:
        """The same. Raises Unreachable where the shared folder is full, or away."""
        try:
            with usable(self._place):
                return self._exchange(verb, arguments)
        except FolderUnusable as error:
            if not error.full:  # otherwise new files would take the last room
                self._letters = None
            raise

    def _exchange(self, verb: str, arguments: list[Any]) -> Reply | None:
        """Ask the head that is there now; None where there is none, or another one before it replied."""
        if self._letters is None:
            look = self._look()
            if look.headless or not self._open(look.epoch):
                self._clock.wait(LOOK_SECONDS / 4)
                return None
        letters = self._letters
        assert letters is not None
        letters.ask(verb, arguments)
        wait = arguments[3] if verb == "lease" else 0.0
        until = self._clock.monotonic() + self._patience + wait
        looked = self._clock.monotonic()
        while (reply := letters.reply()) is None:
            now = self._clock.monotonic()
            if now - looked >= LOOK_SECONDS:
                looked = now
                if self._is_over(letters.epoch, self._look()) or now > until:
                    self._letters = None
                    return None
        return reply

    def _is_over(self, epoch: int, look: Look) -> bool:
        """Whether the head of this epoch will not reply."""
        return look.epoch != epoch or look.closed

    def _open(self, epoch: int) -> bool:
        """Begin a session with a head; whether it takes requests already."""
        with suppress(FileNotFoundError):
            self._letters = Letters(self._place, epoch, self._owner, self._clock)
        return self._letters is not None

    def _look(self) -> Look:
        look = self._place.look()
        if not look.there:
            raise DsError(f"the run was removed: {self._place.folder} is gone", "ds run JOBFILE")
        return look

    def _note_time(self, at: float) -> None:
        """Correct our clock where it is minutes off: the ledger's order is that of time."""
        off = at - self._clock.now()
        if abs(off - self.shift) > SKEW_SECONDS:
            self.shift = off if abs(off) > SKEW_SECONDS else 0.0


def in_parts(ids: Iterable[str]) -> Iterator[list[str]]:
    """Yields the ids in lists as long as one request may have."""
    left = iter(ids)
    while part := list(islice(left, IDS)):
        yield part


class CommandQueue(SharedQueue):
    """Implements engine.Queue for a command: where no head lives, the command is the head for a moment.

    `counts` is the head's latest status, so that a look costs the cluster nothing.
    """

    def __init__(
        self,
        place: Place,
        terms: Terms,
        clock: Clock | None = None,
        *,
        owner: str = "",
        scratch: Path | None = None,
    ) -> None:
        owner = owner or f"command-{os.uname().nodename}-{os.getpid()}"
        super().__init__(place, owner, clock, patience=STALE_SECONDS)
        self._terms = terms
        self._scratch = scratch
        self._replica: Replica | None = None
        self._pulse = Pulse(self._clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the copy of the queue that a moment as head needed."""
        if self._replica is not None:
            self._replica.close()
            self._replica = None

    def counts(self) -> Counts:
        """How many jobs are in which state, by the latest status."""
        status = self._place.told()
        return Counts() if status is None else Counts(*status["counts"])

    def _ask(self, verb: str, *arguments: Any) -> Any:
        while True:
            look = self._look()
            if not self._pulse.is_gone(look):
                try:
                    return super()._ask(verb, *arguments)
                except FolderUnusable:
                    raise
                except Unreachable:
                    continue
            elif (head := self._stand(look)) is not None:
                return self._answer(head, verb, [*arguments])

    def _is_over(self, epoch: int, look: Look) -> bool:
        return super()._is_over(epoch, look) or self._pulse.is_gone(look)

    def _stand(self, look: Look) -> Head | None:
        if self._replica is None:
            self._replica = Replica(self._place, self._terms, self._scratch)
        with usable(self._place):
            return stand(self._replica, look, self._terms, self._clock)

    def _answer(self, head: Head, verb: str, arguments: list[Any]) -> Any:
        with usable(self._place):
            try:
                head.load_new()
                return head.answer(verb, arguments)
            finally:
                head.close()
