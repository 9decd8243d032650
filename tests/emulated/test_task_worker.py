"""`ds worker` as a task of a machine, on the emulator: real processes, SQS and S3."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path

import pytest

from conftest import until
from distributed_something import __version__
from distributed_something.aws.sqs.queue import SqsQueue
from distributed_something.aws.watch.heartbeat import heartbeat_prefix
from distributed_something.aws.worker import Settings, container_facts
from distributed_something.clock import SystemClock
from distributed_something.errors import UsageError
from distributed_something.inputs.config import parse_config
from distributed_something.inputs.files import project_files
from distributed_something.runs.following import Follower
from distributed_something.runs.joblog import read_log, read_running
from distributed_something.runs.provenance import what_ran
from distributed_something.runs.runfile import read_run_file, write_run_file
from distributed_something.worker.files.manifest import read_manifest
from distributed_something.worker.files.project import keep
from distributed_something.worker.files.shared import shared_files
from emulating import session
from metadata import metadata_server
from tasks import ends, new_run, until_done, worker

TASK = {
    "APP_NAME": "App",
    "DS_RUN": "run1",
    "SQS_QUEUE_URL": "https://sqs/1/q",
    "AWS_BUCKET": "bucket",
    "AWS_REGION": "eu-west-1",
}


def groups(count: int) -> list[dict[str, int]]:
    return [{"n": n} for n in range(count)]


@pytest.mark.fault(19, 22, 23, 25)
def test_a_task_runs_jobs_waits_for_more_and_ends_when_told(tmp_path: Path) -> None:
    run = new_run(
        groups(5),
        COMMAND="test {n} != 3 && printf 'job {n} \\377' > {output_dir}/'a b.txt'",
        OUTPUT="out/{n}",
        JOB_RETRIES=1,
    )
    with worker(run, tmp_path, DOCKER_CORES="2") as process:
        until_done(run, 5)
        run.queue.put([type(run.jobs[0])(uuid.uuid4().hex[:16], 9, b'{"group":{"n":9}}')])
        until_done(run, 6)
        assert process.poll() is None
        assert [file.key for file in run.store.list(heartbeat_prefix(run.paths))] == [
            heartbeat_prefix(run.paths) + os.uname().nodename
        ]
        process.send_signal(signal.SIGTERM)
        code, said = ends(process)
    assert code == 0, said
    assert "Traceback" not in said and "stopping: terminated" in said
    states = sorted(record.state for record in run.fold().jobs.values())
    assert states == ["dead"] + ["succeeded"] * 5
    assert run.store.read("out/2/a b.txt") == b"job 2 \xff"
    assert {file.key for file in run.store.list("out/9/")} > {"out/9/a b.txt"}
    until(lambda: run.queue.counts().open == 0, "the queue to be empty")
    assert run.queue.counts().dead == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(26)
def test_a_terminated_task_gives_its_job_back_uncounted(tmp_path: Path) -> None:
    run = new_run(groups(1), COMMAND="echo begun; sleep 600")
    with worker(run, tmp_path) as process:
        until(lambda: run.events("started"), "the job to start")
        process.send_signal(signal.SIGINT)
        code, said = ends(process)
    assert code == 0, said
    (lease,) = run.queue.lease(1, 5)
    assert lease.attempt == 1
    (event,) = run.events("interrupted")
    assert event["cause"] == "interrupted"


@pytest.mark.fault(20, 21)
def test_done_jobs_are_skipped_by_the_reference_s_rule_and_partial_ones_are_not(tmp_path: Path) -> None:
    rule = {"CHECK_IF_DONE_BOOL": "True", "EXPECTED_NUMBER_FILES": 2, "NECESSARY_STRING": 7}
    run = new_run(groups(2), COMMAND="echo x > {output_dir}/b7", OUTPUT="out/{n}", **rule)
    for key in ("out/0/a7", "out/1/a7", "out/1/b7"):
        run.store.write(key, b"x")
    with worker(run, tmp_path):
        until(lambda: len(run.events("succeeded") + run.events("skipped")) == 2, "both jobs to end")
    assert [record.state.value for record in run.fold().jobs.values()] == ["succeeded", "skipped"]


def test_slots_of_a_task_share_inputs_and_jobs_have_time_limits_of_their_own(tmp_path: Path) -> None:
    command = "cmp {shared_dir}/fa $DS_SHARED_DIR/fa && cp {shared_dir}/fa {output_dir}/fa; sleep {n}"
    given = {"SHARED_INPUTS": ["genome/"], "JOB_TIMEOUT": 60, "JOB_RETRIES": 1}
    run = new_run([{"n": 0}, {"n": 30, "_timeout": 0.2}], COMMAND=command, OUTPUT="out/{n}", **given)
    run.store.write("genome/fa", b"ACGT")
    config = read_run_file(run.store, run.app, "run1").config
    shared = shared_files(config, run.store)
    write_run_file(run.store, config, "aws", "run1", shared=shared)
    with worker(run, tmp_path, DOCKER_CORES="2") as process:
        until_done(run, 2)
        process.send_signal(signal.SIGTERM)
        assert ends(process)[0] == 0
    assert run.store.read("out/0/fa") == b"ACGT"
    (dead,) = run.events("dead")
    assert (dead["cause"], dead["detail"]) == ("timeout", "ran longer than its _timeout = 0.2 s")
    manifest = read_manifest(run.store, "out/0", run.jobs[0].id)
    assert manifest and manifest.made_by["shared"] == {"fa": f"4-{shared['fa'].tag}"}
    assert list(tmp_path.iterdir()) == [], "the task leaves nothing behind"


@pytest.mark.fault(51)
def test_project_files_travel_and_the_environment_is_part_of_what_made_an_output(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/work.py").write_text(
        "import helper\ndef process(n, output_dir): helper.put(n, output_dir)\n"
    )
    (tmp_path / "project/helper.py").write_text(
        "def put(n, output_dir): (output_dir / 'o').write_text(f'{n}')\n"
    )
    run = new_run(groups(1), HANDLER="work:process", OUTPUT="out/{n}", FILES=["work.py", "helper.py"])
    config = read_run_file(run.store, run.app, "run1").config
    files = project_files(config, tmp_path / "project")
    keep(run.store, run.paths, files, tmp_path / "project")
    write_run_file(run.store, config, "aws", "run1", files, "of-the-environment")
    with worker(run, tmp_path):
        until_done(run, 1)
    assert run.store.read("out/0/o") == b"0"
    manifest = read_manifest(run.store, "out/0", run.jobs[0].id)
    assert manifest and set(manifest.made_by["files"]) == {"work.py", "helper.py"}
    assert manifest.made_by["environment"] == "of-the-environment"


@pytest.mark.fault(24)
def test_a_job_has_a_time_limit_and_its_log_can_be_looked_at_and_followed(tmp_path: Path) -> None:
    lines = "i=0; while true; do i=$((i+1)); echo $i $(date +%s); sleep 1; done"
    run = new_run(groups(1), COMMAND=lines, JOB_TIMEOUT=35, JOB_RETRIES=1)
    (job,) = run.jobs
    with worker(run, tmp_path):
        until(lambda: run.events("started"), "the job to start")
        started = run.events("started")[0]
        place, name = str(started["log"]), str(started["worker"])
        until(lambda: read_running(run.store, run.paths, place, job.id, name, 1), "the last text", 10)
        assert read_log(run.store, run.paths, place) == b""  # nobody follows it
        follower = Follower(run.store, run.paths, SystemClock())
        follower.ask(job.id)
        until(lambda: read_log(run.store, run.paths, place), "the first line", 20)
        shown = read_log(run.store, run.paths, place)
        assert shown.startswith(b"1 ")
        for _ in range(5):
            time.sleep(1)
            follower.ask(job.id)
            newest = read_log(run.store, run.paths, place).split()[-1]
            assert time.time() - int(newest) < 6  # its line is a second old, and seconds are whole
        until(lambda: run.events("dead"), "the job's end", 40)
    (event,) = run.events("dead")
    assert event["cause"] == "timeout" and str(event["log"]).startswith(place)
    text = read_log(run.store, run.paths, event["log"])
    assert text.startswith(shown) and text.endswith(b"[ds] ran longer than JOB_TIMEOUT = 35 s\n")


@pytest.mark.fault(15)
def test_a_job_longer_than_its_lease_is_not_handed_out_twice(tmp_path: Path) -> None:
    run = new_run(groups(1), COMMAND="sleep 8", SQS_MESSAGE_VISIBILITY=5)
    with worker(run, tmp_path):
        until(lambda: run.events("started"), "the job to start")
        assert SqsQueue(session(), run.urls, run="run1").lease(1, 6.5) == []
        until_done(run, 1)
    assert len(run.events("succeeded")) == 1


def test_a_task_writes_down_which_image_runs_the_jobs(tmp_path: Path) -> None:
    run = new_run(groups(1), COMMAND="true")
    with (
        metadata_server() as served,
        worker(run, tmp_path, ECS_CONTAINER_METADATA_URI_V4=served.endpoint + "/v4/container"),
    ):
        until_done(run, 1)
    (told,) = what_ran(run.store, run.paths, parse_config("APP_NAME = 'App'"))["workers"]
    assert (told["image"], told["image_digest"], told["version"]) == (
        "lab/image:1",
        "sha256:abab",
        __version__,
    )


@pytest.mark.parametrize("said", ["", "[]", "nothing", '{"Image": {"deep": 1}}'])
def test_a_container_that_nobody_tells_of_is_no_error(said: str) -> None:
    with metadata_server() as served:
        served.container = said
        assert container_facts(served.endpoint + "/v4/container").get("ImageID") is None
    assert container_facts(served.endpoint + "/v4/container") == {}, "nobody answers any more"
    assert container_facts("") == container_facts("no address") == {}


@pytest.mark.parametrize("slots", ["1", "2"])
def test_a_task_ends_with_a_clear_line_when_the_queue_has_gone(tmp_path: Path, slots: str) -> None:
    run = new_run(groups(1), COMMAND="sleep 600", SQS_MESSAGE_VISIBILITY=9)
    with worker(run, tmp_path, DOCKER_CORES=slots) as process:
        until(lambda: run.events("started"), "the job to start")
        run.delete_queues()
        code, said = ends(process, 30)
    assert code == 1
    assert said.splitlines()[-2].startswith("error: ") and "does not exist" in said
    assert said.count("does not exist") < 12, said
    assert list(tmp_path.iterdir()) == []


def test_a_task_whose_queue_was_never_made_says_so(tmp_path: Path) -> None:
    run = new_run([], COMMAND="true")
    run.delete_queues()
    with worker(run, tmp_path) as process:
        code, said = ends(process)
    assert code == 1 and said.startswith("error: ") and "does not exist" in said and "fix: ds setup" in said


def test_a_config_without_anything_to_run_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    run = new_run([])
    with worker(run, tmp_path) as process:
        code, said = ends(process)
    assert code == 2
    assert (
        said.startswith("error: the config has neither COMMAND nor HANDLER") and len(said.splitlines()) == 2
    )


@pytest.mark.parametrize("missing", TASK)
def test_a_missing_variable_is_named(missing: str) -> None:
    with pytest.raises(UsageError, match="AWS_DEFAULT_REGION" if missing == "AWS_REGION" else missing):
        Settings.read({name: value for name, value in TASK.items() if name != missing})


@pytest.mark.parametrize(
    ("name", "value"), [("DOCKER_CORES", "0"), ("DOCKER_CORES", "x"), ("SECONDS_TO_START", "-")]
)
def test_a_number_that_is_none_is_refused(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=name):
        Settings.read({**TASK, name: value})


def test_settings_are_the_reference_s_names() -> None:
    settings = Settings.read(
        {**TASK, "DOCKER_CORES": "4", "SECONDS_TO_START": "2.5", "DS_SCRATCH": "/scratch"}
    )
    assert (settings.slots, settings.stagger, settings.scratch) == (4, 2.5, Path("/scratch"))
