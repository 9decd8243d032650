"""Folders of small files, made and read back."""

from __future__ import annotations

from pathlib import Path


def make(folder: Path, **files: str) -> None:
    """Write files into a folder: `sub__a_txt="x"` is the file sub/a.txt with the text x."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def below(folder: Path) -> dict[str, str]:
    """The text of each file below a folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }
