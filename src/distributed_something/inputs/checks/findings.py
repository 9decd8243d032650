"""Holds the findings and common checks of `ds check`: what can be known to be wrong before a run.

A check reports what it found, good and bad. A check that cannot be made (a right is missing, a service does
not answer) is a finding as well. Each engine lists its checks and adds its own; `cli/commands.py` shows all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...errors import FAILED, OK, USAGE, DsError, UsageError
from ...words import bytes_text, many, nearest
from ..collect import collect_command
from ..config import Config
from ..keys import KEYS, TOPIC_PREFIX

if TYPE_CHECKING:
    from ...engine import Store
    from ..jobs.jobfile import JobFile

AT_ONCE = 8
_TOPIC = f"NOTIFY = ['arn:aws:sns:REGION:ACCOUNT:{TOPIC_PREFIX}…']"
_PLACEHOLDER = re.compile(r"^(your|user|username|dockerhub)[-_a-z]*/|image:tag$|[<>…]", re.IGNORECASE)
_IMAGE = re.compile(
    r"([a-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)


class Severity(StrEnum):
    """How bad a finding is: a run would fail, a run may do harm, something to know, or all is well."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"
    OK = "ok"


class Finding(NamedTuple):
    """What a check found: one line, and what to do about it. `in_file`: a file of the user's is wrong.

    `facts` are the figures in the line, as (name, value), for programs.
    """

    severity: Severity
    what: str
    fix: str = ""
    in_file: bool = False
    facts: tuple[tuple[str, object], ...] = ()


def ok(what: str) -> Finding:
    """Makes a finding that all is well."""
    return Finding(Severity.OK, what)


def warning(what: str, fix: str) -> Finding:
    """Makes a finding of what is allowed, and may do harm."""
    return Finding(Severity.WARNING, what, fix)


def error(what: str, fix: str) -> Finding:
    """Makes a finding that a run would fail."""
    return Finding(Severity.ERROR, what, fix)


def wrong(what: str, fix: str) -> Finding:
    """Makes a finding that a run would fail by what the user wrote in a file."""
    return Finding(Severity.ERROR, what, fix, in_file=True)


def refused(found: DsError) -> Finding:
    """Makes a finding of one of our own errors."""
    return Finding(Severity.ERROR, found.what, found.fix, in_file=isinstance(found, UsageError))


class Room(NamedTuple):
    """Disk for the inputs of `slots` jobs at a time: `size` in bytes, what it is, and how to have more."""

    size: int
    slots: int
    what: str
    fix: str


class Check(NamedTuple):
    """One check: what it is about, and the function that makes it."""

    about: str
    make: Callable[[], Iterable[Finding]]

    def findings(self) -> list[Finding]:
        """Makes the check; returns what it found, or that it could not be made."""
        found: list[Finding] = []
        try:
            found.extend(self.make())
        except UsageError as unfit:
            found.append(refused(unfit))
        except DsError as failed:
            found.append(warning(f"could not check {self.about}: {failed.what}", failed.fix))
        return found


def in_turn(about: str, *checks: Check) -> Check:
    """Joins checks that read one large file: side by side each would hold its own copy."""
    return Check(about, lambda: (finding for each in checks for finding in each.findings()))


def make_all(checks: Sequence[Check]) -> list[Finding]:
    """Makes the checks, several at a time; returns what they found, in their order, and nothing twice."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [finding for found in pool.map(Check.findings, checks) for finding in found]
    return list(dict.fromkeys(found))


def refuse_errors(findings: Iterable[Finding]) -> None:
    """Raises the first error of the findings, as UsageError where a file of the user's is wrong."""
    errors = [each for each in findings if each.severity is Severity.ERROR]
    if errors:
        more = f" (and {many(len(errors) - 1, 'more error')}: ds check)" if len(errors) > 1 else ""
        raise (UsageError if errors[0].in_file else DsError)(errors[0].what + more, errors[0].fix)


def exit_code(findings: Iterable[Finding]) -> int:
    """Returns 2 if a file of the user's is wrong, 1 if something else would fail a run, else 0."""
    errors = [each for each in findings if each.severity is Severity.ERROR]
    return OK if not errors else USAGE if any(each.in_file for each in errors) else FAILED


# -- What every engine has ----------------------------------------------------------------------------------


def job_file_findings(
    config: Config, file: JobFile, project: Path | None = None, *, folds_case: bool = False
) -> Iterator[Finding]:
    """Whether the job file is whole and fits the config: all of it is read.

    The source of a HANDLER is looked for in the folder `project`.
    """
    from ..handler import handler_needs
    from ..jobs.messages import form_of
    from .fit import check_jobs

    needs = frozenset[str]()
    with suppress(UsageError):  # a function that is missing: runnable_findings says so
        needs = handler_needs(config, project) if project else needs
    try:
        form = form_of(config, file)
        fit = check_jobs(config, file, lambda _: None, folds_case=folds_case, needs=needs)
    except UsageError as unfit:
        yield refused(unfit)
        return
    yield from map(ok, file.notes)
    yield from (warning(*each) for each in fit.warnings)
    if config.image_starts_worker:
        yield ok(f"messages as {form.readers} read them")
    if fit.total:
        yield ok(f"{file.path.name}: {many(fit.total, 'job')}, and each fits the config")
    else:
        yield wrong(f"{file.path.name}: no jobs in it", 'give it "groups": [{…}, …]')


def input_findings(
    config: Config, file: JobFile, store: Store, where: str, room: Room | None = None, most: int | None = None
) -> Iterator[Finding]:
    """Whether the inputs of every job (of the first `most`) are in the store, and fit into `room`.

    `where` is what the store is called. It is an error if no job has its inputs, and else a warning.
    """
    from .present import look_for

    if not config.inputs:
        return
    try:
        found = look_for(config, file, store, most)
    except UsageError:
        return  # a job file that is wrong, or does not fit: job_file_findings says so
    if found.lacking:
        jobs = f"{found.lacking:,} of {many(found.jobs, 'job')} {'lacks' if found.lacking == 1 else 'lack'}"
        what = f"INPUTS: {jobs} an input, such as {found.missing} of job {found.example}"
        all_lack = found.lacking == found.jobs
        fix = f"put it into {where}, or correct INPUTS"
        yield error(what, fix) if all_lack else warning(what, f"{fix}: the others can run meanwhile")
    elif found.jobs:
        yield ok(
            f"INPUTS: those of {many(found.jobs, 'job')} are there, at most {bytes_text(found.largest)} a job"
        )
    if room and found.largest * room.slots > room.size:
        at_once = f"{many(room.slots, 'job')} at a time with {bytes_text(found.largest)} of inputs"
        what = f"INPUTS: {at_once} (job {found.largest_job}), and {room.what} has {bytes_text(room.size)}"
        yield warning(what, room.fix)


def key_findings(config: Config) -> Iterator[Finding]:
    """The keys of the config that are none of ours: they reach the command as environment variables."""
    for name in config.extra:
        near = nearest(name, [key.name for key in KEYS])
        meant = f"if {near} is meant, write that; " if near else ""
        what = f"{name}: no key of this system: the command gets it as an environment variable"
        fix = f"{meant}if it is your program's own, put it into ENVIRONMENT"
        yield Finding(Severity.NOTICE, what, fix)


def work_findings(config: Config) -> Iterator[Finding]:
    """Whether the config says what a job is, and its times fit together."""
    yield from key_findings(config)
    from ..secrets import plain_secrets

    for name in plain_secrets(config):
        what = f"{name}: if it is a secret, it is plain text: tasks, files and logs would show it"
        yield warning(what, f"SECRETS = {{{name!r}: 'ssm:/lab/{name.lower()}'}}")
    if config.job_timeout and config.job_timeout > config.max_run_hours * 3600:
        what = (
            f"JOB_TIMEOUT = {config.job_timeout:g} s is longer than MAX_RUN_HOURS = {config.max_run_hours:g}"
        )
        yield warning(what, "raise MAX_RUN_HOURS: the machines end then, whatever runs on them")
    given = {"usd": config.budget_usd, "hours": config.budget_hours}
    for unit in (unit for unit, limit in given.items() if limit and unit not in config.engine_kind.budgets):
        what = f"BUDGET_{unit.upper()}: the engine {config.engine!r} does not know what a run has spent of it"
        yield warning(what, "MAX_RUN_HOURS limits its time")
    if not config.job_timeout and "timeout" not in config.resources and not config.image_starts_worker:
        yield warning(
            "JOB_TIMEOUT: not given: a job that hangs holds its slot until the run's end",
            "JOB_TIMEOUT = 3600, or whatever no good job takes",
        )
    yield from _retry_findings(config)
    yield from _collect_findings(config)
    yield from _notify_findings(config)
    from .fit import nothing_shared, nowhere_to_publish

    if unfit := nowhere_to_publish(config) or nothing_shared(config):
        yield refused(unfit)
    elif config.inputs and not config.output and config.handler:
        yield warning("OUTPUT: not given: what jobs leave in {output_dir} is thrown away", "OUTPUT = '…'")


def _retry_findings(config: Config) -> Iterator[Finding]:
    """Whether TIMEOUT_RETRY and MEMORY_RETRY have a limit that they can raise."""
    for name in ("RESOURCES", "SHARED_INPUTS"):
        if name in config.given and config.image_starts_worker:
            yield warning(f"{name}: not used, as the image starts a worker of its own", "remove it")
    if config.timeout_retry > 1 and not config.job_timeout and "timeout" not in config.resources:
        yield warning("TIMEOUT_RETRY: raises JOB_TIMEOUT, and that is not given", "JOB_TIMEOUT = 3600")
    if config.memory_retry == 1:
        return
    if not (config.engine_kind.on_this_machine and config.in_containers):
        what = "MEMORY_RETRY: jobs have no memory limit of their own here: those of a task share its MEMORY"
        yield warning(what, "raise MEMORY, or lower DOCKER_CORES")
    elif config.memory is None:
        yield warning("MEMORY_RETRY: raises MEMORY, and that is not given", "MEMORY = 4000")


def _collect_findings(config: Config) -> Iterator[Finding]:
    if not config.collect:
        return
    try:
        collect_command(config.collect)
    except UsageError as unfit:
        yield refused(unfit)
    if config.image_starts_worker:
        yield warning(
            "COLLECT: is not run by the image's own worker", "write COMMAND = '…', or remove COLLECT"
        )
    if not config.output:
        yield warning("COLLECT: has nothing to collect, as OUTPUT is not given", "OUTPUT = '…/{Plate}'")


def _notify_findings(config: Config) -> Iterator[Finding]:
    by_apprise = [
        each for each in config.notify if each.partition(":")[0] not in ("http", "https", "command", "arn")
    ]
    if by_apprise and find_spec("apprise") is None:
        what = f"NOTIFY: {by_apprise[0].partition(':')[0]}: needs Apprise, which is not installed"
        yield warning(what, "pip install 'distributed-something[notify]'")
    if config.notify and config.auto_monitor:
        strange = [each for each in config.topics if not each.split(":")[5].startswith(TOPIC_PREFIX)]
        if strange:
            yield warning(f"NOTIFY: the auto-monitor may not publish to {strange[0]}", _TOPIC)
        elif not config.topics:
            what = "NOTIFY: the auto-monitor sends to topics of SNS only: other addresses stay here"
            yield warning(what, f"run ds monitor too, or {_TOPIC}")


def image_findings(config: Config) -> Iterator[Finding]:
    """Whether the name of the container image can be right."""
    name = config.dockerhub_tag
    if not name:
        yield wrong("DOCKERHUB_TAG: missing: no image to run on machines", "DOCKERHUB_TAG = 'user/image:1'")
    elif _PLACEHOLDER.search(name):
        yield wrong(f"DOCKERHUB_TAG: still a placeholder: {name}", "name the image that has your program")
    elif not _IMAGE.fullmatch(name):
        yield wrong(f"DOCKERHUB_TAG: {name} is not the name of an image", "user/image:tag, in small letters")
    elif "@" not in name and (":" not in name.rpartition("/")[2] or name.endswith(":latest")):
        yield warning(f"DOCKERHUB_TAG: {name} may be another image tomorrow", "add a tag that is never moved")
    else:
        yield ok(f"DOCKERHUB_TAG: {name} looks like the name of an image")
