"""Counts every call to the pretend account, refuses some on purpose, and passes the others on.

S3 is `objects`, the rest is moto; beside them there are addresses of our own, below /ds/:

    /ds/clock                      the emulator's time (see `clock`)
    /ds/account                    GET: calls, machines, leftovers
    /ds/machines/ID/latest/…       a machine's metadata (IMDSv2: with a token)
    /ds/tasks/ID[/task]            a task's metadata
    /ds/faults                     POST: what goes wrong from here on
    /ds/forget                     POST: count calls from here on
    /ds/end                        POST: end the emulator
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from ..auth import Wsgi
from ..emulator import sqs as moto_sqs
from ..emulator.s3 import Answer, Buckets
from ..faults import Faults, Misfortune, parse_faults
from ..story import ON_DEMAND_FACTOR
from .cloud import Cloud, metadata

_LOCKED = frozenset({"ec2", "ecs"})
_READS = ("Describe", "List", "Get")
_SCOPE = re.compile(r"Credential=[^/]*/[0-9]+/[^/]*/([a-z0-9-]+)/aws4_request")
_ACTION = re.compile(rb"(?:^|&)Action=([A-Za-z0-9]+)")


class Called(NamedTuple):
    """A call: which service's, which action of it, and the protocol in which it is answered."""

    service: str
    action: str
    protocol: str = "xml"


class Calls:
    """A WSGI application: the pretend account."""

    def __init__(self, cloud: Cloud, buckets: Buckets, moto: Wsgi, end: Callable[[], None]) -> None:
        self.counts: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.changed = threading.Event()
        """Set by each call that may have changed what there is."""
        self._cloud = cloud
        self._buckets = buckets
        self._moto = moto
        self._end = end
        self.latest = time.monotonic()
        """When the latest call came."""
        self._misfortune = Misfortune(cloud.faults)
        self._lock = threading.Lock()
        self._tokens: set[str] = set()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        if environ["PATH_INFO"].startswith("/ds/"):
            return self._own(environ).send(environ, start_response)
        called = called_of(environ)
        if called is None:
            return self._moto(environ, start_response)
        if (fault := self._befalls(called)) is not None:
            _drain(environ)
            return refusal(called, fault).send(environ, start_response)
        if called.service == "s3":
            return self._buckets.answer(environ).send(environ, start_response)
        if called.service == "pricing":
            return _json(price_list(self._cloud.registry.price)).send(environ, start_response)
        if called.service not in _LOCKED:
            return self._moto(environ, start_response)
        with self._cloud.lock:
            answer = list(self._moto(environ, start_response))
        if not called.action.startswith(_READS):
            self.changed.set()
        return answer

    def _befalls(self, called: Called) -> str | None:
        with self._lock:
            self.latest = time.monotonic()
            name = f"{called.service}.{called.action}"
            self.counts[name] += 1
            fault = self._misfortune.next()
            if fault is not None:
                self.refused[f"{name} ({fault})"] += 1
            return fault

    def forget(self) -> None:
        """Count from here on."""
        with self._lock:
            self.counts.clear()
            self.refused.clear()

    def set_faults(self, faults: Faults) -> None:
        """Sets the faults from now on; machines that exist keep their fate."""
        with self._cloud.lock, self._lock:
            self._cloud.faults = faults
            self._misfortune = Misfortune(faults)
            moto_sqs.set_lag(faults.seconds(faults.lag))

    def facts(self) -> dict[str, Any]:
        """Returns the machines, fleets and calls, as JSON has them."""
        with self._lock:
            counts = {"calls": dict(self.counts), "refused": dict(self.refused)}
        return counts | self._cloud.facts()

    # Addresses of our own

    def _own(self, environ: dict[str, Any]) -> Answer:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix("/ds/").strip("/")
        what, _, rest = path.partition("/")
        if path == "account":
            return _json(self.facts())
        orders: dict[str, Callable[[], None]] = {
            "faults": lambda: self.set_faults(parse_faults(_drain(environ).decode())),
            "forget": self.forget,
            "end": self._end,
        }
        if path in orders and method == "POST":
            orders[path]()
            return _json({})
        if what == "machines":
            instance_id, _, below = rest.partition("/latest/")
            return self._metadata(method, instance_id, below, environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN"))
        if what == "tasks":
            return self._task(rest.partition("/")[0])
        return _NOWHERE

    def _metadata(self, method: str, instance_id: str, path: str, token: str | None) -> Answer:
        with self._cloud.lock:
            machine = self._cloud.machine(instance_id)
            if machine is None:
                return _NOWHERE
            if path == "api/token":
                return self._new_token() if method == "PUT" else Answer("405 Method Not Allowed")
            if token not in self._tokens:
                return Answer("401 Unauthorized")
            found = metadata(machine, self._cloud.region).get(path.rstrip("/"))
        return _NOWHERE if found is None else Answer("200 OK", _TEXT, found.encode())

    def _new_token(self) -> Answer:
        token = uuid.uuid4().hex
        self._tokens.add(token)
        lives = ("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
        return Answer("200 OK", (*_TEXT, lives), token.encode())

    def _task(self, task_id: str) -> Answer:
        with self._cloud.lock:
            tasks = ((each, task.record) for each in self._cloud.machines for task in each.tasks.values())
            found = next((each for each in tasks if each[1].id == task_id), None)
            if found is None:
                return _NOWHERE
            machine, record = found
            family, _, revision = record.task_definition_arn.rpartition("/")[2].partition(":")
            return _json(
                {
                    "Cluster": record.cluster_name,
                    "TaskARN": record.task_arn,
                    "Family": family,
                    "Revision": revision,
                    "DesiredStatus": record.desired_status,
                    "KnownStatus": record.last_status,
                    "LaunchType": "EC2",
                    "AvailabilityZone": machine.instance.availability_zone,
                }
            )


_TEXT = (("Content-Type", "text/plain"),)
_NOWHERE = Answer("404 Not Found", _TEXT, b"not found")


def price_list(spot: float | None) -> dict[str, list[str]]:
    """Returns AWS's answer about a type's price on demand, as far as it is read."""
    if spot is None:
        return {"PriceList": []}
    price = {"unit": "Hrs", "pricePerUnit": {"USD": f"{spot * ON_DEMAND_FACTOR:.10f}"}}
    return {"PriceList": [json.dumps({"terms": {"OnDemand": {"0": {"priceDimensions": {"0": price}}}}})]}


def _json(value: object) -> Answer:
    return Answer("200 OK", (("Content-Type", "application/json"),), json.dumps(value).encode())


def called_of(environ: dict[str, Any]) -> Called | None:
    """Returns which call a signed request is; None where it is not signed."""
    scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    if scope is None:
        return None
    service, target = scope[1], environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        return Called(service, target.rpartition(".")[2], "json")
    if environ.get("HTTP_SMITHY_PROTOCOL") == _CBOR:
        return Called(service, environ["PATH_INFO"].rpartition("/")[2], "cbor")
    if service == "s3":
        return Called(service, _s3_action(environ))
    body = _drain(environ)
    environ["wsgi.input"] = BytesIO(body)
    action = _ACTION.search(body)
    return Called(service, action[1].decode() if action else environ["REQUEST_METHOD"])


def _s3_action(environ: dict[str, Any]) -> str:
    query = environ.get("QUERY_STRING", "")
    if "list-type=2" in query:
        return "ListObjectsV2"
    if environ["REQUEST_METHOD"] == "POST" and re.search(r"(^|&)delete(=|&|$)", query):
        return "DeleteObjects"
    kind = "Part" if "uploadId=" in query or "uploads" in query else "Object"
    kind = kind if environ["PATH_INFO"].strip("/").count("/") else "Bucket"
    return str(environ["REQUEST_METHOD"]).capitalize() + kind


def _drain(environ: dict[str, Any]) -> bytes:
    """Returns the body, read: what is left in an open connection would be taken for the next request."""
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return body


_THROTTLED = {
    "ec2": ("503 Service Unavailable", "RequestLimitExceeded", "Request limit exceeded."),
    "s3": ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    "sqs": ("400 Bad Request", "RequestThrottled", "Request is throttled."),
}
_ANY_THROTTLED = ("400 Bad Request", "ThrottlingException", "Rate exceeded")
_FAILED = {
    "ec2": ("500 Internal Server Error", "InternalError", "An internal error has occurred."),
    "s3": ("500 Internal Server Error", "InternalError", "We encountered an internal error. Try again."),
    "ecs": ("500 Internal Server Error", "ServerException", "Service Unavailable. Please try again later."),
}
_ANY_FAILED = ("500 Internal Server Error", "InternalFailure", "The request processing has failed.")
_CBOR = "rpc-v2-cbor"


def refusal(called: Called, fault: str) -> Answer:
    """Returns the answer to a call that is throttled, or fails on AWS's side, as this service words it."""
    table, other = (_THROTTLED, _ANY_THROTTLED) if fault == "throttle" else (_FAILED, _ANY_FAILED)
    return worded(called, *table.get(called.service, other))


def worded(called: Called, status: str, code: str, message: str) -> Answer:
    """Returns an error as an answer, in the call's own protocol."""
    if called.protocol == "json":
        facts = json.dumps({"__type": code, "message": message})
        return Answer(status, (("Content-Type", "application/x-amz-json-1.1"),), facts.encode())
    if called.protocol == "cbor":
        headers = (("Content-Type", "application/cbor"), ("smithy-protocol", _CBOR))
        return Answer(status, headers, _cbor({"__type": code, "message": message}))
    error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    if called.service == "s3":
        return Answer(status, _XML, error.encode())
    if called.service == "ec2":
        body = f"<Response><Errors>{error}</Errors><RequestID>0</RequestID></Response>"
        return Answer(status, _XML, body.encode())
    body = f"<ErrorResponse>{error}<RequestId>0</RequestId></ErrorResponse>"
    return Answer(status, _XML, body.encode())


def _cbor(texts: dict[str, str]) -> bytes:
    """Returns a map of a few short texts (RFC 8949)."""
    each = (part.encode() for item in texts.items() for part in item)
    return bytes([0xA0 | len(texts)]) + b"".join(bytes([0x78, len(part)]) + part for part in each)


_XML = (("Content-Type", "text/xml"),)
