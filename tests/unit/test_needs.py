"""What a job needs, by its own keys or by RESOURCES."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from conftest import DsProject
from distributed_something.aws.worker import Settings
from distributed_something.cluster.pilots import capacity_of, gpus_of
from distributed_something.errors import UsageError
from distributed_something.inputs.checks.fit import check_jobs
from distributed_something.inputs.config import config_of, parse_config
from distributed_something.inputs.jobs.jobfile import JobFile
from distributed_something.inputs.needs import Resources
from distributed_something.job import Job, Needs
from distributed_something.local.store import FolderStore
from distributed_something.runs.runfile import largest_noted, note_largest
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
    assert resources(memory="{Sites} / 8", cpus="2").needs({"Sites": "12"}, 0, Needs(1, 700)) == Needs(2, 2)
    assert resources().needs({"_memory": 5}, 0, Needs(1, 700)) == Needs(1, 5)
    assert resources(timeout="9").needs({}, 0, Needs(1, 700)) is None, "a time limit takes no room"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            "RESOURCES = {'timeuot': '2'}",
            "timeuot: is none of cpus, memory, gpus, timeout: did you mean timeout?",
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
        ([{"n": 1, "_cpu": 2}], {}, "job 1: _cpu is no key of ours: did you mean _cpus?"),
        ([{"n": 1, "_gpus": -1}], {}, "job 1: _gpus: -1 is not between 0"),
        ([{"n": 1, "_gpu": 1}], {}, "job 1: _gpu is no key of ours: did you mean _gpus?"),
        ([{"n": 1, "_cpus": 0}], {}, "job 1: _cpus: 0 is not between 1"),
        ([{"n": 1, "_memory": "2GB"}], {}, "job 1: _memory: '2GB' is not a number"),
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
    assert task.timeout == 30 and task.said(Job("1", 0, b'{"group":{"n":1}}'), 0) == {}
    assert task.said(Job("1", 0, b'{"group":{"_timeout":5}}'), 0) == {"timeout": 5}
    assert task.timeout_after(2, 5) == 20, "TIMEOUT_RETRY raises the job's own"


def test_a_job_that_fits_no_machine_is_refused_with_what_there_is(project: DsProject) -> None:
    project.config(
        COMMAND="true",
        DOCKER_CORES=4,
        INPUTS=["in/{n}"],
        RESOURCES={"memory": "{size_mb} * 10**7", "cpus": "{n}"},
    )
    for n in (1, 2, 5):
        (project.folder / "data/in").mkdir(parents=True, exist_ok=True)
        (project.folder / f"data/in/{n}").write_bytes(b"x" * (2_000_000 if n == 2 else 1))
    fits, too_many, too_large = ([{"n": n}] for n in (1, 5, 2))
    assert "needs 5 processors" in (said := project.ds("submit", project.jobs(too_many), code=2).stderr)
    assert "this machine has 4 processors, " in said
    assert "needs 2 processors, 19,0" in project.ds("submit", project.jobs(too_large), code=2).stderr
    assert "job 1 needs 5 processors" in project.ds("check", project.jobs(too_many), code=2).stdout
    assert "the largest need is 1 processor, 10 MB" in project.ds("check", project.jobs(fits)).stdout


def test_a_status_shows_what_waiting_jobs_need(project: DsProject) -> None:
    project.config(COMMAND="true", DOCKER_CORES=4)
    project.ds("setup")
    project.ds("submit", project.jobs([{"n": 1, "_cpus": 2, "_memory": 64}, {"n": 2}]))
    needs = json.loads(project.ds("status", "--json").stdout)["needs"]
    assert sorted(needs, key=str) == [
        {"cpus": 1, "memory": 0, "gpus": 0, "waiting": 1},
        {"cpus": 2, "memory": 64, "gpus": 0, "waiting": 1},
    ]
    assert "1 job: 2 processors, 64 MB" in project.ds("status").stdout


def test_a_command_knows_what_it_may_use_and_the_next_one_too(project: DsProject) -> None:
    command = "echo cpus=$DS_CPUS threads=$OMP_NUM_THREADS memory=$DS_MEMORY_MB"
    project.config(COMMAND=command, DOCKER_CORES=1)
    project.environment["OMP_NUM_THREADS"] = ""
    del project.environment["OMP_NUM_THREADS"]
    project.ds("run", project.jobs([{"n": 1, "_cpus": 1, "_memory": 64}, {"n": 2}]))
    assert project.ds("logs", "0").stdout.startswith("cpus=1 threads=1 memory=64")
    cores = len(os.sched_getaffinity(0))
    assert project.ds("logs", "1").stdout.startswith(f"cpus= threads={cores} memory=")


def test_tasks_have_slots_for_the_largest() -> None:
    def slots(needs: Needs, memory: int = 16_000, *, shared: bool = False) -> int:
        return settings(slots=8, memory=memory).sized(needs, gpus=4, shared=shared).slots

    assert slots(Needs(2, 3000)) == 4
    assert slots(Needs(1, 5000)) == 3
    assert slots(Needs(1, 5000), memory=0) == 8, "its memory is not known"
    assert slots(Needs(1, 0, 2)) == 2
    assert slots(Needs(1, 0, 2), shared=True) == 8


@pytest.mark.parametrize(
    ("keys", "gpus"),
    [
        ({}, 0),
        ({"GPUS": 2}, 16),
        ({"GPUS": 2, "GPUS_SHARED": True}, 2),
        ({"SLURM_GRES": "gpu:a100:4,nvme:100"}, 4),
        ({"SLURM_GRES": "gres/gpu:2(S:0-1)", "GPUS": 1}, 2),
        ({"SLURM_GRES": "lustre:1,gpu"}, 1),
    ],
)
def test_a_pilot_has_what_it_asks_slurm_for(keys: dict[str, Any], gpus: int) -> None:
    config = config_of({"APP_NAME": "App", "DOCKER_CORES": 8, "MEMORY": 16_000, **keys}, "run.json")
    assert gpus_of(config) == gpus
    assert capacity_of(config).whole == Needs(8, 16_000, gpus)
    assert capacity_of(config).default == Needs(1, 0, config.gpus)
    boxed = config._replace(dockerhub_tag="lab/image", containers="podman")
    assert capacity_of(boxed).default == Needs(1, 2000, config.gpus), "a container has its slot's share"


def settings(slots: int, memory: int) -> Settings:
    names = {"APP_NAME": "App", "DS_RUN": "r", "SQS_QUEUE_URL": "https://q", "AWS_BUCKET": "b"}
    more = {"AWS_REGION": "eu-west-1", "DOCKER_CORES": str(slots), "DS_TASK_MEMORY": str(memory)}
    return Settings.read({**names, **more})


def test_a_run_keeps_the_largest_of_all_its_files(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert largest_noted(store, "App", "r") is None
    note_largest(store, "App", "r", Needs(2, 100))
    note_largest(store, "App", "r", Needs(1, 500))
    assert largest_noted(store, "App", "r") == Needs(2, 500)


def test_another_time_limit_makes_no_other_output() -> None:
    assert fingerprint(Recipe(), {"n": 1, "_timeout": 1}, []) == fingerprint(Recipe(), {"n": 1}, [])
