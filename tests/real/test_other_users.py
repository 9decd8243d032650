"""Other users of the machine: their folders are not trusted, their locks are named, our files are ours."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import DsProject, until
from distributed_something.errors import DsError
from distributed_something.system.state import make_private, refuse_foreign

pytestmark = pytest.mark.real

OTHER = 65534
"""The user `nobody`."""


@contextmanager
def locked_by_other_user(folder: Path) -> Iterator[None]:
    """Another user locks a folder. That needs root: left out on a laptop, demanded in CI."""
    command = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "--"]
    if os.geteuid() != 0:
        if os.environ.get("CI") != "true":
            pytest.skip("only root can become another user")
        command = ["sudo", "-n", *command]
    holder = subprocess.Popen([*command, "flock", "-x", str(folder), "sleep", "60"], start_new_session=True)
    try:
        until(lambda: _is_held(folder), "the lock to be held")
        yield
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


def _is_held(folder: Path) -> bool:
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(opened)
    return False


@pytest.fixture
def shared(project: DsProject, tmp_path: Path) -> DsProject:
    """A project that other users can get at."""
    project.config(COMMAND="true {n}")
    for folder in (project.folder, tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    return project


@pytest.mark.fault(77)
def test_a_lock_of_another_user_is_named_and_waiting_for_it_ends(shared: DsProject) -> None:
    with locked_by_other_user(shared.folder):
        began = time.monotonic()
        said = shared.ds("setup", code=1).stderr
        assert time.monotonic() - began < 15
    assert "is locked by process " in said and "nobody" in said and "ps -fp" in said
    shared.ds("setup")


@pytest.mark.fault(77)
@pytest.mark.parametrize("variable", [False, True], ids=[".ds", "DS_STATE_DIR"])
def test_a_folder_that_others_may_write_is_refused(
    project: DsProject, tmp_path: Path, variable: bool
) -> None:
    state = tmp_path / "state" if variable else project.folder / ".ds"
    state.mkdir()
    state.chmod(0o777)
    if variable:
        project.environment["DS_STATE_DIR"] = str(state)
    project.config(COMMAND="true {n}")
    for command in ("setup", "status", "cleanup"):
        said = project.ds(command, "--yes", code=1).stderr
        assert f"the state folder {state} may be written by other users" in said and "chmod go-w" in said
    assert list(state.iterdir()) == []
    state.chmod(0o755)
    project.ds("setup")


@pytest.mark.fault(77)
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    refuse_foreign(tmp_path / "not there")
    refuse_foreign(tmp_path)
    with pytest.raises(DsError, match="belongs to the user") as caught:
        refuse_foreign(Path("/") if os.geteuid() else _given_away(tmp_path))
    assert "DS_STATE_DIR" in caught.value.fix


def _given_away(folder: Path) -> Path:
    other = folder / "other"
    other.mkdir()
    os.chown(other, OTHER, OTHER)
    return other


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0)
    os.umask(before)
    yield os.umask
    os.umask(before)


@pytest.mark.fault(77)
@pytest.mark.parametrize("mask", [0, 0o022, 0o077], ids=oct)
def test_what_we_keep_only_its_user_can_read(
    project: DsProject, umask: Callable[[int], int], mask: int
) -> None:
    umask(mask)
    project.config(COMMAND="sleep 1; echo {n}")
    jobs = project.jobs([{"n": n} for n in range(4)])
    project.ds("setup")
    project.ds("submit", jobs)
    project.ds("start")
    until(lambda: list(project.folder.glob(".ds/*/work/*")), "the workers")
    project.ds("status")
    state = project.folder / ".ds"
    assert _open_to_others(state) == []
    project.ds("monitor")
    project.ds("try", jobs)
    assert _open_to_others(state) == []


def _open_to_others(state: Path) -> list[str]:
    """What others may read below a folder, except below a folder that they cannot enter."""
    found = [
        state,
        *(each for each in state.rglob("*") if "work" not in each.parts and ".try" not in str(each)),
    ]
    return [f"{path} {mode:o}" for path in found if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077]


def test_folders_are_private_under_any_umask(tmp_path: Path, umask: Callable[[int], int]) -> None:
    for mask in (0, 0o022, 0o777):
        umask(mask)
        folder = tmp_path / f"{mask:o}" / "a" / "b"
        make_private(folder)
        assert {stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent)} == {0o700}
