"""What sbatch is given for a pilot: its options, and the script that it runs. Pure."""

from __future__ import annotations

import re
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Collection, Sequence
from pathlib import Path

from ...inputs.config import Config
from ..pilots import gpus_of, slots_of

NOTICE_SECONDS = 120
"""Slurm sends SIGUSR1 this long before the end of a pilot's time, or up to a minute earlier."""


def notice_of(limit: float | None) -> int:
    """How long before the end of a time limit (in seconds; None: not known) a pilot wants to know of it."""
    return NOTICE_SECONDS if limit is None else max(min(NOTICE_SECONDS, int(limit / 3)), 5)


def seconds_of(time: str) -> float | None:
    """Slurm's notation of a duration in seconds; None where it is unlimited, or none of its forms.

    Forms: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes and so on.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time.strip())
    if found is None:
        return None
    days, *parts = found.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
        return int(days) * 86400 + hours * 3600 + minutes * 60 + seconds
    if len(numbers) == 3:
        return numbers[0] * 3600 + numbers[1] * 60 + numbers[2]
    return numbers[0] * 60 + (numbers[1] if len(numbers) == 2 else 0)


def options(
    config: Config, project: Path, logs: Path, notice: int, excluded: Collection[str] = ()
) -> list[str]:
    """The options of sbatch for a pilot. `excluded` nodes get none, nor do those in SLURM_EXTRA."""
    given = {
        "partition": config.slurm_partition,
        "account": config.slurm_account,
        "qos": config.slurm_qos,
        "time": config.slurm_time,
        "constraint": config.slurm_constraint,
        "gres": config.slurm_gres or (f"gpu:{gpus_of(config)}" if config.gpus else ""),
        "mem": f"{config.memory}M" if config.memory else "",
    }
    found = [
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={slots_of(config)}",
        "--requeue",
        "--open-mode=append",
        f"--signal=B:USR1@{notice}",
        f"--chdir={project}",
        f"--output={str(logs).replace('%', '%%')}/%A_%a.log",
        *(f"--{name}={value}" for name, value in given.items() if value),
    ]
    return [*found, *(_excluding(config.slurm_extra, excluded) if excluded else config.slurm_extra)]


def _excluding(extra: Sequence[str], nodes: Collection[str]) -> list[str]:
    """Adds nodes to those that these options of sbatch exclude: the last --exclude counts."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-x", "--exclude", action="append", default=[])
    found, others = parser.parse_known_args(list(extra))
    return [*others, f"--exclude={','.join([*found.exclude, *sorted(nodes)])}"]


def script(project: Path, run: str, notice: int) -> str:
    """What a pilot runs: our process in the place of the shell."""
    command = [sys.executable, "-m", f"{__package__}.pilot", str(project), run, str(notice)]
    return f"#!/bin/sh\nexec {shlex.join(command)}\n"
