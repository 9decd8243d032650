"""`ds` with ENGINE = 'aws', as a user types it: every command in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aws_project import Cloud, fleet_file
from conftest import DsProject
from distributed_something.aws.ecs.resources import Kind
from emulating import endpoint


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    found = Cloud(tmp_path / "project")
    yield found
    found.engine.remove()


def test_the_steps_one_after_another(cloud: Cloud) -> None:
    project = DsProject(cloud.folder)
    project.environment["AWS_ENDPOINT_URL"] = endpoint()
    plan = project.ds("setup", "--dry-run").stdout
    assert f"create queue {cloud.app}Queue\n" in plan
    assert "is set up: run " in project.ds("setup").stderr
    assert "5 jobs submitted" in project.ds("submit", cloud.jobs()).stderr
    waiting = project.status()
    assert waiting["jobs"]["waiting"] == 5 and waiting["why_idle"] == "no machines were asked for: ds start"
    assert "3 of 3 machines" in project.ds("start", fleet_file(cloud), "--wait", "0").stderr
    status = json.loads(project.ds("status", "--json").stdout)
    assert status["machines"] == {"target": 3, "running": 3, "lost": 0}
    assert (status["engine"], status["state"]) == ("aws", "running")
    assert len(project.job_lines("--state", "waiting")) == 5
    again = project.ds("run", cloud.jobs(), code=1)
    assert "is under way" in again.stderr
    assert "there is no terminal to confirm it on" in project.ds("cleanup", code=2).stderr
    assert "clean: nothing is left" in project.ds("cleanup", "--yes").stderr
    assert "is not set up" in project.ds("start", code=1).stderr


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"ImageId": "ami-XXXXXXXX"}, "LaunchSpecifications[0].ImageId: still the placeholder"),
        ({"InstanceType": "m9.nothing"}, "m9.nothing"),
        ({"InstanceType": "t3.nano"}, "no task fits on a machine"),
    ],
)
def test_a_bad_fleet_file_is_refused_before_anything_is_made(
    cloud: Cloud, wrong: dict[str, str], says: str
) -> None:
    project = DsProject(cloud.folder)
    project.environment["AWS_ENDPOINT_URL"] = endpoint()
    del cloud.given["MACHINE_TYPE"]  # it goes over the file's
    cloud.config(MEMORY=2000)
    refused = project.ds("run", cloud.jobs(), fleet_file(cloud, **wrong), code=2)
    assert says in refused.stderr
    assert cloud.found(Kind.QUEUE, f"{cloud.app}Queue") is None
    assert not cloud.project.record_path.exists()


def test_without_credentials_there_is_one_clear_line(cloud: Cloud) -> None:
    project = DsProject(cloud.folder)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        project.environment.pop(name, None)
    project.environment["AWS_ENDPOINT_URL"] = endpoint()
    project.environment["AWS_EC2_METADATA_DISABLED"] = "true"
    for command in ("setup", "cleanup --yes"):
        error, fix = project.ds(*command.split(), code=1).stderr.splitlines()
        assert error.startswith("error: ") and "redentials" in error
        assert fix.startswith("fix: ") and "aws configure" in fix
