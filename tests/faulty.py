"""A proxy before the emulator: it writes down every call, and refuses those that a test chooses."""

from __future__ import annotations

import http.client
import io
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from botocore.session import Session

from distributed_something.rehearsal.cloud.calls import Called, called_of, refusal, worded

REST = frozenset({"lambda", "scheduler"})
"""Services whose requests do not name their action."""

RESET = "reset"
"""The connection ends without an answer."""

_DENIED = {
    "ec2": ("403 Forbidden", "UnauthorizedOperation"),
    "s3": ("403 Forbidden", "AccessDenied"),
    "sqs": ("403 Forbidden", "AccessDenied"),
    "iam": ("403 Forbidden", "AccessDenied"),
    "sts": ("403 Forbidden", "AccessDenied"),
    "monitoring": ("403 Forbidden", "AccessDenied"),
}
_EXPIRED = {"ec2": ("400 Bad Request", "RequestExpired"), "s3": ("400 Bad Request", "ExpiredToken")}


@cache
def _rest_actions(service: str) -> list[tuple[str, re.Pattern[str], str]]:
    model = Session().get_service_model(service)
    found = [(name, model.operation_model(name).http) for name in model.operation_names]
    found.sort(key=lambda each: each[1]["requestUri"].count("{"))  # a word before a parameter
    return [
        (
            http["method"],
            re.compile(
                re.sub(
                    r"\\{\w+(\\\+)?\\}", "[^/]+", re.escape(http["requestUri"].partition("?")[0].rstrip("/"))
                )
            ),
            name,
        )
        for name, http in found
    ]


def rest_action(service: str, method: str, path: str) -> str:
    """Returns the action of a request, as the service's model has it."""
    path = path.partition("?")[0].rstrip("/")
    for verb, pattern, name in _rest_actions(service):
        if verb == method and pattern.fullmatch(path):
            return name
    raise LookupError(f"{service} has no {method} {path}")


def _refused(called: Called, fault: str) -> Any:
    if fault == "denied":
        status, code = _DENIED.get(called.service, ("400 Bad Request", "AccessDeniedException"))
        return worded(called, status, code, f"not authorized to perform {called.service}:{called.action}")
    if fault == "expired":
        status, code = _EXPIRED.get(called.service, ("400 Bad Request", "ExpiredTokenException"))
        return worded(called, status, code, "The security token included in the request is expired")
    if fault == "timeout":
        return worded(called, "504 Gateway Timeout", "504", "the other side did not answer in time")
    return refusal(called, fault)


class FaultyWay:
    """What lies between the engine and the emulator. `fault` says what befalls a call, by its name
    ("ec2.RunInstances"), which one of that name it is, and which of all; None: nothing."""

    def __init__(self, endpoint: str) -> None:
        self.seen: list[str] = []
        self.hit = 0
        self.fault: Callable[[str, int, int], str | None] = lambda *_: None
        self._there = urlsplit(endpoint)
        self._types: dict[bytes, Any] = {}
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.endpoint = ""

    def befalls(self, called: Called) -> str | None:
        """Write a call down; what befalls it."""
        name = f"{called.service}.{called.action}"
        with self._lock:
            self.seen.append(name)
            self._counts[name] += 1
            fault = self.fault(name, self._counts[name], len(self.seen))
            self.hit += fault is not None
            return fault

    def again(self, fault: Callable[[str, int, int], str | None] = lambda *_: None) -> None:
        """Count from one again, with another fault."""
        with self._lock:
            self.seen, self.hit, self.fault = [], 0, fault
            self._counts.clear()

    def there(self) -> http.client.HTTPConnection:
        """A connection to the emulator."""
        assert self._there.hostname is not None
        return http.client.HTTPConnection(self._there.hostname, self._there.port, timeout=60)

    def answer(
        self, there: http.client.HTTPConnection, called: Called | None, asked: tuple[str, str, Any, bytes]
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        """The emulator's answer. What machine types there are it is asked once: that takes it seconds."""
        method, path, headers, body = asked
        if body in self._types:
            return self._types[body]  # type: ignore[no-any-return]
        kept = {name: value for name, value in headers.items() if name.lower() not in _HOPS}
        there.request(method, path, body or None, kept)
        answer = there.getresponse()
        found = f"{answer.status} {answer.reason}", answer.getheaders(), answer.read()
        if called is not None and called.action == "DescribeInstanceTypes":
            self._types[body] = found
        return found


_MODIFIED = b"<ModifyFleetResponse><return>true</return></ModifyFleetResponse>"
_HOPS = frozenset({"connection", "content-length", "expect", "transfer-encoding"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    way: FaultyWay

    def handle(self) -> None:
        """The calls of one connection: to the emulator, too, they go by one."""
        with closing(self.way.there()) as self._there:
            super().handle()

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        called = called_of(self._environ(body))
        if called is not None and called.service in REST:
            called = called._replace(action=rest_action(called.service, self.command, self.path))
        fault = self.way.befalls(called) if called is not None else None
        if called is not None and fault is None and called.action == "ModifyFleet":
            self._send("200 OK", [("Content-Type", "text/xml")], _MODIFIED)  # moto does without
        elif called is None or fault is None:
            asked = self.command, self.path, self.headers, body
            self._send(*self.way.answer(self._there, called, asked))
        elif fault == RESET:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        else:
            refused = _refused(called, fault)
            self._send(refused.status, refused.headers, refused.body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815  the names that http.server calls

    def _environ(self, body: bytes) -> dict[str, Any]:
        path, _, query = self.path.partition("?")
        return {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()},
        }

    def _send(self, status: str, headers: Any, body: bytes) -> None:
        code, _, reason = status.partition(" ")
        self.send_response_only(int(code), reason)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in _HOPS:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def faulty_way(endpoint: str) -> Iterator[FaultyWay]:
    """A proxy to `endpoint` on this machine, as long as the context lasts."""
    way = FaultyWay(endpoint)
    handler = type("Handler", (_Handler,), {"way": way})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    way.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield way
    finally:
        server.shutdown()
        server.server_close()
