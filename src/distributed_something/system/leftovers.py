"""Removes the temporary files of processes that were killed."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

AGE_SECONDS = 24 * 3600.0
"""Time since its last change after which a temporary file has no writer any more, in seconds."""


def remove_if_old(path: str | Path) -> None:
    """Removes a temporary file that has no writer any more, if possible."""
    with suppress(OSError):
        if time.time() - os.lstat(path).st_mtime > AGE_SECONDS:
            Path(path).unlink()


def sweep(folder: Path, prefix: str) -> None:
    """Removes such files whose names start so, right below a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                remove_if_old(entry.path)


def sweep_below(root: Path, prefix: str) -> None:
    """Removes such files whose names start so, anywhere below a folder."""
    for folder, _, names in os.walk(root):
        for name in names:
            if name.startswith(prefix):
                remove_if_old(os.path.join(folder, name))  # noqa: PTH118  a million of them
