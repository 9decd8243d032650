"""Submitting JSON lines, and a million groups of one reference JSON, against json.load of that file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .tools import DS, ds, project, table, timed

LINES, GROUPS = 60, 200
"""Jobs of each file, for one of `--jobs`."""


def _groups(count: int, pad: str) -> Iterator[dict[str, object]]:
    for n in range(count):
        well = f"{'ABCDEFGH'[n % 8]}{n % 12 + 1:02d}"
        yield {
            "Plate": f"BR{n // 384:06d}",
            "Well": well,
            "Site": n % 9,
            "n": n,
            **({"pad": pad} if pad else {}),
        }


def _write(folder: Path, jobs: int) -> tuple[Path, Path]:
    lines, whole = folder / "jobs.jsonl", folder / "jobs.json"
    with lines.open("w") as file:
        file.writelines(json.dumps(group) + "\n" for group in _groups(LINES * jobs, "x" * 200))
    with whole.open("w") as file:
        file.write('{"input_location": "images", "output_location": "results", "groups": [')
        file.writelines(
            ("," if n else "") + json.dumps(g) + "\n" for n, g in enumerate(_groups(GROUPS * jobs, ""))
        )
        file.write("]}")
    return lines, whole


def _load(path: Path) -> None:
    """In a process of its own: what this one holds would count as its children's peak."""
    subprocess.run([sys.executable, "-c", f"import json; json.load(open({str(path)!r}))"], check=True)


def _submit(folder: Path, path: Path) -> tuple[float, float]:
    """Seconds, and the peak memory in MB."""
    ds(folder, "setup")
    began = time.perf_counter()
    process = subprocess.Popen([*DS, "-C", folder, "submit", path], stderr=subprocess.DEVNULL)
    _, process.returncode, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    assert process.returncode == 0
    ds(folder, "--yes", "cleanup")
    return seconds, usage.ru_maxrss / 1000


def main(jobs: int) -> None:
    with project(COMMAND="true {Plate} {Well} {n}") as folder:
        lines, whole = _write(folder, jobs)
        load = timed(lambda: _load(whole))
        rows = []
        for name, path, count in (
            ("JSON lines, 300 bytes", lines, LINES * jobs),
            (f"one JSON, {GROUPS * jobs:,} groups", whole, GROUPS * jobs),
        ):
            seconds, memory = _submit(folder, path)
            rows.append(
                (
                    name,
                    f"{seconds:.1f} s",
                    f"{count / seconds:,.0f}",
                    f"{memory:.0f} MB",
                    f"{seconds / load:.1f}",
                )
            )
        table(
            ("submit into the durable queue", "time", "jobs/s", "memory", "x json.load of the groups"), rows
        )
