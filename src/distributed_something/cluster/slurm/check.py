"""`ds check` on a Slurm cluster: what Slurm says of a pilot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from ...errors import DsError, Unreachable
from ...inputs.checks.findings import Check, Finding, error, ok, warning
from ...inputs.config import Config
from ...inputs.jobs.jobfile import JobFile
from ..check import pilot_checks, shared_findings
from . import options
from .commands import Slurm

SHORT_SECONDS = 600
"""A pilot of less time than this spends much of it on starting."""


def checks(folder: Path, config: Config, job_file: JobFile | None, _fleet_file: Path | None) -> list[Check]:
    """Returns the checks of a project that runs on a Slurm cluster."""
    own = (
        Check("the shared folder", lambda: shared_findings(folder)),
        Check("Slurm", lambda: slurm_findings(config, folder, Slurm())),
    )
    return pilot_checks(folder, config, job_file, "slurm", *own)


def slurm_findings(config: Config, folder: Path, slurm: Slurm) -> Iterator[Finding]:
    """What Slurm would do with a pilot of this config. Nothing is submitted."""
    time = options.seconds_of(config.slurm_time)
    notice = options.notice_of(time)
    script = options.script(folder, "check", notice)
    try:
        said = slurm.test(script, options.options(config, folder, folder, notice))
        partition = slurm.partition(config.slurm_partition)
    except Unreachable as silent:
        yield warning(silent.what, silent.fix)
        return
    except DsError as found:
        yield error(found.what, found.fix)
        return
    if start := re.search(r"to start at (\d+)", said):
        at = datetime.fromtimestamp(int(start.group(1))).astimezone()
        yield ok(f"Slurm accepts a pilot, and expects to start one at {at:%Y-%m-%d %H:%M}")
    else:
        yield ok("Slurm accepts a pilot")
    most = options.seconds_of(partition.get("MaxTime", ""))
    limit = time if time is not None else options.seconds_of(partition.get("DefaultTime", ""))
    name = partition.get("PartitionName", config.slurm_partition)
    if time is not None and most is not None and time > most:
        longest = partition["MaxTime"]
        what = f"SLURM_TIME = {config.slurm_time!r} is above the limit of partition {name} ({longest})"
        yield error(f"{what}: pilots would wait for ever", f"SLURM_TIME: {longest} at most")
    elif limit is not None and limit < SHORT_SECONDS:
        what = f"a pilot has {limit:.0f} s in partition {name}: much of it is spent on starting again"
        yield warning(what, "raise SLURM_TIME, or choose another SLURM_PARTITION")
