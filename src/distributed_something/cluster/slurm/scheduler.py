"""The scheduler Slurm, for the pilots of one app."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ...inputs.config import Config
from ..explain import Waiting
from ..pilots import Pilot, name_of
from . import options
from .commands import Slurm
from .explain import waiting


class SlurmScheduler:
    """Implements scheduler.Scheduler."""

    name = "slurm"
    title = "Slurm"

    def __init__(self, project: Path, config: Config) -> None:
        self._project = project
        self._config = config
        self._pilots = name_of(project, config.app_name)
        self._slurm = Slurm()

    def submit(self, count: int, run: str, logs: Path, excluded: Collection[str]) -> Sequence[str]:
        """Submits arrays of pilots. Returns the ids of the arrays."""
        config = self._config
        notice = options.notice_of(options.seconds_of(config.slurm_time or self._default_time()))
        script = options.script(self._project, run, notice)
        given = options.options(config, self._project, logs, notice, excluded)
        return self._slurm.submit(count, script, given, self._pilots, f"{run} {os.urandom(4).hex()}")

    def _default_time(self) -> str:
        partition = self._slurm.partition(self._config.slurm_partition)
        default, most = partition.get("DefaultTime", "NONE"), partition.get("MaxTime", "UNLIMITED")
        return most if default == "NONE" else default

    def list(self) -> Sequence[Pilot]:
        """Returns the pilots that have not ended."""
        return self._slurm.list(self._pilots)

    def cancel(self, ids: Iterable[str] = (), *, pending: bool = False) -> None:
        """Ends pilots: SIGTERM, then SIGKILL after the cluster's KillWait."""
        self._slurm.cancel(self._pilots, ids, pending=pending)

    def requeue(self, pilot: str) -> None:
        """Puts a running pilot back into Slurm's queue."""
        self._slurm.requeue(pilot)

    def waiting(self, reason: str) -> Waiting:
        """Returns what a reason of squeue means."""
        return waiting(reason)
