"""Holds the findings and common checks of `ds check`: what can be known to be wrong before a run.

A check reports what it found, good and bad. A check that cannot be made (a right is missing, a service does
not answer) is a finding as well. Each engine lists its checks and adds its own; `cli/commands.py` shows all.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from ..engine import files_at
from ..errors import FAILED, OK, USAGE, DsError, UsageError
from ..words import many
from .config import Config
from .template import TRUSTED, Template

if TYPE_CHECKING:
    from ..engine import Store
    from .jobfile import JobFile

JOBS_LOOKED_AT = 20
"""Jobs of the file whose inputs are looked for: a slip in a path shows in the first of them."""

AT_ONCE = 8
_PLACEHOLDER = re.compile(r"^(your|user|username|dockerhub)[-_a-z]*/|image:tag$|[<>…]", re.IGNORECASE)
_IMAGE = re.compile(
    r"([a-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)


class Severity(StrEnum):
    """How bad a finding is: a run would fail, a run may do harm, or all is well."""

    ERROR = "error"
    WARNING = "warning"
    OK = "ok"


class Finding(NamedTuple):
    """What a check found: one line, and what to do about it. `in_file`: a file of the user's is wrong."""

    severity: Severity
    what: str
    fix: str = ""
    in_file: bool = False


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


def make_all(checks: Sequence[Check]) -> list[Finding]:
    """Makes the checks, several at a time; returns what they found, in their order, and nothing twice."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [finding for found in pool.map(Check.findings, checks) for finding in found]
    return list(dict.fromkeys(found))


def exit_code(findings: Iterable[Finding]) -> int:
    """Returns 2 if a file of the user's is wrong, 1 if something else would fail a run, else 0."""
    errors = [each for each in findings if each.severity is Severity.ERROR]
    return OK if not errors else USAGE if any(each.in_file for each in errors) else FAILED


# -- What every engine has ----------------------------------------------------------------------------------


def job_file_findings(config: Config, file: JobFile) -> Iterator[Finding]:
    """Whether the job file is whole and fits the config: all of it is read."""
    from .fit import check_jobs
    from .messages import form_of

    try:
        form = form_of(config, file)
        total = check_jobs(config, file, lambda _: None)
    except UsageError as unfit:
        yield refused(unfit)
        return
    yield from map(ok, file.notes)
    if config.image_starts_worker:
        yield ok(f"messages as {form.readers} read them")
    if total:
        yield ok(f"{file.path.name}: {many(total, 'job')}, and each fits the config")
    else:
        yield wrong(f"{file.path.name}: no jobs in it", 'give it "groups": [{…}, …]')


def input_findings(config: Config, file: JobFile, store: Store, where: str) -> Iterator[Finding]:
    """Whether the inputs of the first jobs are in the store, which is called `where`."""
    if not config.inputs:
        return
    templates = [Template(text) for text in config.inputs]
    try:
        keys = [
            key
            for job in islice(file.jobs(), JOBS_LOOKED_AT)
            for template in templates
            for key in template.fill_all({**job.keys, **dict.fromkeys(TRUSTED, "x"), "job_id": job.id})
        ]
    except UsageError:
        return  # a job file that is wrong, or does not fit: job_file_findings says so
    if missing := [key for key in keys if next(files_at(store, key), None) is None]:
        part = f"{len(missing)} of the {many(len(keys), 'input')} of the first jobs"
        what = f"INPUTS: {part} {'is' if len(missing) == 1 else 'are'} not there, such as {missing[0]}"
        yield error(what, f"put them into {where}, or correct INPUTS")
    elif keys:
        yield ok(f"INPUTS: {many(len(keys), 'input', 'is', 'are')} there, of the first jobs")


def work_findings(config: Config) -> Iterator[Finding]:
    """Whether the config says what a job is, and its times fit together."""
    if config.job_timeout and config.job_timeout > config.max_run_hours * 3600:
        what = (
            f"JOB_TIMEOUT = {config.job_timeout:g} s is longer than MAX_RUN_HOURS = {config.max_run_hours:g}"
        )
        yield warning(what, "raise MAX_RUN_HOURS: the machines end then, whatever runs on them")
    if not config.job_timeout and not config.image_starts_worker:
        yield warning(
            "JOB_TIMEOUT: not given: a job that hangs holds its slot until the run's end",
            "JOB_TIMEOUT = 3600, or whatever no good job takes",
        )
    if config.inputs and not config.output and (config.command or config.handler):
        yield warning("OUTPUT: not given: what jobs leave in {output_dir} is thrown away", "OUTPUT = '…'")


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


def program_of(command: str) -> str | None:
    """Returns the program that a COMMAND starts first; None: reading it does not tell."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    words = words[next((n for n, word in enumerate(words) if not re.match(r"\w+=", word)), len(words)) :]
    return words[0] if words and re.fullmatch(r"[\w./+-]+", words[0]) else None
