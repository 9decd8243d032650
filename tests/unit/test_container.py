"""How the end of a job's container is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_something.system.containers.docker import Docker
from distributed_something.worker.attempt.container import Container, Containers, Limits, Verdict
from distributed_something.worker.attempt.process import Ended

DOCKER = """#!/bin/sh
case "$1 $2" in
"container inspect")
    echo "$(tail -n 1 "$0.says")|2026-01-01|9|"
    echo true >> "$0.says" ;;
esac
"""


class Kernel:
    """Counts kills for lack of memory: so many more after a container's start."""

    def __init__(self, more: int) -> None:
        self._counts = iter([3])
        self._later = 3 + more

    def kills(self) -> int:
        return next(self._counts, self._later)


def end_of(folder: Path, *, kills: int, word_seconds: float = 2.0) -> Verdict:
    program = folder / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    (folder / "docker.says").write_text("false\n")
    kind = Containers(Docker(str(program)), "image", Limits(memory=32), str(folder))
    given = {"DS_WORK_DIR": str(folder), "DS_WORKER": "worker-1"}
    one = Container(kind, folder, folder, given, kills=Kernel(kills).kills, word_seconds=word_seconds)
    one.command(["true"], {})
    verdict = one.end(Ended(9, None, 0.0, 0))
    assert verdict is not None
    return verdict


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "slot").mkdir()
    return tmp_path / "slot"


def test_containers_of_a_pilot_share_its_memory_and_none_is_given_more() -> None:
    assert Limits(16_000, factor=2, most=64_000).of_slot(8) == Limits(2000, factor=2, most=16_000)
    assert Limits(16_000, factor=4, most=64_000).of_slot(8).memory_after(3) == 16_000
    assert Limits().of_slot(8) == Limits()


@pytest.mark.parametrize(
    ("limits", "kills", "memory"),
    [
        (Limits(), 3, None),
        (Limits(100), 3, 100),
        (Limits(100, factor=2), 0, 100),
        (Limits(100, factor=1.5), 2, 225),
        (Limits(100, factor=2, most=350), 2, 350),
        (Limits(100, factor=100), 10**6, 1 << 40),
        (Limits(100, factor=2, most=50), 1, 100),  # never less than the config has
    ],
)
def test_memory_is_raised_up_to_what_the_machine_has(limits: Limits, kills: int, memory: int | None) -> None:
    assert limits.memory_after(kills) == memory


def test_memory_is_the_cause_also_where_the_engine_hears_of_it_late(folder: Path) -> None:
    assert end_of(folder, kills=1).memory == "killed for lack of memory: MEMORY = 32"


def test_where_nothing_was_killed_the_engine_is_asked_once(folder: Path) -> None:
    verdict = end_of(folder, kills=0)
    assert (verdict.memory, verdict.ended.exit_code) == ("", 9)
    assert (folder / "docker.says").read_text() == "false\ntrue\n"


def test_the_engine_is_not_asked_for_ever(folder: Path) -> None:
    verdict = end_of(folder, kills=1, word_seconds=0.0)  # of somebody else's
    assert (verdict.memory, verdict.ended.exit_code) == ("", 9)
