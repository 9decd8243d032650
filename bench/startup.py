"""Start-up: whole commands against an empty Python, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from .tools import ds, four_steps, numbered_jobs, project, table, timed

RUNS = 15


def main(_jobs: int) -> None:
    command = str(Path(sys.executable).with_name("ds"))
    with project(COMMAND="true {n}") as small, project(COMMAND="true {n}") as large:
        four_steps(small, 20)
        ds(large, "setup")
        ds(large, "submit", numbered_jobs(large, 100_000))
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "ds --help": [command, "--help"],
            "ds status, 20 jobs": [command, "-C", str(small), "status"],
            "ds status, 100,000 jobs": [command, "-C", str(large), "status"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(RUNS):
            for name, words in commands.items():
                run = lambda words=words: subprocess.run(words, capture_output=True, check=True)  # noqa: E731
                times[name].append(timed(run))
    base = times["python -c pass"]
    rows = []
    for name, taken in times.items():
        ratio = statistics.median(mine / empty for mine, empty in zip(taken, base, strict=True))
        rows.append((name, f"{statistics.median(taken) * 1000:.0f} ms", f"{ratio:.1f}"))
    table(("start-up", "median", "x an empty Python"), rows)
