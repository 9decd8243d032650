"""The process that a pilot's script becomes, in a job of Slurm."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import gettempdir

from ..pilot import Seat, work
from .scheduler import SlurmScheduler


def main(project: str, run: str, notice: str) -> int:
    """Works until it is time to end, as Slurm's variables say where. Returns the exit code."""
    job = os.environ.get("SLURM_JOB_ID", str(os.getpid()))
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    seat = Seat(
        f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else job,
        os.environ.get("SLURMD_NODENAME") or os.uname().nodename,
        Path(os.environ.get("SLURM_TMPDIR") or gettempdir()),
        int(notice),
    )
    return work(Path(project), run, seat, SlurmScheduler)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
