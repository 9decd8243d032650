"""A run's folder on the shared file system: what lies in it, and what its names say.

    puts/<time>-<jobs>-<x>.jsonl    jobs that were submitted: complete when the name is there, never changed
    epoch-<n>.json                  who is the head since epoch n: made by one only, never changed
    log-<n>-<x>.jsonl               what head n did, appended by it alone. What lies behind the offset that
                                    epoch n+1 names never happened. It is there before its epoch, which
                                    names it, so that no computer remembers it as missing
    closed-<n>                      head n has ended by itself; how long its log is
    status-<n>-<k>.json             how the queue is, by head n; a new name every few seconds says it lives
    copy-<n>-<offset>.db            the queue as it was at that place of the log, so that a replay is short
    standing-<n>/                   somebody replays, to become head n
    mail-<n>/<who>.up, .down        requests to head n, and its replies
    stop, stop-now, damaged         orders to the pilots: drain, end, end as the queue cannot be read

All that two nodes have to agree on is a name in this one listing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ...clock import Clock
from ...errors import Unreachable
from ...local.queue_file import damaged
from .files import Files

to_json = msgspec.json.Encoder().encode
from_json = msgspec.json.Decoder().decode


STALE_SECONDS = 6.0
"""A head whose status has not changed for this long is taken for dead."""

ORDERS = frozenset({"stop", "stop-now", "damaged"})

_PASSING = frozenset({"closed", "status", "mail", "standing"})
"""What is of use in its own epoch only."""


class Copy(NamedTuple):
    """A copy of the queue: of epoch `epoch`, at this offset of its log."""

    epoch: int
    offset: int
    name: str


class Look(NamedTuple):
    """What one listing of the folder says."""

    there: bool = False
    """The folder exists: the run was not removed."""
    epoch: int = 0
    """The latest; 0: there was no head yet."""
    closed: bool = False
    """Its head has ended by itself."""
    status: str = ""
    """The name of the latest status."""
    copies: tuple[Copy, ...] = ()
    orders: frozenset[str] = frozenset()
    standing: int = 0
    """The latest epoch that somebody prepares to be head of."""

    @property
    def headless(self) -> bool:
        """There is no head, for certain; otherwise its status tells whether it lives."""
        return not self.epoch or self.closed


class Place:
    """The folder of one run."""

    def __init__(self, folder: Path, files: Files | None = None) -> None:
        self.folder = folder
        self.files = files or Files()

    def make(self) -> None:
        """Make the folder; only its user may read it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._puts.mkdir(mode=0o700, exist_ok=True)

    def look(self) -> Look:
        """What the folder says now."""
        names = self.files.names(self.folder)
        numbered: dict[str, list[tuple[int, str]]] = {}
        for name in names:
            kind, _, rest = name.partition("-")
            if (number := rest.partition("-")[0].partition(".")[0]).isdecimal():
                numbered.setdefault(kind, []).append((int(number), name))
        epoch = max(numbered.get("epoch", [(0, "")]))[0]
        return Look(
            there=bool(names),
            epoch=epoch,
            closed=(epoch, f"closed-{epoch:08d}") in numbered.get("closed", ()),
            status=max(numbered.get("status", [(0, "")]))[1],
            copies=tuple(Copy(n, _offset(name), name) for n, name in numbered.get("copy", ())),
            orders=frozenset(names) & ORDERS,
            standing=max(numbered.get("standing", [(0, "")]))[0],
        )

    # submitted jobs

    @property
    def _puts(self) -> Path:
        return self.folder / "puts"

    def put(self, jobs: Sequence[Sequence[Any]], at: float) -> str:
        """Keep jobs (id, body, what it needs if it says so), durably; the name that they have now."""
        name = f"{at:017.6f}-{len(jobs)}-{os.urandom(4).hex()}.jsonl"
        self.files.publish(self._puts / name, b"".join(to_json(job) + b"\n" for job in jobs))
        return name

    def puts(self) -> list[str]:
        """The names of all that was submitted, in that order."""
        return self.files.names(self._puts)

    def submitted(self, name: str) -> list[Sequence[Any]]:
        """The jobs under a name, as they were `put`. Raises Unreachable where they cannot be seen yet."""
        lines = self._seen(self._puts / name).split(b"\n")
        if len(lines) - 1 != int(name.split("-")[1]):
            raise unseen(self._puts / name)
        return [from_json(line) for line in lines[:-1]]

    # epochs and their logs

    def new_log(self, epoch: int) -> str:
        """Make an empty log for an epoch that we want to claim; its name."""
        name = f"log-{epoch:08d}-{os.urandom(4).hex()}.jsonl"
        self.files.publish(self.folder / name, b"")
        return name

    def log(self, epoch: int) -> Path:
        """Where the log of an epoch lies. Raises Unreachable as `submitted`."""
        return self.folder / str(self.facts(epoch)["log"])

    def facts(self, epoch: int) -> dict[str, Any]:
        """What the head of an epoch wrote when it became that. Raises Unreachable as `submitted`."""
        path = self.folder / f"epoch-{epoch:08d}.json"
        try:
            found: dict[str, Any] = from_json(self._seen(path))
        except ValueError as error:
            raise damaged(path, str(error)) from error
        return found

    def _seen(self, path: Path) -> bytes:
        """The content of a file that is known to be there; a whole one ends with a newline."""
        if not (text := self.files.peek(path)).endswith(b"\n"):
            raise unseen(path)
        return text

    def claim(self, epoch: int, facts: dict[str, Any]) -> bool:
        """Become the head of this epoch, unless another process has."""
        return self.files.create(self.folder / f"epoch-{epoch:08d}.json", to_json(facts) + b"\n")

    def close(self, epoch: int, offset: int) -> None:
        """Say that the head of this epoch has ended, and that its log ends there."""
        self.files.publish(self.folder / f"closed-{epoch:08d}", b"%d\n" % offset)

    def closed_at(self, epoch: int) -> int:
        """Where the log of a head that has ended ends. Raises Unreachable as `submitted`."""
        return int(self._seen(self.folder / f"closed-{epoch:08d}"))

    def announce(self, epoch: int) -> bool:
        """Say that we replay, to become head of this epoch; False where another process has said so."""
        try:
            (self.folder / f"standing-{epoch:08d}").mkdir(mode=0o700)
        except FileExistsError:
            return False
        return True

    # what a head tells

    def tell(self, epoch: int, number: int, status: dict[str, Any]) -> None:
        """Publish how the queue is, under a name that no other has; the one before the last goes."""
        self.files.publish(self._status(epoch, number), to_json(status) + b"\n", sync=False)
        self.files.remove(self._status(epoch, number - 2))

    def _status(self, epoch: int, number: int) -> Path:
        return self.folder / f"status-{epoch:08d}-{number:010d}.json"

    def told(self, look: Look | None = None) -> dict[str, Any] | None:
        """The latest status; None where there is none yet."""
        name = (look or self.look()).status
        for _ in range(3):  # it may have been replaced by a later one since the listing
            if name and (text := self.files.peek(self.folder / name)).endswith(b"\n"):
                status: dict[str, Any] = from_json(text)
                return status
            name = self.look().status
        return None

    def tidy(self, epoch: int) -> None:
        """Remove what earlier epochs left and nothing needs any more."""
        for name in self.files.names(self.folder):
            kind, _, rest = name.partition("-")
            if kind in _PASSING and int(rest[:8]) < epoch:
                if kind in ("mail", "standing"):
                    shutil.rmtree(self.folder / name, ignore_errors=True)
                else:
                    self.files.remove(self.folder / name)

    def copy(self, epoch: int, offset: int) -> Path:
        """Where a copy of the queue lies, made at this offset of the log of this epoch."""
        return self.folder / f"copy-{epoch:08d}-{offset:015d}.db"

    def mail(self, epoch: int) -> Path:
        """Where requests to the head of this epoch lie."""
        return self.folder / f"mail-{epoch:08d}"

    def order(self, name: str) -> None:
        """Give an order of ORDERS to the pilots."""
        self.files.publish(self.folder / name, b"")

    def withdraw_orders(self) -> None:
        """Take back what was ordered."""
        for name in ORDERS:
            self.files.remove(self.folder / name)


class Pulse:
    """Whether a head gives signs of life, as seen from here: no two computers' clocks are compared."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._status = ""
        self._since = clock.monotonic()

    def is_gone(self, look: Look) -> bool:
        """Whether there is no head: it has ended, or its status has been the same for STALE_SECONDS."""
        now = self._clock.monotonic()
        sign = f"{look.epoch} {look.status}"
        if sign != self._status:
            self._status, self._since = sign, now
        return look.headless or now - self._since > STALE_SECONDS


def unseen(path: Path) -> Unreachable:
    """The error of a file whose name is there, and whose content is not."""
    what = f"{path} was written on another computer, and cannot be read here yet"
    fix = "try again; if it lasts and the project lies on a shared file system, ds repair rebuilds the queue"
    return Unreachable(what, fix)


def _offset(name: str) -> int:
    return int(name.removesuffix(".db").rpartition("-")[2])
