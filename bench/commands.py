"""No-op commands, two at a time: ours against xargs, GNU parallel, HyperQueue and task-queue, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from .tools import four_steps, project, table, timed

ROUNDS = 3
SLOW_SHARE = 10
"""Peers that are many times slower get this fraction of the jobs."""


def xargs(jobs: int) -> float:
    return timed(lambda: _shell(f"seq {jobs} | xargs -P2 -n1 /bin/true"))


def parallel(jobs: int) -> float:
    return timed(lambda: _shell(f"seq {jobs} | parallel --will-cite -j2 /bin/true {{}}"))


def hyperqueue(jobs: int) -> float:
    """A server and a worker of two cores on this machine, without their start and end."""
    return float(_peer("hyperqueue_peer.py", jobs).split()[-1])


def task_queue(jobs: int) -> float:
    """Its file queue and two processes, with the filling of the queue."""
    return timed(lambda: _peer("task_queue_peer.py", jobs))


def _peer(script: str, jobs: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).with_name(script)), folder, str(jobs)]
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True)


def ours(jobs: int) -> tuple[float, float]:
    with project(COMMAND="/bin/true {n}") as folder:
        return four_steps(folder, jobs)


def main(jobs: int) -> None:
    """Each round runs all in turn; the ratio of each to xargs is taken within the round."""
    peers = {"GNU parallel": parallel, "HyperQueue": hyperqueue, "task-queue": task_queue}
    rates: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for number in range(min(ROUNDS, jobs)):
        base = jobs / xargs(jobs)
        rows = {"xargs -P2 -n1": base}
        inner, whole = ours(jobs)
        rows |= {"ds, first lease to last": jobs / inner, "ds start to end of monitor": jobs / whole}
        base = (base + jobs / xargs(jobs)) / 2
        for name, run in peers.items() if number == 0 else ():
            if (taken := _try(run, jobs // SLOW_SHARE)) is not None:
                rows[name] = jobs // SLOW_SHARE / taken
        for name, rate in rows.items():
            rates.setdefault(name, []).append(rate)
            ratios.setdefault(name, []).append(rate / base)
    table(
        ("no-op commands, 2 at a time", "jobs/s", "x xargs", "from", "to"),
        [
            (
                name,
                f"{statistics.median(rates[name]):,.0f}",
                f"{statistics.median(of):.2f}",
                f"{min(of):.2f}",
                f"{max(of):.2f}",
            )
            for name, of in ratios.items()
        ],
    )


def _try(run: Callable[[int], float], jobs: int) -> float | None:
    try:
        return run(jobs)
    except (OSError, subprocess.SubprocessError, TimeoutError) as error:
        print(f"{run.__name__}: not measured: {error}")
        return None


def _shell(command: str) -> None:
    subprocess.run(["/bin/sh", "-c", command], check=True)
