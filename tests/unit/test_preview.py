"""What `ds submit --dry-run` and `ds check --show` show: the first jobs as a worker runs them."""

from __future__ import annotations

import json

import pytest

from conftest import DsProject

CONFIG = {
    "COMMAND": "cat {input_dir}/{Plate}.txt; echo {Note} $THREADS > {output_dir}/done; pwd; echo $0",
    "INPUTS": ["raw/{Plate}.txt"],
    "OUTPUT": "out/{Plate}",
    "ENVIRONMENT": {"THREADS": "4"},
}


@pytest.fixture
def plates(project: DsProject) -> DsProject:
    project.config(**CONFIG)
    (project.folder / "data/raw").mkdir(parents=True)
    (project.folder / "data/raw/P1.txt").write_text("x" * 2000)
    project.jobs([{"Plate": f"P{number}", "Note": "it's; rm -rf"} for number in range(1, 6)])
    return project


def test_a_dry_run_shows_jobs_and_queues_none(plates: DsProject) -> None:
    done = plates.ds("submit", "files/jobs.json", "--dry-run")
    assert "raw/P1.txt (2" in done.stdout
    assert "raw/P2.txt (missing)" in done.stdout
    assert "data/out/P3" in done.stdout
    assert "P4" not in done.stdout
    assert "THREADS=4" in done.stdout
    assert "5 jobs would be submitted" in done.stderr
    assert not (plates.folder / ".ds").exists()


def test_a_dry_run_finds_a_job_that_does_not_fit(plates: DsProject) -> None:
    plates.jobs([{"Plate": "P1"}])
    assert "Note" in plates.ds("submit", "files/jobs.json", "--dry-run", code=2).stderr


def test_check_shows_jobs_with_shared_keys_from_the_command_line(plates: DsProject) -> None:
    plates.jobs([{"Plate": "P1"}])
    plates.ds("check", "files/jobs.json", code=2)
    done = plates.ds("--json", "check", "files/jobs.json", "--set", "Note=n", "--show", "1", code=None)
    shown = json.loads(done.stdout.splitlines()[-1])
    assert shown["job"] == {"Note": "n", "Plate": "P1"}
    assert shown["inputs"] == [{"key": "raw/P1.txt", "bytes": 2000}]
    assert shown["output"] == "out/P1"


def test_the_shown_command_is_the_one_that_runs(plates: DsProject) -> None:
    plates.config(**{**CONFIG, "COMMAND": 'sh -c \'echo "$0" "$1"; pwd\' {Note} {input_dir}'})
    shown = json.loads(plates.ds("--json", "submit", "files/jobs.json", "--dry-run").stdout.splitlines()[0])
    assert "it" in shown["command"]
    assert shown["id"]
    plates.ds("setup")
    plates.ds("submit", "files/jobs.json", "--unchecked")
    assert shown["id"] == plates.job_lines()[0]["id"]


@pytest.mark.parametrize("words", [["--show", "1"], ["--set", "a=1"]])
def test_options_for_a_job_file_need_one(plates: DsProject, words: list[str]) -> None:
    assert "none is given" in plates.ds("check", *words, code=2).stderr
