"""What the engine `ssh` does on a host: start a pilot, look for it, end it. A process for each call.

The pilot of an app on a host is found by its arguments, which hold the app's name and the host's as HOSTS
has it: two names of one machine are two hosts. All that it starts has MARK in its environment. A file in the
shared folder, `hosts/<host>` with the pilot's id, notes that there may be one.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from getpass import getuser
from pathlib import Path
from typing import Any, NamedTuple

from ... import __version__
from ...system.state import open_private
from ...worker.attempt.process import kill_marked
from ..shared.files import Files
from .ssh import SAYS

PILOT = f"{__package__}.pilot"
MARK = "DS_HOST"
"""Variable of every process that a pilot has started, with the names of app and host."""

GRACE_SECONDS = 30.0
"""A pilot has this long after SIGTERM, before it is killed."""

SEEN_SECONDS = 60.0
"""The run's folder, which a command has just made, is seen on other hosts within this time."""


class Found(NamedTuple):
    """A pilot's process on this host."""

    pid: int
    pilot: str
    since: str
    """When it was started, in Unix seconds by this host's clock."""
    run: str


def find(name: str, host: str) -> Found | None:
    """Returns the app's pilot on this host. Its workers are forked, and no leaders of a session."""
    wanted = [os.fsencode(each) for each in ("-m", PILOT, name, host)]
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended, or is another user's
            argv = (entry / "cmdline").read_bytes().split(b"\0")
            pid = int(entry.name)
            if argv[1:5] == wanted and os.getsid(pid) == pid and entry.stat().st_uid == os.getuid():
                return Found(pid, *map(os.fsdecode, argv[5:8]))
    return None


def start(name: str, run: str, project: str, app: str, host: str) -> Any:
    """Starts a pilot, unless one of this run is there. Returns the pilot's id."""
    folder = Path(app)
    _await(lambda: run in Files().names(folder), SEEN_SECONDS)
    if run not in Files().names(folder):
        raise OSError(f"{folder} is another folder here: the run {run} is not in it")
    with _alone(folder, host) as note:
        if (found := find(name, host)) is not None and found.run == run:
            return found.pilot
        _end(name, host)
        pilot = os.urandom(4).hex()
        Files().publish(note, pilot.encode())
        given = [name, host, pilot, str(int(time.time())), run, project, str(note)]
        with open(folder / "logs" / f"{pilot}.log", "ab", opener=open_private) as log:
            subprocess.Popen(
                [sys.executable, "-m", PILOT, *given],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, MARK: f"{name}/{host}"},
                start_new_session=True,
            )
        return pilot


def look(name: str, app: str, host: str) -> Any:
    """Returns the pilot that is here, and since when. Removes what one that was killed has left."""
    with _alone(Path(app), host) as note:
        if (found := find(name, host)) is not None:
            return [found.pilot, int(found.since)]
        _kill_all(name, host)
        note.unlink(missing_ok=True)
    return []


def end(name: str, app: str, host: str) -> Any:
    """Ends the pilot that is here, and all that it or an earlier one has started."""
    with _alone(Path(app), host) as note:
        _end(name, host)
        note.unlink(missing_ok=True)


def see(file: str, _host: str) -> Any:
    """Returns what `ds check` asks: whether a new file is seen here and our own, the versions, the clock."""
    seen = Path(file).exists()
    facts = {"seen": seen, "own": seen and Path(file).stat().st_uid == os.getuid()}
    python = "{}.{}.{}".format(*sys.version_info)
    return {**facts, "user": getuser(), "python": python, "ds": __version__, "now": time.time()}


def _end(name: str, host: str) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if (found := find(name, host)) is not None:
            with suppress(ProcessLookupError):
                os.kill(found.pid, number)
            _await(lambda: find(name, host) is None, GRACE_SECONDS)
    _kill_all(name, host)


def _kill_all(name: str, host: str) -> None:
    kill_marked(os.fsencode(f"{MARK}={name}/{host}\0"))


def _await(holds: Callable[[], object], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.1)


@contextmanager
def _alone(app: Path, host: str) -> Iterator[Path]:
    """Yields the note of the host, which is held for one call at a time: on a file system that has locks."""
    folder = app / "hosts"
    folder.mkdir(mode=0o700, exist_ok=True)
    with open(folder / f".lock-{host}", "w", opener=open_private) as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder / host


def main(verb: str, *given: str) -> int:
    """Prints the answer as a line of JSON. Returns the exit code."""
    verbs: dict[str, Callable[..., Any]] = {"start": start, "look": look, "end": end, "see": see}
    try:
        answer = verbs[verb](*given)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{SAYS}{json.dumps(answer)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
