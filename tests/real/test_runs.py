"""Whole runs on the local engine, as a user types them: real processes, real files."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from conftest import DsProject, until

pytestmark = pytest.mark.real

NASTY = [
    "plain",
    "two words",
    "it's",
    'say "hi"',
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "a\nb",
    "../../escape",
    "Größe 漢字 🧬",
    "-n",
    "*",
    "\\",
]


def test_the_four_steps_one_by_one(project: DsProject) -> None:
    project.config(
        COMMAND="cp {input_dir}/{name}.txt {output_dir}/copy.txt",
        INPUTS=["in/{name}.txt"],
        OUTPUT="out/{name}",
    )
    for name in ("a", "b", "c"):
        (project.folder / "data/in").mkdir(parents=True, exist_ok=True)
        (project.folder / f"data/in/{name}.txt").write_text(name)
    jobs = project.jobs({"name": name} for name in ("a", "b", "c"))
    project.ds("setup")
    assert "3 jobs submitted" in project.ds("submit", jobs).stderr
    project.ds("start")
    done = project.ds("monitor")
    assert "3 succeeded" in done.stdout
    assert [(project.folder / f"data/out/{n}/copy.txt").read_text() for n in "abc"] == ["a", "b", "c"]
    status = project.status()
    assert status["state"] == "finished"
    assert status["jobs"] | {"total": 3, "succeeded": 3, "waiting": 0, "running": 0} == status["jobs"]
    assert not project.processes()


def test_a_list_of_jobs_tells_them_by_their_keys(project: DsProject) -> None:
    project.config(COMMAND="test {Plate} != P2", JOB_RETRIES=1)
    project.ds("run", project.jobs([{"Plate": "P1"}, {"Plate": "P2", "long": "x" * 500}], Batch=7), code=3)
    header, dead = project.ds("jobs", "--state", "dead").stdout.splitlines()
    assert header.split("\t")[-1] == "job"
    assert dead.split("\t")[-1].startswith("Plate=P2 long=xxx") and len(dead) < 200
    rows = list(csv.DictReader(project.ds("jobs", "--csv").stdout.splitlines()))
    assert [json.loads(row["job"])["group"]["Plate"] for row in rows] == ["P1", "P2"]


def test_a_program_is_looked_for_on_the_path_of_the_config(project: DsProject) -> None:
    tool = project.folder / "bin/own-tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho $1\n")
    tool.chmod(0o755)
    project.config(COMMAND="own-tool {n}", ENVIRONMENT={"PATH": f"{tool.parent}:{os.environ['PATH']}"})
    jobs = project.jobs([{"n": 7}])
    assert "own-tool is there" in project.ds("check", jobs).stdout
    project.ds("run", jobs)
    assert project.ds("logs", "0").stdout.strip() == "7"


def test_the_reference_names_of_the_steps(project: DsProject) -> None:
    project.config(COMMAND="true {n}")
    project.jobs([{"n": 1}])
    shim = "from distributed_something.cli import main\nraise SystemExit(main(reference=True))\n"
    (project.folder / "run.py").write_text(shim)

    def run(*args: str) -> None:
        subprocess.run(
            [sys.executable, "run.py", *args], cwd=project.folder, check=True, env=project.environment
        )

    run("setup")
    run("submitJob", "files/jobs.json")
    run("startCluster", "files/exampleFleet.json")
    run("monitor", "files/AppSpotFleetRequestId.json", "False")
    assert project.status()["jobs"]["succeeded"] == 1


def test_the_run_record_has_the_keys_of_the_reference(project: DsProject) -> None:
    project.config(COMMAND="true {n}")
    project.ds("run", project.jobs([{"n": 1}]))
    record = json.loads((project.folder / "files/AppSpotFleetRequestId.json").read_text())
    assert record["MONITOR_APP_NAME"] == "App"
    assert record["MONITOR_FLEET_ID"] == record["fleets"][0]
    assert {
        "MONITOR_ECS_CLUSTER",
        "MONITOR_QUEUE_NAME",
        "MONITOR_BUCKET_NAME",
        "MONITOR_LOG_GROUP_NAME",
    } <= set(record)
    assert record["run"] == project.status()["run"]


@pytest.mark.fault(22, 23)
@pytest.mark.parametrize("shell", [False, True])
def test_values_reach_the_command_as_they_are_and_never_as_syntax(project: DsProject, shell: bool) -> None:
    command = (
        "printf %s {value} > {output_dir}/value" if shell else "cp {input_dir}/{file} {output_dir}/value"
    )
    project.config(
        COMMAND=command,
        INPUTS=[] if shell else ["in/{file}"],
        OUTPUT="out/{number}",
        JOB_RETRIES=1,
        ALLOW_DASH=True,
    )
    files = [value.replace("/", "_") for value in NASTY]
    (project.folder / "data/in").mkdir(parents=True)
    for value, file in zip(NASTY, files, strict=True):
        (project.folder / "data/in" / file).write_text(value)
    groups = [{"value": v, "file": f, "number": n} for n, (v, f) in enumerate(zip(NASTY, files, strict=True))]
    project.ds("run", project.jobs(groups))
    outputs = [(project.folder / f"data/out/{n}/value").read_text() for n in range(len(NASTY))]
    assert outputs == NASTY
    assert not list(project.folder.rglob("pwned*"))


@pytest.mark.parametrize("escape", ["../outside", "/etc/outside", "a/../../outside"])
def test_no_output_leaves_the_store(project: DsProject, escape: str) -> None:
    project.config(COMMAND="touch {output_dir}/file", OUTPUT="{where}", JOB_RETRIES=1)
    refused = project.ds("run", project.jobs([{"where": escape}]), code=2 if ".." in escape else 0).stderr
    assert not list(project.folder.parent.glob("outside*"))
    assert not Path("/etc/outside").exists()
    assert (".." in escape) == ("has a part '.' or '..'" in refused)


def test_values_too_long_or_with_nul_are_refused_before_anything_is_queued(project: DsProject) -> None:
    project.config(COMMAND="true {value}")
    project.ds("setup")
    for value in ("a\0b", "x" * 200_000):
        error = project.ds("submit", project.jobs([{"value": "good"}, {"value": value}]), code=2).stderr
        assert "value" in error
        assert "fix:" in error
    assert project.status()["jobs"]["total"] == 0


def test_a_value_of_100_kb_arrives(project: DsProject) -> None:
    value = "x" * 100_000
    project.config(COMMAND="printf %s {value} > {output_dir}/value", OUTPUT="out")
    project.ds("run", project.jobs([{"value": value}]))
    assert (project.folder / "data/out/value").read_text() == value


@pytest.mark.parametrize(
    ("command", "cause", "exit_code"),
    [
        ("exit {n}4", "exit", 14),
        ("kill -SEGV $$ # {n}", "signal", None),
        ("sleep 60 # {n}", "timeout", None),
        ("true # {n}", "output-missing", 0),
        ("no-such-program {n}", "exit", 127),
        ("printf 'write: No space left on device' >&2; exit {n}", "disk-full", 1),
    ],
)
def test_every_failure_has_its_cause(
    project: DsProject, command: str, cause: str, exit_code: int | None
) -> None:
    project.config(COMMAND=command, OUTPUT="out/{n}", JOB_TIMEOUT=1, JOB_RETRIES=1)
    project.ds("run", project.jobs([{"n": 1}]), "--unchecked", code=3)
    (job,) = project.job_lines()
    assert (job["state"], job["cause"], job["exit_code"], job["attempts"]) == ("dead", cause, exit_code, 1)


@pytest.mark.fault(61)
@pytest.mark.parametrize(
    ("command", "attempts"),
    [("for x in {n}; echo $x; done", 1), ("exit 2 # {n}", 2), ("sh -c 'exit 2' {n}", 2)],
)
def test_a_command_that_the_shell_cannot_read_is_not_tried_again(
    project: DsProject, command: str, attempts: int
) -> None:
    project.config(COMMAND=command, JOB_RETRIES=2, BACKOFF=0)
    project.ds("run", project.jobs([{"n": 1}]), "--unchecked", code=3)
    (job,) = project.job_lines()
    assert (job["exit_code"], job["attempts"]) == (2, attempts)
    assert ("the shell refuses" in project.ds("logs", "0").stdout) == (attempts == 1)


def test_an_attempt_after_a_timeout_gets_more_time(project: DsProject) -> None:
    project.config(COMMAND="sleep 2", JOB_TIMEOUT=0.5, TIMEOUT_RETRY=3, JOB_RETRIES=3, BACKOFF=0)
    project.ds("run", project.jobs([{"n": 1}]))
    (job,) = project.job_lines()
    assert (job["state"], job["attempts"], job["detail"]) == ("succeeded", 3, "it was given 4.5 s")
    assert "attempt 3 is given 4.5 s" in project.ds("logs", "0").stdout
    second = project.ds("logs", "0", "--attempt", "2").stdout
    assert "ran longer than JOB_TIMEOUT = 0.5 s, raised by TIMEOUT_RETRY" in second


def test_a_missing_input_is_named(project: DsProject) -> None:
    project.config(COMMAND="cat {input_dir}/{n}", INPUTS=["in/{n}"], JOB_RETRIES=1)
    project.ds("run", project.jobs([{"n": "gone.tif"}]), "--unchecked", code=3)
    assert project.job_lines()[0]["cause"] == "input-missing"
    assert "in/gone.tif" in project.ds("failures").stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_an_unreadable_input_is_input_missing(project: DsProject) -> None:
    project.config(COMMAND="cat {input_dir}/{n}", INPUTS=["in/{n}"], JOB_RETRIES=1)
    (project.folder / "data/in").mkdir(parents=True)
    (project.folder / "data/in/x").touch(mode=0)
    project.ds("run", project.jobs([{"n": "x"}]), code=3)
    assert project.job_lines()[0]["cause"] == "input-missing"


def test_failed_jobs_are_tried_again_and_retry_runs_just_the_dead(project: DsProject) -> None:
    project.config(
        COMMAND="cat {input_dir}/{n} > {output_dir}/o", INPUTS=["in/{n}"], OUTPUT="out/{n}", JOB_RETRIES=2
    )
    (project.folder / "data/in").mkdir(parents=True)
    (project.folder / "data/in/there").write_text("1")
    jobs = project.jobs([{"n": "there"}, {"n": "late"}])
    project.ds("run", jobs, code=3)
    assert [job["attempts"] for job in project.job_lines()] == [1, 2]
    (project.folder / "data/in/late").write_text("2")
    assert "1 job put back" in project.ds("retry", "--cause", "input-missing").stderr
    project.ds("start")
    project.ds("monitor")
    assert project.status()["jobs"]["succeeded"] == 2
    assert (project.folder / "data/out/late/o").read_text() == "2"


def test_a_retry_may_have_another_config_and_every_attempt_has_its_log(project: DsProject) -> None:
    project.config(COMMAND="echo attempt {attempt} of {n}; sleep 1", JOB_RETRIES=2, JOB_TIMEOUT=0.3)
    project.ds("run", project.jobs([{"n": 1}]), code=3)
    (job,) = project.job_lines()
    assert job["cause"] == "timeout"
    latest = project.ds("logs", "0")
    assert latest.stdout.startswith("attempt 2 of 1\n")
    assert "attempt 2 (dead, timeout)" in latest.stderr
    assert project.ds("logs", "0", "--attempt", "1").stdout.startswith("attempt 1 of 1\n")
    assert "has no attempt 3" in project.ds("logs", "0", "--attempt", "3", code=2).stderr
    project.config(COMMAND="echo attempt {attempt} of {n}; sleep 1", JOB_RETRIES=2, JOB_TIMEOUT=60)
    project.ds("retry", "--cause", "exit")
    assert project.status()["jobs"]["dead"] == 1, "it died of something else"
    assert "next: ds start" in project.ds("retry", "--cause", "timeout").stderr
    project.ds("start")
    project.ds("monitor")
    assert project.status()["jobs"]["succeeded"] == 1
    assert project.ds("logs", "0").stdout.startswith("attempt 1 of 1\n")


def test_a_run_again_takes_up_what_was_retried(project: DsProject) -> None:
    project.config(COMMAND="test -e {input_dir}/../../../../../../go # {n}", JOB_RETRIES=1)
    jobs = project.jobs([{"n": 1}, {"n": 2}])
    project.ds("run", jobs, code=3)
    run = project.status()["run"]
    project.ds("retry")
    project.ds("run", jobs, code=None)
    assert project.status()["run"] == run


@pytest.mark.fault(28)
def test_the_same_job_twice_is_one_job_and_said(project: DsProject) -> None:
    project.config(COMMAND="true {n}")
    jobs = project.jobs([{"n": 1}, {"n": 2}, {"n": 1}])
    project.ds("setup")
    assert "2 jobs submitted; 1 was in the run already" in project.ds("submit", jobs).stderr
    assert "0 jobs submitted; 3 were in the run already" in project.ds("submit", jobs).stderr
    assert project.status()["jobs"]["total"] == 2


@pytest.mark.fault(21)
def test_finished_jobs_are_skipped_by_their_manifest_and_partial_ones_are_not(project: DsProject) -> None:
    command = "sh -c 'echo > {output_dir}/a; echo > {output_dir}/b; test {n} != 2'"
    project.config(COMMAND=command, OUTPUT="out/{n}", CHECK_IF_DONE_BOOL="True", JOB_RETRIES=1)
    jobs = project.jobs([{"n": 1}, {"n": 2}, {"n": 3}])
    project.ds("run", jobs, code=3)
    (project.folder / "data/out/3/b").unlink()
    project.ds("run", jobs, code=3)
    assert [job["state"] for job in project.job_lines()] == ["skipped", "dead", "succeeded"]


def test_the_manifest_tells_files_sizes_and_checksums(project: DsProject) -> None:
    project.config(COMMAND="printf abc > {output_dir}/x", OUTPUT="out")
    project.ds("run", project.jobs([{"n": 1}]))
    (job,) = project.job_lines()
    manifest = json.loads((project.folder / f"data/out/.ds/{job['id']}.json").read_text())
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest["files"] == [{"name": "x", "size": 3, "sha256": digest}]
    assert (manifest["job"], manifest["attempt"], manifest["run"]) == (job["id"], 1, project.status()["run"])


@pytest.mark.fault(19)
def test_logs_keep_binary_output_and_bound_a_gigabyte(project: DsProject) -> None:
    project.config(COMMAND="sh {script}")
    script = project.folder / "loud.sh"
    script.write_text("printf 'first\\377line\\n'; head -c 1000000000 /dev/zero; echo; echo last line")
    project.ds("run", project.jobs([{"script": str(script)}]))
    log = subprocess.run(
        [sys.executable, "-m", "distributed_something", "-C", str(project.folder), "logs", "0"],
        capture_output=True,
        check=True,
        env=project.environment,
    ).stdout
    assert log.startswith(b"first\xffline\n")
    assert log.endswith(b"last line\n")
    assert b"bytes left out" in log
    assert len(log) < 5_000_000


def test_a_log_is_followed_from_before_its_job_begins_to_the_last_attempt(project: DsProject) -> None:
    command = "echo try {attempt}; while ! test -e {gate}; do sleep 0.05; done; exit 1"
    project.config(COMMAND=command, JOB_RETRIES=2)
    gate = project.folder / "gate"
    project.ds("setup")
    project.ds("submit", project.jobs([{"gate": str(gate)}]))
    project.ds("start")
    first = project.start("logs", "0", "--follow")
    assert first.stdout is not None
    assert first.stdout.readline() == "try 1\n"
    gate.touch()
    assert first.communicate(timeout=60)[0] == "try 2\n"
    assert first.returncode == 0
    assert project.ds("logs", "0", "--follow").stdout == "try 2\n"


def test_every_step_prints_data_with_json(project: DsProject) -> None:
    def data(*words: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(project.ds(*words, "--json").stdout)
        return found

    new = project.folder / "new"
    assert data("init", new) == {"folder": str(new)}
    project.config(COMMAND="echo hello {n}")
    assert [line.split()[0] for line in data("setup", "--dry-run")["plan"]] == ["create"]
    run = data("setup")["run"]
    assert data("submit", project.jobs([{"n": 1}])) == {"sent": 1, "known": 0, "failed": {}}
    assert data("start") == {"run": run, "machines": {"target": 1, "running": 1, "lost": 0}}
    assert data("monitor")["jobs"]["succeeded"] == 1
    job = project.job_lines()[0]["id"]
    assert data("logs", "0") == data("logs", "0", "--attempt", "1")
    assert data("logs", "0") == {"id": job, "attempt": 1, "text": "hello 1\n"}
    assert data("retry") == {"retried": []}
    assert data("stop") == project.status()
    assert data("cleanup") == {"leftovers": []}


def test_logs_of_short_jobs_share_a_segment_and_are_told_apart(project: DsProject) -> None:
    project.config(COMMAND="echo job {n}", DOCKER_CORES=1)
    project.ds("run", project.jobs({"n": n} for n in range(20)))
    assert [project.ds("logs", str(n)).stdout for n in (0, 7, 19)] == ["job 0\n", "job 7\n", "job 19\n"]
    assert len(list(project.folder.glob("data/runs/App/*/logs/*"))) == 1


def test_a_child_that_ignores_term_is_killed_with_its_group(project: DsProject) -> None:
    project.config(
        COMMAND="trap '' TERM; (trap '' TERM; sleep 1000 & sleep 1001) & sleep 1002 # {n}",
        JOB_TIMEOUT=0.5,
        JOB_RETRIES=1,
    )
    project.ds("run", project.jobs([{"n": 1}]), code=3)
    assert project.job_lines()[0]["cause"] == "timeout"
    assert not project.processes()


def test_a_job_that_moves_its_folders_away_harms_one_other_at_most(project: DsProject) -> None:
    command = 'sleep 0.1; [ {n} != 5 ] || { d=${DS_WORK_DIR%/*}; mv "$d" "$d.moved"; }'
    project.config(COMMAND=command, DOCKER_CORES=1, JOB_RETRIES=2)
    project.ds("run", project.jobs({"n": n} for n in range(12)))
    assert project.status()["jobs"]["succeeded"] == 12
    assert project.status()["attempts"] <= 14


def test_children_that_a_job_leaves_behind_are_ended(project: DsProject) -> None:
    project.config(COMMAND="setsid sleep 1000 & (setsid setsid sleep 1001 &) ; sleep 1002 & true {n}")
    project.ds("setup")
    project.ds("submit", project.jobs([{"n": 1}]))
    project.ds("start")
    until(lambda: project.status()["state"] == "finished", "the job to finish")
    workers = {project.machine()["pid"], *project.machine()["workers"].values()}
    assert set(project.processes()) <= workers
    project.ds("monitor")


def test_handler_gets_what_its_parameters_are_named_after(project: DsProject) -> None:
    project.config(COMMAND=None, HANDLER="work:process", OUTPUT="out/{Plate}", INPUTS=["in/{Plate}"])
    (project.folder / "work.py").write_text(
        "import os\n"
        "def process(job, Plate, input_dir, output_dir, work_dir, attempt, extra='default'):\n"
        "    assert job['group']['Plate'] == job['Plate'] == Plate and os.getcwd() == str(work_dir)\n"
        "    print('plate', Plate, attempt, extra, os.environ['DS_JOB_ID'])\n"
        "    (output_dir / 'o').write_text((input_dir / Plate).read_text() + job['shared'])\n"
    )
    (project.folder / "data/in").mkdir(parents=True)
    (project.folder / "data/in/p 1").write_text("content ")
    project.ds("run", project.jobs([{"Plate": "p 1"}], shared="key"))
    assert (project.folder / "data/out/p 1/o").read_text() == "content key"
    job = project.job_lines()[0]
    assert project.ds("logs", "0").stdout == f"plate p 1 1 default {job['id']}\n"


@pytest.mark.parametrize(
    ("body", "cause", "said"),
    [
        ("raise ValueError('bad plate')", "exit", "ValueError: bad plate"),
        (r"raise ValueError('half a \udcff pair')", "exit", "exit"),
        ("import sys; sys.exit(7)", "exit", "exit code 7"),
        ("import os; os._exit(3)", "exit", "exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal", "SIGSEGV"),
        ("import time; time.sleep(60)", "timeout", "JOB_TIMEOUT"),
        pytest.param(
            "raise ExceptionGroup('g', [ExceptionGroup('h', [KeyError('P7')]), OSError()])",
            "exit",
            "KeyError: 'P7'",
            marks=pytest.mark.fault(63),
        ),
    ],
)
def test_a_handler_that_fails_costs_only_its_job(
    project: DsProject, body: str, cause: str, said: str
) -> None:
    project.config(COMMAND=None, HANDLER="work:process", JOB_TIMEOUT=1, JOB_RETRIES=1, DOCKER_CORES=1)
    (project.folder / "work.py").write_text(f"def process(job):\n  if job['bad']:\n    {body}\n")
    project.ds("run", project.jobs({"n": n, "bad": n == 1} for n in range(4)), code=3)
    jobs = project.job_lines()
    assert [job["state"] for job in jobs] == ["succeeded", "dead", "succeeded", "succeeded"]
    assert jobs[1]["cause"] == cause
    assert said in project.ds("failures").stdout


@pytest.mark.fault(63)
@pytest.mark.parametrize(
    "source",
    [
        "import asyncio\nasync def process(n):\n  await asyncio.sleep(0)\n  {body}\n",
        "def process(n):\n  yield 1\n  {body}\n",
        "import asyncio\nasync def process(n):\n  await asyncio.sleep(0)\n  yield 1\n  {body}\n",
    ],
    ids=["async def", "generator", "async generator"],
)
def test_a_handler_that_only_begins_when_it_is_called_runs_to_its_end(
    project: DsProject, source: str
) -> None:
    project.config(COMMAND=None, HANDLER="work:process", JOB_RETRIES=1)
    (project.folder / "work.py").write_text(source.format(body="print('did', n); assert n"))
    project.ds("run", project.jobs({"n": n} for n in range(2)), code=3)
    assert [job["state"] for job in project.job_lines()] == ["dead", "succeeded"]
    assert project.ds("logs", "1").stdout == "did 1\n"


@pytest.mark.fault(63)
@pytest.mark.parametrize("end", ["return", "raise ValueError('of the child')", "raise SystemExit(9)"])
def test_a_child_that_a_handler_forks_does_not_answer_for_the_job(project: DsProject, end: str) -> None:
    project.config(COMMAND=None, HANDLER="work:process", JOB_RETRIES=1, DOCKER_CORES=1)
    (project.folder / "work.py").write_text(
        "import os\n"
        "def process(n):\n"
        f"  if os.fork() == 0: {end}\n"
        "  os.wait()\n"
        "  print('the parent', n)\n"
        "  if n == 1: raise KeyError('of the parent')\n"
    )
    project.ds("run", project.jobs({"n": n} for n in range(3)), code=3)
    assert [job["state"] for job in project.job_lines()] == ["succeeded", "dead", "succeeded"]
    assert "KeyError: 'of the parent'" in project.ds("failures").stdout
    assert "the parent 2" in project.ds("logs", "2").stdout


def test_a_handler_that_cannot_be_imported_says_so(project: DsProject) -> None:
    project.config(COMMAND=None, HANDLER="missing:process", JOB_RETRIES=3)
    project.ds("run", project.jobs([{"n": 1}]), "--unchecked", code=3)
    assert [(job["exit_code"], job["attempts"]) for job in project.job_lines()] == [(127, 1)]
    assert "missing" in project.ds("failures").stdout


def test_the_environment_of_a_command(project: DsProject) -> None:
    project.config(
        COMMAND="env > {output_dir}/env; cat $DS_JOB > {output_dir}/job",
        OUTPUT="out",
        ENVIRONMENT={"THREADS": 1},
        MY_KEY="mine",
    )
    project.ds("run", project.jobs([{"n": 1}], shared="x"))
    lines = (project.folder / "data/out/env").read_text().splitlines()
    assert {"THREADS=1", "MY_KEY=mine", "DS_ATTEMPT=1", f"DS_JOB_ID={project.job_lines()[0]['id']}"} <= set(
        lines
    )
    assert json.loads((project.folder / "data/out/job").read_text()) == {"shared": "x", "group": {"n": 1}}


def test_two_runs_of_one_app_at_once(project: DsProject) -> None:
    project.config(COMMAND="sleep {n}")
    jobs = project.jobs([{"n": 3}])
    first = project.start("run", jobs)
    until(lambda: list(project.folder.glob(".ds/App/machine.json")), "the first run to start")
    second = project.ds("run", jobs, code=1)
    assert "a run of App is under way" in second.stderr
    assert "ds monitor" in second.stderr
    first.communicate(timeout=30)
    assert first.returncode == 0


def test_set_ups_of_one_app_at_once_are_for_one_run(project: DsProject) -> None:
    project.config(COMMAND="true {n}")
    several = [project.start("setup", "--json") for _ in range(4)]
    runs = {json.loads(each.communicate(timeout=60)[0])["run"] for each in several}
    assert runs == {project.status()["run"]}
    assert [each.name for each in (project.folder / "data/runs/App").iterdir()] == [*runs]


def test_stop_lets_running_jobs_finish_and_start_goes_on(project: DsProject) -> None:
    project.config(COMMAND="while ! test -e {gate}; do sleep 0.05; done # {n}", DOCKER_CORES=1)
    gate = project.folder / "gate"
    project.ds("setup")
    project.ds("submit", project.jobs(({"n": n} for n in range(3)), gate=str(gate)))
    project.ds("start")
    until(lambda: project.status()["jobs"]["running"], "a job to run")
    stop = project.start("stop")
    until(lambda: project.status()["state"] == "draining", "the order to arrive")
    gate.touch()
    stop.communicate(timeout=30)
    status = project.status()
    assert status["state"] == "idle"
    assert (status["jobs"]["succeeded"], status["jobs"]["waiting"]) == (1, 2)
    assert status["interruptions"] == 0
    assert "ds start" in status["why_idle"]
    assert "are left" in project.ds("monitor", code=1).stderr
    project.ds("start")
    project.ds("monitor")
    assert project.status()["jobs"]["succeeded"] == 3


@pytest.mark.fault(26)
def test_stop_now_gives_running_jobs_back_and_charges_no_attempt(project: DsProject) -> None:
    project.config(COMMAND="sleep {n}", JOB_RETRIES=1)
    project.ds("setup")
    project.ds("submit", project.jobs([{"n": 1000}, {"n": 1001}]))
    project.ds("start")
    until(lambda: project.status()["jobs"]["running"] == 2, "both jobs to run")
    project.ds("stop", "--now")
    assert not project.processes()
    status = project.status()
    assert (status["jobs"]["waiting"], status["interruptions"], status["attempts"]) == (2, 2, 0)
    assert [job["cause"] for job in project.job_lines()] == ["interrupted"] * 2


def test_cleanup_leaves_the_results_and_nothing_else(project: DsProject) -> None:
    project.config(COMMAND="touch {output_dir}/x", OUTPUT="out/{n}")
    project.ds("run", project.jobs([{"n": 1}]))
    project.ds("cleanup")
    assert not (project.folder / ".ds" / "App").exists()
    assert not list((project.folder / "files").glob("*RequestId*"))
    assert (project.folder / "data/out/1/x").exists()
    assert project.status()["jobs"]["succeeded"] == 1  # the ledger still tells


def test_cleanup_of_unfinished_work_wants_a_yes(project: DsProject) -> None:
    project.config(COMMAND="true {n}")
    project.ds("setup")
    project.ds("submit", project.jobs([{"n": 1}]))
    assert "--yes" in project.ds("cleanup", code=2).stderr
    project.ds("--yes", "cleanup")


def test_a_state_folder_from_a_newer_version(project: DsProject) -> None:
    import sqlite3

    project.config(COMMAND="true {n}")
    project.ds("setup")
    with sqlite3.connect(project.folder / ".ds/App/queue.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    error = project.ds("status", code=1).stderr
    assert "newer version" in error
    assert "fix: upgrade" in error


def test_a_damaged_queue(project: DsProject) -> None:
    project.config(COMMAND="true {n}")
    project.ds("run", project.jobs([{"n": 1}]))
    (project.folder / ".ds/App/queue.db").write_bytes(b"not a database" * 1000)
    assert "is damaged" in project.ds("status", code=1).stderr
    project.ds("--yes", "cleanup")
    project.ds("run", project.jobs([{"n": 1}]))


def test_the_hours_of_a_run_end_it_whatever_is_wrong_with_its_queue(project: DsProject) -> None:
    project.config(COMMAND="true {n}", MAX_RUN_HOURS=0.0015)
    project.ds("setup")
    project.ds("start")
    queue = project.folder / ".ds/App/queue.db"
    queue.replace(queue.with_name("elsewhere"))
    queue.mkdir()
    until(lambda: not project.processes(), "the workers to end")
    assert project.machine()["ended"] == "MAX_RUN_HOURS = 0.0015 are over"


def test_a_bad_job_file_costs_nothing_of_the_last_run(project: DsProject) -> None:
    project.config(COMMAND="exit {n}", JOB_RETRIES=1)
    project.ds("run", project.jobs([{"n": 1}]), code=3)
    project.ds("run", project.jobs([{"m": 1}]), code=2)
    assert project.status()["jobs"]["dead"] == 1
    assert "1 job put back" in project.ds("retry").stderr


@pytest.mark.fault(69)
@pytest.mark.parametrize("variable", ["LC_ALL", "LANG"])
def test_names_are_utf8_whatever_the_locale(project: DsProject, tmp_path: Path, variable: str) -> None:
    if not (maker := shutil.which("localedef")):
        pytest.skip("no localedef here")
    made = subprocess.run(
        [maker, "-i", "POSIX", "-f", "ISO-8859-1", tmp_path / "xx.ISO-8859-1"],
        capture_output=True,
        check=False,
    )
    if not (tmp_path / "xx.ISO-8859-1").exists():
        pytest.skip(f"no locale could be made: {made.stderr.decode()[-200:]}")
    for name in ("LC_ALL", "LC_CTYPE", "LANG", "PYTHONUTF8"):
        project.environment.pop(name, None)
    project.environment |= {"LOCPATH": str(tmp_path), variable: "xx.ISO-8859-1"}
    (project.folder / "data/raw").mkdir(parents=True)
    (project.folder / "data/raw/Köln.txt").write_text("Straße")
    project.config(
        COMMAND="cp {input_dir}/{f}.txt {output_dir}/{f}-ß.txt; echo {f}",
        INPUTS=["raw/{f}.txt"],
        OUTPUT="out/{f}",
    )
    project.ds("run", project.jobs([{"f": "Köln"}]))
    assert (project.folder / "data/out/Köln/Köln-ß.txt").read_text() == "Straße"
    assert "Köln" in project.ds("logs", "0").stdout


def test_a_run_with_too_many_dead_jobs_drains_and_goes_on_when_the_cause_is_mended(
    project: DsProject,
) -> None:
    project.config(COMMAND="sleep 0.3; cat {n}.txt", JOB_RETRIES=1, MAX_FAILURES=6)
    jobs = project.jobs({"n": n} for n in range(60))
    stopped = project.ds("run", jobs, code=1).stderr
    assert "of them alike: exit:" in stopped and "(MAX_FAILURES = 6)" in stopped
    status = project.status()
    assert 4 <= status["jobs"]["dead"] < 40 and status["jobs"]["waiting"] > 20
    assert not project.processes()
    assert "no workers were started" in project.ds("start", code=1).stderr

    project.config(COMMAND="echo {n}", JOB_RETRIES=1, MAX_FAILURES=6)
    project.ds("retry")
    project.ds("start")
    assert "60 succeeded" in project.ds("monitor").stdout


def test_a_job_gets_its_secrets_and_no_file_of_the_run_has_them(project: DsProject) -> None:
    secret = "hunter22-of-this-test"
    (project.folder.parent / "token").write_text(secret)
    (project.folder.parent / "token").chmod(0o600)
    project.config(
        COMMAND=f"echo token=$TOKEN; test ${{#TOKEN}} = {len(secret)}",
        SECRETS={"TOKEN": f"file:{project.folder.parent / 'token'}"},
    )
    project.ds("run", project.jobs([{"n": 1}]))
    assert "token=***" in project.ds("logs", "0").stdout
    files = [path for path in project.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if secret.encode() in path.read_bytes()]

    (project.folder.parent / "token").chmod(0o644)
    assert "other users may read" in project.ds("run", project.jobs([{"n": 2}]), code=2).stderr


SMI = """#!/bin/sh
test "$1" = --query-gpu=uuid && printf 'GPU-aa\\nGPU-bb\\n'
"""


@pytest.fixture
def two_gpus(project: DsProject, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").write_text(SMI)
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    project.environment["PATH"] = f"{tmp_path / 'bin'}:{project.environment['PATH']}"
    project.environment.pop("CUDA_VISIBLE_DEVICES", None)


@pytest.mark.usefixtures("two_gpus")
def test_each_slot_has_a_gpu_and_its_part_of_the_processors(project: DsProject) -> None:
    project.config(
        COMMAND="sleep 0.5; echo gpu=$CUDA_VISIBLE_DEVICES threads=$OMP_NUM_THREADS mine=$MKL_NUM_THREADS",
        GPUS=1,
        DOCKER_CORES=8,
        ENVIRONMENT={"MKL_NUM_THREADS": "3"},
    )
    project.ds("run", project.jobs({"n": n} for n in range(4)))
    printed = {project.ds("logs", str(n)).stdout.splitlines()[0] for n in range(4)}
    threads = max(len(os.sched_getaffinity(0)) // 2, 1)
    assert printed == {f"gpu=GPU-{each} threads={threads} mine=3" for each in ("aa", "bb")}

    project.config(COMMAND="true {n}", GPUS=3)
    refused = project.ds("run", project.jobs([{"n": 9}]), code=2).stderr
    assert "GPUS = 3: 2 GPUs are found here" in refused


@pytest.mark.usefixtures("two_gpus")
def test_jobs_of_mixed_needs_have_whole_gpus_of_their_own(project: DsProject) -> None:
    project.config(
        COMMAND="echo from $(date +%s.%N) $DS_GPUS/$CUDA_VISIBLE_DEVICES; sleep 0.3; echo to $(date +%s.%N)",
        DOCKER_CORES=4,
        RESOURCES={"gpus": "{need}"},
    )
    needs = [1, 1, 2, 0, 1, 2, 0, 1]
    project.ds("run", project.jobs({"n": n, "need": need} for n, need in enumerate(needs)))
    users: dict[str, list[tuple[float, float]]] = {"": [], "GPU-aa": [], "GPU-bb": []}
    for n, need in enumerate(needs):
        _, begun, visible, _, ended = project.ds("logs", str(n)).stdout.split()[:5]
        count, _, ids = visible.partition("/")
        assert count == str(need) == str(len(ids.split(",")) if ids else 0)
        for each in ids.split(","):
            users[each].append((float(begun), float(ended)))
    assert len(users[""]) == 2
    for gpu in ("GPU-aa", "GPU-bb"):
        assert all(ended <= begun for (_, ended), (begun, _) in pairwise(sorted(users[gpu]))), users

    project.config(COMMAND="true {n}")
    refused = project.ds("submit", project.jobs([{"n": 9, "_gpus": 3}]), code=2).stderr
    assert "job 1 needs 1 processor, 3 GPUs, and this machine has" in refused and "2 GPUs" in refused


@pytest.mark.usefixtures("two_gpus")
def test_a_function_sees_the_gpus_of_its_job(project: DsProject) -> None:
    code = "import os\ndef see(job):\n    print('sees', repr(os.environ.get('CUDA_VISIBLE_DEVICES')))\n"
    (project.folder / "look.py").write_text(code)
    project.config(HANDLER="look:see", DOCKER_CORES=1)
    project.ds("run", project.jobs([{"n": 0, "_gpus": 2}, {"n": 1, "_gpus": 1}, {"n": 2}]))
    printed = [project.ds("logs", str(n)).stdout.splitlines()[0] for n in range(3)]
    assert printed == ["sees 'GPU-aa,GPU-bb'", "sees 'GPU-aa'", "sees ''"]
