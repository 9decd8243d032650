"""Converts jobs to SQS messages, and back. Pure.

The body is the job's body, in the reference's form, so workers built for the reference can read it. Our own
facts travel as message attributes. A message without them (the reference's own submit) is a job too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ..job import NEVER_SHORT, Cause, DeadJob, Earlier, Job

MAX_BYTES = 1 << 20
"""SQS's limit in bytes of a message, and of all messages of one call: bodies and attributes."""

MAX_DETAIL = 2_000
"""Limit in characters of a cause's detail in a dead job's message; the log has the rest."""

JOB, INDEX, RUN, ATTEMPT = "DsJob", "DsIndex", "DsRun", "DsAttempt"
CAUSE, DETAIL = "DsCause", "DsDetail"
EARLIER = "DsEarlier"
CARRIED = "DsCarried"
"""Marks the copy of a job that runs longer than SQS's twelve hours: random text that its holder knows."""

_MAX_DIGITS = 38
"""SQS's limit of a number's digits; Python refuses to read very long ones."""

_NUMBERS = frozenset({INDEX, ATTEMPT})
_REPLACED_FIRST, _REPLACED_LAST = "\ufffe".encode(), "\uffff".encode()

Attributes = Mapping[str, str]


@dataclass(frozen=True)
class Message:
    """A job with the facts that travel beside it. `attempt` is the next one; of a dead job, the last."""

    job: Job
    attempt: int = 1
    run: str = ""
    cause: Cause | None = None
    detail: str = ""
    carried: str = ""
    earlier: Earlier = NEVER_SHORT

    def attributes(self) -> dict[str, str]:
        """The message attributes by name."""
        facts = {
            JOB: self.job.id,
            INDEX: str(self.job.index),
            RUN: self.run,
            ATTEMPT: str(self.attempt),
            CAUSE: self.cause or "",
            DETAIL: json.dumps(self.detail[:MAX_DETAIL]) if self.cause else "",  # control characters, escaped
            CARRIED: self.carried,
            EARLIER: self.earlier.to_text(),
        }
        return {name: value for name, value in facts.items() if value}

    def entry(self, number: int, delay: float = 0.0) -> dict[str, Any]:
        """An entry of SendMessageBatch. The detail is left out if the message would be too large."""
        facts = self.attributes()
        if size(self.job.body, facts) > MAX_BYTES:
            facts.pop(DETAIL, None)
        return {
            "Id": str(number),
            "MessageBody": self.job.body.decode(),
            "DelaySeconds": whole_seconds(delay),
            "MessageAttributes": {
                name: {"DataType": data_type(name), "StringValue": value} for name, value in facts.items()
            },
        }

    def dead_job(self) -> DeadJob:
        """Converts to a dead job. SQS itself moved one without a cause, after its last receipt."""
        if self.cause is not None:
            return DeadJob(self.job, self.attempt, self.cause, self.detail)
        detail = "handed out as often as its queue allows, and no outcome ever came back"
        return DeadJob(self.job, self.attempt, Cause.WORKER_LOST, detail)


class NotAJob(ValueError):
    """The body of a message is no job. The text says why."""


def parse(received: Mapping[str, Any], *, dead: bool = False) -> Message:
    """Reads the job in a received message. Raises NotAJob if the body is not a JSON object.

    A message of the `dead` queue may have any body: that may be why it is there.
    """
    facts = {name: str(value.get("StringValue", "")) for name, value in _attributes(received).items()}
    body: bytes = received["Body"].encode()
    if not dead or JOB not in facts:
        try:
            canonical = _canonical(body)
        except NotAJob:
            if not dead:
                raise
            canonical = body
        body = body if JOB in facts else canonical
    return Message(
        Job(facts.get(JOB) or sha256(body).hexdigest()[:16], _number(facts.get(INDEX), 0), body),
        _number(facts.get(ATTEMPT), 1),
        facts.get(RUN, ""),
        _cause(facts.get(CAUSE)),
        _detail(facts.get(DETAIL)),
        facts.get(CARRIED, ""),
        Earlier.from_text(facts.get(EARLIER)),
    )


def poison(received: Mapping[str, Any], why: NotAJob) -> Message:
    """Converts a message that is no job to a dead one, which keeps its text."""
    body = str(received["Body"]).encode()
    job = Job(sha256(body).hexdigest()[:16], 0, body)
    return Message(job, cause=Cause.INPUT_MISSING, detail=f"the message is no job: {why}")


def unsendable(body: bytes, overhead: int) -> str | None:
    """Why SQS would refuse or change a body with `overhead` bytes of attributes; None: it takes it."""
    size_now = len(body) + overhead
    if size_now > MAX_BYTES:
        return f"it has {size_now:,} bytes, and SQS takes no more than {MAX_BYTES:,}"
    if _REPLACED_FIRST in body or _REPLACED_LAST in body:
        return "it holds U+FFFE or U+FFFF, which SQS replaces"
    return None


def size(body: bytes, attributes: Attributes) -> int:
    """Size of a message in bytes, as SQS counts it."""
    return len(body) + sum(
        len(name) + len(data_type(name)) + len(value.encode()) for name, value in attributes.items()
    )


def job_room() -> int:
    """Maximum job body in bytes: it leaves room for all facts of a failed job that is sent again."""
    job = Job("0" * 16, 10**18, b"")
    most = Message(job, attempt=10**6, run="r" * 64, carried="c" * 16, earlier=Earlier(10**5, 10**5))
    return MAX_BYTES - size(b"", most.attributes())


def data_type(name: str) -> str:
    """The data type of one of our attributes."""
    return "Number" if name in _NUMBERS else "String"


def whole_seconds(seconds: float) -> int:
    """Rounds up to whole seconds, as SQS needs them."""
    return -int(-seconds // 1)


def _attributes(received: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes: Mapping[str, Any] = received.get("MessageAttributes") or {}
    return attributes


def _canonical(body: bytes) -> bytes:
    """The body in the form that our submit gives it, so that the job's id is the same."""
    import msgspec

    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise NotAJob(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise NotAJob("not a JSON object")
    return msgspec.json.encode(document, order="deterministic")


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() and len(text) <= _MAX_DIGITS else default


def _cause(text: str | None) -> Cause | None:
    return Cause(text) if text in set(Cause) else None


def _detail(text: str | None) -> str:
    try:
        return str(json.loads(text)) if text else ""
    except ValueError:
        return str(text)
