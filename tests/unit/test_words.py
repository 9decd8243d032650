"""Words that readers stumble over stand in no docstring, comment or page."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/distributed_something"

AVOIDED = re.compile(
    r"\b(nobody|whoever|(?:is|are|was|were) told|hears?|as one likes|but for|so long|what is there of)\b",
    re.IGNORECASE,
)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a page; of a module those in comments and docstrings (texts of several words)."""
    if path.suffix != ".py":
        yield from enumerate(path.read_text().splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from enumerate(token.string.splitlines(), token.start[0])


def rooms() -> dict[str, list[Path]]:
    found = {
        path.name: [path] if path.is_file() else [*path.rglob("*.py"), *path.rglob("*.md")]
        for path in SOURCE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.py")]
    return {
        **found,
        "docs": pages,
        "README.md": [ROOT / "README.md"],
        "CONTRIBUTING.md": [ROOT / "CONTRIBUTING.md"],
    }


@pytest.mark.parametrize("room", sorted(rooms()))
def test_a_room_uses_words_that_everybody_reads(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in rooms()[room]
        for number, line in texts(path)
        if (match := AVOIDED.search(line))
    ]
    assert wrong == []
