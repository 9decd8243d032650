"""Start-up: whole commands against an empty Python, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

from distributed_something.job import Job, Lease, Outcome, State
from distributed_something.ledger import LedgerWriter, RunPaths, job_ids
from distributed_something.local.store import FolderStore

from .tools import ds, four_steps, numbered_jobs, project, table, timed

RUNS = 15


def main(jobs: int) -> None:
    many = 20 * jobs
    command = str(Path(sys.executable).with_name("ds"))
    with (
        project(COMMAND="true {n}") as small,
        project(COMMAND="true {n}") as large,
        project(COMMAND="true {n}") as ended,
    ):
        four_steps(small, 20)
        for folder in (large, ended):
            ds(folder, "setup")
            ds(folder, "submit", numbered_jobs(folder, many))
        _end_all(ended)
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "ds --help": [command, "--help"],
            "ds status, 20 jobs": [command, "-C", str(small), "status"],
            f"ds status, {many:,} jobs": [command, "-C", str(large), "status"],
            f"ds status, {many:,} that have ended": [command, "-C", str(ended), "status"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(min(RUNS, jobs)):
            for name, words in commands.items():
                run = lambda words=words: subprocess.run(words, capture_output=True, check=True)  # noqa: E731
                times[name].append(timed(run))
    base = times["python -c pass"]
    rows = []
    for name, taken in times.items():
        ratio = statistics.median(mine / empty for mine, empty in zip(taken, base, strict=True))
        rows.append((name, f"{statistics.median(taken) * 1000:.0f} ms", f"{ratio:.1f}"))
    table(("start-up", "median", "x an empty Python"), rows)


def _end_all(folder: Path) -> None:
    """Have all jobs succeed by the ledger of two workers, with what a worker writes of a job with files."""
    store = FolderStore(folder / "data")
    paths = RunPaths("Bench", next((folder / "data/runs/Bench").iterdir()).name)
    ledgers = [LedgerWriter(store, f"{paths.events}w{number}.jsonl") for number in range(2)]
    for number, job_id in enumerate(job_ids(store, paths)):
        lease = Lease(Job(job_id, number, b""), "", 0.0)
        outcome = Outcome(
            State.SUCCEEDED,
            exit_code=0,
            seconds=12.5,
            max_rss_bytes=1 << 28,
            cpu_seconds=11.5,
            bytes_in=1 << 20,
            bytes_out=1 << 20,
            output=f"out/{number}",
            log=f"w.log@{number}+20",
            phases={"in": 0.25, "out": 0.25},
        )
        who = {"worker": f"w{number % 2}", "machine": f"i-{number % 2}"}
        ledgers[number % 2].ended("succeeded", 1e9 + number, lease, outcome, **who)
    for ledger in ledgers:
        ledger.flush()
