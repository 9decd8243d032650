"""What the benchmarks share: a project in a temporary folder, times, tables."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from distributed_something.ledger import Fold, RunPaths
from distributed_something.local.store import FolderStore

DS = [sys.executable, "-m", "distributed_something"]


@contextmanager
def project(**keys: object) -> Iterator[Path]:
    """A project on the local engine with two slots."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    config = {"APP_NAME": "Bench", "ENGINE": "local", "DOCKER_CORES": 2, **keys}
    (folder / "config.py").write_text("".join(f"{name} = {value!r}\n" for name, value in config.items()))
    try:
        yield folder
    finally:
        subprocess.run([*DS, "-C", folder, "--yes", "cleanup"], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def ds(folder: Path, *args: object) -> None:
    """Run a command of the project."""
    subprocess.run([*DS, "-C", folder, *map(str, args)], check=True, capture_output=True)


def numbered_jobs(folder: Path, count: int) -> Path:
    """A file of jobs that differ in a number."""
    path = folder / "jobs.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps({"n": number}) + "\n" for number in range(count))
    return path


def four_steps(folder: Path, jobs: int) -> tuple[float, float]:
    """Run numbered jobs: seconds from the first start to the last end, and of `ds start` and `ds monitor`."""
    ds(folder, "setup")
    ds(folder, "submit", numbered_jobs(folder, jobs))
    whole = timed(lambda: ds(folder, "start")) + timed(lambda: ds(folder, "monitor"))
    run = next((folder / "data/runs/Bench").iterdir()).name
    fold = Fold(FolderStore(folder / "data"), RunPaths("Bench", run)).update()
    assert fold.first is not None
    assert fold.last_end is not None
    assert all(job.state == "succeeded" for job in fold.jobs.values()), "a job did not succeed"
    return fold.last_end - fold.first, whole


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print aligned columns."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
