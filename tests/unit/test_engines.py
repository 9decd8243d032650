"""The table of engines: each name leads to its engine, and nothing else decides by a name."""

from __future__ import annotations

import re
from inspect import Parameter, signature
from pathlib import Path

import pytest

import distributed_something
from distributed_something.console import Console
from distributed_something.engine import Engine
from distributed_something.engines import ENGINES, EngineKind
from distributed_something.inputs.config import parse_config
from distributed_something.steps.project import Project
from distributed_something.testing import FakeClock

SOURCE = Path(distributed_something.__file__).parent


def project(folder: Path, engine: str) -> Project:
    config = parse_config(f"APP_NAME = 'App'\nENGINE = {engine!r}\nCOMMAND = 'true'\nAWS_BUCKET = 'bucket'\n")
    return Project(folder, config, Console(), FakeClock())


# One that rehearses puts real credentials out of its process's reach: it is made in processes of its own
@pytest.mark.parametrize("name", [each for each in ENGINES if not ENGINES[each].rehearses])
def test_each_name_leads_to_the_engine_that_bears_it(name: str, tmp_path: Path) -> None:
    assert project(tmp_path, name).engine.name == name


@pytest.mark.parametrize("name", [each for each in ENGINES if ENGINES[each].rehearses])
def test_what_rehearses_has_checks_that_ask_nobody(name: str, tmp_path: Path) -> None:
    assert "who you are" not in [each.about for each in project(tmp_path, name).checks(None, None)]


# The table names modules as text, so mypy does not see that the signatures agree
@pytest.mark.parametrize("name", ENGINES)
def test_each_row_leads_to_functions_of_the_promised_signature(name: str) -> None:
    kind = ENGINES[name]
    make, checks = kind.module("engine").make, kind.module("check").checks
    given = signature(make).parameters
    positional = [each for each in given if given[each].kind is Parameter.POSITIONAL_OR_KEYWORD]
    named = [each for each in given if given[each].kind is Parameter.KEYWORD_ONLY]
    assert positional == ["folder", "config", "clock"]
    assert named == ["say", *(["faults"] if kind.rehearses else [])]
    assert make.__annotations__["say"] == "Callable[[str], None]"
    assert [each.removeprefix("_") for each in signature(checks).parameters] == [
        *("folder", "config", "job_file", "fleet_file")
    ]
    assert checks.__annotations__["job_file"] == "JobFile | None"
    assert checks.__annotations__["return"] == "list[Check]"


def test_no_code_outside_the_table_decides_by_the_name_of_an_engine() -> None:
    deciding = re.compile(rf"""[!=]= ["']({"|".join(ENGINES)})["']""")
    found = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in SOURCE.rglob("*.py")
        for line in path.read_text().splitlines()
        if deciding.search(line)
    ]
    assert found == []


def test_the_page_on_adding_an_engine_names_every_verb_and_every_fact() -> None:
    page = (Path(__file__).parents[2] / "docs/engines.md").read_text()
    verbs = {name for name in vars(Engine) if not name.startswith("_")} | {*Engine.__annotations__}
    facts = {*EngineKind.__slots__}
    told = {word for code in re.findall(r"`([^`\n]+)`", page) for word in re.findall(r"\w+", code)}
    assert (verbs | facts) - told == set()
