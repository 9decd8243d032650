"""`ds init`: copies one of the packaged examples into a new folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from .. import examples
from ..errors import UsageError


def copy_example(name: str, target: Path) -> Path:
    """Copies an example into a new or empty folder and returns the path of its README.

    Raises UsageError for any other folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target}: is there already and not an empty folder", "choose another folder")
    ignored, packaged = shutil.ignore_patterns("__pycache__"), Path(examples.__file__).parent
    shutil.copytree(packaged / name, target, dirs_exist_ok=True, ignore=ignored)
    if not (target / "data").exists():
        shutil.copytree(packaged / "images" / "data", target / "data")
    (target / "gitignore").rename(target / ".gitignore")
    return target / "README.md"
