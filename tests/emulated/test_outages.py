"""What becomes of a call while a service is away: how long it goes on, and what is told at last."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

import services
from distributed_something.aws.sqs.queue import SqsQueue
from distributed_something.aws.sqs.queues import QueueUrls
from distributed_something.errors import DsError, Unreachable
from distributed_something.job import Job
from distributed_something.s3.session import AwsSession, NoAnswer, aws_errors
from distributed_something.s3.store import S3Store
from distributed_something.testing import FakeClock


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    services.require("moto")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", services.ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", services.SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


class Service:
    """A server that answers every request in the same way (None: never), until the test says otherwise."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.asked = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection.makefile("rb") as lines:
            while lines.readline():
                length = 0
                while line := lines.readline().strip():
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                lines.read(length)
                self.asked += 1
                if self.answer is not None:
                    connection.sendall(self.answer)

    def close(self) -> None:
        for each in (self._listener, *self._connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def service(answer: bytes | None) -> Iterator[Service]:
    serving = Service(answer)
    threading.Thread(target=serving.serve, daemon=True).start()
    try:
        yield serving
    finally:
        serving.close()


def session(away: Service) -> AwsSession:
    return AwsSession("us-east-1", endpoint=away.endpoint)


def answer(status: int, body: bytes, kind: str = "text/xml") -> bytes:
    head = f"HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


IN_XML = answer(503, b"<Error><Code>SlowDown</Code></Error>")
"""As S3 says it, or what stands in front of a service."""


@pytest.mark.parametrize(
    ("name", "call"), [("ec2", "describe_instances"), ("iam", "list_roles"), ("sqs", "list_queues")]
)
def test_an_answer_in_the_words_of_another_service_is_told_in_a_line(name: str, call: str) -> None:
    with service(IN_XML) as away, pytest.raises(Unreachable, match="503") as raised:
        client = session(away).client(name, patience=0.0)
        with aws_errors("looking"):
            getattr(client, call)()
    assert "try again in a minute" in raised.value.fix


EMPTY = answer(200, b"<ListBucketResult></ListBucketResult>")
NOTHING = answer(500, b"")


def test_a_list_of_a_bucket_is_asked_for_again_for_as_long_as_was_said() -> None:
    """By botocore it is given up within 7 seconds, whatever it is told of tries."""
    with service(NOTHING) as away:
        store = S3Store("bucket", session=session(away), retry_seconds=60.0)
        threading.Timer(8.0, lambda: setattr(away, "answer", EMPTY)).start()
        assert [*store.list()] == []


@pytest.mark.parametrize("answered", [NOTHING, None])
def test_a_call_that_fails_again_and_again_is_given_up_soon(answered: bytes | None) -> None:
    """Also where whoever was asked is silent, each time as long as may be."""
    with service(answered) as away, pytest.raises(Unreachable):
        began = time.monotonic()
        client = session(away).client("sqs", read_seconds=0.5, patience=2.0)
        with aws_errors("looking"):
            client.list_queues()
    assert 1 < away.asked < 30
    assert time.monotonic() - began < 15


def test_without_a_network_patience_is_spent_once_and_is_there_again_when_somebody_answers() -> None:
    with service(None) as away:
        aws = AwsSession("us-east-1", endpoint=away.endpoint, patience=3.0)
        sqs = aws.client("sqs", read_seconds=0.3)
        ecs = aws.client("ecs", read_seconds=0.3)

        def ask(call: Callable[[], object]) -> int:
            """How often a call is made before it is given up."""
            before = away.asked
            with pytest.raises(NoAnswer), aws_errors("looking"):
                call()
            return away.asked - before

        assert ask(sqs.list_queues) > 1
        assert ask(ecs.list_clusters) == ask(sqs.list_queues) == 1
        away.answer = answer(200, b"{}", "application/x-amz-json-1.0")
        ecs.list_clusters()
        away.answer = None
        assert ask(sqs.list_queues) > 1


def test_a_person_does_not_wait_for_a_bucket_that_is_silent() -> None:
    with service(None) as away, pytest.raises(Unreachable):
        began = time.monotonic()
        S3Store("bucket", session=session(away), retry_seconds=0.1).read("file")
    assert time.monotonic() - began < 40


ASKING = """
import sys
from distributed_something.s3.session import AwsSession
from distributed_something.s3.store import S3Store
store = S3Store("bucket", session=AwsSession("us-east-1", endpoint=sys.argv[1]))
print("asking", flush=True)
try:
    list(getattr(store, sys.argv[2])(*eval(sys.argv[3])) or ())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(
    ("verb", "arguments"), [("read", ("a",)), ("write", ("a", b"")), ("stat", (["a", "b"],)), ("list", ())]
)
def test_ctrl_c_is_heard_while_a_bucket_is_silent(verb: str, arguments: object) -> None:
    with service(None) as away:
        command = [sys.executable, "-c", ASKING, away.endpoint, verb, repr(arguments)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as asking:
            assert asking.stdout is not None
            asking.stdout.readline()
            while not away.asked:
                assert asking.poll() is None
                time.sleep(0.05)
            time.sleep(0.2)
            began = time.monotonic()
            asking.send_signal(signal.SIGINT)
            assert asking.wait() == 130
    assert time.monotonic() - began < 15


def test_jobs_are_not_sent_again_and_again_where_each_time_takes_long() -> None:
    with service(NOTHING) as away:
        urls = QueueUrls(f"{away.endpoint}/1/jobs", f"{away.endpoint}/1/dead")
        with (
            SqsQueue(session(away), urls, clock=SlowClock(), connections=1) as queue,
            pytest.raises(DsError) as raised,
        ):
            queue.put([Job("0123456789abcdef", 0, b"{}")])
    assert away.asked == 1
    assert "submit again" in raised.value.fix


class SlowClock(FakeClock):
    """A clock by which every call took long: half a minute passes between two looks."""

    def monotonic(self) -> float:
        self.advance(30.0)
        return super().monotonic()
