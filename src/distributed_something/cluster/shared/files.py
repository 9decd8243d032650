"""The few things that are done to files of a shared folder, each in a way that network file systems keep.

What two nodes see of one folder differs for a while. What holds on NFS, Lustre, GPFS and GlusterFS: a
listing is fresh; link(2) and rename have one winner; a file that was closed or synced is seen by whom opens
it anew. What does not: "is not there" (it is remembered for up to a minute), locks, two writers of one file.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ...local.store import link_exclusively, sync_folder

TEMPORARY = ".tmp-"

STALE_TRIES = 5
_GONE = frozenset({errno.ENOENT, errno.ESTALE, errno.ENOTDIR})


class Files:
    """The operations. A test passes in another one, that behaves worse."""

    def names(self, folder: Path) -> list[str]:
        """The complete files and folders in a folder, in the order of their names; none where it is gone."""
        try:
            return sorted(name for name in os.listdir(folder) if not name.startswith(TEMPORARY))
        except OSError as error:
            if error.errno in _GONE:
                return []
            raise

    def read(self, path: Path, start: int = 0, most: int | None = None) -> bytes:
        """A file's bytes from `start` on, as they are now. Raises OSError."""
        for tries_left in reversed(range(STALE_TRIES)):
            try:
                with path.open("rb") as file:
                    file.seek(start)
                    return file.read(-1 if most is None else most)
            except OSError as error:  # replaced by another computer between two steps of ours: open it anew
                if error.errno != errno.ESTALE or not tries_left:
                    raise
        raise AssertionError

    def peek(self, path: Path, start: int = 0) -> bytes:
        """The same; nothing where the file is not there, or not yet."""
        try:
            return self.read(path, start)
        except OSError as error:
            if error.errno in _GONE:
                return b""
            raise

    def append(self, path: Path, data: bytes) -> None:
        """Add to a file that only this process writes; others see it when this returns."""
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            while data:
                data = data[os.write(file, data) :]
        finally:
            os.close(file)

    def publish(self, path: Path, data: bytes, *, sync: bool = True) -> None:
        """Write a file, whole or not at all, in place of what is there. `sync`: it survives a power cut."""
        temporary = self._write(path, data, sync=sync)
        try:
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        if sync:
            sync_folder(path.parent)

    def create(self, path: Path, data: bytes) -> bool:
        """Write a file unless it exists; whether it was created: exactly one of many gets True."""
        temporary = self._write(path, data, sync=True)
        try:
            if not self.link(temporary, path):
                return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
        return True

    def link(self, temporary: Path, path: Path) -> bool:
        """Link a file of our own to `path`, unless that exists; whether it did."""
        return link_exclusively(temporary, path)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes, *, sync: bool) -> Path:
        temporary = path.with_name(f"{TEMPORARY}{os.urandom(8).hex()}")
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            left = data
            while left:
                left = left[os.write(file, left) :]
            if sync:
                os.fsync(file)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        return temporary
