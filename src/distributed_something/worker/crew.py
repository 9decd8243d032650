"""Keeps the worker processes of one machine running: forks them, replaces those that die, passes orders on.

The process that has a crew is its parent. It must not start threads before it forks, and hold no connection
to a database. When it is killed itself, the kernel tells its workers to stop.
"""

from __future__ import annotations

import gc
import math
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import msgspec.json  # noqa: F401  the workers need it: loaded once, before they are forked

from ..background import complain
from ..clock import Clock
from ..errors import QueueDamaged
from .attempt.process import adopt_orphans, children_of_this_process, die_with_parent, kill_marked
from .attempt.workplace import clear_remains
from .loop import Stop, Worker

QUICK_SECONDS = 2.0
"""A worker that lived for less than this died quickly: several in a row are started again more slowly."""

HANG_SECONDS = 35.0
"""Time after which a worker is killed that has not stopped, beyond the time its jobs have, in seconds: it
waits for a disk that does not answer, say."""

_DAMAGED = 65
"""Exit code of a worker that found the queue damaged."""

Orders = Mapping[signal.Signals, Callable[[], Stop]]
"""What a worker does about a signal; computed when the signal comes."""


class _Member(NamedTuple):
    """A worker process, its slot, and when (by the clock for intervals) it was started."""

    name: str
    number: int
    started: float


class Crew:
    """The worker processes of a machine, one for each number from 0.

    `make(name, number)` makes a worker, in the forked process. `on_death(name)` is called for one that has
    ended, when its processes are gone and before its folder below `root` is removed. `in_child` is called
    first in each forked process, `strangers` returns child processes that are no workers, and `prefix` begins
    the workers' names.
    """

    def __init__(
        self,
        make: Callable[[str, int], Worker],
        orders: Orders,
        root: Path,
        clock: Clock,
        *,
        on_death: Callable[[str], None],
        in_child: Callable[[], None] = lambda: None,
        strangers: Callable[[], Collection[int]] = tuple,
        prefix: str = "worker",
    ) -> None:
        self._make = make
        self._orders = orders
        self._root = root
        self._clock = clock
        self._on_death = on_death
        self._in_child = in_child
        self._strangers = strangers
        self._prefix = prefix
        self._members: dict[int, _Member] = {}
        self._unforked: list[int] = []
        """Slots whose worker the system had no room for: they are tried again."""
        self._size = 0
        self._quick_deaths = 0
        self._ending = False
        self._kill_at = math.inf
        self.lost = 0
        """Workers that ended without an order."""
        self.damaged = False
        """Whether a worker has found the queue damaged."""

    @property
    def pids(self) -> dict[str, int]:
        """The process of each worker that runs."""
        return {member.name: pid for pid, member in self._members.items()}

    @property
    def runs(self) -> bool:
        """Whether a worker runs, or is still to be started."""
        return bool(self._members or (self._unforked and not self._ending))

    @property
    def dying(self) -> bool:
        """Whether the workers die as soon as they are started."""
        return self._quick_deaths > self._size

    def start(self, size: int) -> None:
        """Start this many workers; as many of them as the system has room for."""
        self._size = size
        for number in range(size):
            self._fork(number)

    def tend(self) -> bool:
        """Replace workers that ended, and start those that could not be; whether anything changed.

        Kills those that hang after an order to stop.

        First all that have ended, then what to do about them: workers that die at once must not keep us
        from taking orders.
        """
        for pid in self._members if self._clock.monotonic() > self._kill_at else ():
            os.kill(pid, signal.SIGKILL)
        ended = []
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                ended.append(found[0])
                self.damaged |= os.waitstatus_to_exitcode(found[1]) == _DAMAGED
        members = [member for pid in ended if (member := self._members.pop(pid, None)) is not None]
        for member in members:
            self._replace(member)
        unforked, self._unforked = self._unforked, []
        for number in () if self._ending else unforked:
            self._fork(number)
        return bool(members) or len(self._unforked) < len(unforked)

    def order(self, order: signal.Signals) -> None:
        """Pass an order on; from now on workers that end are not replaced."""
        self._ending = True
        if (grace := self._orders[order]().grace_seconds) is not None:
            self._kill_at = min(self._kill_at, self._clock.monotonic() + grace + HANG_SECONDS)
        for pid in self._members:
            os.kill(pid, order)

    def _fork(self, number: int) -> None:
        name = f"{self._prefix}-{number}-{os.urandom(3).hex()}"
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, self._orders)  # until the child has its own handlers
        try:
            pid = os.fork()
        except OSError as error:  # no process more for this user, or no memory
            complain(f"{name} could not be started: {error}")
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._orders)
            self._unforked.append(number)
            return
        if pid == 0:
            self._in_child()
            _become_worker(partial(self._make, name, number), self._orders, parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._orders)
        self._members[pid] = _Member(name, number, self._clock.monotonic())

    def _replace(self, member: _Member) -> None:
        kill_marked(f"DS_WORKER={member.name}\0".encode())
        self._end_adopted()
        self._on_death(member.name)
        clear_remains(self._root)
        if self._ending:
            return
        self.lost += 1
        quick = self._clock.monotonic() - member.started < QUICK_SECONDS
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        if self.dying:
            time.sleep(min(0.05 * 2 ** min(self._quick_deaths, 4), 0.5))
        self._fork(member.number)

    def _end_adopted(self) -> None:
        """Kill what an ended worker left running: the kernel made it our child, and then its children."""
        while adopted := {*children_of_this_process()} - self._members.keys() - {*self._strangers()}:
            for pid in adopted:
                with suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)


def _become_worker(make: Callable[[], Worker], orders: Orders, parent: int) -> None:
    """The forked child's whole life."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        adopt_orphans()
        gc.freeze()  # what the parent had loaded never becomes garbage
        worker = make()
        for order, stop in orders.items():
            signal.signal(order, lambda _number, _frame, stop=stop: worker.stop(stop()))  # type: ignore[misc]
        die_with_parent(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, orders)
        if os.getppid() == parent:
            worker.run()
        code = 0
    except QueueDamaged:
        code = _DAMAGED
    except BaseException:  # noqa: BLE001  a forked child must not return into its parent's code
        import traceback

        complain(traceback.format_exc())
    finally:
        os._exit(code)


class Signals:
    """Signals as bytes of a pipe: nothing happens behind the loop's back. SIGCHLD is always among them."""

    def __init__(self, orders: Iterable[signal.Signals]) -> None:
        self._pipe, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in [*orders, signal.SIGCHLD]:
            signal.signal(number, _ignore)

    def wait(self, seconds: float) -> bytes:
        """The numbers of the signals that came, waiting at most this long for the first."""
        if select.select([self._pipe], [], [], seconds)[0]:
            return os.read(self._pipe, 4096)
        return b""


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass
