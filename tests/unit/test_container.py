"""How the end of a job's container is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from distributed_something.containers import Docker
from distributed_something.worker import container
from distributed_something.worker.container import Container, Containers, Limits, Verdict
from distributed_something.worker.process import Ended

DOCKER = """#!/bin/sh
case "$1 $2" in
"container inspect")
    echo "$(tail -n 1 "$0.says")|2026-01-01|"
    echo true >> "$0.says" ;;
esac
"""


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the kernel counts: at the start of a container, and from its end on."""
    counts = [3, 3]
    told = iter(counts)
    last = counts[0]

    def count() -> int:
        nonlocal last
        last = next(told, last)
        return last

    monkeypatch.setattr(container, "memory_kills", count)
    return counts


def end_of(folder: Path, code: int) -> Verdict | None:
    program = folder / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
    (folder / "docker.says").write_text("false\n")
    kind = Containers(Docker(str(program)), "image", Limits(memory=32), str(folder))
    given = {"DS_WORK_DIR": str(folder), "DS_WORKER": "worker-1"}
    one = Container(kind, folder, folder, given)
    one.command(["true"], {})
    return one.end(Ended(code, None, 0.0, 0))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "slot").mkdir()
    yield tmp_path / "slot"


def test_memory_is_the_cause_also_where_the_engine_hears_of_it_late(folder: Path, kills: list[int]) -> None:
    kills[1] += 1
    verdict = end_of(folder, 9)
    assert verdict is not None and verdict.memory == "killed for lack of memory: MEMORY = 32"


def test_where_nothing_was_killed_the_engine_is_asked_once(folder: Path, kills: list[int]) -> None:
    verdict = end_of(folder, 9)
    assert verdict is not None and (verdict.memory, verdict.ended.exit_code) == ("", 9)
    assert (folder / "docker.says").read_text() == "false\ntrue\n"


def test_the_engine_is_not_asked_for_ever(
    folder: Path, kills: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kills[1] += 1  # of somebody else's
    monkeypatch.setattr(container, "WORD_SECONDS", 0.0)
    verdict = end_of(folder, 9)
    assert verdict is not None and (verdict.memory, verdict.ended.exit_code) == ("", 9)
