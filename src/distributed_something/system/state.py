"""What an app has on this machine beside its project: where that lies, whose processes are whose."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import DsError

STATE_VARIABLE = "DS_STATE"
"""Set in the environment of every process of an app, to the app's state folder: so they can be found."""


def state_folder(project: Path, app: str) -> Path:
    """Where the state of an app lies: in `.ds` of its project, or below DS_STATE_DIR where that is set."""
    elsewhere = os.environ.get("DS_STATE_DIR")
    if not elsewhere:
        return project / ".ds" / app
    import hashlib

    mark = hashlib.sha256(os.fsencode(project)).hexdigest()[:8]
    return Path(elsewhere).absolute() / f"{app}-{mark}"


def mark_of(folder: Path) -> bytes:
    """What the environment of every process of the app with this state folder holds."""
    return os.fsencode(f"{STATE_VARIABLE}={folder}\0")


@contextmanager
def one_at_a_time(project: Path) -> Iterator[None]:
    """Hold the project folder: whoever else on this machine wants it waits. It leaves no file behind.

    On a file system that locks no folders (NFS) nobody waits.
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
    """Hold a lock file while a `ds run` is under way: Engine.exclusive.

    Raises DsError, naming the `run`, where another process holds it, or its machines are `busy` all the same.
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
