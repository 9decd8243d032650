"""Handlers that do nothing, two slots, against a bare process pool of two."""

from __future__ import annotations

import statistics
from multiprocessing import Pool

from .tools import four_steps, project, table, timed


def nothing(_number: int) -> None:
    pass


def pool(jobs: int) -> float:
    def run() -> None:
        with Pool(2) as workers:
            for _ in workers.imap_unordered(nothing, range(jobs)):
                pass

    return timed(run)


def main(jobs: int) -> None:
    rounds, jobs = min(3, jobs), 4 * jobs
    ours, bare = [], []
    for _ in range(rounds):
        bare.append(jobs / pool(jobs))
        with project(HANDLER="work:nothing") as folder:
            (folder / "work.py").write_text("def nothing(job):\n    pass\n")
            ours.append(jobs / four_steps(folder, jobs)[0])
    ratios = [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
    table(
        ("handlers that do nothing, 2 slots", "jobs/s", "x pool"),
        [
            ("multiprocessing.Pool(2), nothing durable", f"{statistics.median(bare):,.0f}", "1"),
            ("HANDLER", f"{statistics.median(ours):,.0f}", f"{statistics.median(ratios):.2f}"),
        ],
    )
