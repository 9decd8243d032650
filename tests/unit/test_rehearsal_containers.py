"""How a task of the pretend account becomes a container."""

from __future__ import annotations

from pathlib import Path

from distributed_something.rehearsal.cloud.containers import TaskContainers
from distributed_something.system.containers.docker import Docker


def test_no_image_is_taken_for_an_option(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    container = {"image": "--volume=/:/host", "command": ["alpine", "sh"], "memory": 128}
    words = TaskContainers(Docker("docker"), None).command(container, "ds-1", {}, tmp_path / "task", tmp_path)
    assert words[words.index("--") :] == ["--", "--volume=/:/host", "alpine", "sh"]
