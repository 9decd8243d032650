"""The engine `ssh`: pilots are processes on the hosts of HOSTS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...clock import Clock
from ...inputs.config import Config
from ..engine import PilotEngine
from .scheduler import HostsScheduler


def make(folder: Path, config: Config, clock: Clock, *, say: Callable[[str], None]) -> PilotEngine:
    """Makes the engine of a project folder. Nothing is started or asked for yet."""
    return PilotEngine(folder, config, clock, say, HostsScheduler(folder, config, say))
