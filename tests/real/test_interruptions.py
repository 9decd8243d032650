"""Notices and kills while real workers run real jobs, against the emulator and a pretend metadata service."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conftest import until
from distributed_something.runs.joblog import read_log
from metadata import MetadataServer, metadata_server
from tasks import Run, ends, new_run, worker

pytestmark = pytest.mark.real


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def at_work(run: Run, folder: Path) -> Iterator[tuple[subprocess.Popen[str], MetadataServer]]:
    """A worker that has begun a job, on a machine with a metadata service."""
    with metadata_server() as server:
        metadata = {
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint,
        }
        with worker(run, folder, **metadata) as process:
            until(lambda: run.events("started"), "the job to start")
            yield process, server


@pytest.mark.fault(17, 26)
def test_after_a_notice_the_job_is_back_within_seconds_uncounted_with_its_log(tmp_path: Path) -> None:
    run = new_run([{"n": 1}], COMMAND="echo half; sleep 600; echo whole")
    with at_work(run, tmp_path) as (process, server):
        noticed = time.monotonic()
        server.values["spot/instance-action"] = json.dumps({"action": "terminate", "time": in_seconds(120)})
        (lease,) = run.queue.lease(1, 20)
        assert time.monotonic() - noticed < 10  # 3 to 4 where the machine has nothing else to do
        code, said = ends(process)
    assert code == 0, said
    assert lease.attempt == 1
    (event,) = run.events("interrupted")
    assert (event["cause"], event["machine"]) == ("interrupted", "i-0123456789abcdef0")
    assert read_log(run.store, run.paths, event["log"]).startswith(b"half\n")
    assert "spot interruption" in said


@pytest.mark.fault(26)
def test_what_can_finish_before_the_machine_goes_does(tmp_path: Path) -> None:
    run = new_run([{"n": 1}, {"n": 2}, {"n": 3}], COMMAND="sleep 4")
    with at_work(run, tmp_path) as (process, server):
        until(lambda: len(run.events("started")) == 2, "a second job, when it is known how long one takes")
        server.values["spot/instance-action"] = json.dumps({"time": in_seconds(60)})
        assert ends(process)[0] == 0
    assert len(run.events("succeeded")) == 2
    assert run.events("interrupted") == []
    until(lambda: run.queue.counts().waiting == 1, "the third job to wait")


@pytest.mark.fault(26)
def test_after_a_recommendation_no_job_is_leased_and_the_running_one_finishes(tmp_path: Path) -> None:
    run = new_run([{"n": 1}, {"n": 2}], COMMAND="sleep 9")
    with at_work(run, tmp_path) as (process, server):
        server.values["events/recommendations/rebalance"] = json.dumps({"noticeTime": in_seconds(0)})
        until(lambda: run.events("succeeded"), "the job to finish")
        time.sleep(1)
        assert process.poll() is None
        (lease,) = run.queue.lease(1, 5)
    assert len(run.events("started")) == 1
    assert lease.attempt == 1
