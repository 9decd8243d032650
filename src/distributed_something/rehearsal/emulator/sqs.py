"""Corrections to moto's SQS, which as it comes differs from Amazon's in ways that matter to a job queue.

- Every call looks at every message: with 10,000 waiting, receiving ten takes two seconds. Here messages lie
  in two heaps, by age where they can be received and by time where they are hidden: the cost stays flat.
- Two clients can receive one message, as its server's threads share lists without a lock. Here every look at
  a queue's messages holds the queue's lock.
- The visibility of a message that is not in flight can be changed, and a handle from an earlier receipt still
  deletes. SQS refuses the first, and answers the second without deleting anything.
- The twelve hours that a message can be hidden are counted from when it was sent, rather than received.
- Messages older than the retention period stay, and hold up those behind them.
- Messages cannot be moved back from a dead-letter queue (start_message_move_task).

Standard queues only: what asks for a FIFO queue is refused.
"""

from __future__ import annotations

import heapq
import uuid
from collections import Counter
from collections.abc import Iterator
from copy import copy
from functools import cache
from itertools import count
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import camelcase_to_underscores
from moto.sqs import models
from moto.sqs.exceptions import (
    InvalidParameterValue,
    PurgeQueueInProgress,
    ReceiptHandleIsInvalid,
    SQSException,
)
from moto.sqs.models import Message, Queue, SQSBackend
from moto.sqs.responses import SQSResponse

from .clock import ServiceTime

HIDDEN_LIMIT = 43_200  # seconds that a message can stay hidden after it was received

_NOT_AVAILABLE = "Reason: Message does not exist or is not available for visibility timeout change."

_TIME = ServiceTime()
_LAG = 0.0


def set_lag(seconds: float) -> None:
    """Sets how old counts may be, in seconds, as SQS's own are."""
    global _LAG
    _LAG = seconds


def install(time: ServiceTime) -> None:
    """Give moto's SQS these corrections and this time, in this process. Before the first request."""
    global _TIME
    _TIME = time
    vars(models).update(
        Queue=StandardQueue,
        unix_time=time.now,
        unix_time_millis=time.millis,
        camelcase_to_underscores=cache(camelcase_to_underscores),  # 14 times a message, slowly
    )
    vars(models.sqs_backends).update(backend=Backend)
    moves = {"start_message_move_task": _start_message_move_task, "list_message_move_tasks": _list_moves}
    for name, action in moves.items():
        setattr(SQSResponse, name, action)


class MessageNotInflight(SQSException):
    """The visibility of a message can be changed by its holder only."""

    def __init__(self) -> None:
        super().__init__("MessageNotInflight", f"The specified message isn't in flight. {_NOT_AVAILABLE}")


# moto finds the service that an error or a backend belongs to by the module it comes from.
MessageNotInflight.__module__ = SQSException.__module__


class _Place:
    """Where one message stands. A heap's entry whose place is not the message's own any more is void."""

    __slots__ = ("message", "number", "received", "state", "until")

    def __init__(self, message: Message, number: int, state: str, until: float, received: float) -> None:
        self.message = message
        self.number = number
        self.state = state
        self.until = until
        self.received = received

    def __lt__(self, other: _Place) -> bool:
        """For the heaps, where two entries of one message can have the same time."""
        return self.number < other.number

    @property
    def age(self) -> tuple[float, int]:
        return float(self.message.sent_timestamp or 0), self.number


class StandardQueue(Queue):
    """A queue whose calls cost the same at any depth, and are safe for many clients at once."""

    def __init__(self, name: str, region: str, account_id: str, **attributes: Any) -> None:
        super().__init__(name, region, account_id, **attributes)
        if self.fifo_queue:
            raise SQSException("UnsupportedOperation", "This emulator has standard queues only.")
        self.moves: list[dict[str, Any]] = []
        self._numbers = count()
        self.clear()

    def clear(self) -> None:
        """Forget every message."""
        with self._messages_lock:
            self._places: dict[str, _Place] = {}  # by message id
            self._handles: dict[str, str] = {}  # receipt handle -> message id; the last one of each message
            self._stale: set[str] = set()
            self._ready: list[tuple[tuple[float, int], _Place]] = []
            self._hidden: list[tuple[float, int, _Place]] = []
            self._states: Counter[str] = Counter()
            self._counted: tuple[float, Counter[str]] = (0.0, Counter())

    # What moto's own code asks for

    @property
    def messages(self) -> list[Message]:
        """Those that can be received now."""
        with self._messages_lock:
            self._let_time_pass()
            return [place.message for place in self._places.values() if place.state == "ready"]

    @property
    def approximate_number_of_messages(self) -> int:
        """Those that can be received now."""
        return self._count("ready")

    @property
    def approximate_number_of_messages_delayed(self) -> int:
        """Those sent with a delay that has not passed."""
        return self._count("delayed")

    @property
    def approximate_number_of_messages_not_visible(self) -> int:
        """Those that a client holds."""
        return self._count("in flight")

    def add_message(self, message: Message) -> None:
        """Take a message in; it can be received at once, or after its delay."""
        delayed_until = message.delayed_until / 1000
        with self._messages_lock:
            delayed = delayed_until > _TIME.now()
            self._put(message, "delayed" if delayed else "ready", delayed_until)
            self._messages_lock.notify_all()

    def delete_message(self, receipt_handle: str) -> None:
        """Delete by the handle of the last receipt; an older one changes nothing, without an error."""
        with self._messages_lock:
            self._let_time_pass()
            message_id = self._handles.get(receipt_handle)
            if message_id is not None:
                self._drop(self._places[message_id])
            elif receipt_handle not in self._stale:
                raise ReceiptHandleIsInvalid()

    # What the backend below asks for

    def receive(self, limit: int, wait: float, visibility: float) -> list[Message]:
        """Up to `limit` messages, oldest first, waiting up to `wait` seconds for the first one."""
        end = _TIME.now() + wait
        with self._messages_lock:
            while True:
                taken = list(self._take(limit, visibility))
                if taken or _TIME.now() >= end:
                    return taken
                self._pause(end)

    def hide(self, receipt_handle: str, seconds: float) -> None:
        """Change the visibility of a message that the caller holds."""
        with self._messages_lock:
            self._let_time_pass()
            if receipt_handle in self._stale:
                raise InvalidParameterValue(
                    f"Value {receipt_handle} for parameter ReceiptHandle is invalid. {_NOT_AVAILABLE}"
                )
            if receipt_handle not in self._handles:
                raise ReceiptHandleIsInvalid()
            place = self._places[self._handles[receipt_handle]]
            if place.state != "in flight":
                raise MessageNotInflight()
            until = _TIME.now() + seconds
            if until > place.received + HIDDEN_LIMIT:
                raise InvalidParameterValue(
                    f"Value {seconds} for parameter VisibilityTimeout is invalid. Reason: Total "
                    f"VisibilityTimeout for the message is beyond the limit [{HIDDEN_LIMIT} seconds]"
                )
            self._put(place.message, "in flight", until, place)
            self._messages_lock.notify_all()

    def drain(self) -> list[Message]:
        """Take out every message that can be received now."""
        with self._messages_lock:
            self._let_time_pass()
            ready = [place for place in self._places.values() if place.state == "ready"]
            for place in ready:
                self._drop(place)
            return [place.message for place in ready]

    # Within; the lock is held

    def _count(self, state: str) -> int:
        with self._messages_lock:
            self._let_time_pass()
            if _TIME.now() - self._counted[0] >= _LAG:
                self._counted = (_TIME.now(), Counter(self._states))
            return self._counted[1][state]

    def _put(self, message: Message, state: str, until: float, before: _Place | None = None) -> None:
        number = next(self._numbers) if before is None else before.number
        received = before.received if before is not None else 0.0
        place = _Place(message, number, state, until, received)
        if before is not None:
            self._states[before.state] -= 1
        self._places[message.id] = place
        self._states[state] += 1
        if state == "ready":
            heapq.heappush(self._ready, (place.age, place))
        else:
            heapq.heappush(self._hidden, (until, number, place))

    def _drop(self, place: _Place) -> None:
        message = place.message
        self._states[place.state] -= 1
        del self._places[message.id]
        self._forget_handle(message)

    def _forget_handle(self, message: Message) -> None:
        if message.receipt_handle and self._handles.pop(message.receipt_handle, None):
            self._stale.add(message.receipt_handle)

    def _current(self, place: _Place) -> bool:
        return self._places.get(place.message.id) is place

    def _let_time_pass(self) -> None:
        """Show what was hidden until now, and drop what is older than the retention period."""
        now = _TIME.now()
        while self._hidden and self._hidden[0][0] <= now:
            place = heapq.heappop(self._hidden)[2]
            if self._current(place):
                self._put(place.message, "ready", 0.0, place)
        oldest = (now - self.message_retention_period) * 1000  # type: ignore[attr-defined]
        while self._ready and self._ready[0][0][0] <= oldest:
            place = heapq.heappop(self._ready)[1]
            if self._current(place):
                self._drop(place)

    def _take(self, limit: int, visibility: float) -> Iterator[Message]:
        self._let_time_pass()
        while limit > 0 and self._ready:
            place = heapq.heappop(self._ready)[1]
            if not self._current(place):
                continue
            if self._spent(place.message):
                self._bury(place)
                continue
            limit -= 1
            yield self._hand_out(place, visibility)

    def _spent(self, message: Message) -> bool:
        if self.dead_letter_queue is None or not self.redrive_policy:
            return False
        return message.approximate_receive_count >= int(self.redrive_policy["maxReceiveCount"])

    def _bury(self, place: _Place) -> None:
        """Move to the dead-letter queue; the time it was sent stays what it was."""
        self._drop(place)
        place.message.delayed_until = 0.0
        assert self.dead_letter_queue is not None
        self.dead_letter_queue.add_message(place.message)

    def _hand_out(self, place: _Place, visibility: float) -> Message:
        message, now = place.message, _TIME.now()
        self._forget_handle(message)
        message.receipt_handle = f"{message.id}#{uuid.uuid4().hex}"
        self._handles[message.receipt_handle] = message.id
        message.approximate_receive_count += 1
        message.approximate_first_receive_timestamp = message.approximate_first_receive_timestamp or int(
            now * 1000
        )
        place.received = now
        self._put(message, "in flight", now + visibility, place)
        return copy(message)

    def _pause(self, end: float) -> None:
        """Wait for something to change. Time that stands still moves on to the next change, or to the end."""
        change = min(end, self._hidden[0][0]) if self._hidden else end
        seconds = max(change - _TIME.now(), 0.0)
        if _TIME.manual:
            _TIME.advance(seconds)
        else:
            self._messages_lock.wait(min(seconds, 0.5))


class Backend(SQSBackend):
    """moto's backend, with the calls that looked at every message going to the queue instead."""

    def receive_message(
        self,
        queue_name: str,
        count: int,
        wait_seconds_timeout: int,
        visibility_timeout: int,
        message_attribute_names: list[str] | None = None,
    ) -> list[Message]:
        """Receive; each message with those attributes only that were asked for."""
        received = self._queue(queue_name).receive(count, wait_seconds_timeout or 0, visibility_timeout)
        for message in received:
            models._filter_message_attributes(message, message_attribute_names or [])
        return received

    def change_message_visibility(
        self, queue_name: str, receipt_handle: str, visibility_timeout: int
    ) -> None:
        """Hide for longer, or show (0)."""
        self._queue(queue_name).hide(receipt_handle, int(visibility_timeout))

    def change_message_visibility_batch(
        self, queue_name: str, entries: list[dict[str, Any]]
    ) -> tuple[list[str], list[dict[str, str]]]:
        """Changes each entry by itself: a refused one does not affect the others."""
        done: list[str] = []
        refused: list[dict[str, Any]] = []
        for entry in entries:
            try:
                seconds = int(entry["VisibilityTimeout"])
                self.change_message_visibility(queue_name, entry["ReceiptHandle"], seconds)
                done.append(entry["Id"])
            except SQSException as error:
                why = {"Code": error.code, "Message": error.message, "SenderFault": True}
                refused.append({"Id": entry["Id"], **why})
        return done, refused

    def purge_queue(self, queue_name: str) -> None:
        """Forget every message; a second time within a minute is refused, as by SQS."""
        queue, now = self._queue(queue_name), _TIME.now()
        if queue.last_purged_at is not None and now - queue.last_purged_at < 60:
            raise PurgeQueueInProgress(queue.name)
        queue.last_purged_at = now
        queue.clear()

    def move(self, source_arn: str, target_arn: str | None) -> dict[str, Any]:
        """Move what waits in a dead-letter queue to where it came from, or to `target_arn`; as new."""
        source = self._by_arn(source_arn)
        target = self._by_arn(target_arn) if target_arn else self._served_by(source)
        messages = source.drain()
        for message in messages:
            message.approximate_receive_count = 0
            message.mark_sent()
            target.add_message(message)
        task = {
            "TaskHandle": uuid.uuid4().hex,
            "Status": "COMPLETED",
            "SourceArn": source.queue_arn,
            "DestinationArn": target.queue_arn,
            "ApproximateNumberOfMessagesMoved": len(messages),
            "ApproximateNumberOfMessagesToMove": len(messages),
            "StartedTimestamp": int(_TIME.millis()),
        }
        source.moves.insert(0, task)
        return task

    def moves(self, source_arn: str) -> list[dict[str, Any]]:
        """Returns the moves out of a queue, the last one first."""
        return self._by_arn(source_arn).moves

    def _queue(self, name: str) -> StandardQueue:
        queue = self.get_queue(name)
        assert isinstance(queue, StandardQueue)
        return queue

    def _by_arn(self, arn: str) -> StandardQueue:
        return self._queue(arn.rsplit(":", 1)[-1])

    def _served_by(self, dead: StandardQueue) -> StandardQueue:
        for queue in self.queues.values():
            if queue.dead_letter_queue is dead:
                return self._queue(queue.name)
        raise InvalidParameterValue("Source queue must be configured as a Dead Letter Queue.")


Backend.__module__ = SQSBackend.__module__  # see MessageNotInflight


def _start_message_move_task(response: SQSResponse) -> ActionResult:
    task = _backend(response).move(response._get_param("SourceArn"), response._get_param("DestinationArn"))
    return ActionResult({"TaskHandle": task["TaskHandle"]})


def _list_moves(response: SQSResponse) -> ActionResult:
    return ActionResult({"Results": _backend(response).moves(response._get_param("SourceArn"))})


def _backend(response: SQSResponse) -> Backend:
    backend = response.sqs_backend
    assert isinstance(backend, Backend)
    return backend
