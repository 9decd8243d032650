"""The attack of `bench/chaos.py`, in short: kills, damage to the queue, rough days, and pilots of Slurm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pretending import require

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]


@pytest.mark.fault(15, 75)
@pytest.mark.parametrize(
    ("rounds", "more"),
    [(10, []), (10, ["--damage"]), (2, ["--engine", "rehearsal"]), (2, ["--engine", "slurm"])],
    ids=["kills", "damage", "rough days", "pilots"],
)
def test_no_round_of_chaos_loses_a_job(rounds: int, more: list[str], request: pytest.FixtureRequest) -> None:
    if "rehearsal" in more:
        require()
    if "slurm" in more:
        request.getfixturevalue("cluster")  # its variables lead the rounds there
    options = ["--rounds", str(rounds), "--seed", "7", "--at-a-time", "5", *more]
    command = [sys.executable, "-m", "bench.chaos", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{rounds} rounds, 0 broken" in done.stdout
