"""Names the folders of attempts, claims them exclusively, and removes what killed workers left there.

    <root>/slot-<number>        a slot's own folder
    <root>/slot-<number>/box    where its jobs run, and a link to the project files
    <root>/<job id>             the box, renamed while a job with an OUTPUT runs in it
    <root>/shared-<digest>      inputs that all jobs share: see files/shared.py

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
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OURS = re.compile(r"(slot-[0-9]+|[0-9a-f]{16})(-[0-9]+)?|shared-[0-9a-f]{16}|[.]left-[0-9a-f]{8}")
"""Names in a root that are ours to remove; `.left-…` is a folder that is being removed."""


class Workplace:
    """A slot's folders: `home`, and `folder`, where its jobs run. They are held until `close`."""

    def __init__(self, wanted: Path, *, keep: bool = False) -> None:
        """Makes the folder `wanted`; if another process holds that, one with a number behind its name.

        `keep`: jobs run in `wanted` itself, which is taken as it is, and left.
        """
        self._root = wanted.parent
        self._keep = keep
        self._held: list[int] = []
        self.is_claimed = False
        """Whether the folder bears a job's name."""
        if keep:
            wanted.mkdir(parents=True, exist_ok=True)
            self.home = self.folder = self._box = wanted
            return
        self._root.mkdir(0o700, parents=True, exist_ok=True)
        if self._root.lstat().st_uid != os.geteuid():  # who could then change what jobs read
            raise DsError(f"{self._root}: belongs to another user", "name another folder by SCRATCH")
        self.home = next(folder for folder in _names(wanted) if self._made(folder))
        self.folder = self._box = self.home / "box"
        self._made(self._box)

    def expected(self, name: str) -> Path:
        """Returns the folder that `claim` gives, unless an attempt that lives has it."""
        return self._root / name

    def claim(self, name: str) -> bool:
        """Renames the folder. Returns False if an attempt that lives has this name: another one is taken."""
        for number, folder in enumerate(_names(self._root / name)):
            if self._renamed(folder):
                self.folder, self.is_claimed = folder, True
                return number == 0
        raise AssertionError

    def go_home(self) -> None:
        """Gives the folder its own name back; makes it anew if a job has moved it. Raises OSError."""
        if not self.is_claimed:
            return
        try:
            self.folder.rename(self._box)
        except FileNotFoundError:
            os.close(self._held.pop())
            self._made(self._box)
        self.folder, self.is_claimed = self._box, False

    def close(self) -> None:
        """Removes the folders, unless they are to be kept."""
        if not self._keep:
            remove_folder(self.folder)
            remove_folder(self.home)
        for held in self._held:
            os.close(held)

    def _made(self, folder: Path) -> bool:
        """Whether the folder is ours now."""
        _clear(folder)
        try:
            folder.mkdir()
        except FileExistsError:
            return False
        held = os.open(folder, OPEN_FOLDER)
        fcntl.flock(held, fcntl.LOCK_EX)
        if is_there(held, folder):
            self._held.append(held)
            return True
        os.close(held)  # another process took it for a remain, and removed it
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
    """Removes each folder of ours below `root` that no process holds."""
    found = sorted(root.iterdir()) if root.is_dir() else []
    for path in found:
        if _OURS.fullmatch(path.name):
            _clear(path)
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
        opened = os.open(folder, OPEN_FOLDER)
    except OSError:  # there is none, or it is not ours
        yield False
        return
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield is_there(opened, folder)
    except BlockingIOError:
        yield False
    finally:
        os.close(opened)


def is_there(opened: int, folder: Path) -> bool:
    """Whether the open folder still has this name."""
    try:
        return os.path.samestat(os.fstat(opened), folder.lstat())
    except OSError:
        return False
