"""What a pilot is to every scheduler: its facts, and how many jobs fit. Pure."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from ..inputs.config import Config
from ..job import Needs
from ..packing import Capacity

ENDED = "Ended"
"""The reason of a pilot that has ended, and of which the scheduler has not said so yet."""

SILENT = "SILENT"
"""The state of a pilot on a computer that does not answer: it may go on, or be gone."""


class Pilot(NamedTuple):
    """A pilot as the scheduler has it. Times are in Unix seconds; None: not known."""

    id: str
    running: bool
    state: str = ""
    """The scheduler's own word, such as PENDING or COMPLETING."""
    reason: str = ""
    node: str = ""
    start: float | None = None
    """When it started, or is expected to."""
    end: float | None = None
    """When its time is over."""
    comment: str = ""

    @property
    def silent(self) -> bool:
        """Whether its computer does not answer."""
        return self.state == SILENT

    def ended(self) -> Pilot:
        """The same pilot, once its process has said that it ends: the scheduler removes or requeues it."""
        return self._replace(running=False, reason=ENDED, start=None) if self.running else self


def name_of(project: Path, app: str) -> str:
    """The name that all pilots of an app have, and no other job of the user."""
    mark = hashlib.sha256(os.fsencode(project.resolve())).hexdigest()[:8]
    return f"ds-{app}-{mark}"


def slots_of(config: Config) -> int:
    """Jobs at a time in one pilot."""
    return config.tasks_per_machine * (config.docker_cores or 1)


def gpus_of(config: Config) -> int:
    """GPUs of a pilot: those of SLURM_GRES, or as many as its slots need."""
    if config.slurm_gres:
        kinds = (each.partition("(")[0].removeprefix("gres/") for each in config.slurm_gres.split(","))
        asked = [each.split(":") for each in kinds]
        return sum(int(each[-1]) if each[-1].isdecimal() else 1 for each in asked if each[0] == "gpu")
    return config.gpus * (1 if config.gpus_shared else slots_of(config))


def capacity_of(config: Config) -> Capacity:
    """What a pilot has for jobs: what it asks the scheduler for."""
    asks = ", ".join(["DOCKER_CORES", "MEMORY", "SLURM_GRES" if config.slurm_gres else "GPUS"])
    fix = f"raise {asks}, which say what a pilot asks for, or lower what the job needs"
    slots, memory = slots_of(config), config.memory or 0
    whole = Needs(slots, memory, gpus_of(config))
    default = Needs(1, memory // slots if config.in_containers else 0, config.gpus)
    return Capacity(whole, default, "a pilot", fix, config.gpus_shared)
