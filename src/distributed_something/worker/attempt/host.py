"""Runs HANDLER in a process of its own: imports the function once, then calls it for one job after another.

Started by a slot as `python -m distributed_something.worker.attempt.host module:function`, in the project
folder. Requests come on descriptor 3, one JSON object a line; replies go to descriptor 4. What the
function prints goes to the slot's log.

In a container, `--once module:function` calls the function for the one job that the environment names. The
image's own Python runs it, without the rest of this package: so it imports nothing of it.
"""

from __future__ import annotations

import importlib
import inspect
import os
import resource
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

REQUESTS = 3
REPLIES = 4
MISSING, BROKEN = 127, 126
"""Exit codes of a shell for a program that is missing, or that cannot be executed: no retry mends them."""

FOLDERS = ("work_dir", "input_dir", "output_dir", "shared_dir")


class JobDict(dict[str, Any]):
    """A job's body; a key that it lacks is looked up in its group."""

    def __missing__(self, key: str) -> Any:
        group = self.get("group")
        if isinstance(group, Mapping) and key in group:
            return group[key]
        raise KeyError(key)


class Handler:
    """Calls the user's function with the values that its parameters name.

    `job` is the whole body; a first parameter of any other name gets it too, unless a key has that name.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.place({})
        parameters = inspect.signature(function).parameters.values()
        self._named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def place(self, placed: Mapping[str, str]) -> None:
        """Takes the folders of the next jobs from the environment, after these changes to it."""
        os.environ.update(placed)
        given = ((name, os.environ.get(f"DS_{name.upper()}")) for name in FOLDERS)
        self._folders = {name: Path(folder) for name, folder in given if folder}  # not all have the last one

    def __call__(self, request: Mapping[str, Any]) -> None:
        """Runs one job. Raises what the function raises, and TypeError for a parameter that is no key."""
        job = JobDict(request["job"] if "job" in request else _body())
        group = job.get("group")
        values: dict[str, Any] = {**job, **(group if isinstance(group, dict) else {})}
        if "ds_collect" in values:  # the job that COLLECT is
            values["outputs_dir"] = self._folders["input_dir"]
        values |= self._folders
        values |= {"job": job, "job_id": request["job_id"], "attempt": request["attempt"]}
        args: list[Any] = []
        named: dict[str, Any] = {}
        for parameter in self._named:
            if parameter.name in values and parameter.kind is not parameter.POSITIONAL_ONLY:
                named[parameter.name] = values[parameter.name]
            elif parameter is self._named[0]:
                args.append(job)
            elif parameter.default is parameter.empty:
                raise TypeError(f"parameter {parameter.name!r} of the handler is no key of the job")
        _finish(self._function(*args, **(values if self._takes_all else named)))


def _finish(result: Any) -> None:
    """Runs what an `async def` or a generator function returns: calling it has done nothing yet."""
    if result is None:
        return
    if inspect.isgenerator(result):
        for _ in result:
            pass
    elif inspect.isasyncgen(result) or inspect.iscoroutine(result):
        import asyncio

        asyncio.run(_exhaust(result) if inspect.isasyncgen(result) else result)


async def _exhaust(result: AsyncIterator[Any]) -> None:
    async for _ in result:
        pass


def load(handler: str) -> Handler:
    """Returns the function that `module:function` names.

    It is looked for among the project's files first, then where the worker was started.
    """
    module, _, name = handler.partition(":")
    sys.path[:0] = dict.fromkeys([os.environ["DS_PROJECT_DIR"], str(Path.cwd())])
    function: Any = importlib.import_module(module)
    for part in name.split("."):
        function = getattr(function, part)
    if not callable(function):
        raise TypeError(f"{handler} is not a function")
    return Handler(function)


class Usage:
    """Measures what one job uses, in a process that runs one after another."""

    def __init__(self) -> None:
        self._raised = True
        """Whether the process's peak of memory is to be reset: not for each job, as that takes 10 us."""
        self._resets = False
        self._base = self._floor = 0
        """`_floor`: the peak of the process that started this one, where it hides this one's; else 0."""
        self._children = _used(resource.RUSAGE_CHILDREN)

    def begin(self) -> None:
        """Begins with a job."""
        if self._raised:
            try:
                with Path("/proc/self/clear_refs").open("wb", buffering=0) as file:
                    file.write(b"5")
                self._resets = True
            except OSError:  # not Linux, or not allowed
                self._resets = False
            self._base = _used(resource.RUSAGE_SELF).ru_maxrss
            if self._resets and self._base > (peak := _peak()) + _MUCH:
                self._floor, self._base = self._base, peak
        self._cpu = time.process_time()

    def end(self) -> dict[str, Any]:
        """Returns what the job used, its ended children included.

        Its memory is None where that of an earlier job, or of its children, hides it.
        """
        cpu = time.process_time() - self._cpu
        own, children = _used(resource.RUSAGE_SELF).ru_maxrss, _used(resource.RUSAGE_CHILDREN)
        before = self._children
        if own == self._floor:
            own = _peak()
        known = self._resets or own > self._base
        self._raised = own > self._base + _RAISED
        if children.ru_minflt != before.ru_minflt:
            self._children = children
            cpu += children.ru_utime + children.ru_stime - before.ru_utime - before.ru_stime
            known = known and children.ru_maxrss > before.ru_maxrss
            own = max(own, children.ru_maxrss)
        return {"max_rss_bytes": own * _UNIT if known else None, "cpu_seconds": round(cpu, 6)}


def _peak() -> int:
    """Returns the process's own peak of memory, in KB; it takes 10 us."""
    status = Path("/proc/self/status").read_bytes()
    return int(status.partition(b"VmHWM:")[2].split(None, 1)[0])


_used = resource.getrusage
_UNIT = 1024 if sys.platform.startswith("linux") else 1
_RAISED = (1 << 20) // _UNIT
_MUCH = 64 * _RAISED
_usage = Usage()


def attempt(handler: Handler, request: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one job. Returns the reply for the slot."""
    if placed := request.get("placed"):
        handler.place(placed)
    os.chdir(os.environ["DS_WORK_DIR"])
    os.environ["DS_JOB_ID"] = request["job_id"]
    os.environ["DS_ATTEMPT"] = str(request["attempt"])
    own = os.getpid()
    _usage.begin()
    exit_code, detail = 0, ""
    try:
        handler(request)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        exit_code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:  # noqa: BLE001  whatever the function raises is the job's failure
        traceback.print_exc()
        exit_code = 1
        detail = _in_words(error)[:500].encode("utf-8", "replace").decode()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.getpid() != own:  # a child that the function has forked must not answer for the job
        os._exit(exit_code & 0xFF)
    return {"exit_code": exit_code & 0xFF if exit_code else 0, "detail": detail, **_usage.end()}


def _in_words(error: BaseException) -> str:
    """Returns an exception's name and message; of a group (Python 3.11 has them) the first leaf's."""
    groups = 0
    while isinstance(error, Exception) and (inner := getattr(error, "exceptions", None)):
        if not isinstance(inner, tuple) or not isinstance(inner[0], BaseException):
            break
        error, groups = inner[0], groups + 1
    return f"{type(error).__name__}: {error}{' (the first of a group)' if groups else ''}"


def _try_load(name: str) -> Handler | int:
    """Returns the function; or a shell's exit code for one that is missing or broken: stderr says why."""
    try:
        return load(name)
    except Exception as error:  # noqa: BLE001  the user's module may raise anything
        traceback.print_exc()
        print(f"HANDLER {name}: could not be loaded", file=sys.stderr)
        if isinstance(error, (ModuleNotFoundError, AttributeError)):
            return MISSING
        return BROKEN if isinstance(error, SyntaxError) else 1


def once(name: str) -> int:
    """Runs the job that the environment names. Returns an exit code."""
    os.chdir(os.environ["DS_PROJECT_DIR"])
    handler = _try_load(name)
    if isinstance(handler, int):
        return handler
    facts = {"job_id": os.environ["DS_JOB_ID"], "attempt": int(os.environ["DS_ATTEMPT"])}
    return int(attempt(handler, facts)["exit_code"])


def _body() -> Any:
    """Returns the job's body from its file."""
    return _json()[0](Path(os.environ["DS_JOB"]).read_bytes())


def _json() -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    """Returns what reads and writes JSON: the Python of ENVIRONMENT_FILE need not have msgspec."""
    try:
        from msgspec.json import decode, encode
    except ImportError:
        import json

        return json.loads, lambda value: json.dumps(value, ensure_ascii=False).encode()
    return decode, encode


def main(name: str) -> int:
    """Serves requests until the slot closes its end."""
    for descriptor in (REQUESTS, REPLIES):
        os.set_inheritable(descriptor, False)
    handler = _try_load(name)
    if isinstance(handler, int):
        return handler
    decode, encode = _json()
    with os.fdopen(REQUESTS, "rb") as requests:
        for line in requests:
            os.write(REPLIES, encode(attempt(handler, decode(line))) + b"\n")
    return 0


if __name__ == "__main__":
    if sys.path[0] == str(Path(__file__).parent):
        del sys.path[0]  # started as a file: what lies beside it is not the function's business
    sys.exit(once(sys.argv[2]) if sys.argv[1] == "--once" else main(sys.argv[1]))
