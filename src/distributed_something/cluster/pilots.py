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


def capacity_of(config: Config) -> Capacity:
    """What a pilot has for jobs: what it asks the scheduler for."""
    fix = "raise DOCKER_CORES and MEMORY, which say what a pilot asks for, or lower what the job needs"
    return Capacity(Needs(slots_of(config), config.memory or 0), Needs(), "a pilot", fix)


def slots_for(config: Config, largest: Needs | None) -> int:
    """Jobs at a time in one pilot, where the largest needs this; None: jobs say nothing."""
    slots = slots_of(config)
    return slots if largest is None else max(min(slots, capacity_of(config).fitting(largest)), 1)
