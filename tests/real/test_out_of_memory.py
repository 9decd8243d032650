"""A job that the kernel kills for lack of memory, below a shell: the cause says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import DsProject, until

pytestmark = pytest.mark.real

LIMIT = 60 << 20


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A control group with little memory, which a job enters. That needs root: demanded in CI."""
    root = Path("/sys/fs/cgroup")
    parent, name = root, "memory.max"
    if (root / "memory").is_dir():  # version 1
        parent, name = root / "memory", "memory.limit_in_bytes"
    group = parent / f"ds-test-{os.getpid()}"
    try:
        with suppress(FileNotFoundError):
            (root / "cgroup.subtree_control").write_text("+memory")
        group.mkdir()
        (group / name).write_text(str(LIMIT))
    except OSError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no control group can be made here: {error}")
    for swap in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
        with suppress(OSError):
            (group / swap).write_text("0" if "max" in swap else str(LIMIT))
    yield group
    until(lambda: not (group / "cgroup.procs").read_text(), "the job to be gone")
    group.rmdir()


@pytest.mark.fault(64)
def test_a_program_below_a_shell_that_is_killed_for_lack_of_memory(
    project: DsProject, small_memory: Path
) -> None:
    project.config(
        COMMAND="echo $$ > {group}/cgroup.procs; python3 -c 'x = bytearray(300 << 20)' > /dev/null",
        JOB_RETRIES=1,
        DOCKER_CORES=1,
    )
    project.ds("run", project.jobs([{"group": str(small_memory)}]), code=3)
    assert [job["cause"] for job in project.job_lines()] == ["out-of-memory"]
