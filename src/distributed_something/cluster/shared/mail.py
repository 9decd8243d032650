"""Requests and replies through the shared folder: lines of JSON in files that grow, each with one writer.

    mail-<epoch>/<who>.up      appended by who asks: [number, verb, arguments]
    mail-<epoch>/<who>.down    appended by the head: [number, time, result] or [number, time, null, why]

Who asks has one request under way, and makes both files, so that "is not there" is never remembered. A reader
opens the file anew for each look, and takes whole lines only.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import DecodeError

from ...clock import Clock
from ...errors import DsError
from .place import Place, from_json, to_json

POLL_FIRST = 0.002
POLL_LAST = 0.25
"""Pauses between looks for a reply grow from the first to the last, in seconds."""

QUIET_SHARE = 0.125
"""A head looks for requests of who has been quiet for a while after this share of that while."""


class Reply(NamedTuple):
    """What the head answered, and its time then (Unix seconds)."""

    at: float
    result: Any


class Tail:
    """The lines that were appended to a file since the last look."""

    def __init__(self, place: Place, path: Path) -> None:
        self._files = place.files
        self._path = path
        self._offset = 0

    def lines(self) -> list[Any]:
        """The whole lines that are new. A line whose content has not arrived yet is left for a later look."""
        text = self._files.peek(self._path, self._offset)
        whole, newline, _ = text.rpartition(b"\n")
        found: list[Any] = []
        for line in whole.split(b"\n") if newline else ():
            if b"\0" in line:  # the file's new length is known here before its content
                break
            with suppress(DecodeError):  # half a line, of a writer whose disk was full
                found.append(from_json(line))
            self._offset += len(line) + 1
        return found


class Letters:
    """Who asks: one session with the head of one epoch."""

    def __init__(self, place: Place, epoch: int, owner: str, clock: Clock) -> None:
        folder, name = place.mail(epoch), f"{owner}-{os.urandom(4).hex()}"
        self.epoch = epoch
        self._place = place
        self._clock = clock
        self._up = folder / f"{name}.up"
        self._tail = Tail(place, folder / f"{name}.down")
        self._number = 0
        self._pause = POLL_FIRST
        self._torn = b""
        """Ends a line of which the disk may have taken a part only."""
        place.files.append(folder / f"{name}.down", b"")

    def ask(self, verb: str, arguments: list[Any]) -> None:
        """Send a request."""
        self._number += 1
        self._pause = POLL_FIRST
        line = self._torn + to_json([self._number, verb, arguments]) + b"\n"
        self._torn = b"\n"
        self._place.files.append(self._up, line)
        self._torn = b""

    def reply(self) -> Reply | None:
        """The reply to the latest request; None, after a pause, where there is none yet.

        Raises DsError where the head refuses it.
        """
        for number, at, result, *why in self._tail.lines():
            if number == self._number:
                if why:
                    raise DsError(*why)
                return Reply(at, result)
        self._clock.wait(self._pause)
        self._pause = min(self._pause * 1.5, POLL_LAST)
        return None


class Request(NamedTuple):
    """What somebody asks of the head."""

    sender: Sender
    number: int
    verb: str
    arguments: list[Any]


class Sender:
    """The head's end of a session."""

    def __init__(self, place: Place, folder: Path, name: str) -> None:
        self._files = place.files
        self._down = folder / f"{name}.down"
        self._tail = Tail(place, folder / f"{name}.up")
        self._last = 0.0
        self._next = 0.0
        self.waits = False
        """It waits for a reply, and so asks nothing."""

    def requests(self, now: float) -> list[Request]:
        """What is new; who has been quiet is looked at less often."""
        if self.waits or now < self._next:
            return []
        found = [Request(self, *line) for line in self._tail.lines()]
        self._last = now if found or not self._last else self._last
        self._next = now + min((now - self._last) * QUIET_SHARE, POLL_LAST)
        return found

    def send(self, *reply: Any) -> None:
        """Send a reply."""
        self._files.append(self._down, to_json(reply) + b"\n")


class Mailbox:
    """The head's look at all sessions of its epoch."""

    def __init__(self, place: Place, epoch: int) -> None:
        self._place = place
        self._folder = place.mail(epoch)
        self._senders: dict[str, Sender] = {}
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def requests(self, now: float) -> list[Request]:
        """All that is asked now; `now` is of the clock for intervals."""
        for name in self._place.files.names(self._folder):
            who, _, way = name.rpartition(".")
            if way == "up" and who not in self._senders:
                self._senders[who] = Sender(self._place, self._folder, who)
        return [request for sender in self._senders.values() for request in sender.requests(now)]
