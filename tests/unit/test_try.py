"""`ds try` and `ds replay`: one job in the foreground, by the worker's own code."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from conftest import DsProject, until

COMMAND = (
    "cat {input_dir}/{Plate}.txt; echo $THREADS $DS_ATTEMPT > {output_dir}/done; echo err >&2; exit {Code}"
)
CONFIG = {
    "COMMAND": COMMAND,
    "INPUTS": ["raw/{Plate}.txt"],
    "OUTPUT": "out/{Plate}",
    "ENVIRONMENT": {"THREADS": "4"},
    "JOB_RETRIES": 1,
}


@pytest.fixture
def plates(project: DsProject) -> DsProject:
    project.config(**CONFIG)
    (project.folder / "data/raw").mkdir(parents=True)
    for name in ("P1", "P2"):
        (project.folder / f"data/raw/{name}.txt").write_text(f"I am {name}\n")
    project.jobs([{"Plate": "P1", "Code": 0}, {"Plate": "P2", "Code": 7}, {"Plate": "P3", "Code": 0}])
    return project


def folder_of(project: DsProject) -> Path:
    return next((project.folder / ".ds/App.try").iterdir())


def stored(project: DsProject) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (project.folder / "data").rglob("*") if path.is_file()}


def test_the_first_job_runs_in_the_foreground_and_publishes_nothing(plates: DsProject) -> None:
    before = stored(plates)
    done = plates.ds("try", "files/jobs.json")
    assert done.stdout == "I am P1\nerr\n"
    assert "succeeded after" in done.stderr
    assert "not published" in done.stderr
    folder = folder_of(plates)
    assert (folder / "output/done").read_text() == "4 1\n"
    assert (folder / "input/P1.txt").read_text() == "I am P1\n"
    assert (folder / "attempt.log").read_text() == "I am P1\nerr\n"
    assert folder.stat().st_mode & 0o077 == 0
    assert stored(plates) == before


def test_a_second_try_begins_with_empty_folders(plates: DsProject) -> None:
    plates.ds("try", "files/jobs.json")
    left = folder_of(plates) / "work/left"
    left.write_text("")
    plates.ds("try", "files/jobs.json", "0")
    assert not left.exists()


@pytest.mark.parametrize(("job", "cause"), [("1", "exit"), ("2", "input-missing")])
def test_a_failed_job_tells_its_cause(plates: DsProject, job: str, cause: str) -> None:
    done = plates.ds("--json", "try", "files/jobs.json", job, code=3)
    facts = json.loads(done.stdout)
    assert (facts["state"], facts["cause"]) == ("failed", cause)


def test_a_time_limit_holds(plates: DsProject) -> None:
    plates.config(**{**CONFIG, "COMMAND": "sleep 60", "JOB_TIMEOUT": 0.5})
    assert "timeout" in plates.ds("try", "files/jobs.json", code=3, timeout=20).stderr


def test_ctrl_c_ends_the_job_and_all_of_its_processes(plates: DsProject) -> None:
    mark = plates.folder / "up"
    plates.config(**{**CONFIG, "COMMAND": f"sleep 60 & echo > {mark}; sleep 60"})
    process = plates.start("try", "files/jobs.json")
    until(mark.exists, "the job to run")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 3
    assert "interrupted" in err
    assert not plates.processes()


def test_it_publishes_when_asked_to(plates: DsProject) -> None:
    done = plates.ds("try", "files/jobs.json", "0", "--publish")
    assert "published: " in done.stderr
    assert (plates.folder / "data/out/P1/done").exists()
    assert len([*(plates.folder / "data/out/P1/.ds").glob("*.json")]) == 1


def test_a_job_that_is_not_in_the_file(plates: DsProject) -> None:
    assert "no job has the id or index 99" in plates.ds("try", "files/jobs.json", "99", code=2).stderr


def test_a_handler_is_tried_too(plates: DsProject) -> None:
    code = "def work(Plate, output_dir):\n    print('plate', Plate)\n    (output_dir / 'x').touch()\n"
    (plates.folder / "work.py").write_text(code)
    plates.config(**{**CONFIG, "COMMAND": None, "HANDLER": "work:work"})
    assert "plate P1" in plates.ds("try", "files/jobs.json").stdout


@pytest.fixture
def ran(plates: DsProject) -> DsProject:
    plates.ds("run", "files/jobs.json", code=3)
    return plates


def test_a_replay_runs_a_job_of_a_past_run_as_it_was(ran: DsProject) -> None:
    """The config of the run counts, except for the user's own keys."""
    ran.config(**{**CONFIG, "COMMAND": "echo another", "ENVIRONMENT": {"THREADS": "9"}})
    before = stored(ran)
    done = ran.ds("replay", "1", code=3)
    assert done.stdout == "I am P2\nerr\n"
    assert "exit code 7" in done.stderr
    assert (folder_of(ran) / "output/done").read_text() == "9 1\n"
    assert stored(ran) == before


def test_an_earlier_run_is_looked_at_by_its_id(ran: DsProject) -> None:
    first = ran.status()["run"]
    ran.ds("--yes", "cleanup")
    ran.jobs([{"Plate": "P1", "Code": 5}])
    ran.ds("run", "files/jobs.json", code=3)
    assert "exit code 5" in ran.ds("replay", "0", code=3).stderr
    assert "succeeded" in ran.ds("replay", "0", "--run", first).stderr
    status = json.loads(ran.ds("status", "--json", "--run", first).stdout)
    assert (status["run"], status["jobs"]["total"]) == (first, 3)
    assert len(ran.ds("jobs", "--json", "--run", first).stdout.splitlines()) == 3
    assert ran.ds("logs", "1", "--run", first).stdout == "I am P2\nerr\n"
    assert "input-missing" in ran.ds("failures", "--run", first).stdout
    assert "no run has this id" in ran.ds("jobs", "--run", "1999", code=2).stderr
