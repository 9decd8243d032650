"""A queue in a shared folder that is full: of bytes, and of names; and one in a folder that is not safe."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import DsProject
from distributed_something.cluster.shared.place import Place
from distributed_something.cluster.shared.queue import CommandQueue
from distributed_something.errors import Unreachable
from keepers import TERMS, Pilots, jobs, submit, until
from services import require

pytestmark = pytest.mark.real


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB and 300 names."""
    if os.getuid() and os.environ.get("CI") != "true":
        pytest.skip("only root can mount")
    folder = tmp_path / "small"
    folder.mkdir()
    options = "size=8m,nr_inodes=300"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill_bytes(folder: Path) -> None:
    with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def fill_names(folder: Path) -> None:
    (folder / "fillers").mkdir()
    with suppress(OSError):
        for number in range(300):
            (folder / "fillers" / str(number)).touch()


def empty(folder: Path) -> None:
    (folder / "filler").unlink(missing_ok=True)
    for each in (folder / "fillers").glob("*"):
        each.unlink()


def test_a_file_system_on_which_two_nodes_can_make_one_name_is_refused(tmp_path: Path) -> None:
    require("bindfs")
    for folder in (tmp_path / "behind", tmp_path / "project"):
        folder.mkdir()
    project = DsProject(tmp_path / "project")
    subprocess.run(["bindfs", "-o", "subtype=seaweedfs", tmp_path / "behind", project.folder], check=True)
    try:
        project.config(ENGINE="slurm", COMMAND="true")
        said = "lies on a file system (fuse.seaweedfs) that can give one name to two files"
        assert said in project.ds("check", code=1).stdout
        assert said in project.ds("setup", code=1).stderr
        assert not (project.folder / ".ds").exists()
    finally:
        subprocess.run(["umount", "-l", project.folder], check=True)


@pytest.mark.parametrize("fill", [fill_bytes, fill_names])
def test_a_full_folder_stops_the_queue_and_loses_nothing(fill: object, small: Path, tmp_path: Path) -> None:
    pilots = Pilots([Place(small / "run")] * 2, tmp_path)
    try:
        submit(pilots, 8_000)
        pilots.work(2, 20)
        until(lambda: len(pilots.ran) > 1_000 and pilots.head)
        fill(small)  # type: ignore[operator]
        until(lambda: not pilots.head, 30)
        empty(small)
        until(lambda: pilots.place.told() and pilots.counts().open == 0, 90)
        assert set(pilots.ran) == set(range(8_000))
    finally:
        pilots.end()


@pytest.mark.parametrize("fill", [fill_bytes, fill_names])
def test_a_command_says_that_the_folder_is_full_and_goes_on_later(fill: object, small: Path) -> None:
    place = Place(small / "run")
    place.make()
    with CommandQueue(place, TERMS) as queue:
        queue.put(jobs(100))
        fill(small)  # type: ignore[operator]
        with pytest.raises(Unreachable, match="No space left on device"):
            queue.put(jobs(200))
        empty(small)
        report = queue.put(jobs(200))
        assert report.sent + report.known == 200
        assert queue.finished() == 0
        assert len(queue.lease(1000)) == 200
