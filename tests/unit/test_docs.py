"""What the documentation says is true: a command or key that it does not name fails here."""

from __future__ import annotations

import argparse
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distributed_something import __version__
from distributed_something.cli.entry import main
from distributed_something.cli.parser import COMMANDS, build_parser
from distributed_something.job import Cause

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_every_key_is_documented() -> None:
    page = runpy.run_path(str(ROOT / "docs/make_config.py"))["text"]()
    assert (ROOT / "docs/config.md").read_text() == page, "run python docs/make_config.py"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    assert re.search(rf"ds {name}\b|`{name}`", README)


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_is_explained(cause: str) -> None:
    assert f"| `{cause}` |" in (ROOT / "docs/guarantees.md").read_text()


def test_every_command_and_option_is_documented() -> None:
    page = runpy.run_path(str(ROOT / "docs/make_commands.py"))["text"]()
    assert (ROOT / "docs/commands.md").read_text() == page, "run python docs/make_commands.py"


def test_the_picture_of_the_house_shows_the_imports() -> None:
    picture = runpy.run_path(str(ROOT / "docs/make_house.py"))["text"]()
    assert (ROOT / "docs/house.svg").read_text() == picture, "run make docs"


def every_parser() -> dict[str, argparse.ArgumentParser]:
    parser = build_parser("ds", [])
    found = next(each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return {"ds": parser, **{f"ds {name}": found.choices[name] for name in COMMANDS}}


@pytest.mark.parametrize(("name", "parser"), every_parser().items())
def test_the_page_of_commands_has_a_row_for_each_argument(name: str, parser: argparse.ArgumentParser) -> None:
    page = (ROOT / "docs/commands.md").read_text()
    heading = "## Options of every command\n" if name == "ds" else f"## `{name}`\n"
    section = page.partition(heading)[2].partition("\n## ")[0]
    common = {each.dest for each in build_parser("ds", [])._actions}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or (name != "ds" and action.dest in common):
            continue
        word = str(action.metavar or "|".join(action.choices or ()))
        shown = f"`{action.option_strings[-1]}`" if action.option_strings else word
        assert shown in section, f"{name} {shown}"
        assert action.help, f"{name} {shown}: says nothing of itself"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_of_the_documentation_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_the_documentation_types_can_be_typed(path: Path) -> None:
    """Every `ds` command in a block of code names a command, and options that it has."""
    parsers = every_parser()
    blocks = re.findall(r"(?m)^ {4}(?:\$ )?(ds .*)$", path.read_text())
    for line in blocks:
        for part in re.split(r"&&|;", line.partition("#")[0].replace("[", " ").replace("]", " ")):
            words = part.split()
            names = [word for word in words[1:] if word in COMMANDS]
            if not words or words[0] != "ds" or (not names and "--version" in words):
                continue
            assert names, line
            known = parsers[f"ds {names[0]}"].format_help() + parsers["ds"].format_help()
            for option in (word for word in words if word.startswith("--")):
                assert option in known, line


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for path in (ROOT / "docs").rglob("*.md"):
        assert f" {path.relative_to(ROOT / 'docs').as_posix()}\n" in navigation + "\n", path


def test_every_fault_is_listed_and_held_by_a_test_or_said_to_be_open() -> None:
    page = (ROOT / "docs/faults.md").read_text().replace("\n", " ")
    marks = " ".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    held = {
        int(number) for each in re.findall(r"mark\.fault\(([\d, ]+)\)", marks) for number in each.split(",")
    }
    for number in {*range(1, 81), *held}:
        assert re.search(rf"(?:\*\*|\.) {number} [A-Z`]", page), f"{number} is not in docs/faults.md"
    said = re.search(r"Open, as no test holds them yet: ([\d, ]+)\.", page)
    still_open = {int(number) for number in said[1].split(",")} if said else set()
    assert set(range(1, 81)) <= held | still_open
    assert still_open.isdisjoint(range(1, 49))


def test_the_version_is_that_of_the_citation_and_is_in_the_changelog() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"(?m)^## (Unreleased|{re.escape(__version__)})", (ROOT / "CHANGELOG.md").read_text())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    if reader := shutil.which(shell):
        subprocess.run([reader, "-n"], input=script, text=True, check=True, timeout=20)


def test_completion_in_bash_offers_what_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    (tmp_path / "ds.bash").write_text(capsys.readouterr().out)
    asked = (
        'source "$1"; COMP_WORDS=(ds ret); COMP_CWORD=1; COMP_LINE="ds ret"; COMP_POINT=6; '
        'complete -p ds >/dev/null; _shtab_ds ds ret ds; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", asked, "bash", tmp_path / "ds.bash"], capture_output=True, text=True, timeout=20
    )
    assert done.stdout.split() == ["retry"], done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        build_parser("ds", [name]).parse_args([name, "--help"])
    assert end.value.code == 0
    assert COMMANDS[name][1][1:] in " ".join(capsys.readouterr().out.split())


def test_the_core_imports_no_engine_and_nothing_heavy() -> None:
    names = (
        "cli.views.status cli.views.logs steps.project steps.setup steps.submit steps.start"
        " steps.watch.monitor steps.watch.finish steps.retry steps.stop steps.cleanup scaling"
        " runs.snapshot runs.record ledger report.build inputs.jobs.jobfile inputs.checks.fit"
        " inputs.templates.template console"
    )
    imports = "; ".join(f"import distributed_something.{name}" for name in names.split())
    heavy = ["boto3", "moto", "rich", "msgspec", "asyncio", "distributed_something.local", "dataclasses"]
    code = f"{imports}\nimport sys\nprint([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() in ("[]", "['dataclasses']")
