"""Turns the end of a process into an outcome: which cause, in which words. Pure."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any

from ...job import Cause, Outcome, State
from .process import Ended

_SIGNALS = frozenset(signal.Signals)
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"})


def failed(cause: Cause, detail: str, code: int | None = None) -> Outcome:
    """Returns the outcome of a failed attempt."""
    return Outcome(State.WAITING, cause, detail, code)


def with_usage(outcome: Outcome, ended: Ended | None) -> Outcome:
    """Adds what a process used."""
    if ended is None:
        return outcome
    return outcome._replace(cpu_seconds=ended.cpu_seconds, max_rss_bytes=ended.max_rss_bytes)


def not_started(program: str, error: OSError) -> Outcome:
    """Returns the outcome of a program that could not be started, with a shell's exit code for it."""
    code = 127 if isinstance(error, FileNotFoundError) else 126
    return failed(Cause.EXIT, f"could not be started: {program}: {error.strerror}", code)


def of_process(ended: Ended, memory_was_short: Callable[[], bool], program: str = "") -> Outcome:
    """Returns the outcome of a process. `memory_was_short` is called only for a process that was killed.

    Below a shell, exit code 128+n means that signal n ended a program.
    """
    code, number = ended.exit_code, ended.signal
    if code == 0:
        return _succeeded(ended.cpu_seconds, ended.max_rss_bytes)
    if code is not None and code - 128 in _SIGNALS and program.rpartition("/")[2] in _SHELLS:
        number = code - 128
    if number is None:
        return with_usage(failed(Cause.EXIT, f"exit code {code}", code), ended)
    cause, detail = Cause.SIGNAL, f"killed by {_name_of(number)}"
    if number == signal.SIGKILL and memory_was_short():
        cause, detail = Cause.OUT_OF_MEMORY, "killed for lack of memory"
        if ended.signal is not None:  # the usage of a shell leaves out what it ran and did not wait for
            detail += f"; it held {ended.max_rss_bytes / 1e6:.0f} MB"
    return with_usage(failed(cause, detail, code), ended)


def of_reply(reply: Mapping[str, Any]) -> Outcome:
    """Returns the outcome that a handler's process replies."""
    code, cpu, memory = int(reply["exit_code"]), float(reply["cpu_seconds"]), reply["max_rss_bytes"]
    if code == 0:
        return _succeeded(cpu, memory)
    outcome = failed(Cause.EXIT, reply["detail"] or f"exit code {code}", code)
    return outcome._replace(cpu_seconds=cpu, max_rss_bytes=memory)


def _succeeded(cpu_seconds: float | None, max_rss_bytes: int | None) -> Outcome:
    return Outcome(State.SUCCEEDED, exit_code=0, cpu_seconds=cpu_seconds, max_rss_bytes=max_rss_bytes)


def _name_of(number: int) -> str:
    return signal.Signals(number).name if number in _SIGNALS else str(number)
