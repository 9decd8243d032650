"""The same run on two emulators that have nothing in common: what is right by one of them only, is it right?

Machines are left out, as ministack has none for a cluster: workers are started by the test, and killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import services
from conftest import DsProject, until
from distributed_something.worker.attempt.process import kill_marked
from emulating import emulator
from pretending import require
from rehearsing import Emulator, check_counts, check_files, queues

BUCKET = "bucket-of-a-test"
COUNT = 120
DEAD = {"7": "exit", "77": "exit"}


@pytest.fixture(params=["moto", "ministack"])
def account(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Emulator]:
    """An emulator of the test's own, with a bucket."""
    require()
    with ExitStack() as running:
        if request.param == "moto":
            found = Emulator(running.enter_context(emulator()))
        else:
            servers = running.enter_context(services.Servers(tmp_path / "servers"))
            found = Emulator(servers.get("ministack").endpoint)
        found.client("s3").create_bucket(Bucket=BUCKET)
        yield found


@contextmanager
def worker(environment: dict[str, str], scratch: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`ds worker` as a task has it; it is killed at the end, with all that its jobs left running."""
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed_something", "worker"],
        env={**environment, "DS_SCRATCH": str(scratch)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        kill_marked(os.fsencode(f"DS_SCRATCH={scratch}\0"))


def keys(account: Emulator, prefix: str) -> list[str]:
    """Those of the bucket's objects."""
    pages = account.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [each["Key"] for page in pages for each in page.get("Contents", ())]


def fetched(account: Emulator, folder: Path) -> Path:
    """The bucket's objects as files."""
    for key in keys(account, ""):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(account.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read())
    return folder


@pytest.mark.fault(17)
def test_a_run_whose_workers_are_killed_comes_to_the_same_end(
    account: Emulator, project: DsProject, tmp_path: Path
) -> None:
    project.environment |= account.environment
    project.config(
        ENGINE="aws",
        AWS_BUCKET=BUCKET,
        AWS_REGION="us-east-1",
        DOCKERHUB_TAG="user/image",
        MACHINE_TYPE=["m5.large"],
        COMMAND="sleep 0.1; echo {n} > {output_dir}/n.txt; exit {code}",
        OUTPUT="out/{n}",
        SQS_MESSAGE_VISIBILITY=6,
        JOB_RETRIES=2,
    )
    jobs = project.jobs({"n": n, "code": int(str(n) in DEAD)} for n in range(COUNT))
    project.ds("account", "setup", "--yes", timeout=120)
    project.ds("setup")
    project.ds("submit", jobs)
    again = project.ds("submit", jobs)
    task: dict[str, str] = {
        **project.environment,
        "APP_NAME": "App",
        "AWS_BUCKET": BUCKET,
        "AWS_REGION": "us-east-1",
        "DOCKER_CORES": "2",
        "DS_RUN": project.status()["run"],
        "LOG_GROUP_NAME": "App",
        "SECONDS_TO_START": "0",
        "SQS_QUEUE_URL": account.client("sqs").get_queue_url(QueueName="AppQueue")["QueueUrl"],
    }

    def finished() -> int:
        return sum("/.ds/" in key for key in keys(account, "out/"))

    with worker(task, tmp_path / "1") as lost, worker(task, tmp_path / "2") as told:
        until(lambda: finished() >= 10, "the first jobs", 120)
        lost.kill()
        told.send_signal(signal.SIGTERM)
        assert told.wait(60) == 0
        done = finished()
    with worker(task, tmp_path / "3"):
        until(lambda: finished() == COUNT - len(DEAD), "all jobs", 120)
        until(lambda: account.messages() == queues("App", dead=len(DEAD)), "dead jobs", 60)

    assert done < COUNT - len(DEAD), "nothing was left for those that came after"
    assert f"0 jobs submitted; {COUNT} were in the run already" in again.stderr
    check_files(fetched(account, tmp_path / "bucket"), "out", "n", COUNT, DEAD)
    check_counts(project, COUNT, len(DEAD))
