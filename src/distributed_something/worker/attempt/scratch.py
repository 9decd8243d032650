"""A slot's own folders, which every job finds empty, and the file in which a job finds itself.

Whether a job has left something is asked after every job, so it has to be quick: the kernel notes what
changes (Linux's inotify), and one reading tells of all folders. Where it does not, all are looked at every
time. The file is looked at whenever it is written: not all that makes it longer is told.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Scratch:
    """The folders `empty`, which are in `folder`, and the file in it in which a job finds itself, `job_file`.

    The file is kept open and written in place, as that is quickest. A job may replace it, move it, give it
    a second name, or take its permissions away: then the next job gets another file, and the old one is
    left as it is, for it may have been published.
    """

    def __init__(self, folder: Path, empty: Iterable[Path], changes: Changes | None = None) -> None:
        self.job_file = folder / "job.json"
        self._empty = list(empty)
        self._places = [folder, *self._empty]
        self._changes = changes or Changes()
        self._quiet = False  # whether all were empty, and a change since then is told
        self._create()
        self.clear()

    def clear(self) -> None:
        """Make each folder that a job may have touched exist and be empty.

        Raises OSError where that is not possible, after all others; the next call tries again.
        """
        if self._quiet and not self._changes.any():
            return
        self._quiet = False
        wrong: OSError | None = None
        for folder in self._empty:
            try:
                empty_folder(folder)
            except OSError as error:
                wrong = error
        if wrong is not None:
            raise wrong
        self._quiet = self._changes.watch(self._places) and all(map(_is_empty, self._empty))

    def doubt(self) -> None:
        """Something is wrong with the folders: look at each when they are cleared next, by its name."""
        self._quiet = False

    def write(self, body: bytes) -> None:
        """Make this the content of the file. Raises OSError."""
        try:
            there = os.lstat(self.job_file)
        except OSError:
            self._replace()
        else:
            if there[:6] != self._known:
                self._replace()
            elif there.st_size > len(body):
                os.ftruncate(self._opened, 0)
        written = 0
        while written < len(body):  # where the disk has room for a part only, the next call tells
            written += os.pwrite(self._opened, body[written:], written)

    def free_bytes(self) -> int:
        """What is free on the disk of the file, which no job can take away as it can its folders."""
        disk = os.statvfs(self._opened)
        return disk.f_bavail * disk.f_frsize

    def close(self) -> None:
        """Close what is open; all stays where it is."""
        self._changes.close()
        os.close(self._opened)

    def _replace(self) -> None:
        before = self._opened
        self._create()
        os.close(before)

    def _create(self) -> None:
        remove(self.job_file)
        self.job_file.parent.mkdir(parents=True, exist_ok=True)
        self._opened = os.open(self.job_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        # mode, inode, device, links, user and group stay the same while a file is only written
        self._known = os.fstat(self._opened)[:6]


class Changes:
    """Tells whether something was made, taken away, put elsewhere or locked in folders that are watched."""

    def __init__(self) -> None:
        self._reader: io.FileIO | None = None
        self._watched: set[int] = set()

    def watch(self, places: Sequence[Path]) -> bool:
        """From now on changes of these places are told; False where the kernel does not do that.

        They may be others of the same names now. What was told until now is forgotten.
        """
        if not sys.platform.startswith("linux"):
            return False
        import ctypes

        kernel = ctypes.CDLL(None)
        if self._reader is None:
            opened = kernel.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if opened < 0:  # more than this user may have (fs.inotify.max_user_instances)
                return False
            self._reader = io.FileIO(opened)
        opened = self._reader.fileno()
        watched = {kernel.inotify_add_watch(opened, os.fsencode(place), _TOLD_OF) for place in places}
        for each in self._watched - watched:  # what was moved away would be watched for ever
            kernel.inotify_rm_watch(opened, each)  # to close all and begin anew takes the kernel 10 ms
        self._watched = watched
        for _ in range(_READINGS):
            if not self.any():
                break
        return -1 not in watched

    def any(self) -> bool:
        """Whether something has changed since the last call; after very many changes, again."""
        return self._reader is not None and self._reader.read(_EVENTS_BYTES) is not None

    def close(self) -> None:
        """Watch nothing any more."""
        if self._reader is not None:
            self._reader.close()


# linux/inotify.h
_ATTRIB, _MOVED_FROM, _MOVED_TO, _CREATE = 0x4, 0x40, 0x80, 0x100
_DELETE, _DELETE_SELF, _MOVE_SELF, _DONT_FOLLOW = 0x200, 0x400, 0x800, 0x2000000
_TOLD_OF = (
    _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _DONT_FOLLOW
)  # fmt: skip
_EVENTS_BYTES = 4096
_READINGS = 2000  # the kernel keeps 16,384 events, of at most 272 bytes


def empty_folder(folder: Path) -> None:
    """Make the folder exist and be empty, whatever a job has put in its place."""
    if _is_empty(folder):
        return
    remove(folder)
    folder.mkdir(parents=True)


def remove(path: Path) -> None:
    """Remove whatever is there, if anything is. Raises OSError."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)
    if path.exists():  # something in it could not be removed with its own permissions, or lies too deep
        _take_apart(path)


def remove_folder(path: Path) -> None:
    """Remove a folder and what is in it, as far as that is possible. What is no folder, or a link, stays."""
    if path.is_dir() and not path.is_symlink():
        with suppress(OSError):
            remove(path)


def _take_apart(top: Path) -> None:
    """Remove a folder whatever the permissions in it, and however deep it is.

    The folders in it are put side by side first: each is reached by a short path then.
    """
    top.chmod(0o700)
    folders = [top]
    for folder in folders:  # more are added meanwhile
        for entry in list(folder.iterdir()):
            if entry.is_symlink() or not entry.is_dir():
                entry.unlink()
                continue
            try:
                entry.rmdir()  # also somebody else's, if it is empty
            except OSError:
                entry.chmod(0o700)
                folders.append(entry.rename(top / os.urandom(8).hex()))
    for folder in reversed(folders):
        folder.rmdir()


def _is_empty(folder: Path) -> bool:
    """Whether it is a folder, and no link to one, with nothing in it, that its owner may use."""
    try:
        opened = os.open(folder, _FOLDER)
    except OSError:
        return False
    try:
        return os.fstat(opened).st_mode & stat.S_IRWXU == stat.S_IRWXU and not os.listdir(opened)
    finally:
        os.close(opened)
