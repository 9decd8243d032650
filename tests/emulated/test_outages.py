"""What becomes of a call while a service is away: how long it goes on, and what is told at last."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

import services
from distributed_something.aws.session import AwsSession, aws_errors
from distributed_something.errors import Unreachable

REFUSED = "http://127.0.0.1:9"
"""Where nobody listens."""


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
        client = AwsSession("us-east-1", endpoint=away.endpoint).client(name, attempts=1)
        with aws_errors("looking"):
            getattr(client, call)()
    assert "try again in a minute" in raised.value.fix
