"""Reads how full a machine's disk, memory and processors are, and how much memory its jobs have.

AWS workers warn by it; `ds status` shows the memory of running jobs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

DISK_WARNING = 0.90
MEMORY_WARNING = 0.95


class Figures(NamedTuple):
    """Used shares from 0 to 1, and free bytes. `cpu` is since the last look; None at the first."""

    disk: float
    disk_free: int
    memory: float
    memory_free: int
    cpu: float | None

    def to_json(self) -> str:
        """Returns one line of JSON, in percent and bytes."""
        facts = {
            "disk_percent": round(self.disk * 100, 1),
            "disk_free_bytes": self.disk_free,
            "memory_percent": round(self.memory * 100, 1),
            "memory_free_bytes": self.memory_free,
            "cpu_percent": None if self.cpu is None else round(self.cpu * 100, 1),
        }
        return json.dumps(facts)

    def warnings(self, folder: Path) -> dict[str, str]:
        """Returns warnings, by subject."""
        found = {}
        if self.disk >= DISK_WARNING:
            found["disk"] = (
                f"disk of {folder} {self.disk:.0%} full ({self.disk_free / 1e9:.1f} GB left): jobs will fail"
                " when it is full; set EBS_VOL_SIZE higher, or DOCKER_CORES lower"
            )
        if self.memory >= MEMORY_WARNING:
            found["memory"] = (
                f"memory {self.memory:.0%} used ({self.memory_free / 1e9:.1f} GB left): jobs will be killed"
                " when there is none; set MEMORY higher, or DOCKER_CORES lower"
            )
        return found


def memory_of_jobs(ids: Collection[str], root: Path = Path("/proc")) -> dict[str, int]:
    """Returns the memory of jobs that run on this machine, in bytes, by id: of all their processes (Linux).

    A job whose processes cannot be seen (in a container, of another user) is left out.
    """
    found: dict[str, int] = {}
    marks = {f"DS_JOB_ID={each}".encode(): each for each in ids}
    for process in root.glob("[0-9]*") if marks else ():
        with suppress(OSError, ValueError, IndexError):
            variables = (process / "environ").read_bytes().split(b"\0")
            job = next((marks[each] for each in variables if each in marks), None)
            if job is not None:
                pages = int((process / "statm").read_text().split()[1])
                found[job] = found.get(job, 0) + pages * os.sysconf("SC_PAGE_SIZE")
    return found


class Gauge:
    """Reads the figures. `folder` is where jobs have their files; `root` is the system's, for tests."""

    def __init__(self, folder: Path, root: Path = Path("/")) -> None:
        self.folder = folder
        self._root = root
        self._last = self._processors()

    def read(self) -> Figures:
        """Returns the figures now. Raises OSError if the folder's disk does not answer."""
        disk = os.statvfs(self.folder)
        size = max((disk.f_blocks - disk.f_bfree + disk.f_bavail) * disk.f_frsize, 1)
        free = disk.f_bavail * disk.f_frsize
        used, limit = self._memory()
        return Figures(1 - free / size, free, used / limit, limit - used, self._cpu())

    def _memory(self) -> tuple[int, int]:
        """Returns (used, limit) of the container, or else of the machine, without the kernel's caches."""
        group = self._root / "sys/fs/cgroup"
        with suppress(OSError, ValueError, KeyError):
            limit = int((group / "memory.max").read_text())
            cached = int(_table((group / "memory.stat").read_text())["inactive_file"])
            return int((group / "memory.current").read_text()) - cached, limit
        with suppress(OSError, ValueError, KeyError):
            facts = _table((self._root / "proc/meminfo").read_text())
            total = int(facts["MemTotal:"]) * 1024
            return total - int(facts["MemAvailable:"]) * 1024, total
        return 0, 1

    def _cpu(self) -> float | None:
        before, self._last = self._last, self._processors()
        passed = self._last[1] - before[1]
        return None if passed <= 0 else min(max((self._last[0] - before[0]) / passed, 0.0), 1.0)

    def _processors(self) -> tuple[int, int]:
        """Returns (busy, total) processor time so far, in ticks."""
        with suppress(OSError, ValueError, IndexError):
            line = (self._root / "proc/stat").read_text().split("\n", 1)[0].split()
            ticks = [int(part) for part in line[1:9]]
            return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
        return 0, 0


def _table(text: str) -> dict[str, str]:
    return {fields[0]: fields[1] for line in text.splitlines() if len(fields := line.split()) > 1}
