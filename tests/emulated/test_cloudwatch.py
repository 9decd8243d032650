"""Lines for CloudWatch: none is lost while it is up, and nobody waits or fails while it is not."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import until
from distributed_something.aws.watch import cloudwatch
from distributed_something.aws.watch.cloudwatch import (
    BATCH_BYTES,
    BATCH_LINES,
    CloudWatch,
    LineBuffer,
    Stream,
)
from distributed_something.aws.watch.reporting import JobLines, MachineReport
from distributed_something.clock import SystemClock
from distributed_something.s3.session import AwsSession
from distributed_something.system.usage import Figures, Gauge
from distributed_something.testing import FakeClock
from emulating import REGION, session
from tasks import Run, ends, new_run, until_done, worker

STREAM = Stream("group", "stream")


@pytest.fixture
def run() -> Run:
    return new_run([])


@pytest.fixture
def stalling() -> Iterator[str]:
    """A server that takes connections and requests, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(listener.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    for connection in taken:
        connection.close()


def test_no_line_is_lost_or_out_of_order_while_it_is_up(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    sender = CloudWatch(session(), SystemClock())
    sender.start()
    names = [uuid.uuid4().hex[:16] for _ in range(4)]

    def print_lines(name: str) -> None:
        lines = JobLines(sender, run.app, f"w-{name}")
        lines.begin(name, 1)
        text = b"".join(b"%s line %d\n" % (name.encode(), number) for number in range(6000))
        while text:  # as reads of a pipe cut it
            cut = random.randrange(1, 5000)
            lines(text[:cut])
            text = text[cut:]
        lines(b"the last has no end")
        lines.end()

    threads = [threading.Thread(target=print_lines, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sender.close(30)
    for name in names:
        printed = [f"{name} line {number}" for number in range(6000)]
        expected = ["[ds] attempt 1", *printed, "the last has no end"]
        assert run.lines(f"w-{name}") == [f"{name} {line}" for line in expected]
    assert capfd.readouterr().err == ""


def test_lines_of_every_kind_arrive(run: Run) -> None:
    sender = CloudWatch(session(), SystemClock())
    sender.start()
    lines = JobLines(sender, run.app, "w1")
    lines.begin("job", 2)
    lines(b"\nwindows\r\n\xff\xfe not UTF-8\n" + b"x" * 200_000 + b"\n")
    lines.begin("silent", 1)
    lines.end()
    sender.close(30)
    head, empty, windows, binary, *long = run.lines("w1")
    assert (head, empty, windows) == ("job [ds] attempt 2", "job ", "job windows")
    assert binary == "job \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} not UTF-8"
    assert "".join(long) == "job " + "x" * 200_000 and len(long) == 3


def test_a_group_that_is_missing_is_told_once_and_lines_wait_for_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    group, sender = f"late-{uuid.uuid4().hex}", CloudWatch(session(), SystemClock())
    sender.start()
    sender.add(Stream(group, "s"), b"early")
    said = ""

    def told() -> str:
        nonlocal said
        said += capfd.readouterr().err
        return said

    until(told, "a message")
    session().client("logs").create_log_group(logGroupName=group)
    sender.close(20)
    assert told().count("\n") == 1 and "CloudWatch does not take lines now" in said
    events = session().client("logs").get_log_events(logGroupName=group, logStreamName="s")["events"]
    assert [event["message"] for event in events] == ["early"]


def test_who_adds_never_waits_and_what_is_dropped_is_told(
    stalling: str, capfd: pytest.CaptureFixture[str]
) -> None:
    session()  # credentials
    sender = CloudWatch(AwsSession(REGION, endpoint=stalling), SystemClock(), LineBuffer(100_000))
    sender.start()
    began = time.monotonic()
    for number in range(1000):
        sender.add(STREAM, b"%0750d" % number)
    assert time.monotonic() - began < 1
    time.sleep(0.1)
    sender.close(0.5)
    assert time.monotonic() - began < 4
    assert "CloudWatch: 1,000 lines were not sent" in capfd.readouterr().err


@pytest.mark.real
def test_a_job_runs_as_ever_while_cloudwatch_stalls(stalling: str, tmp_path: Path) -> None:
    run = new_run([{"n": 1}], COMMAND="seq 20000")
    began = time.monotonic()
    with worker(run, tmp_path, AWS_ENDPOINT_URL_CLOUDWATCH_LOGS=stalling) as process:
        until_done(run, 1)
        took = time.monotonic() - began
        process.terminate()
        code, said = ends(process, 40)
    assert code == 0 and took < 10
    assert run.events("succeeded")[0]["seconds"] < 3
    assert "lines were not sent; the bucket has all logs" in said


@pytest.mark.real
def test_a_task_tells_cloudwatch_what_its_jobs_print_and_how_its_machine_is(tmp_path: Path) -> None:
    run = new_run([{"n": 1}], COMMAND="echo begun; sleep 600")
    with worker(run, tmp_path) as process:
        (job,) = run.jobs
        (name,) = until_streams(run)
        until(lambda: f"{job.id} begun" in run.lines(name), "the line, while the job runs", 30)
        process.terminate()
        process.send_signal(2)
        assert ends(process)[0] == 0
    logs = session().client("logs")
    (stream,) = logs.describe_log_streams(logGroupName=f"{run.app}_perInstance")["logStreams"]
    figures = json.loads(run.lines(stream["logStreamName"], f"{run.app}_perInstance")[0])
    assert 0 < figures["disk_percent"] < 100 and 0 < figures["memory_percent"] <= 100


def streams(run: Run) -> list[str]:
    found = session().client("logs").describe_log_streams(logGroupName=run.app)["logStreams"]
    return [each["logStreamName"] for each in found]


def until_streams(run: Run) -> list[str]:
    until(lambda: streams(run), "a stream", 30)
    return streams(run)


def test_without_a_log_group_nothing_is_sent(tmp_path: Path) -> None:
    run = new_run([{"n": 1}], COMMAND="echo begun")
    with worker(run, tmp_path, LOG_GROUP_NAME="") as process:
        until_done(run, 1)
        process.terminate()
        assert ends(process)[0] == 0
    assert streams(run) == []


# What a call carries


def test_a_call_keeps_within_the_limits_of_lines_and_bytes() -> None:
    buffer = LineBuffer(1 << 30)
    for number in range(25_000):
        buffer.add(STREAM, b"%d" % number, 0.0)
    for _ in range(30):
        buffer.add(Stream("group", "large"), b"x" * 70_000, 0.0)
    batches = []
    while batch := buffer.take(1.0):
        batches.append(batch)
    assert [len(lines) for _, lines in batches] == [10_000, 10_000, 5_000, 14, 14, 2]
    assert max(len(lines) for _, lines in batches) <= BATCH_LINES
    assert all(sum(line.size for line in lines) <= BATCH_BYTES for _, lines in batches)
    assert [line.text for _, lines in batches[:3] for line in lines] == [str(n) for n in range(25_000)]


def test_lines_wait_for_others_and_a_call_that_failed_is_the_next() -> None:
    buffer = LineBuffer()
    buffer.add(STREAM, b"a", 10.0)
    buffer.add(Stream("group", "other"), b"c", 10.5)
    assert buffer.take(9.0) is None
    taken = buffer.take(10.0)
    assert taken is not None
    buffer.add(STREAM, b"b", 9.5)  # the clock went back
    buffer.put_back(*taken)
    again = buffer.take(0.0)
    assert again is not None and [line.text for line in again[1]] == ["a", "b"]
    assert buffer.take(10.0) is None and buffer.take_dropped() == 0


def test_times_never_go_back_within_a_stream() -> None:
    buffer = LineBuffer()
    for now in (10.0, 9.0, 11.0):
        buffer.add(STREAM, b"x", now)
    taken = buffer.take(20.0)
    assert taken is not None and [line.when for line in taken[1]] == [10_000, 10_000, 11_000]


def test_what_cloudwatch_refuses_is_counted() -> None:
    refused = cloudwatch._refused
    assert refused({}, 10) == 0
    assert refused({"tooOldLogEventEndIndex": 3, "expiredLogEventEndIndex": 2}, 10) == 3
    assert refused({"tooNewLogEventStartIndex": 8}, 10) == 2


# The machine


class FakeGauge(Gauge):
    figures = Figures(0.5, 10**10, 0.5, 10**9, None)

    def read(self) -> Figures:
        return self.figures


def test_a_full_disk_is_told_when_it_comes_up_and_again_later(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clock, gauge = FakeClock(), FakeGauge(Path("/scratch"))
    report = MachineReport(CloudWatch(session(), clock), STREAM, gauge, clock)

    def said() -> str:
        report.look()
        clock.advance(60)
        return capfd.readouterr().err

    assert said() == ""
    gauge.figures = Figures(0.95, 1_200_000_000, 0.97, 100_000_000, 0.1)
    first = said()
    assert "disk of /scratch 95% full (1.2 GB left)" in first and "memory 97% used" in first
    assert [bool(said()) for _ in range(20)] == [False] * 14 + [True] + [False] * 5
    gauge.figures = FakeGauge.figures
    assert said() == ""


def test_the_gauge_reads_a_container_s_memory_and_the_processors(tmp_path: Path) -> None:
    for name, text in {
        "sys/fs/cgroup/memory.max": "1000",
        "sys/fs/cgroup/memory.current": "900",
        "sys/fs/cgroup/memory.stat": "anon 100\ninactive_file 300\n",
        "proc/stat": "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    gauge = Gauge(tmp_path, root=tmp_path)
    (tmp_path / "proc/stat").write_text("cpu  150 0 100 850 0 0 0 0 0 0\n")
    figures = gauge.read()
    assert (figures.memory, figures.memory_free, figures.cpu) == (0.6, 400, 0.5)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: 25 kB\n")
    assert gauge.read().memory == 0.75
