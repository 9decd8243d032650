"""Suggests config values for the next run from the figures of this one. Pure; `build` calls it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..inputs.config import Config

SPARE = 1.25
"""Factor between the memory that was used and the memory to ask for: the next input may be larger."""

LONG_VISIBILITY = 600
BUSY = 0.6
"""Busy cores a job, below which more jobs can share a container."""


FAMILIES = {"c": 2, "m": 4, "r": 8}  # memory of EC2's usual families, in GiB a core; the smallest first
LEAST_CORES = 0.25  # cores to reserve for a job that only waits
SYSTEM_GB = 22  # disk space that a machine's system and images take, in GB

_FAMILY = re.compile(r"([cmr])([5-8](?:[aig]d?|d|n)?\.(?:large|\d*xlarge))$")


class Advice(NamedTuple):
    """A suggestion for one key: its value, what the run needed, and the value for next time."""

    key: str
    asked: object
    seen: str
    suggested: int | str
    why: str


def advise(
    config: Config,
    slots: int,
    figures: Mapping[str, Any],
    causes: Mapping[str, int],
    cores: int | None = None,
) -> list[Advice]:
    """Returns suggestions from a report's figures, for keys that the engine uses.

    `slots`: jobs in a container; `causes` counts failures; `cores`: of the one machine.
    """
    limited = config.engine_kind.rents or config.in_containers
    found = [
        _memory(config, slots, figures.get("max_rss_bytes"), causes.get("out-of-memory", 0), limited=limited),
        *_processors(
            config, slots, figures.get("seconds"), figures.get("cpu_seconds"), cores, limited=limited
        ),
        _machine_type(config, figures),
        _disk(config, slots, figures.get("disk_bytes"), causes.get("disk-full", 0)),
        _visibility(config),
        _timeout(config, figures.get("seconds")),
    ]
    return [advice for advice in found if advice is not None]


def _memory(
    config: Config, slots: int, seen: Mapping[str, float] | None, killed: int, *, limited: bool
) -> Advice | None:
    if not limited or not seen or seen["max"] <= 0:
        return None
    most = seen["max"] / 2**20
    needed = math.ceil(most * slots * SPARE / 256) * 256
    if killed:
        needed = max(needed, 2 * (config.memory or 0))
    if config.memory is not None and needed <= config.memory < 2 * needed and not killed:
        return None
    why = f"{slots} jobs share a container; the largest job, {slots} times, and a quarter to spare"
    if killed:
        why = f"{killed:,} jobs ran out of memory"
    return Advice("MEMORY", config.memory, f"up to {most:,.0f} MiB a job", needed, why)


def _processors(
    config: Config,
    slots: int,
    seconds: Mapping[str, float] | None,
    cpu: Mapping[str, float] | None,
    machine_cores: int | None,
    *,
    limited: bool,
) -> Sequence[Advice]:
    if not seconds or not cpu or seconds["sum"] < 1:
        return []
    cores = cpu["sum"] / seconds["sum"]
    seen = f"{cores:.2g} cores busy a job"
    found = []
    shares = max(128, math.ceil(cores * slots * 8) * 128)
    if limited and config.cpu_shares is not None and not shares <= config.cpu_shares < 2 * shares:
        why = f"1024 is a core; {slots} jobs at a time"
        found.append(Advice("CPU_SHARES", config.cpu_shares, seen, shares, why))
    if config.docker_cores is not None and cores < BUSY:
        more = min(4 * slots, math.floor(slots / max(cores, 0.1)), max(machine_cores or 4 * slots, slots))
        why = "jobs leave the processors idle: if they wait for data or services, more can share them"
        found.append(Advice("DOCKER_CORES", config.docker_cores, seen, more, why))
    return [advice for advice in found if advice.suggested != advice.asked]


def _machine_type(config: Config, figures: Mapping[str, Any]) -> Advice | None:
    """Suggests machine types whose memory a core fits the jobs: c has 2 GiB, m 4, r 8."""
    memory, seconds, cpu = (figures.get(name) for name in ("max_rss_bytes", "seconds", "cpu_seconds"))
    if not config.engine_kind.rents or not (memory and seconds and cpu) or seconds["sum"] < 1:
        return None
    needed = memory["p95"] / 2**30 * SPARE / max(cpu["sum"] / seconds["sum"], LEAST_CORES)
    family = next((name for name, has in FAMILIES.items() if needed <= has), None)
    named = [_FAMILY.match(each) for each in config.machine_type]
    if family is None or not named or not all(named):
        return None
    suggested = ", ".join(dict.fromkeys(family + match[2] for match in named if match))
    why = f"{family} types have {FAMILIES[family]} GiB a core: see what they cost in your region"
    asked = ", ".join(config.machine_type)
    seen = f"{needed:,.1f} GiB a busy core, with a quarter to spare"
    return None if asked == suggested else Advice("MACHINE_TYPE", asked, seen, suggested, why)


def _disk(config: Config, slots: int, seen: float | None, full: int) -> Advice | None:
    """Suggests more disk if it was full or nearly full. Temporary files of jobs are not known."""
    if not config.engine_kind.rents or not seen:
        return None
    jobs = config.tasks_per_machine * slots
    needed = SYSTEM_GB + math.ceil(seen * jobs * SPARE / 1e9)
    if full:
        needed = max(needed, 2 * config.ebs_vol_size)
    if needed <= config.ebs_vol_size:
        return None
    why = f"{jobs} jobs share a machine, whose system has {SYSTEM_GB} GB"
    if full:
        why = f"{full:,} jobs found the disk full"
    text = f"inputs and outputs up to {seen / 1e9:,.2g} GB a job"
    return Advice("EBS_VOL_SIZE", config.ebs_vol_size, text, needed, why)


def _visibility(config: Config) -> Advice | None:
    asked = config.sqs_message_visibility
    if not config.engine_kind.rents or asked <= LONG_VISIBILITY:
        return None
    why = "leases are renewed while a job runs: a short one brings a lost machine's jobs back sooner"
    return Advice("SQS_MESSAGE_VISIBILITY", asked, "renewed leases", 120, why)


def _timeout(config: Config, seconds: Mapping[str, float] | None) -> Advice | None:
    if config.job_timeout or "timeout" in config.resources or not seconds:
        return None
    longest = seconds["max"]
    limit = max(60, math.ceil(longest * 3 / 60) * 60)
    why = "without a limit a job that hangs keeps its slot"
    return Advice("JOB_TIMEOUT", None, f"longest job {longest:,.1f} s", limit, why)
