"""Runs a job's own process (a command, a container, or a handler's process) and judges its end.

Does not stage files and does not know the store. One `Executor` a slot; `slot.Slot` calls it.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ...errors import SickMachine
from ...inputs.templates.template import variables_of
from ...job import Cause, Earlier, Lease, Outcome, State
from ...system.hardware import THREADS, VISIBLE
from ..health import sickness
from . import verdict
from .container import NO_ENGINE, START_SECONDS, Container, Containers, handler_command
from .handler import HandlerProcess, host_program
from .logs import SlotLog
from .mask import Mask
from .process import Child, Ended, Strays, Watch, check_processes, files_of, oom_kills
from .scratch import FULL_BELOW, Scratch
from .task import NOTHING_SAID, Task, Work

MOMENT_SECONDS = 0.05
"""Duration from which an attempt takes long, in seconds: its lease must then be renewed."""

SYNTAX_ERROR = 2
"""Exit code of a shell that cannot read its script; programs have it for reasons of their own."""

JOB_PROCESSES = 8
"""Room for processes, below which a job that could not start one is not at fault."""

TAIL_BYTES = 4096
"""End of a failed attempt's text in which the reason is looked for, in bytes."""


_NO_PROCESS = (b"annot fork", b"fork: ", b"new thread", os.strerror(errno.EAGAIN).encode())
"""What programs say that could not start a process or a thread."""


class Cancelled(Exception):
    """The attempt was ended from outside; `args[0]` is the cause."""


class Executor:
    """Runs one process after another. `run` belongs to one thread; `cancel` may come from any."""

    def __init__(
        self,
        task: Task,
        scratch: Scratch,
        log: SlotLog,
        folders: Mapping[str, str],
        worker: str,
        containers: Containers | None,
        project: Path,
    ) -> None:
        """`project`: the folder that jobs find as $DS_PROJECT_DIR."""
        self._task = task
        self._limit = self._timeout = task.timeout
        self._said: Mapping[str, float] = NOTHING_SAID
        self._gpus = task.gpus if task.own.isdisjoint(VISIBLE.values()) else None
        self._lent: Mapping[str, str] | None = None
        self._threads = [name for name in THREADS if name not in task.own and name not in os.environ]
        self._handler = task.handler or ""
        self._host_program = [*host_program(task.python), self._handler]
        self._scratch = scratch
        self._log = log
        self._cancelled: Cause | None = None
        self._takes_long: Callable[[], None] = _ignore
        self._mask = Mask(log.write, map(os.fsencode, task.secrets.values())) if task.secrets else None
        self._watch = Watch(self._mask or log.write)
        self._strays = Strays()
        self._strayed = True
        self._host: HandlerProcess | None = None
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._files = {0: null, 1: self._watch.stdout, 2: self._watch.stdout}
        self._spawn_files = files_of(self._files)
        self._started_in = Path.cwd()
        self._links = bool(task.carried.files and task.command)
        given = {**task.environment, "DS_PROJECT_DIR": str(project), "DS_WORKER": worker}
        self._environment = {**os.environb, **_encoded({**given, **task.secrets})}
        self._path = given.get("PATH") if containers is None else None
        self._of_last: Iterable[bytes] = ()
        self._container = (
            Container(containers, scratch.folder, project, given, task.secrets) if containers else None
        )
        self.place(folders)
        oom_kills()  # counts from now on

    def place(self, folders: Mapping[str, str]) -> None:
        """Has the next processes find themselves in these folders."""
        self._cwd = folders["work_dir"]
        given = {f"DS_{name.upper()}": folder for name, folder in folders.items()}
        given["DS_JOB"] = str(self._scratch.job_file)
        if self._links:
            given["DS_PROJECT_DIR"] = str(self._scratch.folder / "project")
        self._environment |= _encoded(given)
        self._placed = given
        if self._container is not None:
            self._container.place(self._scratch.folder, given)

    def see(self, folder: Path) -> None:
        """Has the next containers see one more folder, to read only; plain processes see all."""
        if self._container is not None:
            self._container.see(folder)

    def begin(self) -> None:
        """Prepares for an attempt: a cancellation from now on is for it."""
        self._cancelled = None
        self._strayed = True

    def cancel(self, cause: Cause) -> None:
        """Ends the attempt that runs now; it ends with this cause."""
        self._cancelled = cause
        self._watch.wake()

    def check_cancelled(self) -> None:
        """Raises Cancelled where the attempt is to end."""
        if self._cancelled is not None:
            raise Cancelled(self._cancelled)

    def run(self, lease: Lease, work: Work, takes_long: Callable[[], None], size: int) -> Outcome:
        """Runs the command of `work`, or its function in a process of its own, or the handler.

        `size`: bytes of the job's inputs. Raises Cancelled, and UsageError for a need that cannot be met; no
        process of its own is left.
        """
        self._takes_long = takes_long
        self._scratch.write(lease.job.body)
        self._watch.unblock()
        self._said = self._task.said(lease.job, size)
        self._limit = self._said.get("timeout", self._task.timeout)
        if self._gpus is not None:
            self._lent = self._gpus.lend(self._said.get("gpus"), self.check_cancelled)
        given = self._give(lease.earlier)
        if given:
            self._log.note(f"attempt {lease.attempt} is given {given}")
        try:
            outcome = self._run(lease, work)
        finally:
            if self._mask is not None:
                self._mask.flush()
        detail = self._hidden(outcome.detail)
        if given:
            detail = "; ".join(filter(None, [detail, f"it was given {given}"]))
        return outcome._replace(detail=detail)

    def _run(self, lease: Lease, work: Work) -> Outcome:
        argv, once = work.argv, work.handler
        if not argv and not once and self._container is None and self._lent is None:
            return self._run_handler(lease)
        own = dict(variables_of(lease.job.keys) if work.variables is None else work.variables)
        own |= {b"DS_JOB_ID": lease.job.id.encode(), b"DS_ATTEMPT": b"%d" % lease.attempt}
        if self._said or self._lent:
            own |= self._shares()
        if argv:
            return self._or_refused(argv, own, self._run_command(argv, own))
        if self._container is not None:
            return self._run_command(handler_command(once or self._handler), own)
        return self._run_command([*self._host_program[:-1], "--once", once or self._handler], own)

    def _give(self, earlier: Earlier) -> str:
        """Sets the limits of an attempt. Returns, in words, what is more than the config has."""
        self._timeout = self._task.timeout_after(earlier.timeouts, self._limit)
        own = self._said.get("memory")
        memory = self._container.give_memory(earlier.memory, own) if self._container else ""
        if self._container and self._lent is not None:
            self._container.give_gpus(self._lent)
        if not any(earlier):
            return memory
        time_given = f"{self._timeout:g} s" if self._timeout != self._limit else ""
        return " and ".join(filter(None, [time_given, memory]))

    def _shares(self) -> dict[bytes, bytes]:
        """Returns the variables that say what the job may use, as far as it says what it needs."""
        names = {"cpus": ("DS_CPUS", *self._threads), "memory": ("DS_MEMORY_MB",), "gpus": ("DS_GPUS",)}
        return _encoded(self._lent or {}) | {
            name.encode(): b"%d" % self._said[need]
            for need, variables in names.items()
            if need in self._said
            for name in variables
        }

    def check_machine(self) -> None:
        """Raises SickMachine or OSError if no job can be started, or scratch cannot be written."""
        check_processes(1)
        self._scratch.check()
        if self._container is not None:
            self._container.check_engine()

    def kill_strays(self, job_id: str) -> None:
        """Kills the processes that got out of the job's group: the log says how many."""
        if self._strayed and (killed := self._strays.kill(job_id)):
            self._log.note(f"ended {killed} process(es) that the job had left running")

    def take_back_gpus(self) -> None:
        """Takes back the GPUs that were lent to the job."""
        if self._gpus is not None:
            self._gpus.take_back()

    def close(self) -> None:
        """Ends the handler's process and closes what is open."""
        if self._host is not None:
            self._host.stop(self._watch)
        if self._container is not None:
            self._container.close()
        os.close(self._files[0])
        self._watch.close()
        with suppress(OSError):
            os.chdir(self._started_in)  # starting a process has led to a folder that goes now

    def _run_command(self, argv: list[str], own: Mapping[bytes, bytes]) -> Outcome:
        environment = self._environment
        if self._container is not None:
            argv, environment = self._container.command(argv, own)
        else:
            for name in self._of_last:  # in place, as it is large
                environment.pop(name, None)
            if self._said or self._lent:  # what it changes comes back for the next job
                environment = {**environment, **own}
                own = {}
            environment |= own
            self._of_last = own.keys()
        try:
            program = "" if self._path is None else _found(argv[0], self._path)
            child = Child.spawn(argv, environment, self._cwd, self._spawn_files, program)
        except OSError as error:
            self._scratch.doubt()  # it may be the folder that is not there
            if sickness(error):
                raise
            return self._noted(verdict.not_started(argv[0], error))
        try:
            finished = self._await(child, self._deadline())
        except BaseException:  # no job goes on unwatched: it is ended, and the error raised again
            self._watch.stop(child)
            if self._container is not None:
                self._container.leave()
            raise
        if finished:
            alone = self._strays.none_beside(child)
            self._strayed = not alone
            ended = child.reap(alone=alone)
        else:
            ended = self._watch.stop(child)
        self._watch.drain()
        if self._container is not None:
            return self._end_container(self._container, ended if finished else None)
        if not finished:
            return self._timed_out(ended)
        return self._judge(ended, argv[0])

    def _run_handler(self, lease: Lease) -> Outcome:
        if self._host is None:
            self._host = HandlerProcess(self._host_program, self._environment, self._started_in, self._files)
            self._host.placed = self._placed
        host = self._host
        host.request(lease, self._placed)
        try:
            finished = self._await(host.child, self._deadline(), host.replies)
        except BaseException:  # the function's process goes too, and the error is raised again
            self._host = None
            host.stop(self._watch)
            raise
        reply = host.reply() if finished else None
        if reply is None:  # the process has ended, or has to
            self._host = None
            ended = host.stop(self._watch, ended=finished)
            self._watch.drain()
            if not finished:
                return self._timed_out(ended)
            return self._judge(ended if ended.exit_code != 0 else ended._replace(exit_code=1))
        self._watch.drain()
        return self._or_disk_full(verdict.of_reply(reply))

    def _deadline(self) -> float | None:
        return time.monotonic() + self._timeout if self._timeout else None

    def _await(self, child: Child, deadline: float | None, reply: int = -1) -> bool:
        """Waits for the child or the reply (True), or for the deadline or a cancellation (False)."""
        moment = time.monotonic() + MOMENT_SECONDS
        if self._watch.wait(child, moment if deadline is None else min(moment, deadline), reply):
            return True
        self._takes_long()
        while self._cancelled is None and (deadline is None or time.monotonic() < deadline):
            look = time.monotonic() + START_SECONDS if self._container else math.inf
            until = min(look, math.inf if deadline is None else deadline)
            if self._watch.wait(child, None if until == math.inf else until, reply):
                return True
            if self._container is not None and time.monotonic() >= look:
                self._container.check_made()
        return False

    # how it ended

    def _end_container(self, container: Container, ended: Ended | None) -> Outcome:
        """Returns a container's outcome; its usage is known only where it is a process of ours."""
        found = container.end(ended)
        if found is None:
            self.check_cancelled()
            container.check_engine()  # where it does not answer, the job may never have begun
            return self._timed_out(None)
        code = found.ended.exit_code
        if found.broken:
            if any(each in self._log.tail(TAIL_BYTES) for each in NO_ENGINE):
                raise SickMachine("the container engine was away")
            outcome = verdict.failed(Cause.EXIT, f"could not be started: {found.broken[:400]}", code)
        elif found.memory:
            outcome = self._noted(verdict.failed(Cause.OUT_OF_MEMORY, found.memory, code))
        else:
            outcome = self._judge(found.ended)
        return outcome._replace(cpu_seconds=None, max_rss_bytes=None) if container.tells else outcome

    def _timed_out(self, ended: Ended | None) -> Outcome:
        """Returns the outcome of an attempt that we ended. Raises Cancelled where that was an order."""
        self.check_cancelled()
        raised = ", raised by TIMEOUT_RETRY" if self._timeout != self._limit else ""
        limit = "JOB_TIMEOUT" if self._limit == self._task.timeout else "its _timeout"
        detail = f"ran longer than {limit} = {self._limit:g} s{raised}"
        return self._noted(verdict.with_usage(verdict.failed(Cause.TIMEOUT, detail), ended))

    def _judge(self, ended: Ended, program: str = "") -> Outcome:
        can_tell = self._container is None or not self._container.tells
        outcome = verdict.of_process(ended, lambda: can_tell and oom_kills().grew(), program)
        return self._or_disk_full(outcome)

    def _or_disk_full(self, outcome: Outcome) -> Outcome:
        """Changes the cause of a failure where the disk is full, or the job said so.

        Raises OSError where it could not start a process, as hardly any can be started.
        """
        if outcome.cause is None:
            return outcome
        said = self._log.tail(TAIL_BYTES)
        if self._container is None and any(each in said for each in _NO_PROCESS):
            check_processes(JOB_PROCESSES)
        if self._scratch.free_bytes() < FULL_BELOW or os.strerror(errno.ENOSPC).encode() in said:
            return outcome._replace(cause=Cause.DISK_FULL)
        return outcome

    def _or_refused(self, argv: list[str], own: Mapping[bytes, bytes], outcome: Outcome) -> Outcome:
        """Makes a failure final where the shell itself refused the command's syntax: no retry mends that."""
        if outcome.exit_code != SYNTAX_ERROR or argv[:2] != ["/bin/sh", "-c"]:
            return outcome
        if self._run_command([argv[0], "-n", *argv[1:]], own).exit_code != SYNTAX_ERROR:
            return outcome
        detail = "the shell refuses the syntax of the command"
        return self._noted(outcome._replace(state=State.DEAD, detail=detail))

    def _noted(self, outcome: Outcome) -> Outcome:
        """Adds an outcome's reason to the job's log."""
        self._log.note(self._hidden(outcome.detail))
        return outcome

    def _hidden(self, text: str) -> str:
        return text if self._mask is None else self._mask.hide(text)


def _encoded(given: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in given.items()}


def _found(name: str, path: str) -> str:
    """Returns where a program lies on the PATH of the job's environment; empty: nowhere."""
    from shutil import which

    return which(name, path=path) or ""


def _ignore() -> None:
    pass
