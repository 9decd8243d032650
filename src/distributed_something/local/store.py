"""A store in a folder of this machine: the keys are paths below it.

Links that the user has put into the folder are followed: large data often lies elsewhere. A job
cannot add any: only plain files are published.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ..engine import StoredFile
from ..errors import KeyMissing, KeyRefused

_FICLONE = 0x40049409
"""ioctl that makes a copy share its blocks with the original (linux/fs.h); btrfs and xfs know it."""

_TEMPORARY = ".ds-tmp-"


class FolderStore:
    """Implements engine.Store on a folder, which is made when something is first written to it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._segments: dict[str, int] = {}
        self._lock = threading.Lock()

    def locate(self, key: str) -> str:
        """The file's absolute path."""
        return str(self._path(key))

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Every file whose key starts with `prefix`, in key order."""
        folder = prefix.rpartition("/")[0]
        start = self._path(folder) if folder else self.root
        for key, size in _walk(start, folder):
            if key.startswith(prefix):
                yield StoredFile(key, size)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """The file's content, or a part of it. Raises KeyMissing."""
        try:
            with self._path(key).open("rb") as file:
                file.seek(start)
                return file.read() if length is None else file.read(length)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise KeyMissing(f"{key}: not in the store {self.root}") from error

    def write(self, key: str, data: bytes) -> None:
        """Replace the file at once."""
        path = self._path(key)
        temporary = _write_beside(path, data)
        temporary.replace(path)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Create the file with this content unless it exists: a hard link is exclusive and complete."""
        path = self._path(key)
        temporary = _write_beside(path, data)
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def append(self, key: str, data: bytes) -> None:
        """Add to the end of a segment that only this process writes; all of it or nothing of it."""
        with self._lock:
            file = self._segments.get(key)
            if file is None:
                path = self._path(key)
                path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                file = self._segments[key] = os.open(path, flags, 0o666)
            _append_whole(file, data)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files, and the folders that this leaves empty."""
        for key in keys:
            path = self._path(key)
            path.unlink(missing_ok=True)
            with suppress(OSError):
                for folder in path.relative_to(self.root).parents[:-1]:
                    (self.root / folder).rmdir()

    def fetch(self, key: str, path: Path) -> int:
        """Copy a stored file to `path`, sharing its blocks where the file system can."""
        try:
            with self._path(key).open("rb") as source, path.open("xb") as target:
                try:
                    fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
                except OSError:
                    import shutil

                    shutil.copyfileobj(source, target, 1 << 20)
                return os.fstat(target.fileno()).st_size
        except (IsADirectoryError, NotADirectoryError) as error:
            raise KeyMissing(f"{key}: a folder in the store {self.root}, not a file") from error
        except FileNotFoundError as error:
            raise KeyMissing(f"{key}: not in the store {self.root}") from error

    def publish(self, path: Path, key: str) -> int:
        """Move a file into the store: a rename where both lie on one file system."""
        target = self._path(key)
        size = path.stat().st_size
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            import shutil

            temporary = target.with_name(_TEMPORARY + os.urandom(8).hex())
            try:
                shutil.copyfile(path, temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        return size

    def _path(self, key: str) -> Path:
        if "\0" in key or not {"", ".", ".."}.isdisjoint(key.split("/")):
            raise KeyRefused(
                f"store key {key!r}: must be a relative path without '.', '..' and empty parts",
                "use keys such as 'images/plate1.tif', relative to the store",
            )
        return self.root / key


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Files below a folder as (key, size), in key order; what vanishes meanwhile is passed over."""
    try:
        with os.scandir(folder) as entries:
            # a folder sorts as its files' keys do: "a/" after "a.txt"
            found = sorted(entries, key=lambda e: e.name + "/" if e.is_dir() else e.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        key = f"{prefix}/{entry.name}" if prefix else entry.name
        if entry.is_dir():
            if not (entry.is_symlink() and folder.resolve().is_relative_to(Path(entry).resolve())):
                yield from _walk(folder / entry.name, key)
        elif not entry.name.startswith(_TEMPORARY):
            with suppress(FileNotFoundError):
                yield key, entry.stat().st_size


def _write_beside(path: Path, data: bytes) -> Path:
    """A complete temporary file in the folder of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_TEMPORARY + os.urandom(8).hex())
    try:
        temporary.write_bytes(data)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _append_whole(file: int, data: bytes) -> None:
    """Write all of `data`, or (disk full) take back the part that was written."""
    written = os.write(file, data)
    if written == len(data):
        return
    try:
        while written < len(data):
            written += os.write(file, data[written:])
    except OSError:
        os.ftruncate(file, os.fstat(file).st_size - written)
        raise
