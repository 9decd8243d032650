"""A store in a folder of this machine: the keys are paths below it.

Links that the user has put into the folder are followed: large data often lies elsewhere. A job
cannot add any: only plain files are published.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from ..engine import StoredFile, check_key
from ..errors import KeyMissing
from ..system.files import NotRegular, open_regular
from ..system.leftovers import remove_if_old

_FICLONE = 0x40049409
"""ioctl that makes a copy share its blocks with the original (linux/fs.h); btrfs and xfs know it."""

TEMPORARY = ".ds-tmp-"
"""Start of the names of files that are being written. Listing a folder removes those of killed writers."""


class FolderStore:
    """Implements engine.Store on a folder, which is made when something is first written to it.

    `durable`: what was written survives the loss of this machine once a verb has returned. It costs a sync
    to disk for each file, so one machine that runs by itself does without.
    """

    def __init__(self, root: Path, *, durable: bool = False) -> None:
        self.root = root.absolute()
        self._name = str(self.root)
        self.durable = durable
        self._segments: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def folds_case(self) -> bool:
        """Whether the folder's file system takes `a` and `A` for one name."""
        there = next(each for each in (self.root, *self.root.parents) if each.exists())
        named = next((each for each in (there, *there.parents) if each.name.swapcase() != each.name), there)
        other = named.with_name(named.name.swapcase()) if named.name else named
        return other != named and other.exists() and other.samefile(named)

    def locate(self, key: str) -> str:
        """The file's absolute path."""
        return str(self._path(key))

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Every file whose key starts with `prefix`, in key order."""
        folder = prefix.rpartition("/")[0]
        start = self._path(folder) if folder else self.root
        yield from (file for file in _walk(start, folder) if file.key.startswith(prefix))

    def folders(self, prefix: str) -> Iterator[str]:
        """Yields the names of the folders right below `prefix` (it ends in "/"), without empty ones."""
        folder = self._path(prefix.rstrip("/"))
        with suppress(FileNotFoundError, NotADirectoryError):
            for name in sorted(
                each.name for each in os.scandir(folder) if each.is_dir(follow_symlinks=False)
            ):
                if next(iter(_walk(folder / name, prefix + name)), None) is not None:
                    yield name

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """The file's content, or a part of it. Raises KeyMissing."""
        with self._opened(key) as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def read_many(self, pieces: Iterable[tuple[str, int, int]]) -> Iterator[bytes | None]:
        """The bytes of each (key, start, length), one after another; None where there is no such file.

        Pieces of one file that follow each other are read from one opening.
        """
        for key, group in groupby(pieces, itemgetter(0)):
            try:
                opened = self._opened(key)
            except KeyMissing:
                yield from (None for _ in group)
                continue
            with opened as file:
                for _, start, length in group:
                    yield os.pread(file.fileno(), length, start)

    def stat(self, keys: Iterable[str]) -> Sequence[StoredFile | None]:
        """Returns each file with its size and tag; None: there is no such file."""
        return [_stat(key, self._path(key)) for key in keys]

    def write(self, key: str, data: bytes) -> None:
        """Replace the file at once."""
        path = self._path(key)
        temporary = self._write_beside(path, data)
        temporary.replace(path)
        self._sync_folders([path])

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Create the file with this content unless it exists: a hard link is exclusive and complete."""
        path = self._path(key)
        temporary = self._write_beside(path, data)
        try:
            if not link_exclusively(temporary, path):
                return False
        finally:
            temporary.unlink()
        self._sync_folders([path])
        return True

    def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Replaces the file if its content is still `old`.

        One of many callers gets it: who renames it away. For a moment, or after a kill just then, it is
        missing. No lock is used, as locks across computers cannot be relied upon.
        """
        path = self._path(key)
        put = self._write_beside(path, new)
        taken = put.with_name(f"{put.name}-old")
        fits = False
        try:
            path.rename(taken)
            fits = taken.read_bytes() == old
            fits = link_exclusively(put if fits else taken, path) and fits  # else created meanwhile
            self._sync_folders([path])
        except (FileNotFoundError, NotADirectoryError):
            return False
        finally:
            put.unlink()
            taken.unlink(missing_ok=True)
        return fits

    def append(self, key: str, data: bytes) -> None:
        """Add to the end of a segment that only this process writes; all of it or nothing of it."""
        with self._lock:
            file = self._segments.get(key)
            if file is None:
                path = self._path(key)
                path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                file = self._segments[key] = os.open(path, flags, 0o666)
            _append_whole(file, data, sync=self.durable)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files, and the folders that this leaves empty."""
        for key in keys:
            path = self._path(key)
            with self._lock:
                if (segment := self._segments.pop(key, None)) is not None:
                    os.close(segment)
            path.unlink(missing_ok=True)
            with suppress(OSError):
                for folder in path.relative_to(self.root).parents[:-1]:
                    (self.root / folder).rmdir()

    def fetch(self, key: str, path: Path) -> int:
        """Copy a stored file to `path`, sharing its blocks where the file system can."""
        with self._opened(key) as source, path.open("xb") as target:
            try:
                fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
            except OSError:
                import shutil

                shutil.copyfileobj(source, target, 1 << 20)
                target.flush()
            return os.fstat(target.fileno()).st_size

    def _opened(self, key: str) -> BinaryIO:
        try:
            return open_regular(os.path.join(self._name, check_key(key)))  # noqa: PTH118  quicker
        except (IsADirectoryError, NotRegular) as error:
            kind = "a folder" if isinstance(error, IsADirectoryError) else "a pipe or a device"
            raise KeyMissing(f"{key}: {kind} in the store {self.root}, not a file") from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise KeyMissing(f"{key}: not in the store {self.root}") from error

    def publish(self, path: Path, key: str) -> int:
        """Move a file into the store: a rename where both lie on one file system."""
        size = self._publish(path, key)
        self._sync_folders([self._path(key)])
        return size

    def _publish(self, path: Path, key: str) -> int:
        target = self._path(key)
        size = path.stat().st_size
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._sync(path)
            path.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            import shutil

            temporary = target.with_name(TEMPORARY + os.urandom(8).hex())
            try:
                shutil.copyfile(path, temporary)
                self._sync(temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        return size

    def fetch_many(self, files: Iterable[tuple[str, Path]]) -> Sequence[int]:
        """Fetch each (key, path), one after another: a folder is no faster with several at a time."""
        return [self.fetch(key, path) for key, path in files]

    def publish_many(self, files: Iterable[tuple[Path, str]]) -> Sequence[int]:
        """Publish each (path, key), one after another."""
        sizes, places = [], []
        for path, key in files:  # taken one at a time: the caller may end it between two
            sizes.append(self._publish(path, key))
            places.append(self._path(key))
        self._sync_folders(places)
        return sizes

    def _write_beside(self, path: Path, data: bytes) -> Path:
        """Write a complete temporary file in the folder of `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(TEMPORARY + os.urandom(8).hex())
        try:
            temporary.write_bytes(data)
            self._sync(temporary)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _sync(self, path: Path) -> None:
        if self.durable:
            sync_file(path)

    def _sync_folders(self, paths: Iterable[Path]) -> None:
        """Bring new names to disk: those of these files, and of folders on their way that may be new."""
        if self.durable:
            above = {folder for path in paths for folder in path.parents}
            for folder in above - {*self.root.parents}:
                sync_folder(folder)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)


def _stat(key: str, path: Path) -> StoredFile | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _file(key, found) if stat.S_ISREG(found.st_mode) else None


def _file(key: str, found: os.stat_result) -> StoredFile:
    return StoredFile(key, found.st_size, f"{found.st_mtime_ns:x}")


def _walk(folder: Path, prefix: str) -> Iterator[StoredFile]:
    """Files below a folder as (key, size), in key order; what vanishes meanwhile is passed over."""
    try:
        with os.scandir(folder) as entries:
            # a folder sorts as its files' keys do: "a/" after "a.txt"
            found = sorted((_sorting_name(entry), entry.name, entry) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for sorting, name, entry in found:
        key = f"{prefix}/{name}" if prefix else name
        if sorting.endswith("/"):
            if not (entry.is_symlink() and _leads_back(entry, folder)):
                yield from _walk(folder / name, key)
        elif name.startswith(TEMPORARY):
            remove_if_old(entry.path)
        else:
            with suppress(OSError):  # gone by now, or a link that leads nowhere
                if stat.S_ISREG((found_there := entry.stat()).st_mode):
                    yield _file(key, found_there)


def _sorting_name(entry: os.DirEntry[str]) -> str:
    try:
        return entry.name + "/" if entry.is_dir() else entry.name
    except OSError:  # a link to itself
        return entry.name


def _leads_back(link: os.DirEntry[str], folder: Path) -> bool:
    """Whether a link leads to a folder in which, or on the way to which, it was found."""
    target = Path(link).resolve()
    way = {above.resolve() for above in (folder, *folder.parents)}
    return target in way or folder.resolve().is_relative_to(target)


def link_exclusively(temporary: Path, path: Path) -> bool:
    """Link a file of our own to `path`, unless that exists; whether it did. Exactly one of many gets True.

    A network file system can lose the reply of link(2) and ask again: the second answer is "exists". The
    number of links tells who made it.
    """
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if temporary.stat().st_nlink > 1:
            return True
        if isinstance(error, FileExistsError) or path.exists():
            return False
        raise
    return True


def sync_file(path: Path) -> None:
    """Bring a file's content to disk."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to disk, where the file system does not do so by itself."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(opened)


def _append_whole(file: int, data: bytes, *, sync: bool) -> None:
    """Write all of `data`, or (disk full, or lost on the way to disk) take back what was written."""
    written = os.write(file, data)
    if written == len(data) and not sync:
        return
    try:
        while written < len(data):
            written += os.write(file, data[written:])
        if sync:
            os.fsync(file)
    except OSError:
        os.ftruncate(file, os.fstat(file).st_size - written)
        raise
