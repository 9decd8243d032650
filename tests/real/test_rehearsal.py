"""Whole runs on the rehearsal: the aws engine's own code, an emulator, real worker processes."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import DsProject, until
from distributed_something.rehearsal.faults import Faults, fate, parse_faults
from pretending import require
from rehearsing import TWO_MACHINES, Emulator, processes, unlucky

pytestmark = pytest.mark.real

COMMAND = "sh -c 'echo job {n}; sleep {seconds}; exit {code}' && echo {n} > {output_dir}/{n}.txt"


@pytest.fixture
def rehearsal(project: DsProject) -> Iterator[DsProject]:
    """A project whose runs are rehearsed; nothing of them runs afterwards."""
    require()
    project.config(
        **TWO_MACHINES,
        COMMAND=COMMAND,
        OUTPUT="out/{n}",
        AWS_BUCKET="bucket-of-a-test",
        SQS_MESSAGE_VISIBILITY=8,
        JOB_RETRIES=2,
        DOCKER_CORES=2,
    )
    yield project
    project.ds("cleanup", "--yes", code=None, timeout=120)
    until(lambda: not processes(project), "the rehearsal's processes to end")


def groups(count: int, seconds: float = 0.05, bad: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    return [{"n": n, "seconds": seconds, "code": 1 if n in bad else 0} for n in range(count)]


def check(project: DsProject, count: int, bad: tuple[int, ...] = ()) -> None:
    """What must hold after any run, looked at from outside."""
    jobs = project.job_lines()
    assert len(jobs) == count
    by_number = {each["job"]["group"]["n"]: each for each in jobs}
    for number, job in by_number.items():
        if number in bad:
            assert (job["state"], job["cause"]) == ("dead", "exit"), job
            assert job["attempts"] == 2, job
        else:
            assert job["state"] == "succeeded", job
            assert job["attempts"] == 1, f"an interruption was charged: {job}"
    data = project.folder / "data"
    for number, job in by_number.items():
        made = data / "out" / str(number)
        if number in bad:
            assert not made.exists()
        else:
            assert (made / f"{number}.txt").read_text() == f"{number}\n"
            manifest = json.loads((made / ".ds" / f"{job['id']}.json").read_text())
            assert [each["name"] for each in manifest["files"]] == [f"{number}.txt"]
    status = project.status()["jobs"]
    assert status["succeeded"] == count - len(bad)
    assert status["dead"] == len(bad)


def test_a_whole_run(rehearsal: DsProject) -> None:
    given = rehearsal.folder / "data" / "in.txt"
    given.parent.mkdir()
    given.write_text("an input in the folder is an object of the bucket")
    jobs = rehearsal.jobs(groups(20))
    ended = rehearsal.ds("run", jobs, timeout=120)

    assert "20 succeeded" in ended.stdout
    assert "left behind: nothing" in ended.stdout
    assert "0 of them lost" in ended.stdout
    assert "at $0.1 a machine and hour" in ended.stdout
    assert not processes(rehearsal)
    check(rehearsal, 20)  # the emulator has gone: its store answers
    assert "job 3" in rehearsal.ds("logs", "3").stdout
    assert not list((rehearsal.folder / "data").glob("**/tasks"))
    again = rehearsal.ds("monitor")  # whoever was killed just before the end, or looks once more
    assert ended.stdout[ended.stdout.index("rehearsal:") :] in again.stdout


def emulators(rehearsal: DsProject) -> dict[str, Any]:
    """What the rehearsal knows of its emulator."""
    found: dict[str, Any] = json.loads(next(rehearsal.folder.glob(".ds/*/rehearsal.json")).read_text())
    return found


@pytest.mark.fault(78)
def test_a_killed_emulator_is_named_by_every_command(rehearsal: DsProject) -> None:
    jobs = rehearsal.jobs(groups(20, seconds=60))
    rehearsal.ds("setup")
    rehearsal.ds("submit", jobs)
    rehearsal.ds("start")
    os.kill(emulators(rehearsal)["pid"], signal.SIGKILL)
    until(lambda: not processes(rehearsal), "all that it had started to end")
    for words in (["status"], ["submit", jobs], ["monitor"], ["stop"], ["cleanup", "--yes"]):
        done = rehearsal.ds(*words, code=None)
        said = done.stdout + done.stderr
        assert "emulator" in said and "was killed" in said, (words, said)
        assert "ds setup" not in said and "somebody" not in said
        if words[0] not in ("stop", "cleanup"):
            assert "ds run JOBFILE begins a new run" in said
    assert "was killed" not in rehearsal.ds("status").stdout


@pytest.mark.fault(80)
def test_a_strangers_body_is_not_read(rehearsal: DsProject) -> None:
    rehearsal.ds("setup")
    address = emulators(rehearsal)["endpoint"].removeprefix("http://")
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as stranger:
        head = f"PUT /bucket/key HTTP/1.1\r\nHost: {address}\r\nContent-Length: {400 << 20}\r\n\r\n"
        stranger.sendall(head.encode())
        assert stranger.recv(12) == b"HTTP/1.1 403"  # nothing of the body was sent
    with socket.create_connection((host, int(port)), timeout=10) as stranger:
        hidden = f"GET /ds/machines/i-1/latest/api/token HTTP/1.1\r\nHost: {address}\r\n\r\n"
        head = f"PUT /bucket/key HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len(hidden)}\r\n\r\n"
        stranger.sendall((head + hidden).encode())
        answer = b"".join(iter(lambda: stranger.recv(4096), b""))
    assert answer.count(b"HTTP/1.1") == 1, "the body was taken for a request"


@pytest.mark.fault(80)
def test_the_story_counts_its_own_run_only(rehearsal: DsProject) -> None:
    bad = rehearsal.ds("run", rehearsal.jobs(groups(4, bad=(0,))), code=3, timeout=120)
    assert "the emulator stays" in bad.stdout + bad.stderr
    rehearsal.ds("run", rehearsal.jobs(groups(3, seconds=0.06)), timeout=120)
    lines = map(json.loads, rehearsal.ds("monitor", "--json").stdout.splitlines())
    (story,) = [each["rehearsal"] for each in lines if "rehearsal" in each]
    assert (story["jobs"], story["calls"]["ec2.CreateFleet"]) == (3, 1)
    assert story["machines"] <= 2


def test_the_story_as_data(rehearsal: DsProject) -> None:
    ended = rehearsal.ds("--json", "run", rehearsal.jobs(groups(4)), timeout=120)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]

    (story,) = [each["rehearsal"] for each in lines if "rehearsal" in each]
    assert story["jobs"] == story["attempts"] == 4
    assert story["leftovers"] == [] and story["lost"] == []
    assert story["calls"]["ec2.CreateFleet"] == 1
    assert story["machine_hours"] > 0
    (cost,) = [each["cost_usd"] for each in lines if "cost_usd" in each]
    assert story["dollars"] - story["request_dollars"] == pytest.approx(cost, rel=0.5)
    assert rehearsal.status()["cost_usd"] == cost, "when the emulator has gone too"
    assert "cost" in rehearsal.ds("status").stdout


def test_dead_jobs_stay_with_the_emulator_until_clean_up(rehearsal: DsProject) -> None:
    rehearsal.ds("run", rehearsal.jobs(groups(6, bad=(2,))), code=3, timeout=120)

    check(rehearsal, 6, bad=(2,))
    assert processes(rehearsal)
    assert len(json.loads(rehearsal.ds("--json", "retry").stdout)["retried"]) == 1
    rehearsal.ds("cleanup", "--yes", timeout=60)
    assert not processes(rehearsal)


def test_the_steps_one_by_one_with_a_fleet_file(rehearsal: DsProject) -> None:
    fleet = rehearsal.folder / "files" / "fleet.json"
    fleet.parent.mkdir(exist_ok=True)
    launch = {
        "ImageId": "ami-0123456789abcdef0",
        "KeyName": "your-key",
        "IamInstanceProfile": {"Arn": "arn:aws:iam::XXXXXXXXXXXX:instance-profile/ecsInstanceRole"},
        "SubnetId": "subnet-XXXXXXXX",
    }
    role = "arn:aws:iam::XXXXXXXXXXXX:role/aws-ec2-spot-fleet-tagging-role"
    fleet.write_text(json.dumps({"IamFleetRole": role, "LaunchSpecifications": [launch]}))
    jobs = rehearsal.jobs(groups(8))
    rehearsal.ds("setup", timeout=60)
    rehearsal.ds("submit", jobs, timeout=60)
    assert rehearsal.status()["jobs"]["waiting"] == 8
    started = rehearsal.ds("start", fleet, timeout=60)
    rehearsal.ds("monitor", timeout=120)

    assert "pretend account's own: IamFleetRole" in started.stderr
    record = json.loads((rehearsal.folder / "files" / "AppSpotFleetRequestId.json").read_text())
    assert record["MONITOR_FLEET_ID"].startswith("sfr-")
    check(rehearsal, 8)
    assert not processes(rehearsal)


@pytest.mark.fault(17, 26)
def test_a_rough_day(rehearsal: DsProject) -> None:
    text = "kill=0.4/min,notice=0.4/min,throttle=4%,error=2%,lag=2s,speed=8x"
    seed = unlucky(parse_faults(text)).seed
    jobs = rehearsal.jobs(groups(60, seconds=1.0, bad=(7,)))
    with (rehearsal.folder / "config.py").open("a") as config:
        config.write("MACHINE_PRICE = 2\n")
    ended = rehearsal.ds("run", jobs, "--faults", f"{text},seed={seed}", code=3, timeout=300)

    check(rehearsal, 60, bad=(7,))
    lines = map(json.loads, rehearsal.ds("monitor", "--json", code=3).stdout.splitlines())
    (story,) = [each["rehearsal"] for each in lines if "rehearsal" in each]
    assert rehearsal.status()["cost_usd"] == pytest.approx(story["dollars"], rel=0.1), "as the account has it"
    assert "were refused on purpose" in ended.stdout
    assert "killed without a notice after" in ended.stdout
    assert "interrupted after its notice after" in ended.stdout
    rehearsal.ds("cleanup", "--yes", timeout=120)
    assert not processes(rehearsal)


@pytest.mark.fault(8)
def test_a_monitor_that_is_killed_and_started_again(rehearsal: DsProject) -> None:
    draw = random.Random(11)
    rehearsal.ds("setup", timeout=60)
    rehearsal.ds("submit", rehearsal.jobs(groups(40, seconds=0.3)), timeout=60)
    rehearsal.ds("start", timeout=60)
    for _ in range(4):
        monitor = rehearsal.start("monitor", start_new_session=True)
        time.sleep(draw.uniform(0.3, 2.0))
        os.killpg(monitor.pid, signal.SIGKILL)
        monitor.communicate()
    if processes(rehearsal):  # else one of them came to the end
        rehearsal.ds("monitor", timeout=120)

    check(rehearsal, 40)
    assert not processes(rehearsal)


def test_results_answer_when_the_emulator_was_killed(rehearsal: DsProject) -> None:
    rehearsal.ds("setup", timeout=60)
    rehearsal.ds("submit", rehearsal.jobs(groups(6)), timeout=60)
    rehearsal.ds("start", timeout=60)
    until(lambda: rehearsal.status()["jobs"]["succeeded"] == 6, "6 jobs", 60)
    for pid in processes(rehearsal):
        if b"rehearsal.cloud.daemon" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    until(lambda: not processes(rehearsal), "the end of all tasks")

    assert rehearsal.status()["jobs"]["succeeded"] == 6
    assert len(rehearsal.job_lines("--state", "succeeded")) == 6
    assert "job 1" in rehearsal.ds("logs", "1").stdout


@pytest.mark.fault(29)
def test_real_credentials_reach_neither_tasks_nor_files(rehearsal: DsProject) -> None:
    secret = "a-real-secret-of-somebody"
    rehearsal.environment |= {"AWS_ACCESS_KEY_ID": "AKIAREAL", "AWS_SECRET_ACCESS_KEY": secret}
    rehearsal.environment |= {"AWS_PROFILE": "no-such-profile"}
    rehearsal.config(
        ENGINE="rehearsal",
        COMMAND="env",
        DOCKERHUB_TAG="a/b",
        CLUSTER_MACHINES=1,
    )
    rehearsal.ds("run", rehearsal.jobs([{"n": 1}]), timeout=120)

    printed = rehearsal.ds("logs", "0").stdout
    assert "AWS_ACCESS_KEY_ID=" in printed and "AKIAREAL" not in printed
    files = [each for each in rehearsal.folder.rglob("*") if each.is_file()]
    assert not [each for each in files if secret.encode() in each.read_bytes()]
    assert secret not in printed


def test_a_bad_job_file_leaves_nothing_running(rehearsal: DsProject) -> None:
    jobs = rehearsal.jobs([{"wrong": 1}])
    rehearsal.ds("run", jobs, code=2, timeout=60)

    assert not processes(rehearsal)


def test_a_fleet_file_that_is_not_there_is_missed_before_anything_is_made(rehearsal: DsProject) -> None:
    refused = rehearsal.ds("run", rehearsal.jobs(groups(1)), "files/none.json", code=2)

    assert "files/none.json: there is no such file" in refused.stderr
    assert not processes(rehearsal) and not (rehearsal.folder / "data").exists()


def test_a_bad_fleet_file_is_refused_before_anything_is_made(rehearsal: DsProject) -> None:
    fleet = rehearsal.folder / "fleet.json"
    launch = {"ImageId": "ami-XXXXXXXX", "EbsOptimized": "yes"}
    fleet.write_text(json.dumps({"IamFleetRole": "<your role>", "LaunchSpecifications": [launch]}))
    refused = rehearsal.ds("run", rehearsal.jobs(groups(1)), fleet, code=2, timeout=60)

    assert "IamInstanceProfile: missing" in refused.stderr, "the rehearsal has its own of the others"
    assert not processes(rehearsal) and not (rehearsal.folder / "data" / "runs").exists()


def test_status_says_why_a_task_finds_no_machine(rehearsal: DsProject) -> None:
    rehearsal.ds("setup", timeout=60)
    rehearsal.ds("submit", rehearsal.jobs(groups(100, seconds=5.0)), timeout=60)
    rehearsal.ds("start", timeout=60)
    ecs = Emulator.of(rehearsal).client("ecs")
    known = ecs.describe_task_definition(taskDefinition="AppTask")["taskDefinition"]
    containers = [{**each, "memory": 64_000} for each in known["containerDefinitions"]]
    ecs.register_task_definition(family="AppTask", containerDefinitions=containers)
    ecs.update_service(cluster="default", service="AppService", taskDefinition="AppTask")

    said = "a task does not fit on a machine: too little memory"
    until(lambda: said in (rehearsal.status()["why_idle"] or ""), "the reason", 60)
    assert said in rehearsal.ds("status").stdout


AN_HOUR_LATER = """
import sys, time
from pathlib import Path
from distributed_something.inputs.config import load_config
from distributed_something.engine import Renting
from distributed_something.rehearsal.engine import RehearsalEngine
from distributed_something.testing import FakeClock

folder = Path(sys.argv[1])
engine = RehearsalEngine(folder, load_config(folder), FakeClock(time.time() + 3600), print)
assert isinstance(engine, Renting)
engine.machines()
print(*engine.guard(), sep="\\n")
"""


@pytest.mark.fault(9)
def test_a_silent_machine_has_its_alarm_in_a_rehearsal_too(rehearsal: DsProject) -> None:
    rehearsal.ds("setup", timeout=60)
    rehearsal.ds("submit", rehearsal.jobs(groups(4, seconds=60.0)), timeout=60)
    rehearsal.ds("start", timeout=60)
    until(lambda: rehearsal.status()["machines"]["running"], "a machine", 60)
    command = [sys.executable, "-c", AN_HOUR_LATER, rehearsal.folder]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    (machine,) = [line.partition(":")[0] for line in said.splitlines() if "its worker is silent" in line]
    alarms = Emulator.of(rehearsal).client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert [each["AlarmName"].rpartition(".")[2] for each in alarms] == [machine]
    assert "clean" in rehearsal.ds("cleanup", "--yes", timeout=120).stderr


def test_faults_are_for_rehearsals(project: DsProject) -> None:
    project.config(COMMAND="true")
    refused = project.ds("run", project.jobs([{"n": 1}]), "--faults", "rough-day", code=2)

    assert "only a rehearsal goes wrong on request" in refused.stderr


def test_a_worker_of_the_images_own_is_not_waited_for_where_no_container_can_have_it(
    rehearsal: DsProject,
) -> None:
    rehearsal.config(
        ENGINE="rehearsal", DOCKERHUB_TAG="lab/image:1", CONTAINERS=False, SSH_KEY_NAME="your-key-file.pem"
    )
    found = rehearsal.ds("run", rehearsal.jobs([{"n": 1}]), code=1)
    assert "the worker in the image runs in a container only" in found.stderr
    assert "fix: give COMMAND" in found.stderr
    assert "note: SSH_KEY_NAME is a placeholder" in found.stderr


def test_a_run_that_has_spent_its_budget_goes_on_when_it_is_raised(rehearsal: DsProject) -> None:
    config = rehearsal.folder / "config.py"
    config.write_text(config.read_text() + "BUDGET_USD = 0.003\n")  # a minute of two machines costs more
    jobs = rehearsal.jobs(groups(60, seconds=0.5))
    spent = rehearsal.ds("run", "--faults", "notice=4/min", jobs, code=1, timeout=120)
    assert "2 machines at $0.10 an hour each: $0.20 an hour at most" in spent.stderr
    assert "the budget is spent" in spent.stderr
    assert "fix: ds start --budget +5, then ds monitor" in spent.stderr
    status = rehearsal.status()
    assert status["budget"]["share"] > 1
    assert status["jobs"]["waiting"] > 0 and status["machines"]["running"] == 0

    assert "no machines were asked for" in rehearsal.ds("start", code=1).stderr
    rehearsal.ds("start", "--budget", "+5")
    assert "60 succeeded" in rehearsal.ds("monitor", timeout=120).stdout
    check(rehearsal, 60)


def test_a_bad_machine_is_replaced_and_charges_no_job(rehearsal: DsProject) -> None:
    config = rehearsal.folder / "config.py"
    end = "code=$?; test $code != 127 || exit 9; test $code = 0 || exit 1; echo {n} > {output_dir}/{n}.txt"
    command = f"sh -c 'sleep {{seconds}}; exit {{code}}'; {end}"  # without sh, jobs fail and are tried again
    config.write_text(f"{config.read_text()}COMMAND = {command!r}\nJOB_RETRIES = 4\n")
    faults = Faults(broken=0.4)
    fits = (n for n in range(99) if [fate(faults._replace(seed=n), m).works for m in (1, 2, 3)] == [1, 0, 1])
    jobs, options = rehearsal.jobs(groups(40, seconds=0.3, bad=(7,))), f"broken=40%,seed={next(fits)}"
    rehearsal.ds("run", "--every", "2", "--faults", options, jobs, code=3, timeout=180)
    dead = [(each["index"], each["attempts"]) for each in rehearsal.job_lines() if each["state"] == "dead"]
    assert dead == [(7, 4)] and rehearsal.status()["jobs"]["succeeded"] == 39
    (bad,) = rehearsal.status()["excluded"]
    assert "in a row failed there (exit 9)" in bad["why"]
    story = json.loads(next(rehearsal.folder.glob("data/runs/*/*/rehearsal.json")).read_text())
    assert story["machines"] == 3 and story["lost"] == []


def test_machines_on_demand_come_where_spot_does_not(rehearsal: DsProject) -> None:
    config = rehearsal.folder / "config.py"
    config.write_text(config.read_text() + "ON_DEMAND_AFTER = 0.05\n")
    jobs = rehearsal.jobs(groups(40, seconds=0.5))
    run = rehearsal.ds("run", "--every", "1", "--faults", "capacity=1", jobs, timeout=120)
    assert "no new machine for 0.05 minutes: 1 machine of 2 asked for on demand" in run.stderr
    assert "2 machines at $0.10 to $0.30 an hour each" in run.stderr
    check(rehearsal, 40)
    record = json.loads(next(rehearsal.folder.glob("files/*SpotFleetRequestId.json")).read_text())
    assert [each.partition(" ")[2] for each in record["tried"]] == [
        "2 machines: m5.large", "no new machine for 0.05 minutes: 1 machine of 2 asked for on demand",
    ]  # fmt: skip
    assert rehearsal.status()["cost_usd"] == pytest.approx(0.1 / 60 + 0.3 / 60, abs=0.005)
