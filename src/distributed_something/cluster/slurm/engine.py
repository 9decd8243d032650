"""The engine `slurm`: pilots are jobs of a Slurm cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...clock import Clock
from ...inputs.config import Config
from ..engine import PilotEngine
from .scheduler import SlurmScheduler


def make(folder: Path, config: Config, clock: Clock, *, say: Callable[[str], None]) -> PilotEngine:
    """Makes the engine of a project folder. Nothing is started or asked for yet."""
    return PilotEngine(folder, config, clock, say, SlurmScheduler(folder, config))
