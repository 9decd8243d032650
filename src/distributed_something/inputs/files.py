"""Reads the project files that FILES names: they travel with the jobs of a run.

`ds check`, `ds setup` and the local machine process call it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from ..system.files import open_regular
from ..words import bytes_text
from .config import Config

MOST_FILES = 10_000
MOST_BYTES = 512 << 20
"""Maximum of all files together, in bytes: every slot fetches them. Data belongs into INPUTS."""

_LEFT_OUT = frozenset({"__pycache__", ".ds", ".git"})  # folders below an entry of FILES that do not travel

_NAMED = re.compile(r"\"\$\{?DS_PROJECT_DIR\}?/+([^\"]*)\"|\$\{?DS_PROJECT_DIR\}?\"?/+([^\s\"'|;&<>()]*)")


class ProjectFile(NamedTuple):
    """A file that travels: the digest of its content, its size in bytes, and whether it is a program."""

    sha256: str
    size: int
    executable: bool


def project_files(config: Config, project: Path) -> dict[str, ProjectFile]:
    """Returns the files of FILES by their names below the project folder. Raises UsageError."""
    found: dict[str, ProjectFile] = {}
    size = 0
    for name in _names(config, project):
        if len(found) >= MOST_FILES:
            raise UsageError(f"FILES: more than {MOST_FILES:,} files", "name the files that jobs need")
        found[name] = file = _read(name, project / name)
        size += file.size
        if size > MOST_BYTES:
            what = f"FILES: more than {bytes_text(MOST_BYTES)} in all, at {name}"
            raise UsageError(what, "put data into the store, and name it in INPUTS")
    return found


def named_in(text: str) -> list[str]:
    """Returns the project files that a command names by $DS_PROJECT_DIR, up to the first placeholder."""
    found = (quoted or bare for quoted, bare in _NAMED.findall(text))
    fixed = (os.path.normpath(re.sub(r"[^/]*[{$*?\[`].*", "", name)) for name in found)
    return [name for name in fixed if name.partition("/")[0] not in (".", "..")]


def travels(name: str, files: Mapping[str, object]) -> bool:
    """Whether a file, or something below a folder, is among the files."""
    return name in files or any(each.startswith(f"{name}/") for each in files)


def _names(config: Config, project: Path) -> Iterator[str]:
    seen = set[str]()
    for entry in config.files:
        parts = entry.removesuffix("/").split("/")
        if not {"", ".", ".."}.isdisjoint(parts) or ".ds" in parts:
            what = f"FILES: {entry} is no path below the project folder"
            raise UsageError(what, "write paths such as 'align.sh' or 'scripts/'")
        place = project.joinpath(*parts)
        names = sorted(_below(place, project)) if place.is_dir() else ["/".join(parts)]
        if not names:
            raise UsageError(f"FILES: {entry} is an empty folder", "remove it from FILES")
        yield from (name for name in names if name not in seen)
        seen.update(names)


def _below(folder: Path, project: Path) -> Iterator[str]:
    for root, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if each not in _LEFT_OUT]
        yield from ((Path(root) / name).relative_to(project).as_posix() for name in names)


def _read(name: str, path: Path) -> ProjectFile:
    try:
        name.encode()
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            there = os.fstat(file.fileno())
    except (OSError, UnicodeEncodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "its name is not UTF-8"
        raise UsageError(f"FILES: {name!r}: {why}", "name files of the project folder") from error
    return ProjectFile(digest, there.st_size, bool(there.st_mode & 0o100))
