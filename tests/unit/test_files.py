"""FILES: project files that travel with the jobs, checked by hash, and part of what makes an output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import DsProject
from distributed_something.engine import Store
from distributed_something.errors import DsError, UsageError
from distributed_something.inputs.checks.program import runnable_findings
from distributed_something.inputs.config import load_config
from distributed_something.inputs.files import named_in, project_files
from distributed_something.ledger import RunPaths
from distributed_something.local.store import FolderStore
from distributed_something.worker.files.project import ProjectFolder, keep

PATHS = RunPaths("App", "20261130T080000Z-3f2a")


def scripts(project: DsProject, **more: object) -> DsProject:
    (project.folder / "scripts/lib").mkdir(parents=True)
    (project.folder / "scripts/lib/greet.sh").write_text("echo hello $1\n")
    (project.folder / "align.sh").write_text(
        '#!/bin/sh\nsh "$(dirname "$0")/scripts/lib/greet.sh" $1 > $2/out\n'
    )
    (project.folder / "align.sh").chmod(0o755)
    (project.folder / "secret.txt").write_text("not for jobs")
    given = {
        "COMMAND": '"$DS_PROJECT_DIR/align.sh" {Plate} {output_dir}; ls "$DS_PROJECT_DIR"',
        "FILES": ["align.sh", "scripts/"],
        "OUTPUT": "out/{Plate}",
    }
    return project.config(**{**given, **more})


@pytest.mark.fault(67)
def test_files_travel_with_the_jobs_and_nothing_else_does(project: DsProject) -> None:
    scripts(project)
    jobs = project.jobs([{"Plate": "P1"}])
    assert "FILES: 2 files, " in project.ds("check", jobs).stdout
    project.ds("run", jobs)
    assert (project.folder / "data/out/P1/out").read_text() == "hello P1\n"
    assert project.ds("logs", "0").stdout == "align.sh\nscripts\n"


@pytest.mark.fault(51)
def test_a_changed_file_makes_done_jobs_run_again(project: DsProject) -> None:
    scripts(project, CHECK_IF_DONE_BOOL=True)
    jobs = project.jobs([{"Plate": "P1"}, {"Plate": "P2"}])
    project.ds("run", jobs)
    assert "of 2 jobs 2 would be skipped" in project.ds("check", jobs).stdout
    (project.folder / "scripts/lib/greet.sh").write_text("echo goodbye $1\n")
    assert "2 run again (2: file changed)" in project.ds("check", jobs).stdout
    project.ds("run", jobs)
    assert (project.folder / "data/out/P1/out").read_text() == "goodbye P1\n"
    assert "runs again: file scripts/lib/greet.sh changed" in project.ds("logs", "0").stdout


def test_a_run_keeps_the_files_that_it_began_with(project: DsProject) -> None:
    """An edit in the project folder while jobs run reaches none of them: results must not be mixed."""
    scripts(project, DOCKER_CORES=1, COMMAND='sleep 1; "$DS_PROJECT_DIR/align.sh" {Plate} {output_dir}')
    project.ds("setup")
    project.ds("submit", project.jobs({"Plate": f"P{n}"} for n in range(3)))
    project.ds("start")
    (project.folder / "scripts/lib/greet.sh").write_text("echo edited $1\n")
    project.ds("monitor")
    assert [(project.folder / f"data/out/P{n}/out").read_text() for n in range(3)] == [
        f"hello P{n}\n" for n in range(3)
    ]


def test_a_past_job_is_replayed_with_the_files_of_its_run(project: DsProject) -> None:
    scripts(project, COMMAND='cat "$DS_PROJECT_DIR/scripts/lib/greet.sh"')
    project.config(COMMAND='cat "$DS_PROJECT_DIR/scripts/lib/greet.sh"', FILES=["scripts"])
    jobs = project.jobs([{"Plate": "P1"}])
    project.ds("run", jobs)
    (project.folder / "scripts/lib/greet.sh").write_text("edited\n")
    assert project.ds("replay", "0").stdout == "echo hello $1\n"
    assert project.ds("try", jobs).stdout == "edited\n"


def test_a_second_start_takes_the_files_of_that_moment_and_the_run_says_so(project: DsProject) -> None:
    scripts(project, COMMAND='cat "$DS_PROJECT_DIR/scripts/lib/greet.sh"; exit 1', OUTPUT="", JOB_RETRIES=1)
    jobs = project.jobs([{"Plate": "P1"}])
    project.ds("run", jobs, code=3)
    (project.folder / "scripts/lib/greet.sh").write_text("mended\n")
    for words in (["retry"], ["start"], ["monitor"]):
        project.ds(*words, code=None)
    assert project.ds("logs", "0").stdout == "mended\n"
    (project.folder / "scripts/lib/greet.sh").write_text("edited later\n")
    assert project.ds("replay", "0", code=None).stdout == "mended\n"


def test_a_handler_travels_with_what_it_imports(project: DsProject) -> None:
    (project.folder / "work.py").write_text(
        "import helper\ndef process(n): print(helper.say(n), helper.__file__)\n"
    )
    (project.folder / "helper.py").write_text("def say(n): return f'job {n}'\n")
    project.config(COMMAND=None, HANDLER="work:process", FILES=["work.py", "helper.py"])
    project.ds("run", project.jobs([{"n": 1}]))
    said, place = project.ds("logs", "0").stdout.rsplit(" ", 1)
    assert said == "job 1" and "/.ds/" in place


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["gone.sh"], "FILES: 'gone.sh': No such file or directory"),
        (["../config.py"], "FILES: ../config.py is no path below the project folder"),
        (["/etc/passwd"], "FILES: /etc/passwd is no path below the project folder"),
        ([".ds/App"], "FILES: .ds/App is no path below the project folder"),
        (["empty/"], "FILES: empty/ is an empty folder"),
    ],
)
def test_what_cannot_travel_is_refused_before_a_run(project: DsProject, files: list[str], said: str) -> None:
    (project.folder / "empty").mkdir()
    project.config(COMMAND="true {n}", FILES=files)
    jobs = project.jobs([{"n": 1}])
    assert said in project.ds("check", jobs, code=2).stdout
    assert said in project.ds("run", jobs, code=2).stderr
    assert not (project.folder / "data").exists()


@pytest.mark.parametrize("engine", ["local", "aws"])
def test_a_file_that_the_command_names_and_that_does_not_travel_is_said(
    project: DsProject, engine: str
) -> None:
    scripts(project, FILES=["scripts"], ENGINE=engine)
    said = project.ds("check", code=2, timeout=120).stdout
    assert "error\tFILES: $DS_PROJECT_DIR/align.sh is not among them\tFILES = ['scripts', 'align.sh']" in said


@pytest.mark.parametrize(
    ("files", "engine", "left"),
    [
        ([], "local", []),
        ([], "aws", ["work.py", "helper.py"]),
        (["work.py"], "local", ["helper.py"]),
        (["work.py", "helper.py"], "aws", []),
    ],
)
def test_the_modules_of_a_handler_that_do_not_travel_are_named(
    project: DsProject, files: list[str], engine: str, left: list[str]
) -> None:
    (project.folder / "work.py").write_text("import os\nfrom helper import say\ndef process(n): say(n)\n")
    (project.folder / "helper.py").write_text("def say(n): print(n)\n")
    project.config(COMMAND=None, HANDLER="work:process", FILES=files, ENGINE=engine)
    said = [each.what for each in runnable_findings(load_config(project.folder), project.folder)]
    assert [what.split()[1] for what in said if "does not travel" in what] == left


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ('"$DS_PROJECT_DIR/a.sh" ${DS_PROJECT_DIR}/b/c.py "$DS_PROJECT_DIR"/e; x', ["a.sh", "b/c.py", "e"]),
        ("$DS_PROJECT_DIR/d/{Plate}.cfg $DS_PROJECT_DIR/{Plate} $DS_PROJECT_DIR/d_$X", ["d"]),
        ('sh "$DS_PROJECT_DIR/my file.sh" x', ["my file.sh"]),
        ('cd "$DS_PROJECT_DIR" && ls $DS_PROJECT_DIR/. $DS_PROJECT_DIR/../x $DS_PROJECT_DIRX/y', []),
    ],
)
def test_the_names_in_a_command(command: str, names: list[str]) -> None:
    assert named_in(command) == names


# -- In the store


def kept(project: DsProject, store: Store) -> ProjectFolder:
    scripts(project)
    files = project_files(load_config(project.folder), project.folder)
    return ProjectFolder(store, keep(store, PATHS, files, project.folder), project.folder / "slot")


def test_a_file_that_is_not_what_it_was_is_refused(project: DsProject) -> None:
    store = FolderStore(project.folder / "data")
    kept(project, store)
    for file in list(store.list(f"{PATHS.root}files/")):
        store.write(file.key, b"tampered")
    files = project_files(load_config(project.folder), project.folder)
    with pytest.raises(DsError, match="is not what it was"):
        ProjectFolder(store, keep(store, PATHS, files, project.folder), project.folder / "slot2")


def test_a_file_that_a_job_changes_is_brought_again(project: DsProject) -> None:
    notes: list[str] = []
    folder = kept(project, FolderStore(project.folder / "data"))
    folder.ensure(notes.append)
    assert not notes
    (folder.path / "align.sh").chmod(0o755)
    (folder.path / "align.sh").write_text("rm -rf /\n")
    folder.ensure(notes.append)
    assert len(notes) == 1 and "greet.sh" in (folder.path / "align.sh").read_text()
    folder.ensure(notes.append)
    assert len(notes) == 1


def test_a_run_file_with_a_name_that_leads_out_is_refused(project: DsProject) -> None:
    from distributed_something.runs.runfile import read_run_file, write_run_file

    store = FolderStore(project.folder / "data")
    config = load_config(scripts(project).folder)
    write_run_file(store, config, "local", PATHS.run, project_files(config, project.folder))
    key = f"{PATHS.root}run.json"
    facts = json.loads(store.read(key))
    assert set(read_run_file(store, "App", PATHS.run).files) == {"align.sh", "scripts/lib/greet.sh"}
    facts["files"]["../../evil"] = facts["files"].pop("align.sh")
    store.write(key, json.dumps(facts).encode())
    with pytest.raises(UsageError, match="does not describe a run"):
        read_run_file(store, "App", PATHS.run)


def test_one_content_is_stored_once(project: DsProject) -> None:
    for name in ("a", "b"):
        (project.folder / name).write_text("the same")
    project.config(COMMAND="true", FILES=["a", "b"])
    store = FolderStore(project.folder / "data")
    keep(store, PATHS, project_files(load_config(project.folder), project.folder), project.folder)
    assert len(list(Path(project.folder / "data").rglob("*/files/*"))) == 1
