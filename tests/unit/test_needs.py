"""What a job needs, by its own keys or by RESOURCES."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distributed_something.errors import UsageError
from distributed_something.inputs.config import config_of, parse_config
from distributed_something.inputs.fit import check_jobs
from distributed_something.inputs.jobfile import JobFile
from distributed_something.inputs.needs import Resources
from distributed_something.job import Job
from distributed_something.worker.attempt.task import compile_task
from distributed_something.worker.files.done import Recipe, fingerprint


def resources(**formulas: str) -> Resources:
    return Resources(formulas)


@pytest.mark.parametrize(
    ("keys", "size", "needed"),
    [
        ({}, 0, 60),
        ({}, 10 << 20, 80),
        ({"_timeout": 5}, 10 << 20, 5),
        ({"_timeout": "7.5"}, 0, 7.5),
        ({"_timeout": 0}, 0, 0),
    ],
)
def test_a_key_of_the_job_goes_before_the_formula(keys: dict[str, Any], size: int, needed: float) -> None:
    assert resources(timeout="60 + {size_mb} * 2").value("timeout", keys, size) == needed


def test_a_formula_computes_with_keys_that_a_table_has_as_texts() -> None:
    found = resources(timeout="max({Sites} * 100, 500) + 0.5")
    assert found.value("timeout", {"Sites": "12"}, 0) == 1200.5
    assert resources().value("timeout", {}, 0) is None


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            "RESOURCES = {'timeuot': '2'}",
            "timeuot: is none of timeout: did you mean timeout?",
        ),
        ("RESOURCES = {'timeout': '2 +'}", "RESOURCES: timeout: '2 +' cannot be read"),
        ("RESOURCES = {'timeout': 'open({x})'}", "timeout: a call is not allowed"),
        ("RESOURCES = {'timeout': 'abc'}", "timeout: abc is not defined"),
        ("RESOURCES = {'timeout': '1)\\n_ = (2'}", "cannot be read"),
        ("RESOURCES = ['timeout']", "is not a dictionary of names and formulas"),
        ("RESOURCES_ = {'timeout': '1'}", ""),
    ],
)
def test_a_formula_that_is_none_is_refused_with_its_line(line: str, what: str) -> None:
    text = f"APP_NAME = 'App'\nCOMMAND = 'true'\n{line}\n"
    if not what:
        assert parse_config(text).resources == {}, "a key of the user's own"
        return
    with pytest.raises(UsageError) as refused:
        parse_config(text)
    assert what in refused.value.what and refused.value.what.startswith("config.py:3: RESOURCES")


@pytest.mark.parametrize(
    ("groups", "given", "what"),
    [
        ([{"n": 1}, {"n": 2, "_timeout": "long"}], {}, "job 2: _timeout: 'long' is not a number"),
        ([{"n": 1, "_timeout": -1}], {}, "job 1: _timeout: -1 is not between 0 and 10^12"),
        ([{"n": 1, "_time_out": 0}], {}, "job 1: _time_out is no key of ours: did you mean _timeout?"),
        ([{"n": 1}], {"timeout": "{m} * 2"}, "job 1: RESOURCES: {m}: is none of n, size_mb"),
        ([{"n": 1}], {"timeout": "0 - {n}"}, "job 1: RESOURCES: timeout: -1 is not between 0 and 10^12"),
        (
            [{"n": 0}],
            {"timeout": "9 / {n}"},
            "job 1: RESOURCES: timeout: this cannot be worked out: ",
        ),
        ([{"n": 1, "_own": 2}], {"timeout": "9 / {size_mb}"}, ""),
    ],
)
def test_a_job_whose_needs_are_none_is_refused_before_anything_is_queued(
    tmp_path: Path, groups: list[dict[str, Any]], given: dict[str, str], what: str
) -> None:
    (tmp_path / "jobs.json").write_text(json.dumps({"groups": groups}))
    config = config_of({"APP_NAME": "App", "COMMAND": "true", "RESOURCES": given}, "run.json")
    if not what:
        assert check_jobs(config, JobFile(tmp_path / "jobs.json"), lambda _: None).total == 1
        return
    with pytest.raises(UsageError) as refused:
        check_jobs(config, JobFile(tmp_path / "jobs.json"), lambda _: None)
    assert refused.value.what.startswith(what)


def test_a_time_limit_is_the_jobs_own_or_else_that_of_the_config() -> None:
    given = {"APP_NAME": "App", "COMMAND": "true", "JOB_TIMEOUT": 30, "TIMEOUT_RETRY": 2}
    task = compile_task(config_of(given, "run.json"), {}, {}, recipe=Recipe())
    assert task.limit(Job("1", 0, b'{"group":{"n":1}}'), 0) == 30
    assert task.limit(Job("1", 0, b'{"group":{"_timeout":5}}'), 0) == 5
    assert task.timeout_after(2, 5) == 20, "TIMEOUT_RETRY raises the job's own"


def test_another_time_limit_makes_no_other_output() -> None:
    assert fingerprint(Recipe(), {"n": 1, "_timeout": 1}, []) == fingerprint(Recipe(), {"n": 1}, [])
