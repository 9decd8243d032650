"""The attack of `bench/chaos.py`, in short: twenty rounds, of which ten damage the queue too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]


@pytest.mark.fault(15, 75)
@pytest.mark.parametrize("more", [[], ["--damage"]], ids=["kills", "damage"])
def test_no_round_of_chaos_loses_a_job(more: list[str]) -> None:
    command = [
        sys.executable,
        "-m",
        "bench.chaos",
        "--rounds",
        "10",
        "--seed",
        "7",
        "--at-a-time",
        "5",
        *more,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "10 rounds, 0 broken" in done.stdout
