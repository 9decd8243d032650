"""Projects as users of the reference system and its children bring them: docs/moving.md says what changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import DsProject
from distributed_something.inputs.config import load_config
from distributed_something.inputs.jobfile import JobFile

PROJECTS = Path(__file__).parents[1] / "moving"
NAMES = sorted(folder.name for folder in PROJECTS.iterdir())


def brought(name: str, project: DsProject, more: str = "") -> Path:
    """The user's own files in a project folder, with `more` lines in the config; the job file."""
    (project.folder / "config.py").write_text((PROJECTS / name / "config.py").read_text() + more)
    jobs = project.folder / "files" / "exampleJob.json"
    jobs.parent.mkdir()
    jobs.write_bytes((PROJECTS / name / "jobs.json").read_bytes())
    return jobs


def groups(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((PROJECTS / name / "jobs.json").read_text())["groups"]
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.fault(48)
def test_an_old_config_means_what_it_meant(name: str) -> None:
    config = load_config(PROJECTS / name)
    assert config.engine == "aws"
    assert config.sqs_queue_name == config.app_name + "Queue"
    assert config.check_if_done_bool is (name == "cellprofiler")


@pytest.mark.parametrize("name", NAMES)
def test_old_files_pass_the_check_as_they_are(name: str, project: DsProject) -> None:
    jobs = brought(name, project)
    found = project.ds("--engine", "rehearsal", "check", jobs, "--json").stdout
    assert not [line for line in found.splitlines() if json.loads(line)["severity"] == "error"]


@pytest.mark.parametrize("name", NAMES)
def test_messages_are_those_that_old_workers_know(name: str) -> None:
    path = PROJECTS / name / "jobs.json"
    whole = json.loads(path.read_text())
    shared = {key: value for key, value in whole.items() if key != "groups" and "_comment" not in key}
    bodies = [json.loads(job.body) for job in JobFile(path).jobs()]
    assert bodies == [{**shared, "group": group} for group in whole["groups"]]


@pytest.mark.real
@pytest.mark.parametrize("name", NAMES)
def test_with_a_command_the_same_jobs_run_on_this_machine(name: str, project: DsProject) -> None:
    command = (PROJECTS / name / "command.txt").read_text().strip()
    here = "\nENGINE = 'local'\nCONTAINERS = False\nSECONDS_TO_START = 0\n"
    more = f"{here}COMMAND = {command!r}\nOUTPUT = 'out/{{job_id}}'\n"
    jobs = brought(name, project, more)
    project.ds("check", jobs)
    project.ds("setup")
    report = json.loads(project.ds("submitJob", jobs, "--json").stdout)
    assert report == {"sent": len(groups(name)), "known": 0, "failed": {}}
    project.ds("startCluster")
    project.ds("monitor", "--every", "0.05")
    said = [path.read_text() for path in project.folder.glob("data/out/*/*.txt")]
    for group in groups(name):
        assert any(all(str(value) in text for value in group.values()) for text in said)
