"""The command line's last line of defence: what no part foresaw is still one line and a fix."""

from __future__ import annotations

import subprocess
import sys

import pytest

from conftest import DsProject
from distributed_something.cli.entry import as_ours, in_our_words
from distributed_something.cli.parser import build_parser
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
        ("monitor record.json true --json", "monitor record.json --cheapest --json"),
        ("monitor record.json False --engine local", "monitor record.json --engine local"),
        ("monitor True", "monitor True"),
        ("logs True", "logs True"),
    ],
)
def test_the_word_behind_the_record_is_the_references(typed: str, ours: str) -> None:
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
        ("--engine loca status", "local, slurm, ssh, aws, rehearsal: did you mean local?"),
        ("image wroker", "worker, build: did you mean worker?"),
        ("dashboard --port 99999", "99999: is no whole number between 0 and 65535"),
        ("dashboard --port 1.5", "1.5: is no whole number between 0 and 65535"),
        ("dashboard --port nan", "nan: is no whole number between 0 and 65535"),
        ("logs 0 --attempt first", "first: is no whole number"),
        ("monitor --every soon", "soon: is no number"),
        ("monitor --every 0", "0: must be more than 0, and 1,000,000 at most"),
        ("monitor --every 2000000", "2000000: must be more than 0, and 1,000,000 at most"),
        ("start --wait nan", "nan: must be from 0 to 1,000,000"),
    ],
)
def test_a_word_that_can_mean_nothing_is_wrong_usage(typed: str, says: str, project: DsProject) -> None:
    found = project.config(COMMAND="true").ds(*typed.split(), code=2)
    assert says in found.stderr
    assert [line.partition(": ")[0] for line in found.stderr.splitlines()] == ["error", "fix"]


def test_an_error_with_debug_is_the_same_and_shows_where_it_came_from(project: DsProject) -> None:
    plain = project.config(COMMAND="true {n}").ds("submit", "absent.json", code=2).stderr
    process = project.start("submit", "absent.json", "--debug")
    where = process.communicate(timeout=60)[1].removesuffix(plain)
    assert process.returncode == 2
    assert where.startswith("Traceback")
    assert where.splitlines()[-1].startswith("distributed_something.errors.UsageError: absent.json")


@pytest.mark.parametrize("typed", ["status --js", "--json status", "logs --json -- --not-an-option"])
def test_options_may_be_shortened_and_ended(typed: str) -> None:
    words = typed.split()
    assert build_parser("ds", words).parse_args(words).json


def test_hints_can_be_typed(project: DsProject) -> None:
    project.config(COMMAND="true", ENGINE="local")
    assert "nothing is set up: ds run JOBFILE" in project.ds("status").stdout
    jobs = project.jobs([{"n": 1}])
    for words in (["jobs"], ["failures"], ["logs", "0"], ["stop"], ["monitor"]):
        assert project.ds(*words, code=1).stderr.endswith("fix: ds run JOBFILE\n")
    assert project.ds("submit", jobs, code=1).stderr.endswith("fix: ds setup\n")
    assert "next: ds submit JOBFILE" in project.ds("setup").stderr
    jobs.rename(project.folder / "files" / "exampleJob.json")
    assert "next: ds submit files/exampleJob.json" in project.ds("setup").stderr
    assert "0 jobs put back: no such job is dead" in project.ds("retry").stderr
    project.ds("submit", "files/exampleJob.json")
    project.ds("cleanup", "--yes")
    assert "the queue is gone, and 1 job has not ended: ds run JOBFILE" in project.ds("status").stdout
    project.ds("run", "files/exampleJob.json")


@pytest.mark.parametrize(
    ("typed", "code", "says"),
    [
        ("status >&-", 0, ""),
        ("status >/dev/null 2>&-", 0, ""),
        ("status <&- >&- 2>&-", 0, ""),
        ("status --nope 2>&-", 2, ""),
        ("status --nope 2>/dev/full", 2, ""),
        ("status --nope >/dev/full", 2, "unknown option --nope"),
        ("setup >/dev/null 2>/dev/full", 0, ""),
        ("status >/dev/full", 1, "No space left on device\nfix: make room"),
        ("status --json >/dev/full", 1, "No space left on device\nfix: make room"),
        ("--help >/dev/full", 1, "No space left on device"),
        ("status >&3", 1, ""),
        ("--version >&3", 1, ""),
    ],
)
def test_output_that_nobody_takes_changes_no_exit_code_but_to_1(
    typed: str, code: int, says: str, project: DsProject
) -> None:
    """What was asked for could not be told: 1. Only progress or hints: as ever. Nobody reads from 3."""
    project.config(COMMAND="true {n}")
    command = (
        f'{{ sleep 0.1; "$0" -m distributed_something -C "$1" {typed}; echo "code $?" >&4; }} 3>&1 | true'
    )
    environment = {name: value for name, value in project.environment.items() if name != "PYTHONUNBUFFERED"}
    found = subprocess.run(
        ["sh", "-c", f"{{ {command}; }} 4>&1", sys.executable, project.folder],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.stdout == f"code {code}\n"
    assert says in found.stderr
    assert bool(found.stderr) == bool(says), found.stderr
