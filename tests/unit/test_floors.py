"""The layout: a package imports only from the floors below its own, and the page shows the same list."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import distributed_something

SOURCE = Path(distributed_something.__file__).parent
PAGE = Path(__file__).parents[2] / "docs/architecture.md"

FLOORS = {
    "": """
        __main__ examples
        cli
        dashboard automonitor api
        steps
        rehearsal cluster
        local aws
        report console notify
        worker runs s3
        inputs ledger testing
        system engine background
        budget exclusion failing packing
        errors clock words job engines scaling
    """,
    "inputs": """
        checks
        jobs collect handler found
        templates files secrets fleetfile
        config
        keys
        needs
        literal
    """,
    "aws": """
        engine check
        current
        checks earlier look provision teardown worker
        ecs watch
        ec2
        iam
        sqs
        message names shape
    """,
    "cluster": """
        slurm hosts
        engine check pilot
        folder lost
        lives scheduler
        shared explain
        pilots own_folder
    """,
    "rehearsal": """
        engine check
        cloud
        emulator
        auth faults place account story
    """,
}
"""The rooms of a package, the highest floor first. Rooms of one floor do not import each other."""


def floors(package: str) -> list[list[str]]:
    return [line.split() for line in FLOORS[package].strip().splitlines()]


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports() -> dict[str, set[str]]:
    """The modules that each module imports, at any place: in functions and for types too."""
    files = {name_of(path): path for path in SOURCE.rglob("*.py") if "examples" not in path.parts[:-1]}
    return {name: set(imported(name, path, files)) - {name} for name, path in files.items()}


def imported(name: str, path: Path, files: dict[str, Path]) -> Iterator[str]:
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    package = [part for part in package if part]
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = package[: len(package) - node.level + 1]
        elif (node.module or "").split(".")[0] == SOURCE.name:
            base = []
        else:
            continue
        inside = (node.module or "").removeprefix(SOURCE.name).strip(".")
        target = ".".join([*base, *filter(None, [inside])])
        for each in node.names:
            below = f"{target}.{each.name}".strip(".")
            if below in files:
                yield below
            elif target in files and target:
                yield target


def test_no_module_imports_itself_by_a_detour() -> None:
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_is_on_a_floor(package: str) -> None:
    folder = SOURCE / package
    rooms = {
        path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    listed = [room for floor in floors(package) for room in floor]
    assert sorted(listed) == sorted(rooms - {"__init__"})


@pytest.mark.parametrize("package", FLOORS)
def test_imports_lead_downwards_only(package: str) -> None:
    """`rehearsal` stands on `aws`: it is the only engine that imports another one."""
    level = {room: number for number, floor in enumerate(floors(package)) for room in floor}
    prefix = f"{package}." if package else ""
    wrong = []
    for module, targets in imports().items():
        for target in targets:
            if not (module.startswith(prefix) and target.startswith(prefix)):
                continue
            room, other = (each.removeprefix(prefix).split(".")[0] for each in (module, target))
            if room != other and room and level[room] >= level[other]:
                wrong.append(f"{module} imports {target}")
    assert wrong == []


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        (r"(boto3|botocore|obstore|s3transfer)", {"aws", "s3", "notify"}),
        (r"(moto|werkzeug|flask)", {"rehearsal"}),
    ],
)
def test_heavy_libraries_are_imported_in_few_rooms(library: str, rooms: set[str]) -> None:
    statement = re.compile(rf"^\s*(import|from) {library}\b", re.MULTILINE)
    found = {
        path.relative_to(SOURCE).parts[0]
        for path in SOURCE.rglob("*.py")
        if statement.search(path.read_text())
    }
    assert found == rooms


@pytest.mark.parametrize("package", FLOORS)
def test_the_page_shows_these_floors(package: str) -> None:
    heading = f"## Inside `{package}/`" if package else "## Floors"
    section = PAGE.read_text().partition(f"{heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    shown = [re.findall(r"`([\w.]+?)(?:\.py|/)?`", row.split("|")[1]) for row in rows]
    assert shown == floors(package)
