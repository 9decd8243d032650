"""Finds an app's state on this machine: its folder, lock and processes. Called by engines and commands."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import DsError

STATE_VARIABLE = "DS_STATE"
"""Environment variable of every process of an app, with its state folder: so the processes can be found."""

OWN_LOCK_SECONDS = 120.0
"""Maximum wait for a lock that a process of this user holds, in seconds: a set-up on AWS takes a minute."""

OTHER_LOCK_SECONDS = 5.0  # maximum wait for a lock that another user's process holds, in seconds


def state_folder(project: Path, app: str) -> Path:
    """Returns an app's state folder: in `.ds` of its project, or below DS_STATE_DIR if that is set."""
    elsewhere = os.environ.get("DS_STATE_DIR")
    folder = project / ".ds" / app
    if elsewhere:
        import hashlib

        mark = hashlib.sha256(os.fsencode(project)).hexdigest()[:8]
        folder = Path(elsewhere).absolute() / f"{app}-{mark}"
    for each in (folder.parent, folder):
        refuse_foreign(each)
    return folder


def refuse_foreign(folder: Path, fix: str = "remove it, or set DS_STATE_DIR to a folder of your own") -> None:
    """Raises DsError for a folder that others own or may write to: what is read there may be theirs."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return
    if found.st_uid != os.geteuid():
        raise DsError(f"the state folder {folder} belongs to {user_name(found.st_uid)}", fix)
    if found.st_mode & 0o022:
        what = f"the state folder {folder} may be written by other users"
        raise DsError(what, f"look what is in it, then chmod go-w {folder}")


def user_name(uid: int) -> str:
    """Returns the name of a user."""
    import pwd

    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user {uid}"


def make_private(folder: Path) -> None:
    """Makes a folder, and those missing above it, for this user alone under any umask."""
    for each in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        with suppress(FileExistsError):
            each.mkdir(mode=0o700)
            each.chmod(0o700)


def open_private(path: Path | str, flags: int) -> int:
    """Opens a file that only this user may read, where it is made; an opener for `open`."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def mark_of(folder: Path) -> bytes:
    """Returns the variable that every process of the app has in its environment."""
    return os.fsencode(f"{STATE_VARIABLE}={folder}\0")


@contextmanager
def one_at_a_time(project: Path) -> Iterator[None]:
    """Locks the project folder: other processes of this machine wait for it. It leaves no file behind.

    On a file system that locks no folders (NFS) there is no lock. Raises DsError, naming the holder, where
    it stays locked.
    """
    folder = os.open(project, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _await_lock(folder, project)
        yield
    finally:
        os.close(folder)


def _await_lock(folder: int, project: Path) -> None:
    began, pause = time.monotonic(), 0.001
    while True:
        try:
            return fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = holder_of(folder)
        except OSError:
            return None
        waited = time.monotonic() - began
        if waited > (OWN_LOCK_SECONDS if holder is None or holder.own else OTHER_LOCK_SECONDS):
            who = f"process {holder.pid} ({holder.command}) of {holder.user}" if holder else "another process"
            fix = f"see what it does: ps -fp {holder.pid}" if holder else "try again later"
            raise DsError(f"the folder {project} is locked by {who} for {waited:.0f} s", fix)
        time.sleep(pause)
        pause = min(pause * 2, 0.25)


class Holder(NamedTuple):
    """A process that holds a lock."""

    pid: int
    own: bool
    user: str
    command: str


def holder_of(file: int) -> Holder | None:
    """Returns the process that holds a file's lock, as Linux lists it; None: not known."""
    with suppress(OSError, ValueError):
        inode = os.fstat(file).st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
                process = Path("/proc") / fields[4]
                uid, command = process.stat().st_uid, (process / "comm").read_text().strip()
                return Holder(int(fields[4]), uid == os.geteuid(), user_name(uid), command)
    return None


@contextmanager
def one_run(lock: Path, app: str, busy: Callable[[], bool], run: Callable[[], str | None]) -> Iterator[None]:
    """Holds a lock file while a `ds run` is under way: Engine.exclusive.

    Raises DsError, naming the `run`, if another process holds it, or if its machines are `busy`.
    """
    make_private(lock.parent)
    with open(lock, "w", opener=open_private) as held:
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
