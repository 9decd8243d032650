"""Checks that every job of a job file fits the config, before anything is queued. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import UsageError
from ...job import Job, Needs, keys_of
from ...system.collector import uncollected
from ...words import did_you_mean, many
from ..config import Config
from ..jobs.jobfile import JobFile
from ..jobs.messages import Form, template_names
from ..needs import KEYS, PACKED, Resources
from ..templates.paths import Input, InputTemplate, OutputTemplate, Prefixes, above, check_in_bucket
from ..templates.template import (
    TRUSTED,
    CommandTemplate,
    Named,
    Template,
    check_names,
    check_variables,
    command_of,
)

_NONCHARACTER = re.compile("[\ufffe\uffff]")

LONG_VALUE = 60_000
"""Characters of a value from which it may be too long for a command line, and is looked at closely."""


STAND_INS: Mapping[str, Any] = {**dict.fromkeys(TRUSTED, "x"), "attempt": 1}
"""Values of our own names, where only the job's keys matter."""


class Fit(NamedTuple):
    """What a job file that fits the config has: its number of groups, and warnings as (what, fix)."""

    total: int
    warnings: Sequence[tuple[str, str]] = ()
    needy: bool = False
    """Jobs say what room they need on a machine."""


class CheckedJobs(NamedTuple):
    """A job file that fits the config, the number of its groups, and the form of their messages."""

    file: JobFile
    total: int
    form: Form
    largest: Needs | None = None
    """The most that jobs need of each; None: they say nothing."""


@uncollected()
def check_jobs(
    config: Config,
    job_file: JobFile,
    seen: Callable[[int], None],
    most: int | None = None,
    *,
    folds_case: bool = False,
    needs: Iterable[str] = (),
) -> Fit:
    """Reads all groups, and checks that each fits the config.

    Raises UsageError for the first job that is wrong, and for jobs with one OUTPUT. `seen` is called with the
    number of jobs every 10,000. `most`: maximum bytes of a job's body; None: no limit. `folds_case`: whether
    the store takes `a` and `A` for one name. `needs`: parameters of the HANDLER that must be keys.
    """
    check_all = _Checker(config, job_file.shared, folds_case, needs)
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
    return Fit(number, check_all.shared_outputs(job_file), check_all.needy)


def nothing_to_run() -> UsageError:
    """Returns the error for a config without COMMAND and HANDLER, where no image starts a worker."""
    return UsageError(
        "config: neither COMMAND nor HANDLER says what a job is",
        "write COMMAND = 'my-program {Plate}', with keys of the job in braces",
    )


def nowhere_to_publish(config: Config) -> UsageError | None:
    """Returns the error for a COMMAND that writes results without an OUTPUT that they go to."""
    if config.output or not config.command or "output_dir" not in CommandTemplate(config.command).names:
        return None
    what = "OUTPUT: not given, and COMMAND writes into {output_dir}: the results would be thrown away"
    return UsageError(what, "OUTPUT = 'results/{Plate}', with keys of the job; or write into {work_dir}")


def nothing_shared(config: Config) -> UsageError | None:
    """Returns the error for a COMMAND that names {shared_dir} without SHARED_INPUTS."""
    if config.shared_inputs or "{shared_dir}" not in config.command:
        return None
    what = "SHARED_INPUTS: not given, and COMMAND names {shared_dir}: there would be no such folder"
    return UsageError(what, "SHARED_INPUTS = ['genome/'], with keys of the store")


class _Checker:
    """Checks one group after another against the placeholders of a config."""

    def __init__(
        self, config: Config, shared: Mapping[str, Any], folds_case: bool, needs: Iterable[str]
    ) -> None:
        self._needs = frozenset(needs)
        self._ours = not config.image_starts_worker  # else the image's worker gives its own meaning to keys
        if not self._ours and not config.engine_kind.foreign_workers:
            raise nothing_to_run()
        if unfit := nowhere_to_publish(config) or nothing_shared(config):
            raise unfit
        self._in_bucket = config.in_bucket
        if self._in_bucket:
            _refuse_noncharacters(shared)
        self._shared = shared
        self._command = command_of(config)
        self._inputs = [InputTemplate(text) for text in config.inputs]
        self._output = OutputTemplate(config.output) if config.output else None
        self._named: list[tuple[str, Named]] = [
            *(("INPUTS", each) for each in self._inputs),
            *([("OUTPUT", self._output)] if self._output else []),
            *([("COMMAND", self._command)] if self._command else []),
        ]
        paths = [each.names for where, each in self._named if where != "COMMAND"]
        self._in_paths = frozenset[str]().union(*paths)
        self._complete = False
        self._resources = Resources(config.resources)
        self._has_needs = False
        self.needy = self._ours and self._resources.packs
        own = config.message.values() if isinstance(config.message, Mapping) else ()
        self._message = [Template(text) for text in own]
        used = self._command.names - TRUSTED if self._command else frozenset[str]()
        self._used = list(used)
        self._careful = bool(self._command and self._command.guarded)
        self._names: object = None
        self._base = {**STAND_INS, **shared}
        apart = config.shared_output or self._output is None or "job_id" in self._output.names
        self._prefixes = None if apart else Prefixes(folds_case=folds_case)
        self._renders = self._ours and bool(self._inputs or self._output)

    def __call__(self, number: int, group: Mapping[str, Any]) -> None:
        if group.keys() != self._names:  # mostly all groups have the same names
            _at(number, self._check_names, group)
            self._names = dict.fromkeys(group).keys()  # of a group's own, all of it would stay
        if self._has_needs:
            _at(number, self._resources.check, {**self._shared, **group})
        if self._careful or self._risky(group):
            assert self._command is not None
            _at(number, self._command.check, {**self._base, **group})
        if self._in_bucket:
            _at(number, _refuse_noncharacters, group)
        if self._renders:
            try:
                self._check_paths(group)
            except UsageError as error:
                raise UsageError(f"job {number}: {error.what}", error.fix) from error

    def _check_names(self, group: Mapping[str, Any]) -> None:
        names = [*self._shared, *group]
        if self._ours and (taken := sorted(TRUSTED.intersection(names))):
            what = (
                f"{taken[0]} is a key of the job, and {{{taken[0]}}} is what this system gives to a command"
            )
            raise UsageError(what, "give that key another name")
        if missing := sorted(self._needs.difference(names)):
            what = (
                f"HANDLER: its parameter {missing[0]} is no key of the job{did_you_mean(missing[0], names)}"
            )
            raise UsageError(what, f"give {missing[0]} a default value, or a value in every job")
        if self._ours:
            self._resources.check_names(names)
            said = KEYS.intersection(names)
            self._has_needs = bool(self._resources.names or said)
            self.needy |= any(name[1:] in PACKED for name in said)
        if self._command:
            check_variables(names)
        for where, template in self._named:
            check_names(template, [*names, *TRUSTED], where)
        for text in self._message:
            check_names(text, template_names(self._shared, group), "MESSAGE")
        self._complete = self._in_paths <= group.keys()

    def _check_paths(self, group: Mapping[str, Any]) -> None:
        values = group if self._complete else {**self._base, **group}
        if self._inputs:
            inputs = [each for template in self._inputs for each in template.fill_all(values)]
            if len(inputs) > 1:
                _check_places(inputs)
            for key, _ in inputs:
                if self._in_bucket or key.startswith("s3:"):
                    check_in_bucket("INPUTS", key)
        if self._output:
            prefix = self._output.fill(values)
            if self._in_bucket or prefix.startswith("s3:"):
                check_in_bucket("OUTPUT", prefix)
            if self._prefixes is not None:
                self._prefixes.add(prefix)

    def shared_outputs(self, job_file: JobFile) -> Sequence[tuple[str, str]]:
        """Raises UsageError if two jobs have one prefix; returns a warning if one lies inside another's."""
        if self._prefixes is None or not self._renders:
            return ()
        equal, nested = self._prefixes.meeting()
        if not equal and not nested:
            return ()
        return _Meetings(self._prefixes, equal, nested).of(self._rendered(job_file))

    def _rendered(self, job_file: JobFile) -> Iterator[tuple[Job, str]]:
        assert self._output is not None
        for job in job_file.jobs():
            yield job, self._output.fill({**STAND_INS, **job.keys, "job_id": job.id})

    def _risky(self, group: Mapping[str, Any]) -> bool:
        """Whether some value may not fit onto a command line, or begin an option."""
        for name in self._used:
            value = group[name] if name in group else self._shared[name]
            if type(value) is str:
                if not value or value[0] == "-" or len(value) > LONG_VALUE or "\0" in value:
                    return True
            elif type(value) is not int:
                return True
        return False


class _Meetings:
    """Names the jobs whose outputs meet, of hashes that say which to look at."""

    def __init__(self, prefixes: Prefixes, equal: set[int], nested: set[int]) -> None:
        self._folded = prefixes.folded
        self._equal, self._nested = equal, nested

    def of(self, rendered: Iterable[tuple[Job, str]]) -> Sequence[tuple[str, str]]:
        """Raises UsageError if two jobs have one prefix; returns a warning if one lies inside another's."""
        first: dict[str, Job] = {}
        meeting: list[tuple[str, Job, Job]] = []
        outer: dict[str, int] = {}
        inner: dict[str, tuple[str, int]] = {}
        count = 0
        for job, prefix in rendered:
            folded = self._folded(prefix)
            if hash(folded) in self._equal:
                one = first.setdefault(folded, job)
                if one.id != job.id:  # the same job twice is one job
                    meeting = meeting or [(prefix, one, job)]
                    count += 1
            if hash(folded) in self._nested:
                outer.setdefault(folded, job.index + 1)
            for each in above(folded):
                if hash(each) in self._nested:
                    inner.setdefault(each, (prefix, job.index + 1))
        for prefix, one, other in meeting:
            raise self._one_output(prefix, one, other, count)
        found = [(each, outer[each], *inner[each]) for each in inner if each in outer]
        return (self._inside(*found[0], len(found)),) if found else ()

    def _one_output(self, prefix: str, one: Job, other: Job, count: int) -> UsageError:
        more = f" (and {many(count - 1, 'more job')})" if count > 1 else ""
        what = f"OUTPUT: jobs {one.index + 1} and {other.index + 1} both publish into {prefix}{more}"
        keys, others = one.keys, other.keys
        differs = next(
            (name for name in keys if str(keys[name]) != str(others.get(name)) and name != "group"), ""
        )
        apart = f"add {{{differs}}} to OUTPUT" if differs else "add {job_id} to OUTPUT"
        return UsageError(what, f"{apart}; or, if jobs are to share a folder, SHARED_OUTPUT = True")

    def _inside(self, outer: str, number: int, prefix: str, other: int, count: int) -> tuple[str, str]:
        more = f", and {count - 1:,} more such folders" if count > 1 else ""
        what = f"OUTPUT: job {other} publishes into {prefix}, inside job {number}'s {outer}{more}"
        return what, "give each job a folder beside the others', or SHARED_OUTPUT = True if it is meant"


def _refuse_noncharacters(keys: Mapping[str, Any]) -> None:
    """Raises UsageError for characters that no message of SQS can have."""
    for name, value in keys.items():
        if type(value) in (list, dict):
            _refuse_noncharacters({name: json.dumps(value, ensure_ascii=False)})
        elif (type(value) is str and _NONCHARACTER.search(value)) or _NONCHARACTER.search(name):
            what = (
                f"{ascii(name)[1:-1]} has the character U+FFFE or U+FFFF, and no message of SQS can have it"
            )
            raise UsageError(what, "remove it from the job file: it is no character of any text")


def _check_places(inputs: Sequence[Input]) -> None:
    """Raises UsageError if two inputs would lie at one place below {input_dir}."""
    seen: dict[str, str] = {}
    for key, name in inputs:
        if name and not name.endswith("/") and (other := seen.setdefault(name, key)) != key:
            fix = f"give one another name: '{key} -> other-{name}'"
            raise UsageError(f"INPUTS: {other} and {key} would both be {{input_dir}}/{name}", fix)


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
