"""Each part of `make bench` that needs no other program runs, at a tiny size; mypy checks the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
REQUESTS = """
from bench import requests
requests.CASES = (requests.Case("1 s, a line", 1, True, 2, 3),)
requests.main(0)
"""


def printed(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("commands", "ds start to end of monitor"),
        ("handlers", "HANDLER"),
        ("submit", "one JSON, 200 groups"),
        ("queue", "64 processes"),
        ("startup", "ds status, 20 that have ended"),
        ("looks", "the function, first, 10 times the jobs"),
        ("scale", "10 min"),
    ],
)
def test_a_part_of_bench_runs(name: str, row: str) -> None:
    assert row in printed("-m", "bench", name, "--jobs", "1")


def test_requests_are_counted() -> None:
    figures = printed("-c", REQUESTS).splitlines()[-1].split()
    assert figures[-1].endswith("%")
    assert float(figures[-4]) > 0, "no call of SQS was counted"
