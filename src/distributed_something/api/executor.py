"""Calls Python functions as jobs, in the manner of `concurrent.futures`.

A call is a job of a project of its own, in the folder `.ds/calls` of the one given. One thread queues the
calls, watches the run by `steps/watch/monitor.py`, and fulfils the futures from ledger and store.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pickle
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from threading import Event, Thread, main_thread
from typing import Any, NamedTuple, TypeVar

from ..engine import Renting
from ..engines import ENGINES
from ..errors import DsError, UsageError
from ..inputs.config import Config
from ..inputs.keys import KEYS
from ..job import Job, State
from ..ledger import Fold, JobRecord, RunPaths
from ..report.failures import group_failures
from ..runs.joblog import read_log
from ..scaling import GiveUp, Replace
from ..steps.project import Project as Steps
from ..steps.setup import setup
from ..steps.start import start
from ..steps.submit import queue_jobs
from ..steps.watch.finish import end
from ..steps.watch.monitor import Watch
from ..words import bytes_text
from .call import RESULT, version
from .live import console_for
from .project import Project

CALL_BYTES = 1 << 20
"""Largest job of a call on an engine without a limit of its own, in bytes."""

LOOK_SECONDS = 0.02
LOOKING_SHARE = 10.0
"""Least pause between two looks, in seconds, and as a multiple of what a look takes."""

_OUTPUT = "calls"
_NOT_OURS = frozenset(
    {
        "APP_NAME", "COMMAND", "HANDLER", "INPUTS", "OUTPUT", "COLLECT", "COLLECT_WHEN", "STORE",
        "ENVIRONMENT", "FILES", "CHECK_IF_DONE_BOOL", "SQS_QUEUE_NAME", "SQS_DEAD_LETTER_QUEUE",
        "LOG_GROUP_NAME", "MESSAGE", "AUTO_MONITOR", "CREATE_DASHBOARD", "NOTIFY", "CANARY",
        "ENVIRONMENT_FILE",
    }
)  # fmt: skip
"""Keys of a project that say what its jobs are, or name what belongs to its runs."""

_T = TypeVar("_T")


class CallError(DsError):
    """A call did not end well: `what` says why, `log` has what its last attempt printed."""

    def __init__(self, what: str, cause: str = "", log: str = "") -> None:
        super().__init__(what, "CallError.log has the call's output")
        self.cause = cause
        self.log = log


class _Call(NamedTuple):
    future: Future[Any]
    name: str
    job: Job


class Executor(futures.Executor):
    """Runs calls as jobs of a project's engine: with its machines, image, time limit and retries.

    Without a project it runs them on this machine, in a folder that is removed at the end. `max_workers`:
    calls at a time on a machine; not given, as the project says, or one a processor. Needs cloudpickle, here
    and for the workers' Python, which has the same version (3.11, say). Use it in a `with` statement: its end
    waits for all calls, then ends the machines. A call whose function raises is a dead job, and its future
    raises CallError. A project with a budget has to be one that was opened with `yes=True`.
    """

    def __init__(
        self, project: Project | str | Path | None = None, *, max_workers: int | None = None
    ) -> None:
        _cloudpickle()
        opened = Project.open(project) if isinstance(project, str | Path) else project
        self._temporary = Path(tempfile.mkdtemp(prefix="ds-calls-")) if opened is None else None
        folder = self._temporary or opened.folder / ".ds" / _OUTPUT  # type: ignore[union-attr]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_project(folder, opened, max_workers)
        self._steps = Steps.open(folder, console_for(progress=False, yes=opened is None or opened.yes))
        self._limit = self._steps.engine.job_bytes or CALL_BYTES
        self._mark = os.urandom(4).hex()
        self._count = 0
        self._new: deque[_Call] = deque()
        self._pending: dict[str, _Call] = {}
        self._read: set[str] = set()
        self._wake = Event()
        self._closing = False
        self._failure: DsError | None = None
        self._thread: Thread | None = None

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Queues a call. Returns its future. Raises UsageError if it cannot be pickled or is too large."""
        if self._closing:
            raise RuntimeError("cannot submit a call after shutdown")
        if self._failure is not None:
            raise self._failure
        future: Future[_T] = Future()
        name = getattr(fn, "__name__", type(fn).__name__)
        self._new.append(_Call(future, name, self._job(fn, name, args, kwargs)))
        if self._thread is None:
            self._thread = Thread(target=self._work, name="ds-executor")
            self._thread.start()
        self._wake.set()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls; the machines end when all calls have. `wait`: returns after that.

        `cancel_futures` cancels the calls that are not queued yet.
        """
        if cancel_futures:
            with suppress(IndexError):
                while True:
                    self._new.popleft().future.cancel()
        self._closing = True
        self._wake.set()
        if self._thread is None:
            self._remove_folder()
        elif wait:
            self._thread.join()

    def _job(self, fn: Callable[..., Any], name: str, args: tuple[Any, ...], named: Mapping[str, Any]) -> Job:
        from msgspec.json import encode

        try:
            pickled = _cloudpickle().dumps((fn, args, named))
        except Exception as error:  # whatever the objects raise
            raise UsageError(f"{name}: cannot be pickled: {error}", "pass values that can be") from error
        self._count += 1
        group = {"number": self._count, "executor": self._mark, "function": name, "python": version()}
        body = encode({"group": {**group, "call": base64.b64encode(pickled).decode()}})
        if len(body) > self._limit:
            size = f"{bytes_text(len(body))} as a job, more than {bytes_text(self._limit)}"
            raise UsageError(f"{name}: its call is too large: {size}", "pass the name of a file instead")
        return Job(hashlib.sha256(body).hexdigest()[:16], self._count, body)

    # -- The thread

    def _work(self) -> None:
        """Does the calls until shutdown. Whatever goes wrong becomes the failure of all open futures."""
        try:
            with self._steps.engine.exclusive():
                self._serve()
        except Exception as error:  # noqa: BLE001  futures carry it
            known = isinstance(error, DsError)
            self._fail(error if known else DsError(f"{type(error).__name__}: {error}"))  # type: ignore[arg-type]
        finally:
            self._remove_folder()

    def _serve(self) -> None:
        steps = self._steps
        setup(steps)
        watch = Watch(steps)
        try:
            with steps.console.watch() as watcher:
                while self._new or self._pending or not (self._closing or not main_thread().is_alive()):
                    self._wake.clear()
                    began = time.monotonic()
                    self._queue_new()
                    if self._pending:
                        action = watch.look(watcher)
                        self._settle(watch.fold)
                        self._go_on(action, watch)
                    pause = max(LOOK_SECONDS, LOOKING_SHARE * (time.monotonic() - began))
                    if isinstance(steps.engine, Renting):
                        pause = max(pause, min(steps.engine.poll_interval, 5.0))
                    self._wake.wait(pause if self._pending else 1.0)
        finally:
            self._remove_results()
            end(steps, steps.fold())

    def _queue_new(self) -> None:
        """Queues the calls that have come, and starts workers if none run."""
        jobs = []
        while self._new:
            each = self._new.popleft()
            if each.future.set_running_or_notify_cancel():
                self._pending[each.job.id] = each
                jobs.append(each.job)
        if not jobs:
            return
        steps = self._steps
        engine = steps.engine
        report = queue_jobs(jobs, engine.queue(), engine.store, steps.paths(), lambda _: None)
        for job_id, why in report.failed:
            self._pending.pop(job_id).future.set_exception(CallError(f"was refused by the queue: {why}"))
        if not engine.machines().running:
            start(steps, None)

    def _go_on(self, action: object, watch: Watch) -> None:
        """Starts workers anew that were killed, or that ended as nothing was left to do just then."""
        ended = watch.snapshot.machines.ended if watch.snapshot else None
        if isinstance(action, Replace) or (isinstance(action, GiveUp) and ended == "drained"):
            start(self._steps, None)
        elif isinstance(action, GiveUp):
            raise DsError(f"the workers have ended: {action.why}", action.fix)

    def _settle(self, fold: Any) -> None:
        """Fulfils the futures of the calls that have ended."""
        assert isinstance(fold, Fold)
        for job_id in [*self._pending]:
            record = fold.jobs.get(job_id)
            if record is not None and record.state in (State.SUCCEEDED, State.DEAD, State.DROPPED):
                call = self._pending.pop(job_id)
                self._fulfil(call, record)

    def _fulfil(self, call: _Call, record: JobRecord) -> None:
        store, paths = self._steps.engine.store, self._steps.paths()
        try:
            if record.state is not State.SUCCEEDED:
                raise _error_of(store, paths, call.name, record)
            result = pickle.loads(store.read(f"{_OUTPUT}/{call.job.id}/{RESULT}"))  # noqa: S301  our own job's
        except Exception as error:  # noqa: BLE001  the future carries it
            call.future.set_exception(error)
        else:
            call.future.set_result(result)
            self._read.add(call.job.id)

    def _fail(self, error: DsError) -> None:
        self._failure = error
        for each in [*self._pending.values(), *self._new]:
            if each.future.running() or each.future.set_running_or_notify_cancel():
                each.future.set_exception(error)
        self._pending.clear()
        self._new.clear()

    def _remove_results(self) -> None:
        """Removes the results from the store: the futures have them."""
        store = self._steps.engine.store
        with suppress(DsError):
            files = store.list(f"{_OUTPUT}/") if self._read else ()
            store.delete(each.key for each in files if each.key.split("/")[1] in self._read)

    def _remove_folder(self) -> None:
        if self._temporary is not None:
            with suppress(DsError):
                self._steps.engine.remove()
            rmtree(self._temporary, ignore_errors=True)


def _cloudpickle() -> Any:
    try:
        import cloudpickle
    except ImportError:
        what = "cloudpickle is not installed: an Executor sends functions by it"
        raise UsageError(what, "pip install 'distributed-something[python]'") from None
    return cloudpickle


def _error_of(store: Any, paths: RunPaths, name: str, record: JobRecord) -> CallError:
    log = read_log(store, paths, record.log).decode(errors="replace")
    if record.state is State.DROPPED:
        return CallError(f"{name}: it was taken out of the run", record.cause or "", log)
    why = group_failures(store, paths, [record])[0].example
    return CallError(f"{name}: {record.cause}: {why}", record.cause or "", log)


def _write_project(folder: Path, project: Project | None, max_workers: int | None) -> None:
    """Writes the config and the handler of the calls' own project."""
    keys: dict[str, object] = {"APP_NAME": _OUTPUT, "ENGINE": "local", "JOB_RETRIES": 1, "STORE": "data"}
    environment: dict[str, str] = {}
    if project is not None:
        keys |= _keys_of(project.config)
        keys["STORE"] = str(project.config.store_folder(project.folder) or project.config.store)
        environment = project.config.worker_environment()
    here = ENGINES[str(keys["ENGINE"])].on_this_machine
    if here and not (project and project.config.in_containers):
        places = [str(project.folder) if project else "", environment.get("PYTHONPATH", ""), *sys.path]
        environment["PYTHONPATH"] = os.pathsep.join(each or str(Path.cwd()) for each in places)
    keys |= {
        "HANDLER": "ds_call:call",
        "FILES": ["ds_call.py"],
        "OUTPUT": f"{_OUTPUT}/{{job_id}}",
        "ENVIRONMENT": environment,
    }
    if max_workers is not None:
        keys |= {"DOCKER_CORES": max_workers, "TASKS_PER_MACHINE": 1}
    lines = (f"{name} = {value!r}\n" for name, value in keys.items())
    (folder / "config.py").write_text("".join(lines), encoding="utf-8")
    (folder / "ds_call.py").write_bytes(Path(__file__).with_name("call.py").read_bytes())


def _keys_of(config: Config) -> dict[str, object]:
    """Returns the keys of a project that say where and how its jobs run."""
    given = {key.name: getattr(config, key.field) for key in KEYS if key.name in config.given - _NOT_OURS}
    return {**given, "APP_NAME": f"{config.app_name[:57]}-{_OUTPUT}", "ENGINE": config.engine}
