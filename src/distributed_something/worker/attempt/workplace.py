"""Names the folders of attempts, claims them exclusively, and removes what killed workers left there.

    <root>/slot-<number>     a slot's folder
    <root>/<job id>          the same folder, renamed while a job with an OUTPUT runs in it

Programs write the path they run in into their files (the headers of BAM and VCF): with a name made of the job
alone, two runs give the same bytes. The holder of a folder has a lock on it (flock), which the kernel takes
away with its process: a folder without a lock is what a killed worker left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import DsError
from .scratch import remove_folder

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OURS = re.compile(r"(slot-[0-9]+|[0-9a-f]{16})(-[0-9]+)?([.]env)?|[.]left-[0-9a-f]{8}")
"""Names in a root that are ours to remove; `.left-…` is a folder that is being removed."""


class Workplace:
    """A slot's folder: exists and is held from the beginning until `close`."""

    def __init__(self, wanted: Path, *, keep: bool = False) -> None:
        """Makes the folder `wanted`; if another process holds that, one with a number behind its name.

        `keep`: takes it as it is, and leaves it.
        """
        self._root = wanted.parent
        self._keep = keep
        if keep:
            wanted.mkdir(parents=True, exist_ok=True)
            self.home = self.folder = wanted
            return
        self._root.mkdir(0o700, parents=True, exist_ok=True)
        if self._root.lstat().st_uid != os.geteuid():  # who could then change what jobs read
            raise DsError(f"{self._root}: belongs to another user", "name another folder by SCRATCH")
        self.home = self.folder = next(folder for folder in _names(wanted) if self._made(folder))

    def claim(self, name: str) -> bool:
        """Renames the folder. Returns False if an attempt that lives has this name: another one is taken."""
        for number, folder in enumerate(_names(self._root / name)):
            if self._renamed(folder):
                self.folder = folder
                return number == 0
        raise AssertionError

    def go_home(self) -> None:
        """Gives the folder its own name back; makes it anew if a job has moved it. Raises OSError."""
        if self.folder == self.home:
            return
        try:
            self.folder.rename(self.home)
        except FileNotFoundError:
            os.close(self._held)
            self.home = next(folder for folder in _names(self.home) if self._made(folder))
        self.folder = self.home

    def close(self) -> None:
        """Removes the folder, unless it is to be kept."""
        if not self._keep:
            remove_folder(self.folder)
            os.close(self._held)

    def _made(self, folder: Path) -> bool:
        """Whether the folder is ours now."""
        _clear(folder)
        try:
            folder.mkdir()
        except FileExistsError:
            return False
        self._held = os.open(folder, _OPEN)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        if _is_there(self._held, folder):
            return True
        os.close(self._held)  # another process took it for a remain, and removed it
        return self._made(folder)

    def _renamed(self, folder: Path) -> bool:
        for _ in range(2):
            try:
                self.folder.rename(folder)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            else:
                return True
            _clear(folder)
        return False


def clear_remains(root: Path) -> None:
    """Removes each folder below `root` that no process holds, with its file of variables."""
    found = sorted(root.iterdir()) if root.is_dir() else []
    ours = [path for path in found if _OURS.fullmatch(path.name)]
    for path in ours:
        _clear(path)
    for path in ours:
        if path.suffix == ".env" and not path.with_suffix("").is_dir():
            path.unlink(missing_ok=True)
    with suppress(OSError):
        root.rmdir()


def _names(wanted: Path) -> Iterator[Path]:
    yield wanted
    number = 2
    while True:
        yield wanted.with_name(f"{wanted.name}-{number}")
        number += 1


def _clear(folder: Path) -> None:
    """Removes the folder if no process holds it."""
    with _unheld(folder) as free:
        if free:
            aside = folder.with_name(f".left-{os.urandom(4).hex()}")
            folder.rename(aside)  # at once: the name is free, and what comes to be there stays
            remove_folder(aside)


@contextmanager
def _unheld(folder: Path) -> Iterator[bool]:
    """Holds a folder that no process holds; yields whether it is there and held."""
    try:
        opened = os.open(folder, _OPEN)
    except OSError:  # there is none, or it is not ours
        yield False
        return
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield _is_there(opened, folder)
    except BlockingIOError:
        yield False
    finally:
        os.close(opened)


def _is_there(opened: int, folder: Path) -> bool:
    """Whether the open folder still has this name."""
    try:
        return os.path.samestat(os.fstat(opened), folder.lstat())
    except OSError:
        return False
