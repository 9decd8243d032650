"""The projects that `ds init` makes: each runs as it stands."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import UsageError


def copy_example(name: str, target: Path) -> Path:
    """Copy an example into a new or empty folder; its README. Raises UsageError for any other folder."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target}: is there already and not an empty folder", "choose another folder")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(__file__).parent / name, target, dirs_exist_ok=True, ignore=ignored)
    (target / "gitignore").rename(target / ".gitignore")
    return target / "README.md"
