"""Finds an app's state on this machine: its folder, lock and processes. Called by engines and commands."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import DsError

STATE_VARIABLE = "DS_STATE"
"""Environment variable of every process of an app, with its state folder: so the processes can be found."""


def state_folder(project: Path, app: str) -> Path:
    """Returns an app's state folder: in `.ds` of its project, or below DS_STATE_DIR if that is set."""
    elsewhere = os.environ.get("DS_STATE_DIR")
    if not elsewhere:
        return project / ".ds" / app
    import hashlib

    mark = hashlib.sha256(os.fsencode(project)).hexdigest()[:8]
    return Path(elsewhere).absolute() / f"{app}-{mark}"


def mark_of(folder: Path) -> bytes:
    """Returns the variable that every process of the app has in its environment."""
    return os.fsencode(f"{STATE_VARIABLE}={folder}\0")


@contextmanager
def one_at_a_time(project: Path) -> Iterator[None]:
    """Locks the project folder: other processes of this machine wait for it. It leaves no file behind.

    On a file system that locks no folders (NFS) there is no lock.
    """
    folder = os.open(project, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextmanager
def one_run(lock: Path, app: str, busy: Callable[[], bool], run: Callable[[], str | None]) -> Iterator[None]:
    """Holds a lock file while a `ds run` is under way: Engine.exclusive.

    Raises DsError, naming the `run`, if another process holds it, or if its machines are `busy`.
    """
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = busy()
        except BlockingIOError:
            taken = True
        except OSError:  # a file system without locks
            taken = busy()
        if taken:
            raise DsError(
                f"a run of {app} is under way: {run() or 'it begins just now'}",
                "ds monitor follows it, ds submit adds jobs to it, ds stop ends it",
            )
        yield
