"""The package as others get it: built, installed into an empty environment, and used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from distributed_something import __version__

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.real


def run(*command: object, **more: object) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, **more
    )  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was made from the sdist."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("src", "docs", "tests", "bench"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    return out


def test_wheel_and_sdist_have_the_package_and_nothing_else(built: Path) -> None:
    check_wheel(built)
    check_sdist(built)


def check_wheel(built: Path) -> None:
    wheel = next(built.glob("*.whl"))
    assert wheel.name == f"distributed_something-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = message_from_bytes(
            archive.read(next(name for name in names if name.endswith("dist-info/METADATA")))
        )
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"distributed_something", f"distributed_something-{__version__}.dist-info"}
    assert "distributed_something/py.typed" in names
    assert "distributed_something/examples/images/config.py" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".pyi"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert set(metadata.get_all("Provides-Extra") or ()) >= {"aws", "rehearsal"}
    core = [each for each in metadata.get_all("Requires-Dist") or () if "extra ==" not in each]
    assert not [each for each in core if re.match(r"boto3|moto|obstore", each)]


def check_sdist(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    tops = {name.partition("/")[0] for name in names}
    assert tops == {
        "src", "docs", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "pyproject.toml", "PKG-INFO",
        ".gitignore",
    }  # fmt: skip
    assert [name for name in names if name.startswith("docs/")] == ["docs/dashboard.png"]


def install(wheel: Path, folder: Path) -> Path:
    """The `ds` of a new environment that holds the wheel and what it asks for."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    run(sys.executable, "-m", "pip", "--python", folder, "install", "--quiet", wheel)
    return folder / "bin/ds"


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DS_"))}


def test_an_installed_wheel_runs_a_project(built: Path, tmp_path: Path) -> None:
    installed = install(next(built.glob("*.whl")), tmp_path / "empty")

    def ds(*args: object) -> str:
        return run(installed, *args, cwd=tmp_path, env=clean_environment())

    assert ds("--version").strip() == __version__
    ds("init", "--example", "text", "words")
    jobs = tmp_path / "words" / "files" / "few.json"
    jobs.write_text(
        '{"Letters": 4, "Seconds": 0, "groups": [{"Text": "act1_scene1.txt"}, {"Text": "act1_scene2.txt"}]}'
    )
    ds("-C", "words", "run", jobs, "--every", "0.05")
    assert len(list(tmp_path.glob("words/data/words/*/words.txt"))) == 2
    says_what_the_engine_aws_needs(installed, tmp_path)


def says_what_the_engine_aws_needs(ds: Path, folder: Path) -> None:
    (folder / "config.py").write_text("APP_NAME = 'App'\nAWS_BUCKET = 'bucket'\nCOMMAND = 'true'\n")
    for words in (["setup"], ["fleet", "new"], ["account", "setup"], ["--engine", "rehearsal", "setup"]):
        done = subprocess.run(
            [ds, *words], capture_output=True, text=True, cwd=folder, env=clean_environment(), timeout=60
        )
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr
        assert "distributed-something[" in done.stderr
