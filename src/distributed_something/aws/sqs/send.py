"""Sending jobs to SQS fast: full batches over a few connections that are kept busy.

A call through boto3 costs more than a millisecond of processor time; the signature is the smallest part. So
botocore does what must not be home-made (credentials and their renewal, signatures, endpoints, errors), and
http.client of the standard library sends. Used by `queue.py` for `put`.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import socket
import ssl
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import md5, sha256
from itertools import count
from json.encoder import encode_basestring_ascii as quote
from queue import SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from ...clock import Clock
from ...errors import DsError
from ...s3.session import CONNECT_SECONDS, PATIENCE_SECONDS, SLOW_DOWN, AwsSession, aws_errors
from .channel import passing, reason

PAUSE_FIRST = 0.1
PAUSE_LAST = 10.0
"""Bounds of the pause before a failed call is repeated, in seconds; it doubles each time, with jitter."""


_LINE_LIMIT = 65_536
_HASH_LENGTH = 64


class Outgoing(NamedTuple):
    """A message to send: `attributes` is the JSON of its message attributes."""

    job_id: str
    body: bytes
    attributes: str


Batch = Sequence[Outgoing]
Refused = list[tuple[str, str]]
"""(job id, reason) of the messages that SQS refuses."""


class Sender:
    """Sends batches to one queue over up to `connections` connections, which stay open between calls.

    A connection that breaks after SQS took a batch has it sent again: delivery is at least once.
    """

    def __init__(self, session: AwsSession, url: str, clock: Clock, connections: int = 64) -> None:
        self._url = url
        self._clock = clock
        self._connections = connections
        self._wire = _Wire(session)
        self._workers = ThreadPoolExecutor(connections, thread_name_prefix="ds-send")
        self._stop = threading.Event()

    def close(self) -> None:
        """Let go of the connections."""
        self._stop.set()
        self._workers.shutdown()
        self._wire.close()

    def send(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Refused]]:
        """Sends batches (at most ten messages, 1 MiB each). Yields each one when it is stored, with refusals.

        An error of AWS or of `batches` is raised when no call is under way: yielded batches are stored, the
        state of the others is unknown.
        """
        source, ended = iter(batches), SimpleQueue[Future[tuple[Batch, Refused]]]()
        under_way, error = 0, None
        self._stop.clear()
        more = True
        while more or under_way:
            if more and under_way < 2 * self._connections:
                try:
                    batch = next(source, None)
                except BaseException as broken:  # noqa: BLE001  it is raised below
                    batch, error = None, broken
                more = batch is not None
                if batch is not None:
                    self._workers.submit(self._deliver, batch).add_done_callback(ended.put)
                    under_way += 1
                continue
            under_way -= 1
            try:
                yield ended.get().result()
            except Exception as broken:  # noqa: BLE001
                more, error = False, error or broken
                self._stop.set()
        if error is not None:
            raise error

    def _deliver(self, batch: Batch) -> tuple[Batch, Refused]:
        """Sends until each message is stored or refused. Raises DsError when its patience ends."""
        left, refused, began = batch, Refused(), self._clock.monotonic()
        for number in count(1):
            passing_error: Passing | None = None
            try:
                left, no = self._attempt(left)
                refused += no
            except Passing as error:
                passing_error = error
            pause = min(PAUSE_FIRST * 2**number, PAUSE_LAST) * random.uniform(0.5, 1.0)  # noqa: S311
            late = self._clock.monotonic() + pause > began + PATIENCE_SECONDS
            if not left or late or self._stop.is_set():
                break
            self._clock.wait(pause, self._stop)
        if passing_error is not None:
            what = f"sending jobs to {self._url}: {passing_error}"
            raise DsError(what, "check the network, then submit again") from passing_error
        return batch, refused + [(each.job_id, "SQS did not store it, try after try") for each in left]

    def _attempt(self, batch: Batch) -> tuple[Batch, Refused]:
        """Send once: (what to send again, what is refused)."""
        answer = self._wire.post("SendMessageBatch", _document(self._url, batch))
        again = []
        refused = Refused()
        for failed in answer.get("Failed") or ():
            message = batch[int(failed["Id"])]
            if passing(failed):
                again.append(message)
            else:
                refused.append((message.job_id, reason(failed)))
        for stored in answer.get("Successful") or ():
            message = batch[int(stored["Id"])]
            if stored["MD5OfMessageBody"] != md5(message.body, usedforsecurity=False).hexdigest():
                refused.append((message.job_id, "SQS stored something else than was sent"))
        return again, refused


class Passing(Exception):
    """A call failed, and may succeed when it is repeated."""


class _Wire:
    """Signed calls to SQS over connections that are kept open. Threads may share it."""

    def __init__(self, session: AwsSession) -> None:
        url: str = session.client("sqs").meta.endpoint_url
        endpoint = urlsplit(url)
        self._signer = _Signer(session, url)
        self._open = _opener(endpoint, session.setting("ca_bundle"))
        self._start = _request_start(endpoint)
        self._idle: deque[_Connection] = deque()

    def close(self) -> None:
        """Close the connections that no call is using."""
        while self._idle:
            self._idle.pop().close()

    def post(self, action: str, body: bytes) -> dict[str, Any]:
        """Makes a call. Raises Passing, or DsError if repeating it would not help."""
        status, answer = self._exchange(self._written(action, body))
        try:
            document = json.loads(answer)
        except (ValueError, RecursionError):
            document = None
        if status == 200 and isinstance(document, dict):
            return document
        raise _error(action, status, document if isinstance(document, dict) else {})

    def _written(self, action: str, body: bytes) -> bytes:
        """The whole signed request."""
        headers = self._signer.headers(action, body)
        return f"{self._start}{headers}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body

    def _exchange(self, request: bytes) -> tuple[int, bytes]:
        """Sends and reads. An idle connection that the server has closed meanwhile is replaced."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._once(self._connect(), request)
            try:
                return self._once(connection, request)
            except _Closed:
                continue

    def _connect(self) -> _Connection:
        with _passing():
            return _Connection(self._open())

    def _once(self, connection: _Connection, request: bytes) -> tuple[int, bytes]:
        try:
            with _passing():
                status, answer = connection.exchange(request)
        except Passing:
            connection.close()
            raise
        if connection.closing:
            connection.close()
        else:
            self._idle.append(connection)
        return status, answer


class _Form(NamedTuple):
    """A request signed by botocore, with the place of the body's hash, so that other bodies can be signed."""

    second: int
    auth: Any
    request: Any
    headers: str
    canonical: str


class _Signer:
    """Signs requests. botocore composes one a second; within that second only the body's hash differs."""

    def __init__(self, session: AwsSession, url: str) -> None:
        self._region = session.region
        self._credentials = session.credentials()
        self._url = url
        self._forms: dict[str, _Form] = {}

    def headers(self, action: str, body: bytes) -> str:
        """The header lines of a call, the signature last."""
        second = int(time.time())
        form = self._forms.get(action)
        if form is None or form.second != second:
            form = self._forms[action] = self._compose(action, second)
        canonical = form.canonical + sha256(body).hexdigest()
        signature = form.auth.signature(form.auth.string_to_sign(form.request, canonical), form.request)
        return f"{form.headers}{signature}\r\n"

    def _compose(self, action: str, second: int) -> _Form:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        with aws_errors("renewing AWS credentials"):
            auth = SigV4Auth(self._credentials.get_frozen_credentials(), "sqs", self._region)
        named = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{action}"}
        request = AWSRequest("POST", self._url, named, b"")
        auth.add_auth(request)
        authorization = request.headers["Authorization"]
        del request.headers["Authorization"]
        headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        return _Form(
            second,
            auth,
            request,
            f"{headers}Authorization: {authorization[:-_HASH_LENGTH]}",
            auth.canonical_request(request)[:-_HASH_LENGTH],
        )


class _Connection:
    """An open connection, for one call at a time.

    http.client opens it, but does not read answers: it parses headers as an email's, which takes as long as
    all the rest of a call. Only the three headers that matter are read here.
    """

    def __init__(self, opened: http.client.HTTPConnection) -> None:
        opened.connect()
        self.closing = False
        self._opened = opened
        self._socket: socket.socket = opened.sock
        self._reader = self._socket.makefile("rb")

    def close(self) -> None:
        """Close it; closing twice is no error."""
        self._reader.close()
        self._opened.close()

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send a request, and read the answer: (status, body). Raises OSError or HTTPException."""
        self._socket.sendall(request)
        line = self._line()
        if not line:
            raise http.client.RemoteDisconnected("the other side closed the connection")
        status, headers = int(line.split(None, 2)[1]), self._headers()
        while status == 100:
            status, headers = int(self._line().split(None, 2)[1]), self._headers()
        self.closing = headers.get(b"connection", b"").lower() == b"close" or line.startswith(b"HTTP/1.0")
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            return status, b"".join(iter(self._chunk, b""))
        return status, self._exactly(int(headers.get(b"content-length", b"0")))

    def _headers(self) -> dict[bytes, bytes]:
        headers = {}
        while line := self._line().strip():
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        return headers

    def _chunk(self) -> bytes:
        size = int(self._line().split(b";")[0], 16)
        chunk = self._exactly(size)
        self._line()
        return chunk

    def _line(self) -> bytes:
        return self._reader.readline(_LINE_LIMIT)

    def _exactly(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise http.client.IncompleteRead(data, size - len(data))
        return data


@contextmanager
def _passing() -> Iterator[None]:
    """Within: errors of the network become Passing. ValueError, IndexError: the answer was not HTTP."""
    try:
        yield
    except ConnectionError as error:
        raise _Closed(str(error) or type(error).__name__) from error
    except (OSError, http.client.HTTPException, ValueError, IndexError) as error:
        raise Passing(str(error) or type(error).__name__) from error


class _Closed(Passing):
    """The server closed the connection."""


def _opener(endpoint: SplitResult, ca_bundle: str | None) -> Callable[[], http.client.HTTPConnection]:
    """Returns what opens connections to an endpoint, with TLS and the environment's proxy as needed."""
    secure, host = endpoint.scheme == "https", endpoint.hostname or ""
    context = _trust(ca_bundle) if secure else None
    proxy = _proxy(endpoint)

    def connection(name: str, port: int | None) -> http.client.HTTPConnection:
        if context is None:
            return http.client.HTTPConnection(name, port, timeout=CONNECT_SECONDS * 3)
        return http.client.HTTPSConnection(name, port, timeout=CONNECT_SECONDS * 3, context=context)

    def direct() -> http.client.HTTPConnection:
        return connection(host, endpoint.port)

    def through_proxy() -> http.client.HTTPConnection:
        assert proxy is not None
        opened = connection(proxy.hostname or "", proxy.port or 80)
        if secure:
            opened.set_tunnel(host, endpoint.port or 443, _proxy_authorization(proxy))
        return opened

    return through_proxy if proxy else direct


def _request_start(endpoint: SplitResult) -> str:
    """The first lines of a request. A proxy without TLS needs the whole URL."""
    proxy = _proxy(endpoint) if endpoint.scheme == "http" else None
    target = endpoint.geturl() if proxy else endpoint.path or "/"
    headers = {"Host": endpoint.netloc.rpartition("@")[2], "User-Agent": "distributed-something"}
    headers |= _proxy_authorization(proxy) if proxy else {}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {target} HTTP/1.1\r\n{lines}"


def _proxy(endpoint: SplitResult) -> SplitResult | None:
    found = urllib.request.getproxies().get(endpoint.scheme)
    if not found or urllib.request.proxy_bypass(endpoint.hostname or ""):
        return None
    return urlsplit(found if "://" in found else f"http://{found}")


def _proxy_authorization(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _trust(ca_bundle: str | None) -> ssl.SSLContext:
    """The certificates that botocore would trust."""
    from botocore.httpsession import get_cert_path

    return ssl.create_default_context(cafile=ca_bundle or get_cert_path(True))


def _document(url: str, batch: Batch) -> bytes:
    entries = ",".join(
        f'{{"Id":"{number}","MessageBody":{quote(each.body.decode())},"MessageAttributes":{each.attributes}}}'
        for number, each in enumerate(batch)
    )
    return f'{{"QueueUrl":{quote(url)},"Entries":[{entries}]}}'.encode()


def _error(action: str, status: int, document: dict[str, Any]) -> Exception:
    """Translates an error answer: to Passing, or to a DsError by way of botocore's error."""
    from botocore.exceptions import ClientError

    code = str(document.get("__type", "")).rsplit("#", 1)[-1]
    message = document.get("message") or document.get("Message") or f"HTTP status {status}"
    if status >= 500 or status in (200, 429) or code in SLOW_DOWN:
        return Passing(f"{message} ({code or status})")
    try:
        with aws_errors("sending jobs"):
            raise ClientError({"Error": {"Code": code or str(status), "Message": str(message)}}, action)
    except DsError as error:
        return error
