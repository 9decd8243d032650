"""Carries project files to the jobs: from the project folder into the store, and from there to each slot.

    runs/<APP_NAME>/<run>/files/<sha256>     one file, whatever its names are

`steps/setup.py` and the local machine process keep them, slots bring them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ...engine import Store, StoredFile
from ...errors import DsError
from ...inputs.files import ProjectFile
from ...ledger import RunPaths
from ...system.files import read_regular
from ..attempt.scratch import remove, remove_folder


class Carried(NamedTuple):
    """What travels with all jobs: project files by name, and the prefix in the store of their contents."""

    files: Mapping[str, ProjectFile] = {}
    prefix: str = ""
    shared: Mapping[str, StoredFile] = {}
    """Shared inputs by name, as the store had them at set-up."""


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
        self._known: list[list[int]] = []
        self._bring()

    def ensure(self, note: Callable[[str], None]) -> None:
        """Brings the files again if a job has changed one, and notes that. Raises DsError."""
        if state_of(self.path, self._carried.files) != self._known:
            note("an earlier job has changed files of $DS_PROJECT_DIR: they are brought anew")
            self._bring()

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
        make_read_only(self.path, {name for name, file in files.items() if file.executable})
        self._known = state_of(self.path, files)


def make_read_only(folder: Path, programs: Collection[str] = ()) -> None:
    """Takes the right to write from a folder and all below it; `programs` are files that may be executed."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(root, name)
            path.chmod(0o555 if path.relative_to(folder).as_posix() in programs else 0o444)
        Path(root).chmod(0o555)


def state_of(folder: Path, names: Iterable[str]) -> list[list[int]]:
    """Returns what changes if a job changes one of the files; empty: one is missing."""
    found = []
    for name in names:
        try:
            there = (folder / name).lstat()
        except OSError:
            return []
        found.append([there.st_ino, there.st_size, there.st_mtime_ns, there.st_mode])
    return found


def link_to(folder: Path, link: Path) -> None:
    """Makes `link` lead to a folder: so commands name its files by a path that is the same in each run."""
    if link != folder and not (link.is_symlink() and link.readlink() == folder):
        remove(link)
        link.symlink_to(folder)


def _check(name: str, file: ProjectFile, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise DsError(f"FILES: {name} is not what it was when it was read", "ds setup, then ds start")
