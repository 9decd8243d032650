"""`ds check` for hosts by ssh: whether each answers, sees the project, and has Python and the time of day."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from getpass import getuser
from pathlib import Path

from ... import __version__
from ...errors import DsError
from ...inputs.checks.findings import Check, Finding, error, ok, warning
from ...inputs.config import Config
from ...inputs.jobs.jobfile import JobFile
from ..check import pilot_checks, promise_findings
from ..shared.files import TEMPORARY
from . import ssh
from .scheduler import NO_HOSTS

SKEW_SECONDS = 60.0
"""Clocks that are further apart make MAX_RUN_HOURS and hours wrong by so much."""


def checks(folder: Path, config: Config, job_file: JobFile | None, _fleet_file: Path | None) -> list[Check]:
    """Returns the checks of a project that runs on hosts."""
    own = (
        Check("the shared folder", lambda: promise_findings(folder)),
        Check("the hosts", lambda: host_findings(folder.absolute(), config)),
    )
    return pilot_checks(folder, config, job_file, "ssh", *own)


def host_findings(folder: Path, config: Config) -> Iterator[Finding]:
    """Whether pilots can be started on each host, asked all at a time."""
    if not config.hosts:
        yield error(NO_HOSTS.what, NO_HOSTS.fix)
        return
    new = folder / f"{TEMPORARY}check-{os.urandom(6).hex()}"
    try:
        new.touch(mode=0o600)
        answers = ssh.ask(config.hosts, folder, ["see", str(new)])
        now = time.time()
    finally:
        with suppress(OSError):
            new.unlink()
    for host, answer in answers.items():
        if isinstance(answer, DsError):
            yield error(answer.what, answer.fix)
        elif not answer["seen"]:
            fix = "put the project into a folder that all hosts share"
            yield error(f"{host} has another folder {folder}: a new file here is not seen there", fix)
        elif not answer["own"]:
            what = f"{host} has another user ({answer['user']}) than the project's, who may not use its .ds"
            yield error(what, f"HOSTS: log in as the project's user, such as '{getuser()}@{host}'")
        elif answer["ds"] != __version__:
            what = f"{host} has ds {answer['ds']}, and this computer {__version__}"
            yield error(what, "install one version everywhere")
        elif abs(off := answer["now"] - now) > SKEW_SECONDS:
            yield warning(f"the clock of {host} is off by {off:+.0f} s", "set it: `timedatectl` there")
        else:
            yield ok(f"{host}: answers, sees the project, Python {answer['python']}")
