"""The process of a pilot on a host. Its arguments are what `agent.find` knows it by."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import gettempdir

from ..pilot import Seat, work
from .scheduler import HostsScheduler


def main(_name: str, host: str, pilot: str, _since: str, run: str, project: str, note: str) -> int:
    """Works until it is time to end; then removes the `note` that it is there. Returns the exit code."""
    try:
        return work(Path(project), run, Seat(pilot, host, Path(gettempdir()), 0), HostsScheduler)
    finally:
        Path(note).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
