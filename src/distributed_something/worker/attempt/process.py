"""Starts child processes in their own process group, watches them and removes them whole.

A slot's thread starts one child at a time. On Linux a pidfd reports its end; elsewhere we poll.
Children that leave their group (setsid) are adopted by the worker, which is a subreaper, and killed
with the job that started them.
"""

from __future__ import annotations

import io
import os
import resource  # noqa: F401  wait4 needs it: loaded before a limit on open files is met
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

MOST_STRAYS = 1000
"""Maximum stray processes killed for one job: one that forks for ever must not hold the worker."""

TERM_GRACE = 5.0
"""Seconds between the TERM and the KILL of a process group."""

LINUX = sys.platform.startswith("linux")
_RSS_UNIT = 1024 if LINUX else 1
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_DEFAULT_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
"""Signals with the system's own action in a child, also those that Python ignores. All: that is quicker."""

_spawning = threading.Lock()
"""Held while a child starts: it inherits our working folder, and a process has only one."""

_own: set[int] = set()
"""Children that slots have started and not reaped: these are no strays. Guarded by `_spawning`."""


def adopt_orphans() -> None:
    """Makes this process the parent of its descendants' orphans (Linux; elsewhere nothing happens)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _adopts_orphans() -> bool:
    if not LINUX or os.getpid() == 1:
        return LINUX
    import ctypes

    adopts = ctypes.c_int()
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(adopts), 0, 0, 0)
    return bool(adopts.value)


def die_with_parent(number: signal.Signals) -> None:
    """Has the kernel send this signal to this process when its parent dies (Linux only)."""
    _prctl(_PR_SET_PDEATHSIG, number)


def _prctl(option: int, value: int) -> None:
    if LINUX:
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Ended(NamedTuple):
    """The end of a child: `exit_code`, or the number of the `signal` that killed it; usage by wait4."""

    exit_code: int | None
    signal: int | None
    cpu_seconds: float
    max_rss_bytes: int


def files_of(descriptors: Mapping[int, int]) -> Sequence[tuple[int, int, int]]:
    """Returns the file actions for `Child.spawn`, from a table of the child's descriptors to ours."""
    return [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in descriptors.items()]


class Child:
    """A running child, the leader of its own process group."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pidfd = -1
        try:
            self.pidfd = os.pidfd_open(pid) if LINUX else -1
        except OSError:  # no descriptor left
            self.reap()
            raise

    @classmethod
    def spawn(
        cls,
        argv: list[str],
        env: Mapping[bytes, bytes],
        cwd: Path | str,
        files: Sequence[tuple[int, int, int]],
        program: str = "",
    ) -> Child:
        """Starts `argv` in folder `cwd` with the descriptors of `files`.

        `program`: the file to run; empty: what our own PATH has for `argv`.

        `env` is encoded: to encode forty variables for each child costs as much as to lease its job.
        Raises OSError if the program is missing, not executable, or its arguments are too long.
        """
        with _spawning:
            os.chdir(cwd)
            pid = os.posix_spawnp(
                program or argv[0], argv, env, file_actions=files, setpgroup=0, setsigdef=_DEFAULT_SIGNALS
            )
            _own.add(pid)
        return cls(pid)

    def signal_group(self, number: signal.Signals) -> None:
        """Sends a signal to the child's whole process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def has_ended(self) -> bool:
        """Whether the child has ended; it is still to be reaped."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def reap(self, *, alone: bool = False) -> Ended:
        """Kills what is left of the child's group, unless it was `alone`; waits for and reaps it."""
        if not alone:
            self.signal_group(signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        _own.discard(self.pid)
        if self.pidfd >= 0:
            os.close(self.pidfd)
        code, number = (os.WEXITSTATUS(status), None) if os.WIFEXITED(status) else (None, os.WTERMSIG(status))
        return Ended(code, number, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _RSS_UNIT)


def check_processes(count: int) -> None:
    """Raises OSError if so many processes more cannot run here at a time."""
    pids = list[int]()
    try:
        with _spawning, suppress(FileNotFoundError):  # an image without `sleep` shows nothing
            for _ in range(count):
                pids.append(os.posix_spawnp("sleep", ["sleep", "60"], {}, setpgroup=0))
            _own.update(pids)
        if LINUX:
            os.close(os.pidfd_open(os.getpid()))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            _own.discard(pid)


class Watch:
    """Waits for a slot's child, and moves what it prints to `sink` meanwhile.

    `wake` ends a wait from another thread. One pipe serves all children of the slot, one at a time.
    """

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._out, self.stdout = os.pipe2(os.O_CLOEXEC) if LINUX else os.pipe()
        self._woken, self._waker = os.pipe2(os.O_CLOEXEC) if LINUX else os.pipe()
        for fd in (self._out, self._woken, self._waker):
            os.set_blocking(fd, False)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)
        self._awaited = (-1, -1)
        self._reader = io.FileIO(self._out, closefd=False)
        self._printed = False  # whether the pipe may hold what an ended child printed

    def unblock(self) -> None:
        """Makes writes of the next child block if the pipe is full.

        All holders of a pipe share its flags: an earlier child may have changed them.
        """
        os.set_blocking(self.stdout, True)

    def wake(self) -> None:
        """Ends the wait that goes on now, or the next one."""
        with suppress(BlockingIOError):
            os.write(self._waker, b"!")

    def wait(self, child: Child, until: float | None, reply: int = -1) -> bool:
        """Waits until the child ends or `reply` is readable (True), or until `until` or a wake (False).

        `until` is a time.monotonic() value; None: no limit.
        """
        if (child.pidfd, reply) != self._awaited:
            self._await((child.pidfd, reply))
        pause = 0.001
        while True:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            if child.pidfd < 0:  # no pidfd on this system: look, less and less often
                pause = min(pause * 1.5, 0.05)
                left = pause if left is None else min(left, pause)
            ready = [fd for fd, _ in self._poll.poll(None if left is None else left * 1000)]
            ended = child.has_ended() if child.pidfd < 0 else child.pidfd in ready
            self._printed = self._out in ready or (ended and child.pidfd < 0)
            if ended or reply in ready:
                return True
            if self._printed:
                self._move()
            if self._woken in ready:
                os.read(self._woken, 4096)
                return False

    def _await(self, awaited: tuple[int, int]) -> None:
        """Polls for these; a child's pidfd mostly has the number that the last one had."""
        for fd in self._awaited:
            if fd >= 0:
                self._poll.unregister(fd)
        for fd in awaited:
            if fd >= 0:
                self._poll.register(fd, select.POLLIN)
        self._awaited = awaited

    def stop(self, child: Child, grace: float = TERM_GRACE) -> Ended:
        """Ends the child and its group: TERM, then KILL after `grace` seconds."""
        child.signal_group(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while not self.wait(child, deadline) and time.monotonic() < deadline:
            pass
        self._printed = True
        return child.reap()

    def drain(self) -> None:
        """Moves what the ended child left in the pipe; bounded, as a stray process may still print."""
        for _ in range(64 if self._printed else 0):
            if not self._move():
                return

    def _move(self) -> bool:
        data = self._reader.read(1 << 16)
        if data is None:  # nothing there
            return False
        self._sink(data)
        return True

    def close(self) -> None:
        """Closes the pipes."""
        for fd in (self._out, self.stdout, self._woken, self._waker):
            os.close(fd)


class Strays:
    """Finds and kills the processes that left a job's process group.

    The kernel lists the children of a subreaper's main thread: those that it adopted, and those that slots
    started there. A child's orphans are in the list before its own end is reported. On other systems than
    Linux, or if this process is no subreaper, none is found.
    """

    def __init__(self) -> None:
        self._children = -1
        self._without = b""  # what the list was like without a stray
        if _adopts_orphans():
            with suppress(OSError):
                pid = os.getpid()
                self._children = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)

    def none_beside(self, child: Child) -> bool:
        """Whether an ended child, not yet reaped, has left no process, as nearly every job."""
        return self._children >= 0 and self._listed() in (b"%d " % child.pid, self._without)

    def kill(self, job_id: str) -> int:
        """Kills the adopted processes of a job, and those that these leave. Returns how many."""
        killed = 0
        while self._children >= 0 and (listed := self._listed()) != self._without:
            now = self._kill(listed, job_id)
            killed += now
            if not now or killed > MOST_STRAYS:
                break
        return killed

    def _listed(self) -> bytes:
        return os.pread(self._children, 4096, 0)  # a page: the kernel gives no more at once

    def _kill(self, listed: bytes, job_id: str) -> int:
        mark = b"\0DS_JOB_ID=%s\0" % job_id.encode()
        with _spawning:
            found = set(map(int, listed.split())) - _own
            self._without = b"" if found else listed
            return sum(_kill_marked(pid, mark) for pid in found)


def _kill_marked(pid: int, mark: bytes) -> bool:
    with suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return False
    if mark not in b"\0" + _settled_environment(pid):
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
    return True


def _settled_environment(pid: int) -> bytes:
    """Returns the environment of a process; waits for one that is just becoming another program."""
    for _ in range(10):
        if found := environment_of(pid):
            return found
        time.sleep(0.001)
    return b""


def children_of_this_process() -> list[int]:
    """Returns the processes that this one started in its main thread or adopted (Linux; elsewhere none)."""
    with suppress(OSError):
        return list(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
    return []


def memory_kills() -> int:
    """Returns how many processes of this machine the kernel has killed for lack of memory (elsewhere 0)."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


class OomKills:
    """Watches the kernel's count of processes killed for lack of memory, on the whole machine."""

    def __init__(self) -> None:
        self._last = memory_kills()

    def grew(self) -> bool:
        """Whether the count grew since the last look."""
        now = memory_kills()
        grew = now > self._last
        self._last = now
        return grew


@cache
def oom_kills() -> OomKills:
    """Returns this process's look at the count, which begins at the first call."""
    return OomKills()


def environment_of(pid: int) -> bytes:
    """Returns the environment that a process was started with; b"" if it cannot be read."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def marked_processes(mark: bytes) -> list[int]:
    """Returns every other process of this machine whose environment holds `mark` (Linux)."""
    if not LINUX:
        return []
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if pid != os.getpid() and mark in environment_of(pid)]


def kill_marked(mark: bytes) -> None:
    """Kills every process that holds the mark, until none is left.

    All are stopped before the first is killed: a worker that saw its job killed would call that a failure.
    """
    for _ in range(100):
        pids = marked_processes(mark)
        if not pids:
            return
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        time.sleep(0.01)
