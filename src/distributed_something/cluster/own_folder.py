"""Makes folders for one process on this computer's own disk, and removes those that killed processes left."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from contextlib import suppress
from pathlib import Path

from ..background import free, is_held

YOUNG_SECONDS = 60.0
"""A folder younger than this may belong to a process that is about to lock it."""


class OwnFolder:
    """A folder that goes with its process, or with `remove`.

    It is locked while the process lives, its forked children included. So the next process that makes one
    with the same prefix knows which folders are left over.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        _sweep(parent, prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = free(self.path / "lock")
        self._lock.__enter__()
        self._finalizer = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def remove(self) -> None:
        """Removes it. A second call changes nothing."""
        if self._finalizer() is not None:
            self._lock.__exit__(None, None, None)


def _sweep(parent: Path, prefix: str) -> None:
    """Removes folders of this user that no process holds."""
    for left in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            facts = left.stat(follow_symlinks=False)
            old = time.time() - facts.st_mtime > YOUNG_SECONDS
            if left.is_dir() and facts.st_uid == os.getuid() and old and not is_held(left / "lock"):
                shutil.rmtree(left, ignore_errors=True)
