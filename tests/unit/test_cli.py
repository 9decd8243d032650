"""The command line's last line of defence: what no part foresaw is still one line and a fix."""

from __future__ import annotations

import pytest

from conftest import DsProject
from distributed_something.cli import as_ours, in_our_words
from distributed_something.errors import USAGE, DsError, UsageError


def test_our_own_errors_stay_as_they_are() -> None:
    error = UsageError("jobs.json: no jobs", "give it some")
    assert in_our_words(error) is error
    assert in_our_words(error).exit_code == USAGE


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (PermissionError(13, "Permission denied", "data"), "data: Permission denied", "--debug"),
        (ModuleNotFoundError("No module", name="botocore.exceptions"), "botocore", "[aws]"),
        (ModuleNotFoundError("No module", name="moto"), "moto", "[rehearsal]"),
        (ModuleNotFoundError("No module named 'other'", name="other"), "a fault in ds", "--debug"),
        (ZeroDivisionError("division\nby zero"), "ZeroDivisionError: division", "--debug"),
    ],
)
def test_whatever_comes_up_is_one_line_and_a_fix(error: Exception, what: str, fix: str) -> None:
    found = in_our_words(error)
    assert type(found) is DsError
    assert what in found.what
    assert fix in found.fix
    assert "\n" not in found.what


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        ("monitor record.json True", "monitor record.json --cheapest"),
        ("--engine rehearsal monitor record.json True", "--engine rehearsal monitor record.json --cheapest"),
        ("-C folder monitor record.json False", "-C folder monitor record.json"),
        ("monitor True", "monitor True"),
        ("logs True", "logs True"),
    ],
)
def test_the_last_word_of_monitor_is_the_references(typed: str, ours: str) -> None:
    assert as_ours(typed.split()) == ours.split()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("retry --cause timeuot", "timeuot: is none of exit, signal, timeout"),
        ("jobs --cause nothing", "nothing: is none of"),
        ("dashboard --port 99999", "99999: is not between 0 and 65535"),
    ],
)
def test_a_word_that_can_mean_nothing_is_wrong_usage(typed: str, says: str, project: DsProject) -> None:
    found = project.config(COMMAND="true").ds(*typed.split(), code=2)
    assert says in found.stderr and "fix: " in found.stderr


def test_hints_can_be_typed(project: DsProject) -> None:
    project.config(COMMAND="true", ENGINE="local")
    assert "nothing is set up: ds run JOBFILE" in project.ds("status").stdout
    assert "next: ds submit JOBFILE" in project.ds("setup").stderr
    project.jobs([{"n": 1}]).rename(project.folder / "files" / "exampleJob.json")
    assert "next: ds submit files/exampleJob.json" in project.ds("setup").stderr
    assert "0 jobs put back: no such job is dead" in project.ds("retry").stderr
    project.ds("submit", "files/exampleJob.json")
    project.ds("cleanup", "--yes")
    assert "the queue is gone, and 1 job has not ended: ds run JOBFILE" in project.ds("status").stdout
    project.ds("run", "files/exampleJob.json")
