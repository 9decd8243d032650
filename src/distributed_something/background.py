"""Starts a process that a command leaves in the background, known by the lock that it holds."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import FAILED, DsError

READY = b"ready\n"  # line that such a process prints once it takes requests

_RESTARTS = (0.1, 1.0)
"""Pauses before a process that was killed while it started is started again, in seconds."""

_TRIES = 20
_PAUSE = 0.02


def is_held(path: Path) -> bool:
    """Returns whether a process holds the lock."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def remove_if_free(path: Path) -> None:
    """Removes a lock's file unless a process holds it."""
    with suppress(OSError), free(path) as lock:
        if lock is not None:
            path.unlink()


@contextmanager
def free(path: Path) -> Iterator[int | None]:
    """Yields the lock, taken, in a folder that is there; None where a process holds it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield lock if _take(lock) else None
    finally:
        os.close(lock)


def _take(lock: int) -> bool:
    """Takes the lock, with retries: a process that checks it holds it for a moment too."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE)
        else:
            return True
    return False


def leave(
    command: Sequence[str], lock: int, environment: Mapping[str, str], *, failure: str, log: Path
) -> None:
    """Starts the process, which inherits the lock, and waits until it takes requests.

    Raises DsError if it does not start, with `failure` and the reason, or the `log` to look into.
    """
    for pause in (*_RESTARTS, None):
        said, killed = _leave(command, lock, environment)
        if said == READY:
            return
        if not killed or pause is None:
            break
        time.sleep(pause)
    why, _, fix = said.decode(errors="replace").strip().partition("\n")
    raise DsError(f"{failure}: {why or killed or f'see {log}'}", fix)


def _leave(command: Sequence[str], lock: int, environment: Mapping[str, str]) -> tuple[bytes, str]:
    """Starts the process. Returns what it says, and what killed it, as a sentence; empty: nothing did."""
    import signal
    import subprocess

    process = subprocess.Popen(
        [*command, str(lock)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=dict(environment),
        start_new_session=True,
        pass_fds=[lock],
        cwd="/",
    )
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.readline()
        said += b"" if said == READY else process.stdout.read()
    if said == READY:
        process.returncode = 0  # it goes on without us: nothing to wait for
        return said, ""
    code = process.wait()
    return said, f"its process was killed by {signal.Signals(-code).name}" if code < 0 else ""


def refuse(caller: int, error: DsError | OSError) -> int:
    """In that process: tells the caller why it does not start; returns its exit code."""
    why, fix = (error.what, error.fix) if isinstance(error, DsError) else (str(error), "")
    os.write(caller, f"{why}\n{fix}\n".encode(errors="replace"))
    return FAILED


def complain(text: str) -> None:
    """In that process: writes a line to the log. Ignores a full disk."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode(errors="replace"))


def log_to(path: Path) -> int:
    """In that process: sends stdout and stderr to the log; returns the old stdout, which the caller reads."""
    caller = os.dup(1)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return caller
