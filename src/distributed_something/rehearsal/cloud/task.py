"""A task of the pretend fleet as processes: started, asked to stop, killed whole.

A task is a keeper and below it the container's process with all that it starts. The keeper adopts what
leaves its parents, ends the whole tree with the container's own end, and with that of the process that
started it, however that one dies: so nothing outlives the rehearsal.

    python -m distributed_something.rehearsal.cloud.task PARENT COMMAND…      is the keeper

Where the command starts a real container, REMOVES in its environment names that: the keeper takes it away
at the end, whatever the end was.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from ...worker.attempt.process import adopt_orphans, children_of_this_process, die_with_parent

KILL = signal.SIGUSR1
"""Signal that has a keeper kill all at once; the kernel sends it when the keeper's parent has died."""

REMOVES = "DS_KEEPER_REMOVES"  # the path of docker and a container's name, with os.pathsep between them

REMOVE_SECONDS = 30.0

_LONGEST_LINE = 1 << 16


class Task:
    """A running task. Each verb returns at once, and may be repeated; one thread may use it.

    `log` gets each line that the task prints, in a thread of its own. Where it is started must be a thread
    that lives as long as the task should: the kernel takes its end for that of the whole process.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Callable[[str], None]
    ) -> None:
        keeper = [sys.executable, "-m", __name__, str(os.getpid()), *command]
        self._process = subprocess.Popen(
            keeper,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
        self._log = log
        self._reader = threading.Thread(target=self._forward, daemon=True)
        self._reader.start()
        self._kill_at: float | None = None

    @property
    def pid(self) -> int:
        """The keeper's."""
        return self._process.pid

    def stop(self, grace: float) -> None:
        """Ask the container to end; after `grace` seconds of not doing so it is killed by `ended`."""
        if self._kill_at is None:
            self._signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        self._kill_at = deadline if self._kill_at is None else min(self._kill_at, deadline)

    def kill(self) -> None:
        """End it and everything below it without asking."""
        self._signal(KILL)

    def ended(self) -> int | None:
        """Returns the container's exit code (137 where it was killed), or None while it runs."""
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._signal(KILL)
        code = self._process.poll()
        return None if code is None else code if code >= 0 else 128 - code

    def wait(self, seconds: float) -> None:
        """Wait for the end of it all, and for what it printed to be forwarded."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self._reader.join(seconds)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)

    def _forward(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            while line := lines.readline(_LONGEST_LINE):
                self._log(line.decode(errors="replace").rstrip("\n"))


def main(parent: str, command: Sequence[str]) -> int:
    """Returns the keeper's life: the container's exit code, as a shell has it."""
    awaited = (signal.SIGTERM, signal.SIGINT, KILL, signal.SIGCHLD)
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    adopt_orphans()
    die_with_parent(KILL)
    if os.getppid() != int(parent):
        return 128 + signal.SIGKILL
    container = os.fork()
    if container == 0:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, awaited)
        _become(command)
    code = None
    while code is None:
        number = signal.sigwait(awaited)
        if number == KILL:
            _kill_all()
            _remove_container()
            return 128 + signal.SIGKILL
        if number in (signal.SIGTERM, signal.SIGINT):
            with suppress(ProcessLookupError):
                os.kill(container, signal.SIGTERM)
        code = _reap(container)
    _kill_all()
    _remove_container()
    return code


def _remove_container() -> None:
    program, _, name = os.environ.get(REMOVES, "").rpartition(os.pathsep)
    if program:
        with suppress(subprocess.TimeoutExpired, OSError):
            command = [program, "rm", "--force", "--volumes", name]
            subprocess.run(command, capture_output=True, timeout=REMOVE_SECONDS, check=False)


def _become(command: Sequence[str]) -> NoReturn:
    try:
        os.execvp(command[0], list(command))  # noqa: S606  no shell is wanted
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode(errors="replace"))
    os._exit(127)


def _reap(container: int) -> int | None:
    """Take away what has ended; the container's exit code where it is among that."""
    code = None
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == container:
                status = os.waitstatus_to_exitcode(ended[1])
                code = status if status >= 0 else 128 - status
    return code


def _kill_all() -> None:
    """Kill what is below us, until nothing is: those whose parents die become our children."""
    while children := children_of_this_process():
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
