"""What the documentation says is true: a command or key that it does not name fails here."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from distributed_something.cli import COMMANDS, build_parser
from distributed_something.job import Cause

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_key_is_documented() -> None:
    page = runpy.run_path(str(ROOT / "docs/make_config.py"))["text"]()
    assert (ROOT / "docs/config.md").read_text() == page, "run python docs/make_config.py"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    assert re.search(rf"ds {name}\b|`{name}`", README)


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_is_explained(cause: str) -> None:
    assert f"| `{cause}` |" in (ROOT / "docs/guarantees.md").read_text()


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), (page, link)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        build_parser("ds", [name]).parse_args([name, "--help"])
    assert end.value.code == 0
    assert COMMANDS[name][1][1:] in " ".join(capsys.readouterr().out.split())


def test_the_core_imports_no_engine_and_nothing_heavy() -> None:
    names = (
        "cli project steps views scaling snapshot ledger record report jobfile submission template console"
    )
    imports = "; ".join(f"import distributed_something.{name}" for name in names.split())
    heavy = ["boto3", "moto", "rich", "msgspec", "asyncio", "distributed_something.local", "dataclasses"]
    code = f"{imports}\nimport sys\nprint([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() in ("[]", "['dataclasses']")
