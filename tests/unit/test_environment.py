"""SETUP and ENVIRONMENT_FILE: what jobs find on PATH and in their variables, and what a broken line does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import DsProject
from distributed_something.errors import DsError
from distributed_something.system.environment import Environment, run_lines
from services import require


def tool(folder: Path, name: str, says: str) -> Path:
    """A program of that name in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho {says}\n")
    (folder / name).chmod(0o755)
    return folder


def outputs(project: DsProject) -> dict[str, str]:
    return {path.name: path.read_text() for path in (project.folder / "data/out").glob("*/*.txt")}


def test_jobs_have_the_programs_and_variables_of_setup_which_runs_once(project: DsProject) -> None:
    place = tool(project.folder / "modules/cp 4", "cellprofiler", "I am 4")
    project.config(
        SETUP=[
            f"export PATH='{place}':$PATH",
            "TOLD='a b'; export TOLD",
            f"echo ran >> '{place}/runs'; false || true",
        ],
        COMMAND='cellprofiler > {output_dir}/{N}.txt; echo "$TOLD" >> {output_dir}/{N}.txt',
        OUTPUT="out/{N}",
    )
    project.ds("run", project.jobs({"N": n} for n in range(6)))
    assert outputs(project) == {f"{n}.txt": "I am 4\na b\n" for n in range(6)}
    assert (place / "runs").read_text() == "ran\n", "once a machine, however many slots it has"


def test_a_program_of_setup_is_found_without_a_shell_and_by_a_handler(project: DsProject) -> None:
    place = tool(project.folder / "modules", "cellprofiler", "here")
    keys = {"SETUP": f"export PATH={place}:$PATH", "OUTPUT": "out/{N}"}
    project.config(COMMAND="cellprofiler", SETUP=keys["SETUP"])
    project.ds("run", project.jobs([{"N": 1}]))
    (project.folder / "work.py").write_text(
        "import subprocess\n"
        "def run(N, output_dir):\n"
        "    (output_dir / f'{N}.txt').write_text(subprocess.check_output('cellprofiler', text=True))\n"
    )
    project.config(HANDLER="work:run", **keys)
    project.ds("run", project.jobs([{"N": 2}, {"N": 3}]))
    assert outputs(project) == {"2.txt": "here\n", "3.txt": "here\n"}
    project.config(COMMAND="cellprofiler", SETUP=keys["SETUP"])
    assert "here" in project.ds("try", "files/jobs.json").stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("echo no such module >&2; exit 3", "exit code 3: no such module"),
        ("module_load() { echo gone; return 1; }; module_load", "exit code 1: gone"),
        ("if true; then", "syntax error"),
        ("exec true", "exit code 0"),
    ],
)
def test_a_line_that_fails_is_shown_and_charges_no_job(project: DsProject, line: str, said: str) -> None:
    project.config(SETUP=["export GOOD=1", line, "touch after"], COMMAND="true")
    for command in (["run"], ["check"]):
        failed = project.ds(*command, project.jobs([{"N": 1}]), code=1)
        shown = failed.stdout + failed.stderr
        assert f"SETUP: {line}: " in shown
        assert said in shown
    status = project.status()
    assert (status["jobs"]["waiting"], status["attempts"]) == (1, 0)
    project.config(COMMAND="true").ds("run", "files/jobs.json")


def test_a_line_that_hangs_or_leaves_a_process_holds_nothing_up() -> None:
    found = run_lines([("SETUP", "sleep 60 & export CHILD=$!")], dict(os.environ))
    os.kill(int(found["CHILD"]), 9)
    assert {"_", "SHLVL"} & found.keys() <= os.environ.keys()


def test_values_with_newlines_and_functions_of_the_shell_reach_jobs() -> None:
    found = run_lines([("", "export A=$'one\ntwo='"), ("", "f() { echo f; }; export -f f")], dict(os.environ))
    assert found["A"] == "one\ntwo="
    assert any("f" in name and name.startswith("BASH_FUNC") for name in found)


def test_other_lines_or_another_file_are_another_recipe(project: DsProject) -> None:
    keys = {"COMMAND": "echo > {output_dir}/{N}.txt", "OUTPUT": "out/{N}", "CHECK_IF_DONE_BOOL": True}
    for setup, skipped in (([], 0), (["true"], 0), (["true"], 1), (["false || true"], 0)):
        project.config(SETUP=setup, **keys)
        project.ds("run", project.jobs([{"N": 1}]))
        assert project.status()["jobs"]["skipped"] == skipped
    assert "SETUP or ENVIRONMENT_FILE changed" in project.ds("jobs", "--json").stdout


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"ENGINE": "aws", "SETUP": ["module load x"]},
            "SETUP: the engine 'aws' runs jobs as their image is",
        ),
        ({"ENGINE": "rehearsal", "ENVIRONMENT_FILE": "uv.lock"}, "ENVIRONMENT_FILE: the engine 'rehearsal'"),
        ({"DOCKERHUB_TAG": "lab/image:1", "ENVIRONMENT_FILE": "uv.lock"}, "jobs run as their image is"),
        ({"ENVIRONMENT_FILE": "uv.lock"}, "uv.lock: No such file"),
        ({"ENVIRONMENT_FILE": "requirements.txt"}, "is neither uv.lock"),
    ],
)
def test_where_jobs_would_not_have_it_the_config_is_refused(
    project: DsProject, keys: dict[str, object], said: str
) -> None:
    project.config(COMMAND="true", **keys)
    found = project.ds("check", code=None)
    assert said in found.stdout + found.stderr
    assert found.returncode in (1, 2)


# ENVIRONMENT_FILE


def wheel(folder: Path) -> str:
    """A package with a program that tells which Python it runs in."""
    name = "labtool-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder / name, "w") as file:
        file.writestr("labtool.py", "import sys\nprefix = sys.prefix\ndef main(): print(sys.prefix)\n")
        file.writestr(
            "labtool-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: labtool\nVersion: 1.0\n"
        )
        tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr("labtool-1.0.dist-info/WHEEL", tag)
        file.writestr("labtool-1.0.dist-info/entry_points.txt", "[console_scripts]\nlabtool = labtool:main\n")
        file.writestr("labtool-1.0.dist-info/RECORD", "")
    return name


@pytest.fixture
def locked(project: DsProject) -> DsProject:
    """A project with a uv.lock of one package."""
    require("uv")
    bin_folder = Path(sys.executable).parent
    project.environment |= {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "UV_OFFLINE": "1",
        "UV_PYTHON": sys.executable,
        "UV_CACHE_DIR": str(project.folder / "uv-cache"),
    }
    (project.folder / "pyproject.toml").write_text(
        "[project]\nname='lab'\nversion='1'\nrequires-python='>=3.11'\ndependencies=['labtool']\n"
        f"[tool.uv.sources]\nlabtool={{path='{wheel(project.folder)}'}}\n"
    )
    subprocess.run(["uv", "lock", "--quiet"], cwd=project.folder, env=project.environment, check=True)
    return project


def test_uv_makes_the_environment_once_and_jobs_run_in_it(locked: DsProject) -> None:
    locked.config(ENVIRONMENT_FILE="uv.lock", COMMAND="labtool > {output_dir}/{N}.txt", OUTPUT="out/{N}")
    jobs = locked.jobs([{"N": 1}, {"N": 2}])
    assert "ds setup makes the environment of uv.lock, by uv" in locked.ds("check").stdout
    assert "making the environment" in locked.ds("run", jobs).stderr
    (link,) = [each for each in (locked.folder / ".ds/environments").iterdir() if each.is_symlink()]
    assert outputs(locked) == dict.fromkeys(["1.txt", "2.txt"], f"{link.parent / link.readlink()}\n")

    (locked.folder / "work.py").write_text(
        "import labtool\ndef run(N, output_dir): (output_dir / f'{N}.txt').write_text(labtool.prefix)\n"
    )
    locked.config(ENVIRONMENT_FILE="uv.lock", HANDLER="work:run", OUTPUT="out/{N}")
    assert "HANDLER: work:run can be imported" in locked.ds("check").stdout
    again = locked.ds("run", locked.jobs([{"N": n} for n in range(3, 8)]))
    assert "making the environment" not in again.stderr
    assert outputs(locked)["3.txt"] == str(link.parent / link.readlink())


def test_a_lock_that_cannot_be_met_leaves_nothing(locked: DsProject) -> None:
    (locked.folder / "labtool-1.0-py3-none-any.whl").unlink()
    locked.config(ENVIRONMENT_FILE="uv.lock", COMMAND="labtool")
    failed = locked.ds("setup", code=1).stderr
    assert "ENVIRONMENT_FILE = 'uv.lock': uv sync: exit code" in failed
    assert [*(locked.folder / ".ds/environments").iterdir()] == []


@pytest.mark.parametrize(
    ("name", "program", "words", "place"),
    [
        ("environment.yml", "micromamba", r"create --prefix (\S+) --file {file}", ""),
        ("envs/cp.yaml", "mamba", r"env create --prefix (\S+) --file {file}", ""),
        ("environment.yml", "conda", r"env create --prefix (\S+) --file {file}", ""),
        ("pixi.toml", "pixi", r"install --manifest-path (\S+)/pixi.toml", "/.pixi/envs/default"),
    ],
)
def test_conda_and_pixi_are_asked_for_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, program: str, words: str, place: str
) -> None:
    """By a stand-in that records the request, and makes what such an environment has."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("dependencies: []\n")
    file.with_name("pixi.lock").write_text("locked\n")
    asked = {"pixi": 'made=$(dirname "$3")'}.get(
        program, 'for last; do [ "$before" = --prefix ] && made=$last; before=$last; done'
    )
    script = f'echo "$@" >> {tmp_path}/calls\n{asked}\nscripts=$made{place}/etc/conda/activate.d\n'
    script += "mkdir -p $scripts\necho 'export GDAL_DATA=there' > $scripts/gdal.sh\n"
    (tool(tmp_path / "bin", program, "") / program).write_text("#!/bin/sh -e\n" + script)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    found, said = Environment(["export A=$PATH"], file, tmp_path / "environments"), list[str]()
    with pytest.raises(DsError, match="no environment of this"):
        found.variables(dict(os.environ))
    for _ in range(2):
        found.make(said.append)
    assert len(said) == 1
    (call,) = (tmp_path / "calls").read_text().splitlines()
    match = re.fullmatch(words.format(file=file), call)
    assert match
    prefix = found.prefix()
    assert str(prefix) == match[1] + place
    assert not prefix or program != "pixi" or Path(match[1], "pixi.lock").read_text() == "locked\n"
    variables = found.variables(dict(os.environ))
    assert variables["PATH"].startswith(f"{prefix}/bin:{tmp_path}/bin:")
    assert (variables["CONDA_PREFIX"], variables["GDAL_DATA"]) == (str(prefix), "there")

    shutil.rmtree(match[1])  # by a person, to have it made anew
    found.make(said.append)
    assert found.prefix() not in (None, prefix)
    file.write_text("dependencies: [python]\n")
    assert found.prefix() is None


def test_two_commands_at_once_have_one_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "environment.yml"
    file.write_text("")
    other = Environment([], file, tmp_path / "environments")
    script = f"#!/bin/sh -e\nmkdir -p $3 {other.root}/of-another\nln -s of-another ${{3%-*}}\n"
    (tool(tmp_path / "bin", "micromamba", "") / "micromamba").write_text(script)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    other.make(lambda _: None)
    assert other.prefix() == other.root / "of-another"
    assert sorted(path.name for path in other.root.iterdir() if path.is_dir() and not path.is_symlink()) == [
        "of-another"
    ]
