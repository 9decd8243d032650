"""Tells a fault of the machine from a fault of a job, and pauses while the machine cannot work.

No process left, no open file left, a full or read-only disk, a store that is away: the attempt is given back
and uses up none of its job's attempts. A worker that pauses notes why in the store, and `ds status` shows it.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..clock import BackOff
from ..engine import Store, StoredFile
from ..errors import DsError, KeyMissing, KeyRefused, SickMachine, Unreachable, UsageError
from ..exclusion import Pause

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 15.0
"""Pauses of a worker whose machine cannot work: they double from the first to this, in seconds."""

SHOWN_SECONDS = 30.0
"""Time after the end of a pause in which its note is still shown, in seconds: clocks differ."""

STEP_SECONDS = 0.05

PROCESSES = "no processes left (ulimit -u)"
FILES = "too many open files (ulimit -n)"

_ALWAYS = {
    errno.EAGAIN: PROCESSES,
    errno.ENOMEM: "no memory left",
    errno.EMFILE: FILES,
    errno.ENFILE: "too many open files on this machine (fs.file-max)",
}
"""Errors that no job of ours can cause in our own process."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_NO_FAULT = (KeyMissing, KeyRefused, UsageError)
"""Errors that publishing meets where all is well, or that repeat for ever."""

T = TypeVar("T")


def sickness(error: BaseException | None) -> SickMachine | None:
    """Returns the machine's fault that an error, or the cause of it, shows by itself; None: it shows none."""
    while error is not None:
        if isinstance(error, SickMachine):
            return error
        if isinstance(error, Unreachable):
            return SickMachine(error.what)
        if isinstance(error, OSError) and error.errno in _ALWAYS:
            return SickMachine(_ALWAYS[error.errno])
        if isinstance(error, ImportError) and os.strerror(errno.EMFILE) in str(error):
            return SickMachine(FILES)
        if isinstance(error, MemoryError):
            return SickMachine(_ALWAYS[errno.ENOMEM])
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            return SickMachine(PROCESSES)
        error = error.__cause__
    return None


def cannot_write(place: str, error: OSError) -> SickMachine:
    """Returns the fault of a place that could not be written."""
    if error.errno in FULL:
        return SickMachine(f"{place} is full")
    return SickMachine(f"{place} cannot be written: {error.strerror or error}")


class Health:
    """Health of the machine of one worker. Its slots, in several threads, share it.

    `note` is the store key of the worker's note; empty: it makes no notes. `marker` is a key that is always
    in the run's store. `disk` is a folder on the store's file system; None: its size has no limit. `machine`
    is the machine's name in the ledger.
    """

    def __init__(
        self, store: Store, note: str = "", marker: str = "", disk: Path | None = None, machine: str = ""
    ) -> None:
        self._store = store
        self._note = note
        self._marker = marker
        self._disk = disk
        self._machine = machine
        self._since = 0.0
        self._back_off = BackOff(FIRST_SECONDS, LONGEST_SECONDS)
        self._lock = threading.Lock()
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        """Closed for the note: it needs a descriptor where none is left."""
        self.pauses = False

    def check_store(self) -> None:
        """Raises SickMachine if the store is away, or cannot be written."""
        if not self._note:
            return
        try:
            if self._marker:
                self._look_for_marker()
            self._store.write(f"{self._note}.check", bytes(1 << 16))
            self._store.delete([f"{self._note}.check"])
        except OSError as error:
            raise sickness(error) or cannot_write("the store", error) from error
        except SickMachine:
            raise
        except DsError as error:
            raise SickMachine(error.what) from error

    def check_is_here(self) -> None:
        """Raises SickMachine if the store is a folder whose disk is away: one would write below its mount."""
        if self._disk is not None and self._marker:
            self._look_for_marker()

    def store_fault(self) -> SickMachine | None:
        """Returns what is wrong with the store; None: it works."""
        try:
            self.check_store()
        except SickMachine as sick:
            return sick
        return None

    def is_full(self, error: Exception, size: int) -> bool:
        """Whether the store is too full for `size` bytes that would fit into it if it were empty."""
        if not isinstance(error, OSError) or error.errno not in FULL:
            return False
        if self._disk is None:
            return True
        disk = os.statvfs(self._disk)
        return size <= disk.f_blocks * disk.f_frsize

    def _look_for_marker(self) -> None:
        if self._store.stat([self._marker])[0] is None:
            raise SickMachine(f"the store is away: {self._store.locate(self._marker)} is not there")

    def pause(self, why: SickMachine, step: Callable[[], bool]) -> None:
        """Notes why the worker pauses, and waits, longer each time. Ends early if `step` returns False."""
        with self._lock:
            if not self.pauses:
                self.pauses, self._since = True, time.time()
            seconds = self._back_off.next()
            self._tell(why.what, time.time() + seconds)
        until = time.monotonic() + seconds
        while step() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, STEP_SECONDS))

    def recovered(self) -> None:
        """Ends the pauses: an attempt has come to an end."""
        with self._lock:
            if self.pauses:
                self.pauses = False
                self._back_off.reset()
                self._tell("", 0.0)

    def _tell(self, why: str, until: float) -> None:
        if not self._note:
            return
        self._close_spare()
        with suppress(Exception):  # the store may be what is sick
            if why:
                note = {"why": why, "until": until, "since": self._since, "machine": self._machine}
                self._store.write(self._note, json.dumps(note).encode())
            else:
                self._store.delete([self._note])
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Removes the note."""
        self.recovered()
        self._close_spare()

    def _close_spare(self) -> None:
        """Closes the spare descriptor once: its number may be another file's from then on."""
        spare, self._spare = self._spare, -1
        if spare >= 0:
            os.close(spare)


class PatientStore:
    """The verbs of a store that publishing needs. Each is repeated while the machine or the store is sick.

    What an attempt has made may have taken hours: it is kept until the store takes it. `check` may raise to
    end it all.
    """

    def __init__(self, store: Store, health: Health, check: Callable[[], None]) -> None:
        self._store = store
        self._health = health
        self._check = check

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yields the files whose key starts with `prefix`, in key order."""
        last, again = "", False
        while True:
            try:
                for file in self._store.list(prefix):
                    if file.key > last:
                        last = file.key
                        yield file
            except Exception as error:  # noqa: BLE001  raised again unless it is the machine's
                again = self._outlast(error, again=again)
            else:
                return

    def read(self, key: str) -> bytes:
        """Returns the content of a file."""
        return self._repeat(lambda: self._store.read(key))

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Creates a file unless it exists. Returns whether it was created."""
        return self._repeat(lambda: self._store.write_if_absent(key, data))

    def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Replaces a file if its content is still `old`. Returns whether it was replaced."""
        return self._repeat(lambda: self._store.replace(key, old, new))

    def delete(self, keys: Sequence[str]) -> None:
        """Removes files."""
        self._repeat(lambda: self._store.delete(keys))

    def locate(self, key: str) -> str:
        """Returns the address that a person can open."""
        return self._store.locate(key)

    def publish_many(self, files: Iterable[tuple[Path, str]]) -> Sequence[int]:
        """Publishes each (path, key). Repeated for those only that are still at their path."""
        wanted = [*files]
        sizes = [path.stat().st_size for path, _ in wanted]

        def left() -> Iterator[tuple[Path, str]]:
            for each in wanted:
                self._check()
                if each[0].exists():
                    yield each

        def publish() -> Sequence[int]:
            self._health.check_is_here()
            return self._store.publish_many(left())

        self._repeat(publish, sum(sizes))
        return sizes

    def _repeat(self, action: Callable[[], T], size: int = 0) -> T:
        again = False
        while True:
            try:
                return action()
            except Exception as error:  # noqa: BLE001  raised again unless it is the machine's
                again = self._outlast(error, size, again=again)

    def _outlast(self, error: Exception, size: int = 0, *, again: bool) -> bool:
        """Pauses if the machine or the store is sick. Else raises the error, an OSError the second time only.

        Returns whether to raise it the next time: the store may have recovered just now.
        """
        if isinstance(error, _NO_FAULT):
            raise error
        if self._health.is_full(error, size):
            sick: SickMachine | None = SickMachine("the store is full")
        else:
            sick = sickness(error) or self._health.store_fault()
        if sick is not None:
            self._health.pause(sick, self._goes_on)
        elif again or not isinstance(error, OSError):
            raise error
        return sick is None

    def _goes_on(self) -> bool:
        self._check()
        return True


def pauses(store: Store, prefix: str, now: float) -> list[Pause]:
    """Returns the workers that pause, by their notes below `prefix`."""
    found = []
    keys = [file.key for file in store.list(prefix) if not file.key.endswith(".check")]
    for key in keys:
        with suppress(DsError, ValueError, TypeError, KeyError):
            note = json.loads(store.read(key))
            if abs(now - float(note["until"])) < LONGEST_SECONDS + SHOWN_SECONDS:
                since = float(note.get("since", now))
                found.append(Pause(str(note.get("machine", "")), since, str(note["why"])))
    return found
