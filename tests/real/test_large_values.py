"""A job with a value of many megabytes: no step holds more than three copies of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import DsProject

pytestmark = pytest.mark.real

VALUE_BYTES = 64 << 20
COPIES = 3.1
COPIES_OF_LINES = 3.6
"""The C library keeps the pieces in which `ds check` has read a long line."""

CACHES_BYTES = 40 << 20
"""What a step may need beside copies of the value, such as the queue's cache."""


RUN = """import sys
from distributed_something.cli.entry import main
code = main()
print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""


def peak(project: DsProject, *args: str) -> int:
    """Runs ds; returns the most memory that it had, in bytes."""
    command = [sys.executable, "-c", RUN, "--yes", *args]
    done = subprocess.run(
        command, cwd=project.folder, env=project.environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-2]) * 1024


def peaks(project: DsProject, name: str, text: str) -> dict[str, int]:
    """Returns the most memory of each step, and of the worker, which its second job asks for."""
    project.config(COMMAND="grep VmHWM /proc/$PPID/status > {output_dir}/x", OUTPUT="out/{n}", DOCKER_CORES=1)
    (project.folder / name).write_text(text)
    project.ds("setup")
    found = {step: peak(project, step, name) for step in ("check", "submit")}
    project.ds("start")
    project.ds("monitor")
    said = Path(project.folder, "data/out/2/x").read_text().split()
    project.ds("cleanup", "--yes")
    return {**found, "worker": int(said[1]) * 1024}


FILES = {
    "in a group": ("a.json", '{"groups": [{"n": 1, "v": "VALUE"}, {"n": 2}]}'),
    "shared": ("a.json", '{"v": "VALUE", "groups": [{"n": 2}]}'),
    "in a line": ("a.jsonl", '{"n": 1, "v": "VALUE"}\n{"n": 2}\n'),
}


@pytest.mark.fault(78)
@pytest.mark.parametrize("where", FILES)
def test_a_large_value_is_held_three_times_at_most(project: DsProject, where: str) -> None:
    name, text = FILES[where]
    small = peaks(project, name, text.replace("VALUE", "little"))
    large = peaks(project, name, text.replace("VALUE", os.urandom(VALUE_BYTES // 2).hex()))
    copies = {step: (large[step] - small[step] - CACHES_BYTES) / VALUE_BYTES for step in small}
    assert max(copies.values()) < (COPIES_OF_LINES if name.endswith("l") else COPIES), copies
    assert min(copies.values()) > 0.4, "it was not measured"
