"""Carries project files to the jobs: from the project folder into the store, and from there to each slot.

    runs/<APP_NAME>/<run>/files/<sha256>     one file, whatever its names are

`steps/setup.py` and the local machine process keep them, slots bring them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from ...engine import Store
from ...errors import DsError
from ...inputs.files import ProjectFile
from ...ledger import RunPaths
from ...system.files import read_regular
from ..attempt.scratch import remove, remove_folder


class Carried(NamedTuple):
    """Project files by name, and the prefix in the store under which their contents lie."""

    files: Mapping[str, ProjectFile] = {}
    prefix: str = ""


NONE = Carried()


def prefix_of(paths: RunPaths) -> str:
    """Returns the prefix of a run's project files in the store."""
    return f"{paths.root}files/"


def keep(store: Store, paths: RunPaths, files: Mapping[str, ProjectFile], project: Path) -> Carried:
    """Stores the contents of the files, each once. Raises DsError, also for a file that has just changed."""
    carried = Carried(files, prefix_of(paths))
    for name, file in files.items():
        data = read_regular(project / name)
        _check(name, file, data)
        store.write_if_absent(carried.prefix + file.sha256, data)
    return carried


class ProjectFolder:
    """A folder with the project files for the jobs of one slot, to read only."""

    def __init__(self, store: Store, carried: Carried, path: Path) -> None:
        """Brings the files. Raises DsError if one is missing in the store, or is not what it was."""
        self.path = path
        self._store = store
        self._carried = carried
        self._known: list[tuple[int, ...]] = []
        self._bring()

    def ensure(self, note: Callable[[str], None]) -> None:
        """Brings the files again if a job has changed one, and notes that. Raises DsError."""
        if self._state() != self._known:
            note("an earlier job has changed files of $DS_PROJECT_DIR: they are brought anew")
            self._bring()

    def link(self, link: Path) -> None:
        """Makes `link` lead here: a job's command names its files by a path that is the same in each run."""
        if link != self.path and not (link.is_symlink() and link.readlink() == self.path):
            remove(link)
            link.symlink_to(self.path)

    def _bring(self) -> None:
        remove_folder(self.path)
        self.path.mkdir(parents=True)
        files = self._carried.files
        for folder in {(self.path / name).parent for name in files}:
            folder.mkdir(parents=True, exist_ok=True)
        prefix = self._carried.prefix
        self._store.fetch_many([(prefix + file.sha256, self.path / name) for name, file in files.items()])
        for name, file in files.items():
            _check(name, file, (self.path / name).read_bytes())
            (self.path / name).chmod(0o555 if file.executable else 0o444)
        for root, _, _ in os.walk(self.path, topdown=False):
            Path(root).chmod(0o555)
        self._known = self._state()

    def _state(self) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for name in self._carried.files:
            try:
                there = (self.path / name).lstat()
            except OSError:
                return []
            found.append((there.st_ino, there.st_size, there.st_mtime_ns, there.st_mode))
        return found


def _check(name: str, file: ProjectFile, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise DsError(f"FILES: {name} is not what it was when it was read", "ds setup, then ds start")
