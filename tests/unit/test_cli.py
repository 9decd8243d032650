"""The command line's last line of defence: what no part foresaw is still one line and a fix."""

from __future__ import annotations

import pytest

from conftest import DsProject
from distributed_something.cli import as_ours, build_parser, in_our_words
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
        ("retry --cause timuot", "worker-lost: did you mean timeout?"),
        ("statsu", "ds: unknown command statsu: did you mean status?"),
        ("-C jobs statsu", "ds: unknown command statsu: did you mean status?"),
        ("submitjob jobs.json", "ds: unknown command submitjob: did you mean submitJob?"),
        ("nothing", "ds: unknown command nothing\n"),
        ("status --wacth", "ds status: unknown option --wacth: did you mean --watch?"),
        ("submitJob jobs.json --sett=a=1", "unknown option --sett: did you mean --set?"),
        ("--egine local status", "ds: unknown option --egine: did you mean --engine?"),
        ("stop now", "ds stop: unknown argument now: did you mean --now?"),
        ("jobs --state ded", "ds jobs: argument --state: ded: is none of"),
        ("--engine loca status", "local, aws, rehearsal: did you mean local?"),
        ("image wroker", "worker, build: did you mean worker?"),
        ("dashboard --port 99999", "99999: is not between 0 and 65535"),
        ("dashboard --port any", "any: is no whole number"),
        ("logs 0 --attempt first", "first: is no whole number"),
        ("monitor --every often", "often: is no number"),
        ("monitor --every 0", "0: must be more than 0, and 1,000,000 at most"),
        ("monitor --every 2000000", "2000000: must be more than 0, and 1,000,000 at most"),
        ("start --wait nan", "nan: must be from 0 to 1,000,000"),
    ],
)
def test_a_word_that_can_mean_nothing_is_wrong_usage(typed: str, says: str, project: DsProject) -> None:
    found = project.config(COMMAND="true").ds(*typed.split(), code=2)
    assert says in found.stderr
    assert [line.partition(": ")[0] for line in found.stderr.splitlines()] == ["error", "fix"]


@pytest.mark.parametrize("typed", ["status --js", "--json status", "logs --json -- --not-an-option"])
def test_options_may_be_shortened_and_ended(typed: str) -> None:
    words = typed.split()
    assert build_parser("ds", words).parse_args(words).json


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
