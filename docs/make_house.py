"""Draws docs/house.svg from the imports of the source: python docs/make_house.py

Each band is a floor of docs/architecture.md. A line leads from a room to one that it imports. Lines that
follow from others are left out.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src/distributed_something"
WIDTH, BAND, BOX, GAP = 960, 84, 40, 14
COLOURS = ("#e0f2f1", "#e3f2fd")


def floors() -> list[list[str]]:
    """The rooms of each floor, the highest first, as docs/architecture.md lists them."""
    page = (ROOT / "docs/architecture.md").read_text()
    section = page.partition("## Floors\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [re.findall(r"`([\w.]+/?)`", row.split("|")[1]) for row in rows]


def imports(rooms: list[str]) -> dict[str, set[str]]:
    """The rooms that each room imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for room in rooms:
        files = [SOURCE / room] if room.endswith(".py") else (SOURCE / room).rglob("*.py")
        for path in files:
            if path.relative_to(SOURCE).parts[0] == "examples" and len(path.relative_to(SOURCE).parts) > 2:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.level:
                    found[room] |= named(path, node) & set(rooms)
        found[room] -= {room, "examples/"}  # the examples are files that `ds init` copies
    return found


def named(path: Path, node: ast.ImportFrom) -> set[str]:
    """The rooms that one import statement may name."""
    above = path.relative_to(SOURCE).parts[: -node.level]
    parts = (*above, *(node.module or "").split("."))
    names = [part for part in parts if part][:1] or [each.name for each in node.names]
    return {f"{name}{end}" for name in names for end in ("/", ".py")}


def lines_that_stay(found: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports without those that follow from others."""

    def below(room: str) -> set[str]:
        return {each for other in found[room] for each in (other, *below(other))}

    return sorted(
        (room, other)
        for room in list(found)
        for other in found[room]
        if not any(other in below(between) for between in found[room] - {other})
    )


def text() -> str:
    """The picture."""
    levels = floors()
    rooms = [room for level in levels for room in level]
    places: dict[str, tuple[float, float, float]] = {}
    for number, level in enumerate(levels):
        wide = [len(room) * 9 + 22 for room in level]
        left = (WIDTH - sum(wide) - 2 * GAP * (len(level) - 1)) / 2
        for room, width in zip(level, wide, strict=True):
            places[room] = (left, number * BAND + (BAND - BOX) / 2, width)
            left += width + 2 * GAP
    height = BAND * len(levels)
    shapes = [
        f'<rect y="{number * BAND}" width="{WIDTH}" height="{BAND}" fill="{COLOURS[number % 2]}"/>'
        for number in range(len(levels))
    ]
    for room, other in lines_that_stay(imports(rooms)):
        (x1, y1, w1), (x2, y2, w2) = places[room], places[other]
        x1, y1, x2 = x1 + w1 / 2, y1 + BOX, x2 + w2 / 2
        shapes.append(
            f'<path d="M{x1:g} {y1:g}C{x1:g} {y1 + 30:g} {x2:g} {y2 - 30:g} {x2:g} {y2:g}" fill="none"'
            ' stroke="#78909c" stroke-width="1.5"/>'
        )
    for room, (x, y, width) in places.items():
        shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{BOX}" rx="8" fill="#ffffff"'
            f' stroke="#00796b" stroke-width="1.5"/><text x="{x + width / 2:g}" y="{y + 25:g}">{room}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace"'
        ' font-size="15" text-anchor="middle" role="img"'
        ' aria-label="The rooms of the source on their floors, and what imports what">\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    (ROOT / "docs/house.svg").write_text(text())
