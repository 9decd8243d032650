"""Makes calls on one SQS queue, in batches of ten, and repeats entries that SQS did not take for now.

Used by `queue.py` for everything but submissions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ...clock import Clock
from ...errors import DsError
from ...s3.session import SLOW_DOWN, aws_errors, or_none
from ..message import MAX_BYTES, Message, size, whole_seconds

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

BATCH = 10
LONG_POLL = 20
"""Seconds. Both are SQS's limits."""

PURGE_SECONDS = 60.0  # how long a purge may take, in seconds; messages sent meanwhile may be lost

_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
DEPTHS: Any = (  # the stubs want each name as a literal
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)

Entry = dict[str, Any]


class Channel:
    """The messages of one queue. Calls raise DsError if AWS cannot be reached or refuses them."""

    def __init__(self, client: SQSClient, url: str, clock: Clock) -> None:
        self.url = url
        self.name = url.rsplit("/", 1)[-1]
        self._client = client
        self._clock = clock

    def receive(self, limit: int, wait: float, visibility: float) -> Sequence[MessageTypeDef]:
        """Up to `limit` (and 10) messages, hidden for `visibility` seconds; waits up to 20 s for one."""
        with aws_errors(f"receiving from {self.name}"):
            answer = self._client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=min(limit, BATCH),
                WaitTimeSeconds=min(whole_seconds(wait), LONG_POLL),
                VisibilityTimeout=whole_seconds(visibility),
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
            )
        return answer.get("Messages", [])

    def send(self, messages: Iterable[Message], delay: float = 0.0) -> None:
        """Send a few messages; they can be received after `delay` seconds. Raises DsError if one is refused.

        After a failure some may be in the queue: sending all again is safe, as delivery is at least once.
        """
        entries = [message.entry(number % BATCH, delay) for number, message in enumerate(messages)]
        for batch in _by_bytes(entries):
            refused = self._settle("sending to", self._client.send_message_batch, batch)
            if refused:
                raise DsError(f"sending to {self.name}: {'; '.join(sorted(set(refused.values())))}")

    def delete(self, handles: Iterable[str]) -> None:
        """Deletes messages. An expired handle changes nothing."""
        entries = _numbered([{"ReceiptHandle": handle} for handle in handles])
        for batch in _tens(entries):
            self._settle("deleting from", self._client.delete_message_batch, batch)

    def hide(self, handles: Iterable[str], seconds: float) -> set[str]:
        """Hides messages for `seconds` from now. Returns the handles of those that we do not hold."""
        timeout = whole_seconds(seconds)
        entries = _numbered([{"ReceiptHandle": handle, "VisibilityTimeout": timeout} for handle in handles])
        lost: set[str] = set()
        for batch in _tens(entries):
            refused = self._settle("changing leases in", self._client.change_message_visibility_batch, batch)
            lost.update(entry["ReceiptHandle"] for entry in batch if entry["Id"] in refused)
        return lost

    def depths(self) -> tuple[int, int, int]:
        """About how many messages are visible, in flight, delayed."""
        with aws_errors(f"counting {self.name}"):
            answer = self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=list(DEPTHS))
        waiting, hidden, delayed = (int(answer["Attributes"][name]) for name in DEPTHS)
        return waiting, hidden, delayed

    def purge(self) -> None:
        """Deletes every message. It takes up to PURGE_SECONDS: the caller must wait."""
        with aws_errors(f"purging {self.name}"):
            begun = or_none(self._client.purge_queue, "PurgeQueueInProgress", QueueUrl=self.url)
            if begun is None:
                self._clock.wait(PURGE_SECONDS)
                self._client.purge_queue(QueueUrl=self.url)

    def _settle(self, doing: str, call: Callable[..., Any], entries: list[Entry]) -> dict[str, str]:
        """Calls until SQS has taken or refused each entry. Returns reasons by id. Raises DsError."""
        refused: dict[str, str] = {}
        for pause in (*_PAUSES, None):
            with aws_errors(f"{doing} {self.name}"):
                failed = call(QueueUrl=self.url, Entries=entries).get("Failed", [])
            again = {each["Id"]: reason(each) for each in failed if passing(each)}
            refused |= {each["Id"]: reason(each) for each in failed if each["Id"] not in again}
            if not again:
                break
            if pause is None:
                raise DsError(f"{doing} {self.name}: {'; '.join(sorted(set(again.values())))}", "try again")
            entries = [entry for entry in entries if entry["Id"] in again]
            self._clock.wait(pause)
        return refused


def passing(failed: Any) -> bool:
    """Whether an entry that SQS did not take may be taken later."""
    return not failed.get("SenderFault") or failed["Code"].rsplit(".", 1)[-1] in SLOW_DOWN


def reason(failed: Any) -> str:
    """Why SQS did not take an entry."""
    return str(failed.get("Message") or failed["Code"])


def _numbered(entries: list[Entry]) -> list[Entry]:
    return [{"Id": str(number % BATCH), **entry} for number, entry in enumerate(entries)]


def _tens(entries: Iterable[Entry]) -> Iterable[list[Entry]]:
    rest = iter(entries)
    return iter(lambda: list(islice(rest, BATCH)), [])


def _by_bytes(entries: Iterable[Entry]) -> Iterable[list[Entry]]:
    """Batches of ten, or fewer if ten have too many bytes."""
    for ten in _tens(entries):
        batch: list[Entry] = []
        total = 0
        for entry in ten:
            total += _size(entry)
            if batch and total > MAX_BYTES:
                yield batch
                batch, total = [], _size(entry)
            batch.append(entry)
        yield batch


def _size(entry: Entry) -> int:
    attributes = {name: value["StringValue"] for name, value in entry["MessageAttributes"].items()}
    return size(entry["MessageBody"].encode(), attributes)
