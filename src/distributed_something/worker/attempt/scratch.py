"""Empties a slot's folders between jobs, and writes the file in which a job finds itself. Called by slots.

The check after every job has to be quick: the kernel notes changes (Linux's inotify), and one read covers all
folders. Elsewhere all folders are looked at every time. The file is checked whenever it is written: inotify
does not report all that makes it longer.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

FULL_BELOW = 1 << 20
"""Free bytes below which a disk counts as full."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Scratch:
    """Keeps the folders `empty`, inside `folder`, and the file `job_file` in which a job finds itself.

    The file is kept open and written in place, as that is quickest. A job may replace it, move it, give it
    a second name, or take its permissions away: then the next job gets a new file. The old one stays as it
    is: it may have been published.
    """

    def __init__(self, folder: Path, empty: Iterable[Path], changes: Changes | None = None) -> None:
        self.folder = folder
        self.job_file = folder / "job.json"
        self._empty = list(empty)
        self._places = [folder, *self._empty]
        self._changes = changes or Changes()
        self.quiet = False
        """Whether all were empty, and every later change is reported."""
        self._create()
        self.clear()

    def clear(self) -> None:
        """Makes each folder that a job may have touched exist and be empty.

        Raises OSError if one cannot be, after all others; the next call tries again.
        """
        if self.quiet and not self._changes.any():
            return
        self.quiet = False
        wrong: OSError | None = None
        for folder in self._empty:
            try:
                empty_folder(folder)
            except OSError as error:
                wrong = error
        if wrong is not None:
            raise wrong
        self.quiet = self._changes.watch(self._places) and all(map(_is_empty, self._empty))

    def move(self, folder: Path) -> None:
        """Follows the folder, which has been renamed."""
        self.folder = folder
        self.job_file = folder / "job.json"
        self._empty = [folder / each.name for each in self._empty]
        self._places = [folder, *self._empty]
        self.quiet = False

    def doubt(self) -> None:
        """Has the next `clear` look at each folder by its name: something may be wrong with them."""
        self.quiet = False

    def write(self, body: bytes) -> None:
        """Replaces the content of the file. Raises OSError."""
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
        """Returns the free bytes on the disk of the file, which no job can remove as it can its folders."""
        disk = os.statvfs(self._opened)
        return disk.f_bavail * disk.f_frsize

    def check(self) -> None:
        """Raises OSError if nothing can be written, or the disk is full."""
        if self.free_bytes() < FULL_BELOW:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path = self.folder / "check"
        remove(path)
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(opened, bytes(1 << 16))
        finally:
            os.close(opened)
            path.unlink()

    def close(self) -> None:
        """Closes what is open; all files stay."""
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
    """Reports whether something was made, removed, moved or locked in watched folders."""

    def __init__(self) -> None:
        self._reader: io.FileIO | None = None
        self._watched: set[int] = set()

    def watch(self, places: Sequence[Path]) -> bool:
        """Watches these places from now on, by their names. Returns False if the kernel cannot.

        Forgets what was reported until now.
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
        watched = {kernel.inotify_add_watch(opened, os.fsencode(place), _WATCHED) for place in places}
        for each in self._watched - watched:  # what was moved away would be watched for ever
            kernel.inotify_rm_watch(opened, each)  # to close all and begin anew takes the kernel 10 ms
        self._watched = watched
        for _ in range(_READINGS):
            if not self.any():
                break
        return -1 not in watched

    def any(self) -> bool:
        """Whether something has changed since the last call; after very many changes, more than once."""
        return self._reader is not None and self._reader.read(_EVENTS_BYTES) is not None

    def close(self) -> None:
        """Ends watching."""
        if self._reader is not None:
            self._reader.close()


# linux/inotify.h
_ATTRIB, _MOVED_FROM, _MOVED_TO, _CREATE = 0x4, 0x40, 0x80, 0x100
_DELETE, _DELETE_SELF, _MOVE_SELF, _DONT_FOLLOW = 0x200, 0x400, 0x800, 0x2000000
_WATCHED = (
    _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _DONT_FOLLOW
)  # fmt: skip
_EVENTS_BYTES = 4096
_READINGS = 2000  # the kernel keeps 16,384 events, of at most 272 bytes


def empty_folder(folder: Path) -> None:
    """Makes the folder exist and be empty, whatever a job has put in its place."""
    if _is_empty(folder):
        return
    remove(folder)
    folder.mkdir(parents=True)


def remove(path: Path) -> None:
    """Removes whatever is there, if anything is. Raises OSError."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)
    if path.exists():  # something in it could not be removed with its own permissions, or lies too deep
        _take_apart(path)


def remove_folder(path: Path) -> None:
    """Removes a folder and its content, as far as possible. Other files, and links, stay."""
    if path.is_dir() and not path.is_symlink():
        with suppress(OSError):
            remove(path)


def _take_apart(top: Path) -> None:
    """Removes a folder whatever the permissions in it, and however deep it is.

    Moves the folders in it side by side first: each then has a short path.
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
