"""Checks a rehearsal by AWS's checks that need no call. What the rehearsal replaces is no error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..aws.check import project_checks, unasked
from ..inputs.checks.findings import Check, Finding, Severity, warning
from ..inputs.config import Config
from ..inputs.fleetfile import read_fleet
from ..inputs.jobs.jobfile import JobFile
from .account import Own, adapted

_IMAGE = "rehearsal/image:1"
_ACCOUNT = "arn:aws:iam::000000000000"
_OWN = Own(
    f"{_ACCOUNT}:role/fleet",
    f"{_ACCOUNT}:instance-profile/machine",
    "ami-00000000",
    "subnet-00000000",
    ("sg-00000000",),
)
"""Stands for the resources of the pretend account, which does not run yet."""


def checks(folder: Path, config: Config, job_file: JobFile | None, fleet_file: Path | None) -> list[Check]:
    """Returns the checks of a rehearsed project. Raises UsageError if the fleet file is unreadable."""
    file = read_fleet(fleet_file) if fleet_file else None
    mended = file and file._replace(text=adapted(file.text, _OWN)[0])
    pairs = zip(unasked(config, file), unasked(_mended(config), mended), strict=True)
    return [*(_pair(real, pretended) for real, pretended in pairs), *project_checks(folder, config, job_file)]


def _mended(config: Config) -> Config:
    """Our worker needs no image here; one that is part of the image does."""
    return config if config.image_starts_worker else config._replace(dockerhub_tag=_IMAGE)


def _pair(real: Check, pretended: Check) -> Check:
    """Returns a check whose errors are warnings, where the pretended one does not have them."""

    def found() -> Iterator[Finding]:
        errors = {each.what for each in pretended.findings()}
        for each in real.findings():
            mended = each.severity is Severity.ERROR and each.what not in errors
            yield (
                warning(f"{each.what} (no matter in a rehearsal, but on AWS)", each.fix) if mended else each
            )

    return Check(real.about, found)
