"""A slot's folders and its job's file, whatever jobs do to them."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from distributed_something.worker.attempt.scratch import Changes, Scratch, empty_folder
from trees import below, make


def test_an_emptied_folder_is_there_and_empty(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    empty_folder(folder)
    assert list(folder.iterdir()) == []
    make(folder, a_txt="x", sub__deep__b_txt="y")
    empty_folder(folder)
    assert list(folder.iterdir()) == []


_EMPTY_WHAT_IS_LOCKED = """
import os
import resource
from pathlib import Path
from distributed_something.worker.attempt.scratch import empty_folder

if os.getuid() == 0:  # whom no permission stops
    os.chown(".", 65534, 65534)
    os.setgid(65534)
    os.setuid(65534)
for locked in ("work", "work/a", "work/a/b"):
    Path("work/a/b").mkdir(parents=True)
    Path("work/a/b/c.txt").write_text("x")
    Path("work/link").symlink_to("/")
    Path("work/a/b").chmod(0)
    Path(locked).chmod(0)
    empty_folder(Path("work"))
    print(os.listdir("work"))
Path("work").chmod(0o555)
empty_folder(Path("work"))
Path("work/new").touch()
"""


def test_a_folder_that_its_job_locked_is_emptied_and_opened(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _EMPTY_WHAT_IS_LOCKED]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout.split("\n"), done.stderr) == (["[]"] * 3 + [""], "")


_EMPTY_WHAT_IS_DEEP = """
import os, sys
from pathlib import Path
from distributed_something.worker.attempt.scratch import empty_folder

os.mkdir("work")
here = os.getcwd()
os.chdir("work")
for _ in range(200):  # the path to the last one is longer than any may be
    Path("file").touch()
    os.mkdir("x" * 100)
    os.chdir("x" * 100)
os.chdir(here)
sys.setrecursionlimit(100)
empty_folder(Path("work"))
print(os.listdir("work"))
"""


def test_a_folder_that_is_deeper_than_python_goes_is_emptied_too(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _EMPTY_WHAT_IS_DEEP]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_links_are_removed_and_what_they_point_to_stays(tmp_path: Path) -> None:
    make(tmp_path, elsewhere__keep_txt="kept")
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "file").symlink_to(tmp_path / "elsewhere" / "keep.txt")
    (folder / "folder").symlink_to(tmp_path / "elsewhere")
    empty_folder(folder)
    assert list(folder.iterdir()) == []
    assert below(tmp_path / "elsewhere") == {"keep.txt": "kept"}


def _add(folder: Path) -> None:
    (folder / "left").write_text("x")


def _move_away(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def _move_away_and_put_another(folder: Path) -> None:
    _move_away(folder)
    make(folder, left="x")


def _put_a_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("x")


def _put_a_link(folder: Path) -> None:
    folder.rmdir()
    make(folder.with_name("elsewhere"), left="x")
    folder.symlink_to(folder.with_name("elsewhere"))


class Untold(Changes):
    """Where the kernel does not tell of changes."""

    def watch(self, places: Sequence[Path]) -> bool:
        return False


class Counted(Changes):
    """Counts how often it had to begin to watch: whenever all was looked at."""

    looks = 0

    def watch(self, places: Sequence[Path]) -> bool:
        self.looks += 1
        return super().watch(places)


@pytest.fixture(params=[Changes, Untold])
def changes(request: pytest.FixtureRequest) -> Changes:
    kind: type[Changes] = request.param
    return kind()


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    return tmp_path / "machine" / "slot"


@pytest.fixture
def scratch(slot: Path, changes: Changes) -> Iterator[Scratch]:
    scratch = Scratch(slot, [slot / "work", slot / "input"], changes)
    yield scratch
    scratch.close()


@pytest.mark.parametrize(
    "act", [_add, _move_away, _move_away_and_put_another, shutil.rmtree, _put_a_file, _put_a_link]
)
def test_the_next_job_finds_its_folders_empty(
    scratch: Scratch, slot: Path, act: Callable[[Path], None]
) -> None:
    folder = slot / "work"
    for _ in range(2):
        act(folder)
        scratch.clear()
        assert folder.is_dir() and not folder.is_symlink()
        assert list(folder.iterdir()) == []
        shutil.rmtree(slot / "elsewhere", ignore_errors=True)


def test_a_slot_that_was_put_elsewhere_is_made_again(scratch: Scratch, slot: Path) -> None:
    slot.rename(slot.with_name("elsewhere"))
    scratch.clear()
    scratch.write(b"{}")
    assert sorted(path.name for path in slot.iterdir()) == ["input", "job.json", "work"]


def test_folders_that_are_in_doubt_are_made_again(scratch: Scratch, slot: Path) -> None:
    slot.parent.rename(slot.parent.with_name("elsewhere"))  # of which no change of the slot's own tells
    scratch.doubt()
    scratch.clear()
    assert list((slot / "work").iterdir()) == []


needs_inotify = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")


@needs_inotify
def test_nothing_is_looked_at_where_nothing_has_changed(slot: Path) -> None:
    changes = Counted()
    scratch = Scratch(slot, [slot / "work"], changes)
    scratch.write(b'{"n": 1}')
    scratch.clear()
    scratch.write(b"{}")
    scratch.clear()
    assert scratch.job_file.read_bytes() == b"{}"
    assert changes.looks == 1
    scratch.close()


@needs_inotify
def test_more_changes_than_the_kernel_keeps_are_no_trouble(slot: Path) -> None:
    scratch = Scratch(slot, [slot / "work"])
    for number in range(17_000):  # an event each
        (slot / "work" / f"{number}").touch()
    scratch.clear()
    assert list((slot / "work").iterdir()) == []
    _add(slot / "work")
    scratch.clear()
    assert list((slot / "work").iterdir()) == []
    scratch.close()


def _watches() -> int:
    infos = Path("/proc/self/fdinfo").iterdir()
    return sum(info.read_text().count("inotify wd:") for info in infos if info.exists())


@needs_inotify
def test_what_jobs_put_elsewhere_is_not_watched_for_ever(slot: Path) -> None:
    before = _watches()
    scratch = Scratch(slot, [slot / "work"])
    for number in range(5):
        (slot / "work").rename(slot.parent / f"{number}")
        scratch.clear()
    assert _watches() - before == 2  # the slot and its one folder
    scratch.close()


@needs_inotify
def test_what_a_job_leaves_does_not_end_the_watch(slot: Path) -> None:
    scratch = Scratch(slot, [slot / "work"])
    watch = scratch._changes._reader
    _add(slot / "work")
    scratch.clear()
    assert watch is not None and scratch._changes._reader is watch and not watch.closed  # that takes 10 ms
    scratch.close()


# The job's own file


def _replace(path: Path) -> None:
    path.with_name("new").write_text("another")
    path.with_name("new").replace(path)


def _move_and_replace(path: Path) -> None:  # as sed -i.bak does
    path.replace(path.with_name("kept"))
    path.write_text("another")


def _publish_by_a_second_name(path: Path) -> None:
    path.with_name("kept").hardlink_to(path)


def _link_to_a_file_outside(path: Path) -> None:
    path.replace(path.with_name("kept"))
    path.symlink_to("kept")


def _put_a_folder(path: Path) -> None:
    path.unlink()
    make(path, left="x")


def _take_permissions(path: Path) -> None:
    path.chmod(0)


def _take_the_whole_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def _write_more(path: Path) -> None:
    path.write_text("x" * 1000)


@pytest.mark.parametrize(
    "act",
    [
        _replace,
        _move_and_replace,
        _publish_by_a_second_name,
        _link_to_a_file_outside,
        _put_a_folder,
        _take_permissions,
        _take_the_whole_folder,
        _write_more,
        Path.unlink,
    ],
)
def test_whatever_a_job_does_to_its_file_the_next_one_finds_itself_in_it(
    scratch: Scratch, slot: Path, act: Callable[[Path], None]
) -> None:
    path = slot / "job.json"
    scratch.write(b'{"n": 1}')
    act(path)
    scratch.clear()
    scratch.write(b'{"n": 22}')
    scratch.clear()
    scratch.write(b'{"n": 3}')
    assert path.read_bytes() == b'{"n": 3}'
    assert not path.is_symlink() and path.stat().st_mode & 0o777 == 0o600
    kept = path.with_name("kept")
    assert not kept.exists() or kept.read_bytes() == b'{"n": 1}'


def test_a_file_that_a_job_made_longer_is_cut(scratch: Scratch, slot: Path) -> None:
    scratch.write(b"{}")
    os.truncate(slot / "job.json", 1000)  # nobody has opened it for that
    scratch.clear()
    scratch.write(b'{"n": 2}')
    assert scratch.job_file.read_bytes() == b'{"n": 2}'


def test_what_goes_on_writing_to_a_jobs_file_adds_nothing_to_the_next_ones(
    scratch: Scratch, slot: Path
) -> None:
    scratch.write(b"{}")
    with (slot / "job.json").open("ab", buffering=0) as held:  # no change is told before it is closed
        held.write(b"x" * 1000)
        scratch.clear()
        scratch.write(b'{"n": 2}')
        assert scratch.job_file.read_bytes() == b'{"n": 2}'


def test_a_file_that_is_taken_away_between_two_jobs_is_made_again(scratch: Scratch) -> None:
    scratch.clear()
    scratch.job_file.unlink()
    scratch.write(b"{}")
    assert scratch.job_file.read_bytes() == b"{}"


def test_a_file_that_finds_no_room_is_an_error(scratch: Scratch) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # as where the disk has so much left
    try:
        with pytest.raises(OSError, match="File too large"):
            scratch.write(b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
