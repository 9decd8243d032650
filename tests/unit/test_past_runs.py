"""`ds wait`, `ds runs`, `ds runs diff` and `ds report`: runs of a project, seen from outside."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from conftest import DsProject, until


@pytest.fixture
def twice(project: DsProject) -> tuple[DsProject, str, str]:
    """Two runs: in the second the limit is longer, one job is new, and one does not fail any more."""
    keys = {
        "COMMAND": "test ! -e {Plate} && echo > {output_dir}/x",
        "OUTPUT": "out/{Plate}",
        "JOB_RETRIES": 1,
    }
    project.config(**keys, JOB_TIMEOUT=50)
    project.jobs([{"Plate": "P1"}, {"Plate": "/"}, {"Plate": "P3"}])
    project.ds("run", "files/jobs.json", code=3)
    first = project.status()["run"]
    project.ds("--yes", "cleanup")
    project.config(**{**keys, "COMMAND": "echo {Plate} > {output_dir}/x"}, JOB_TIMEOUT=60)
    project.jobs([{"Plate": "P1"}, {"Plate": "/"}, {"Plate": "P4"}])
    project.ds("run", "files/jobs.json")
    return project, first, project.status()["run"]


def test_all_runs_are_listed_the_newest_first(twice: tuple[DsProject, str, str]) -> None:
    project, first, second = twice
    found = [json.loads(line) for line in project.ds("--json", "runs").stdout.splitlines()]
    assert [(each["run"], each["jobs"]["dead"]) for each in found] == [(second, 0), (first, 1)]
    assert [each["engine"] for each in found] == ["local", "local"]
    assert found[1]["seconds"] > 0
    shown = project.ds("runs").stdout.splitlines()
    assert shown[0].startswith("run\tstarted\tengine")
    assert shown[2].split("\t")[4:7] == ["3", "2", "1"]


def test_what_differs_between_two_runs(twice: tuple[DsProject, str, str]) -> None:
    project, first, second = twice
    said = project.ds("runs", "diff", first, "latest").stdout
    assert "JOB_TIMEOUT: 50 -> 60" in said
    assert "jobs: 2 in both; 1 only in " + first in said
    assert "outcomes: 1 job dead -> succeeded" in said
    facts = json.loads(project.ds("--json", "runs", "diff", first, second).stdout)
    assert facts["jobs"]["only_second"]["count"] == 1
    assert "COMMAND" in facts["config"]
    assert "no difference" in project.ds("runs", "diff", first, first).stdout


def test_outputs_are_compared_by_size_place_and_content(project: DsProject) -> None:
    project.jobs([{"n": n} for n in range(3)])
    for place, word in (("a", "{n}"), ("a", "{n}{n}"), ("b", "{n}0"), ("c", "{n}0")):
        project.config(COMMAND=f"printf %s {word} > {{output_dir}}/x", OUTPUT=f"{place}/{{n}}")
        project.ds("run", "files/jobs.json")
    runs = [json.loads(line)["run"] for line in project.ds("--json", "runs").stdout.splitlines()][::-1]

    def changed(one: int, other: int) -> dict[str, int]:
        found = json.loads(project.ds("--json", "runs", "diff", runs[one], runs[other]).stdout)
        return {each["what"]: each["count"] for each in found["outputs"]}

    assert changed(0, 1) == {"size": 3}
    assert changed(1, 2) == {"place": 3, "content": 2}, "00 is what job 0 wrote both times"
    assert changed(2, 3) == {"place": 3}
    said = project.ds("runs", "diff", runs[1], runs[2]).stdout
    assert "outputs: 2 jobs with other content, such as " in said


def test_the_job_that_collects_is_no_difference(project: DsProject) -> None:
    project.jobs([{"n": 1}])
    project.config(COMMAND="printf 'v\\n{n}\\n' > {output_dir}/x.csv", OUTPUT="o/{n}", COLLECT="csv")
    for _ in range(2):
        project.ds("run", "files/jobs.json")
    first, second = (json.loads(line)["run"] for line in project.ds("--json", "runs").stdout.splitlines())
    jobs = json.loads(project.ds("--json", "runs", "diff", first, second).stdout)["jobs"]
    assert (jobs["both"], jobs["only_first"]["count"], jobs["only_second"]["count"]) == (1, 0, 0)


def test_a_report_is_found_and_made_again(twice: tuple[DsProject, str, str]) -> None:
    project, first, second = twice
    place = Path(project.ds("report").stdout.strip())
    assert place == project.folder / f"data/runs/App/{second}/report.html"
    old = project.folder / f"data/runs/App/{first}/report.html"
    old.unlink()
    assert project.ds("report", first[:18]).stdout.strip() == str(old)
    data = json.loads(old.with_name("report.json").read_text())
    assert (data["run"], data["jobs"]["dead"], data["what"]["config"]["JOB_TIMEOUT"]) == (first, 1, 50)
    project.ds("report", "--remake")


def test_jobs_are_printed_with_the_columns_that_are_asked_for(project: DsProject) -> None:
    project.config(COMMAND="test {n} != 2", JOB_RETRIES=1)
    project.jobs([{"n": 1, "Plate": "P1"}, {"n": 2, "Plate": "P2"}], Pipeline="v2")
    project.ds("run", "files/jobs.json", code=3)
    found = project.ds("jobs", "--columns", "index,Plate,Pipeline,state,machine").stdout.splitlines()
    assert found[0] == "index\tPlate\tPipeline\tstate\tmachine"
    assert [line.split("\t")[:4] for line in found[1:]] == [
        ["0", "P1", "v2", "succeeded"],
        ["1", "P2", "v2", "dead"],
    ]
    csv = project.ds("jobs", "--csv", "--state", "dead", "--columns", "n,cause,exit_code").stdout
    assert csv.splitlines() == ["n,cause,exit_code", "2,exit,1"]
    lines = project.job_lines("--columns", "Plate,n")
    assert lines == [{"Plate": "P1", "n": 1}, {"Plate": "P2", "n": 2}]
    said = project.ds("jobs", "--columns", "index,Plat", code=2).stderr
    assert "Plat is no fact of a job, and no key of these jobs: did you mean Plate?" in said


def test_the_log_behind_an_output_is_found_from_the_run_that_skipped_it(project: DsProject) -> None:
    keys = {"COMMAND": "echo made {n} | tee {output_dir}/x", "OUTPUT": "out/{n}", "JOB_RETRIES": 1}
    project.config(**keys)
    project.jobs([{"n": 1}])
    project.ds("run", "files/jobs.json")
    first = project.status()["run"]
    project.ds("--yes", "cleanup")
    project.config(**keys, CHECK_IF_DONE_BOOL=True)
    project.ds("run", "files/jobs.json")
    assert project.status()["jobs"]["skipped"] == 1
    done = project.ds("logs", "0")
    assert done.stdout == "made 1\n"
    assert f"run {first} had made its outputs" in done.stderr


def test_a_small_second_run_does_not_hide_the_dead_jobs_of_the_first(project: DsProject) -> None:
    project.config(COMMAND="test {n} = 1", JOB_RETRIES=1)
    project.jobs([{"n": "1"}, {"n": "2"}, {"n": "3"}])
    project.ds("run", "files/jobs.json", code=3)
    first = project.status()["run"]
    project.ds("--yes", "cleanup")
    project.jobs([{"n": "1"}])
    project.ds("run", "files/jobs.json")
    assert f"2 jobs are dead in run {first}, and no part of this one" in project.ds("status").stdout
    assert "dead in run" not in project.ds("status", "--run", first).stdout
    assert first in project.ds("report", "--run", first).stdout


def test_status_shows_what_runs_now(project: DsProject) -> None:
    work = "printf 'step 1\\nreading 10 %%\\rreading 20 %%'; "
    project.config(COMMAND=work + "f=go; while [ ! -e $DS_PROJECT_DIR/$f ]; do sleep 0.05; done")
    project.jobs([{"n": "1"}])
    for words in (["setup"], ["submit", "files/jobs.json"], ["start"]):
        project.ds(*words)
    until(lambda: "reading" in project.ds("status").stdout, "the last line of the job")
    said = project.ds("status").stdout
    line = next(line for line in said.splitlines() if "reading" in line)
    assert re.fullmatch(r"  #0  [\d.]+ m?s +[\d.]+ [kM]B  reading 20 %", line)
    assert re.search("time left +not known until a job has succeeded", said)
    (project.folder / "go").touch()
    project.ds("monitor")


def test_a_junk_job_that_is_dropped_lets_the_run_end_clean(project: DsProject) -> None:
    project.config(COMMAND="test {n} = 1 && echo > {output_dir}/x", OUTPUT="out/{n}", JOB_RETRIES=1)
    project.jobs([{"n": "1"}, {"n": "2"}, {"n": "3"}])
    project.ds("run", "files/jobs.json", code=3)
    assert "1 job taken out" in project.ds("drop", "#1").stderr
    assert project.status()["jobs"] == {
        "total": 3, "waiting": 0, "running": 0, "succeeded": 1, "failed": 0, "dead": 1, "skipped": 0,
        "dropped": 1, "unproven": 0,
    }  # fmt: skip
    assert "job 1 " not in project.ds("failures").stdout
    (line,) = project.job_lines("--state", "dropped")
    assert (line["index"], line["cause"], line["exit_code"]) == (1, "exit", 1)
    assert json.loads(project.ds("--json", "drop", "1", "2").stdout)["left"] == {}
    assert "0 jobs put back" in project.ds("retry").stderr
    assert "2 dropped" in project.ds("monitor").stdout  # exit code 0

    said = project.ds("drop", "0", code=1).stderr
    assert "is succeeded, and stays in the run" in said
    assert project.status()["jobs"]["dropped"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [(["runs", "diff", "1"], "takes two runs"), (["runs", "diff", "1", "2"], "no run has this id")],
)
def test_runs_that_are_not_there(twice: tuple[DsProject, str, str], words: list[str], said: str) -> None:
    assert said in twice[0].ds(*words, code=2).stderr


def test_a_project_without_runs(project: DsProject) -> None:
    project.config(COMMAND="true")
    assert "has no run yet" in project.ds("runs").stderr
    assert "has no run yet" in project.ds("report", code=1).stderr
    assert "has no run yet" in project.ds("wait", code=1).stderr


def test_wait_ends_with_the_run(project: DsProject) -> None:
    go = project.folder / "go"
    project.config(COMMAND=f"while [ ! -e {go} ]; do sleep 0.1; done; exit {{Code}}", JOB_RETRIES=1)
    project.jobs([{"Code": 0}, {"Code": 1}])
    project.ds("setup")
    project.ds("submit", "files/jobs.json")
    assert "no machine runs" in project.ds("wait", code=1).stderr
    project.ds("start")
    assert "2 jobs left when the time was over" in project.ds("wait", "--timeout", "0.01", code=1).stderr
    waiting = project.start("wait")
    until(lambda: project.status()["jobs"]["running"] == 2, "both jobs to run")
    assert waiting.poll() is None
    go.touch()
    waiting.communicate(timeout=20)
    assert waiting.returncode == 3
