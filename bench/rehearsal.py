"""A rehearsal: how soon its first job runs, and how many short jobs pass through three pretend machines."""

from __future__ import annotations

import time

from distributed_something.ledger import Fold, RunPaths
from distributed_something.local.store import FolderStore

from .tools import ds, numbered_jobs, project, table


def main(jobs: int) -> None:
    jobs = min(jobs, 2000)
    keys = {
        "ENGINE": "rehearsal",
        "COMMAND": "/bin/true {n}",
        "DOCKERHUB_TAG": "user/image",
        "CLUSTER_MACHINES": 3,
        "TASKS_PER_MACHINE": 1,
        "MACHINE_TYPE": ["m5.large"],
        "MACHINE_PRICE": 0.1,
    }
    with project(**keys) as folder:
        file = numbered_jobs(folder, jobs)
        began = time.time()
        ds(folder, "run", file)
        whole = time.time() - began
        run = next((folder / "data/runs/Bench").iterdir()).name
        fold = Fold(FolderStore(folder / "data"), RunPaths("Bench", run)).update()
    assert fold.first is not None
    assert fold.last_end is not None
    assert all(job.state == "succeeded" for job in fold.jobs.values()), "a job did not succeed"
    table(
        (f"rehearsal, {jobs:,} jobs, 3 machines of 2 slots", "wanted", "found"),
        [
            ("command to first job, s", "10", f"{fold.first - began:.1f}"),
            ("first to last job, jobs/s", "100", f"{jobs / (fold.last_end - fold.first):,.0f}"),
            ("the whole command, s", "", f"{whole:.1f}"),
        ],
    )
