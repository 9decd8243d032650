"""`ds check JOBFILE` says how many jobs a run would skip as done, run again and why, or run first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import DsProject
from distributed_something.engine import StoredFile
from distributed_something.inputs.config import load_config
from distributed_something.inputs.jobs.jobfile import JobFile
from distributed_something.local.store import FolderStore
from distributed_something.worker.forecast import Forecast, forecast

CONFIG = {
    "COMMAND": "cp {input_dir}/{n}.txt {output_dir}/copy.txt",
    "INPUTS": ["in/{n}.txt"],
    "OUTPUT": "out/{n}",
    "CHECK_IF_DONE_BOOL": True,
}


class Counting(FolderStore):
    """Counts what a bucket would be asked for."""

    calls = 0

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        self.calls += 1
        return super().list(prefix)


def ran(project: DsProject, count: int, **more: Any) -> Path:
    """A project in which so many jobs have run; returns its job file."""
    project.config(**{**CONFIG, **more})
    (project.folder / "data/in").mkdir(parents=True)
    for n in range(count):
        (project.folder / f"data/in/{n}.txt").write_text(f"text {n}")
    jobs = project.jobs({"n": n} for n in range(count))
    project.ds("run", jobs)
    return jobs


def foreseen(project: DsProject, jobs: Path, engine: str = "local", **more: Any) -> Forecast:
    config = load_config(project.folder)._replace(engine=engine)
    return forecast(config, JobFile(jobs), FolderStore(project.folder / "data"), project.folder, **more)


@pytest.mark.fault(51)
def test_check_says_what_would_be_skipped_and_why_the_rest_runs_again(project: DsProject) -> None:
    jobs = ran(project, 4)
    (project.folder / "data/in/1.txt").write_text("another text")
    (project.folder / "data/out/2/copy.txt").unlink()
    (project.folder / "data/in/4.txt").write_text("new")
    jobs = project.jobs({"n": n} for n in range(5))

    said = project.ds("check", jobs).stdout
    assert (
        "CHECK_IF_DONE_BOOL: of 5 jobs 2 would be skipped, 2 run again (1: input changed;"
        " 1: an output is missing or has changed), 1 run first"
    ) in said
    found = [json.loads(line) for line in project.ds("check", jobs, "--json").stdout.splitlines()]
    (facts,) = [each["facts"] for each in found if "facts" in each]
    assert facts == {
        "jobs": 5,
        "skipped": 2,
        "again": 2,
        "first": 1,
        "reasons": {"input changed": 1, "an output is missing or has changed": 1},
    }
    assert "2 skipped" in project.ds("run", jobs).stdout  # and the run does what was said


@pytest.mark.parametrize("engine", ["local", "aws"])
def test_a_changed_command_is_the_reason_of_every_job(project: DsProject, engine: str) -> None:
    jobs = ran(project, 3)
    assert foreseen(project, jobs, engine) == Forecast(3, 3, {})
    project.config(**{**CONFIG, "COMMAND": "cp {input_dir}/{n}.txt {output_dir}/copy.txt; true"})
    assert foreseen(project, jobs, engine) == Forecast(3, 0, {"COMMAND changed": 3})
    assert foreseen(project, jobs, engine, most=2) == Forecast(2, 0, {"COMMAND changed": 2}, rest=True)


@pytest.mark.parametrize("engine", ["local", "aws"])
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"DONE_BY": "files"}, Forecast(3, 2, {})),
        ({"EXPECTED_NUMBER_FILES": 1}, Forecast(3, 3, {})),
        ({"SHARED_OUTPUT": True, "OUTPUT": "out", "COMMAND": "echo > {output_dir}/{n}"}, Forecast(3, 2, {})),
    ],
)
def test_each_rule_of_done_is_followed(
    project: DsProject, engine: str, more: dict[str, Any], expected: Forecast
) -> None:
    jobs = ran(project, 2, **more)
    if "EXPECTED_NUMBER_FILES" in more:  # the reference's rule is for outputs without a manifest
        (project.folder / "data/out/2").mkdir()
        (project.folder / "data/out/2/copy.txt").write_text("of the reference")
    jobs = project.jobs({"n": n} for n in range(3))
    (project.folder / "data/in/2.txt").write_text("new")
    assert foreseen(project, jobs, engine) == expected


def test_a_missing_input_is_a_reason_too(project: DsProject) -> None:
    jobs = ran(project, 1)
    (project.folder / "data/in/0.txt").unlink()
    for engine in ("local", "aws"):
        assert foreseen(project, jobs, engine) == Forecast(1, 0, {"input: not in the store": 1})


def test_a_bucket_is_listed_once_for_many_jobs(project: DsProject) -> None:
    jobs = ran(project, 50)
    store = Counting(project.folder / "data")
    config = load_config(project.folder)._replace(engine="aws")
    assert forecast(config, JobFile(jobs), store, project.folder) == Forecast(50, 50, {})
    assert store.calls == 2  # the outputs' folder, and the inputs'


def test_without_an_output_nothing_can_be_skipped(project: DsProject) -> None:
    project.config(COMMAND="true {n}", CHECK_IF_DONE_BOOL=True)
    said = project.ds("check", project.jobs([{"n": 1}])).stdout
    assert "warning\tCHECK_IF_DONE_BOOL: no job is skipped, as OUTPUT is not given" in said
