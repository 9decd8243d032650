"""Checks that every job of a job file fits the config, before anything is queued. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import UsageError
from ..job import keys_of
from ..system.collector import uncollected
from .config import Config
from .jobfile import JobFile
from .messages import Form, template_names
from .template import TRUSTED, CommandTemplate, Template, check_names

LONG_VALUE = 60_000
"""Characters of a value from which it may be too long for a command line, and is looked at closely."""


_STAND_INS = dict.fromkeys(TRUSTED, "x")


class CheckedJobs(NamedTuple):
    """A job file that fits the config, the number of its groups, and the form of their messages."""

    file: JobFile
    total: int
    form: Form


@uncollected()
def check_jobs(
    config: Config, job_file: JobFile, seen: Callable[[int], None], most: int | None = None
) -> int:
    """Reads all groups, checks that each fits the config, and returns their number.

    Raises UsageError for the first job that is wrong. `seen` is called with the number of jobs every 10,000.
    `most`: maximum bytes of a job's body; None: no limit.
    """
    check_all = _Checker(config, job_file.shared)
    number = 0
    for number, group in enumerate(job_file.groups(), 1):
        check_all(number, keys_of({"group": group}) if "Metadata" in group else group)
        if most is not None and _is_long(job_file.shared, group, most):
            raise UsageError(
                f"job {number}: is larger than the queue takes ({most:,} bytes)",
                "put what is long into a file of the store, and name that file in the job",
            )
        if not number % 10_000:
            seen(number)
    return number


def nothing_to_run() -> UsageError:
    """Returns the error for a config without COMMAND and HANDLER, where no image starts a worker."""
    return UsageError(
        "config: neither COMMAND nor HANDLER says what a job is",
        "write COMMAND = 'my-program {Plate}', with keys of the job in braces",
    )


class _Checker:
    """Checks one group after another against the placeholders of a config."""

    def __init__(self, config: Config, shared: Mapping[str, Any]) -> None:
        if config.image_starts_worker and not config.engine_kind.foreign_workers:
            raise nothing_to_run()
        for where, text in [*(("INPUTS", each) for each in config.inputs), ("OUTPUT", config.output)]:
            if not {".", ".."}.isdisjoint(text.split("/")):
                what = f"{where}: {text} has a part '.' or '..', and no key of a store has one"
                raise UsageError(what, f"write {where} as a path from the top of the store")
        self._shared = shared
        self._command = CommandTemplate(config.command) if config.command else None
        self._named: list[tuple[str, Template | CommandTemplate]] = [
            *(("INPUTS", Template(text)) for text in config.inputs),
            *([("OUTPUT", Template(config.output))] if config.output else []),
            *([("COMMAND", self._command)] if self._command else []),
        ]
        own = config.message.values() if isinstance(config.message, Mapping) else ()
        self._message = [Template(text) for text in own]
        used = self._command.names - TRUSTED if self._command else frozenset[str]()
        self._used = list(used)
        self._careful = bool(self._command and self._command.guarded)
        self._names: object = None

    def __call__(self, number: int, group: Mapping[str, Any]) -> None:
        if group.keys() != self._names:  # mostly all groups have the same names
            for where, template in self._named:
                names = [*self._shared, *group, *TRUSTED]
                _at(number, check_names, template, names, where)
            for template in self._message:
                _at(number, check_names, template, template_names(self._shared, group), "MESSAGE")
            self._names = group.keys()
        if self._careful or self._risky(group):
            assert self._command is not None
            _at(number, self._command.check, {**self._shared, **group, **_STAND_INS})

    def _risky(self, group: Mapping[str, Any]) -> bool:
        """Whether some value might not fit onto a command line: numbers and short texts do."""
        for name in self._used:
            value = group[name] if name in group else self._shared[name]
            if type(value) is str:
                if len(value) > LONG_VALUE or "\0" in value:
                    return True
            elif type(value) is not int:
                return True
        return False


def _is_long(shared: Mapping[str, Any], group: Mapping[str, Any], most: int) -> bool:
    """Whether a job's body has too many bytes; only texts, lists and objects can make it too large."""
    values = [*shared.values(), *group.values()]
    plain = all(type(each) in (str, int, float, bool, type(None)) for each in values)
    if plain and sum(len(each) if type(each) is str else 1000 for each in values) * 6 < most - 10_000:
        return False
    import msgspec

    return len(msgspec.json.encode({**shared, "group": dict(group)})) > most


def _at(number: int, check: Callable[..., None], *values: Any) -> None:
    """Runs a check, and names the job in its error."""
    try:
        check(*values)
    except UsageError as error:
        raise UsageError(f"job {number}: {error.what}", error.fix) from error
