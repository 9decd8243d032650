"""A slot: runs one attempt at a time, from fetching inputs to the published output.

What can go wrong in an attempt becomes an Outcome with its cause; nothing is raised for it.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...engine import Store
from ...errors import DsError, UsageError
from ...job import Cause, Lease, Outcome, State
from .container import Container, Containers, Verdict, handler_command
from .logs import SlotLog
from .process import Child, Ended, Strays, Watch, files_of, memory_kills
from .scratch import Scratch
from .staging import Claim, fetch_inputs, is_done, publish_outputs
from .task import Task, Work

DISK_FULL_BELOW = 1 << 20
"""Free bytes under which a failed attempt's cause is a full disk."""

MOMENT_SECONDS = 0.05
"""An attempt longer than this takes long: somebody has to renew its lease meanwhile."""

CARRIED_MARK = "carried-worker"
"""A file beside the Python of a worker that was brought into an image: it is not the image's own Python."""

_TAIL_LOOKED_AT = 4096


class Cancelled(Exception):
    """The attempt was ended from outside; `args[0]` is the cause."""


class Failed(Exception):
    """A step around the job's own process failed: (cause, detail)."""


class Slot:
    """Runs attempts in its own folder. `run` belongs to one thread; `cancel` may come from any."""

    def __init__(
        self,
        task: Task,
        store: Store,
        folder: Path,
        log: SlotLog,
        run: str,
        worker: str,
        containers: Containers | None = None,
    ) -> None:
        self._task = task
        self._store = store
        self._folders = {
            name: folder / name.removesuffix("_dir") for name in ("work_dir", "input_dir", "output_dir")
        }
        self._log = log
        self._run = run
        self._worker = worker
        self._watch = Watch(log.write)
        self._strays = Strays()
        self._expected: dict[str, tuple[Lease, Work]] = {}
        self._cancelled: Cause | None = None
        self._host: _Host | None = None
        self._project = Path.cwd()
        folder.mkdir(parents=True, exist_ok=True)
        self._scratch = Scratch(folder, self._folders.values())
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._files = {0: self._null, 1: self._watch.stdout, 2: self._watch.stdout}
        self._spawned_with = files_of(self._files)
        self._fixed = {name: str(place) for name, place in self._folders.items()}
        given = {
            **task.environment,
            "DS_WORK_DIR": self._fixed["work_dir"],
            "DS_INPUT_DIR": self._fixed["input_dir"],
            "DS_OUTPUT_DIR": self._fixed["output_dir"],
            "DS_JOB": str(self._scratch.job_file),
            "DS_PROJECT_DIR": str(self._project),
            "DS_WORKER": worker,
        }
        encoded = {os.fsencode(name): os.fsencode(value) for name, value in given.items()}
        self._environment = {**os.environb, **encoded}
        self._container = Container(containers, folder, self._project, given) if containers else None

    def cancel(self, cause: Cause) -> None:
        """End the attempt that runs now; it comes out with this cause."""
        self._cancelled = cause
        self._watch.wake()

    def begin(self) -> None:
        """Get ready for an attempt."""
        self._cancelled = None
        self._fetched = 0
        self._phases: dict[str, float] = {}
        self._strayed = True
        self._log.begin()

    @property
    def log_place(self) -> str:
        """Where the log of the attempt that runs now begins."""
        return self._log.place

    def run(self, lease: Lease, takes_long: Callable[[Slot], None]) -> Outcome:
        """One attempt, after `begin`. Never raises; leaves no process and no file of the job behind.

        `takes_long` is called with this slot, once or more, before whatever may take longer than a moment.
        """
        started = time.monotonic()
        self._takes_long = takes_long
        try:
            outcome = self._attempt(lease)
        except Cancelled as end:
            outcome = Outcome(State.WAITING, end.args[0])
        except Exception as error:  # noqa: BLE001  an error of ours must not lose the job or end the loop
            cause, detail = error.args if isinstance(error, Failed) else (_cause_of(error), _describe(error))
            self._log.note(f"{cause}: {detail}")
            outcome = Outcome(State.WAITING, cause, detail)
        self._clean(lease)
        seconds, log = time.monotonic() - started, self._log.end()
        return outcome._replace(seconds=seconds, log=log, phases=self._phases, bytes_in=self._fetched)

    def close(self) -> None:
        """End the handler's process and close what is open."""
        if self._host is not None:
            self._host.stop(self._watch)
        if self._container is not None:
            self._container.close()
        self._scratch.close()
        os.close(self._null)
        self._watch.close()

    def expect(self, leases: Sequence[Lease]) -> None:
        """These may be run soon: what they take is worked out now, for many at once, as that is quicker."""
        known, self._expected = self._expected, {}
        for lease in leases:
            found = known.get(lease.job.id)
            with suppress(UsageError):  # told when it is run
                work = found[1] if found and found[0] is lease else self._task.work(lease, self._fixed)
                self._expected[lease.job.id] = lease, work

    def _work(self, lease: Lease) -> Work:
        found = self._expected.pop(lease.job.id, None)
        return found[1] if found and found[0] is lease else self._task.work(lease, self._fixed)

    def _attempt(self, lease: Lease) -> Outcome:
        task, job, work = self._task, lease.job, self._work(lease)
        if task.done_check and work.prefix:
            self._takes_long(self)
            if is_done(self._store, work.prefix, job.id, task.done_rule):
                return Outcome(State.SKIPPED, output=work.prefix)
        if work.inputs:
            self._takes_long(self)
            with _Phase(self._phases, "in", Cause.INPUT_MISSING):
                folder, check = self._folders["input_dir"], self._check_cancelled
                self._fetched = fetch_inputs(self._store, work.inputs, folder, check)
        self._check_cancelled()
        outcome = self._execute(lease, work.argv)
        if outcome.state is State.SUCCEEDED and work.prefix:
            self._takes_long(self)
            with _Phase(self._phases, "out", Cause.UPLOAD):
                outcome = self._publish(lease, work.prefix, outcome)
        return outcome

    def _execute(self, lease: Lease, argv: list[str]) -> Outcome:
        self._scratch.write(lease.job.body)
        self._watch.unblock()
        own = {b"DS_JOB_ID": lease.job.id.encode(), b"DS_ATTEMPT": b"%d" % lease.attempt}
        if argv:
            return self._run_command(argv, own)
        if self._container is not None:
            return self._run_command(handler_command(self._task.handler or ""), own)
        return self._run_handler(lease)

    def _deadline(self) -> float | None:
        return time.monotonic() + self._task.timeout if self._task.timeout else None

    def _check_cancelled(self) -> None:
        if self._cancelled is not None:
            raise Cancelled(self._cancelled)

    def _run_command(self, argv: list[str], own: Mapping[bytes, bytes]) -> Outcome:
        environment = self._environment
        if self._container is not None:
            argv, environment = self._container.command(argv, own)
        else:
            environment |= own  # in place: no other job needs it as it was
        try:
            child = Child.spawn(argv, environment, self._fixed["work_dir"], self._spawned_with)
        except OSError as error:
            self._scratch.doubt()  # it may be the folder that is not there
            return self._not_started(argv[0], error)
        finished = self._await(child, self._deadline())
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
            self._check_cancelled()
            return self._timed_out(ended)
        return self._judge(ended)

    def _end_container(self, container: Container, ended: Ended | None) -> Outcome:
        """What became of a job in a container; its usage is not known, as the engine does not tell it."""
        verdict = container.end(ended)
        if verdict is None:
            self._check_cancelled()
            return self._timed_out(None)
        return self._judge_container(verdict)._replace(cpu_seconds=None, max_rss_bytes=None)

    def _judge_container(self, verdict: Verdict) -> Outcome:
        code = verdict.ended.exit_code
        if verdict.broken:
            return Outcome(State.WAITING, Cause.EXIT, f"could not be started: {verdict.broken[:400]}", code)
        if verdict.memory:
            self._log.note(verdict.memory)
            return Outcome(State.WAITING, Cause.OUT_OF_MEMORY, verdict.memory, code)
        return self._judge(verdict.ended)

    def _await(self, child: Child, deadline: float | None, reply: int = -1) -> bool:
        """Wait for the child or the reply (True), or for the deadline or a cancellation (False)."""
        moment = time.monotonic() + MOMENT_SECONDS
        if self._watch.wait(child, moment if deadline is None else min(moment, deadline), reply):
            return True
        self._takes_long(self)
        while self._cancelled is None and (deadline is None or time.monotonic() < deadline):
            if self._watch.wait(child, deadline, reply):
                return True
        return False

    def _not_started(self, program: str, error: OSError) -> Outcome:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        detail = f"{program}: {error.strerror}"
        self._log.note(f"could not be started: {detail}")
        return Outcome(State.WAITING, Cause.EXIT, f"could not be started: {detail}", code)

    def _timed_out(self, ended: Ended | None) -> Outcome:
        detail = f"ran longer than JOB_TIMEOUT = {self._task.timeout:g} s"
        self._log.note(detail)
        outcome = Outcome(State.WAITING, Cause.TIMEOUT, detail)
        if ended is None:
            return outcome
        return outcome._replace(cpu_seconds=ended.cpu_seconds, max_rss_bytes=ended.max_rss_bytes)

    def _judge(self, ended: Ended) -> Outcome:
        code, _, cpu, memory = ended
        if code == 0:
            return Outcome(State.SUCCEEDED, exit_code=0, cpu_seconds=cpu, max_rss_bytes=memory)
        if ended.signal is not None:
            name = signal.Signals(ended.signal).name if ended.signal in set(signal.Signals) else ended.signal
            cause, detail = Cause.SIGNAL, f"killed by {name}"
            if ended.signal == signal.SIGKILL and self._container is None and _OOM_KILLS.grew():
                detail = f"killed for lack of memory; it held {memory / 1e6:.0f} MB"
                cause = Cause.OUT_OF_MEMORY
        else:
            cause, detail = Cause.EXIT, f"exit code {code}"
        if self._disk_is_full():
            cause = Cause.DISK_FULL
        return Outcome(State.WAITING, cause, detail, code, cpu_seconds=cpu, max_rss_bytes=memory)

    def _disk_is_full(self) -> bool:
        if self._scratch.free_bytes() < DISK_FULL_BELOW:
            return True
        return os.strerror(errno.ENOSPC).encode() in self._log.tail(_TAIL_LOOKED_AT)

    def _publish(self, lease: Lease, prefix: str, outcome: Outcome) -> Outcome:
        claim = Claim(lease.job.id, self._run, lease.attempt, self._worker)
        folder, note, check = self._folders["output_dir"], self._log.note, self._check_cancelled
        manifest = publish_outputs(self._store, prefix, folder, claim, note, check)
        if manifest is None:
            detail = "the command succeeded but wrote no file to {output_dir}"
            self._log.note(detail)
            return outcome._replace(state=State.WAITING, cause=Cause.OUTPUT_MISSING, detail=detail)
        size = sum(file.size for file in manifest.files)
        return outcome._replace(output=prefix, bytes_out=size)

    def _run_handler(self, lease: Lease) -> Outcome:
        if self._host is None:
            handler = self._task.handler or ""
            self._host = _Host(handler, self._environment, self._project, self._files)
        host = self._host
        host.request(lease)
        finished = self._await(host.child, self._deadline(), host.replies)
        reply = host.reply() if finished else None
        if reply is None:  # the process has ended, or has to
            self._host = None
            ended = host.stop(self._watch, now=finished)
            self._watch.drain()
            if not finished:
                self._check_cancelled()
                return self._timed_out(ended)
            return self._judge(ended if ended.exit_code != 0 else ended._replace(exit_code=1))
        self._watch.drain()
        return self._judge_reply(reply)

    def _judge_reply(self, reply: Mapping[str, Any]) -> Outcome:
        code = int(reply["exit_code"])
        cpu, memory = float(reply["cpu_seconds"]), int(reply["max_rss_bytes"])
        if code == 0:
            return Outcome(State.SUCCEEDED, exit_code=0, cpu_seconds=cpu, max_rss_bytes=memory)
        cause = Cause.DISK_FULL if self._disk_is_full() else Cause.EXIT
        detail = reply["detail"] or f"exit code {code}"
        return Outcome(State.WAITING, cause, detail, code, cpu_seconds=cpu, max_rss_bytes=memory)

    def _clean(self, lease: Lease) -> None:
        """Take away what the job left: processes that got out of its group, and files."""
        if self._strayed and (killed := self._strays.kill(lease.job.id)):
            self._log.note(f"ended {killed} process(es) that the job had left running")
        try:
            self._scratch.clear()
        except OSError as error:
            self._log.note(f"what the job left could not be removed: {error}")


class _Host:
    """The process that runs the HANDLER of one slot."""

    def __init__(self, handler: str, env: Mapping[bytes, bytes], cwd: Path, files: Mapping[int, int]) -> None:
        requests, self._requests = os.pipe()
        self.replies, replies = os.pipe()
        argv = [*_host_program(), handler]
        try:
            self.child = Child.spawn(argv, env, cwd, files_of({**files, 3: requests, 4: replies}))
        finally:
            os.close(requests)
            os.close(replies)

    def request(self, lease: Lease) -> None:
        """Send a job."""
        job = lease.job
        line = b'{"job_id":"%s","attempt":%d,"job":%s}\n' % (job.id.encode(), lease.attempt, job.body)
        with suppress(BrokenPipeError):  # it has ended: the wait for its reply tells
            while line:
                line = line[os.write(self._requests, line) :]

    def reply(self) -> dict[str, Any] | None:
        """The reply that is there to be read; None where the process has ended instead."""
        line = b""
        while not line.endswith(b"\n"):
            if not (data := os.read(self.replies, 1 << 16)):
                return None
            line += data
        from msgspec.json import decode

        reply: dict[str, Any] = decode(line)
        return reply

    def stop(self, watch: Watch, *, now: bool = False) -> Ended:
        """End the process, at once or as every child is ended, and close the pipes."""
        os.close(self._requests)
        ended = self.child.reap() if now else watch.stop(self.child)
        os.close(self.replies)
        return ended


def _host_program() -> list[str]:
    """What runs HANDLER: our own Python, but where we were brought into an image, that image's."""
    if Path(sys.prefix, CARRIED_MARK).exists():
        return ["python3", str(Path(__file__).with_name("host.py"))]
    return [sys.executable, "-m", f"{__package__}.host"]


class _Phase:
    """Notes the seconds spent in a phase of the attempt, and gives what fails in it its cause."""

    def __init__(self, phases: dict[str, float], name: str, cause: Cause) -> None:
        self._phases, self._name, self._cause = phases, name, cause

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self._phases[self._name] = time.monotonic() - self._start
        if isinstance(error, OSError | DsError | ValueError):
            raise Failed(_cause_of(error, self._cause), _describe(error)) from error


class _OomKills:
    """The kernel's count of processes killed for lack of memory, on the whole machine."""

    def __init__(self) -> None:
        self._last = memory_kills()

    def grew(self) -> bool:
        """Whether it grew since the last look."""
        now = memory_kills()
        grew = now > self._last
        self._last = now
        return grew


_OOM_KILLS = _OomKills()


def _cause_of(error: Exception, otherwise: Cause = Cause.EXIT) -> Cause:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Cause.DISK_FULL if full else otherwise


def _describe(error: Exception) -> str:
    return (error.what if isinstance(error, DsError) else f"{type(error).__name__}: {error}")[:500]
