"""The emulator's SQS behaves as Amazon's where the emulator underneath does not."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emulating import EmulatorClock, new_queues, session, stopped_clock

DAY = 24 * 3600.0


@pytest.fixture
def client() -> Any:
    return session().client("sqs")


@pytest.fixture
def clock(client: Any) -> Iterator[EmulatorClock]:
    with stopped_clock() as clock:
        yield clock


@pytest.fixture
def url(clock: EmulatorClock) -> str:
    return new_queues().jobs


def send(client: Any, url: str, count: int, **more: Any) -> None:
    for start in range(0, count, 10):
        numbers = range(start, min(start + 10, count))
        entries = [{"Id": str(number), "MessageBody": f'{{"n": {number}}}', **more} for number in numbers]
        assert not client.send_message_batch(QueueUrl=url, Entries=entries).get("Failed")


def receive(client: Any, url: str, **more: Any) -> list[Any]:
    words = {"MaxNumberOfMessages": 10, "WaitTimeSeconds": 0, "VisibilityTimeout": 30, **more}
    return client.receive_message(QueueUrl=url, **words).get("Messages", [])  # type: ignore[no-any-return]


def refused(call: Callable[..., Any], **words: Any) -> str:
    with pytest.raises(Exception, match="An error occurred") as raised:
        call(**words)
    return str(raised.value.response["Error"]["Code"])  # type: ignore[attr-defined]


def test_a_message_that_nobody_holds_cannot_be_hidden(client: Any, url: str, clock: EmulatorClock) -> None:
    send(client, url, 1)
    (message,) = receive(client, url)
    words = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 60}
    client.change_message_visibility(**words)
    clock.advance(60)
    assert refused(client.change_message_visibility, **words).endswith("MessageNotInflight")
    assert len(receive(client, url)) == 1


def test_a_handle_from_an_earlier_receipt_does_nothing(client: Any, url: str, clock: EmulatorClock) -> None:
    send(client, url, 1)
    (first,) = receive(client, url)
    clock.advance(30)
    (_second,) = receive(client, url)
    stale = {"QueueUrl": url, "ReceiptHandle": first["ReceiptHandle"]}
    client.delete_message(**stale)
    assert refused(client.change_message_visibility, **stale, VisibilityTimeout=0) == "InvalidParameterValue"
    clock.advance(30)
    assert len(receive(client, url)) == 1
    never = {"QueueUrl": url, "ReceiptHandle": "no such handle"}
    assert refused(client.delete_message, **never) == "ReceiptHandleIsInvalid"


def test_twelve_hours_count_from_the_receipt(client: Any, url: str, clock: EmulatorClock) -> None:
    send(client, url, 1)
    clock.advance(2 * DAY)
    (message,) = receive(client, url)
    words = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    client.change_message_visibility(**words, VisibilityTimeout=43_200)
    clock.advance(3600)
    assert (
        refused(client.change_message_visibility, **words, VisibilityTimeout=43_200)
        == "InvalidParameterValue"
    )
    client.change_message_visibility(**words, VisibilityTimeout=39_600)


def test_old_messages_vanish_and_hold_up_nobody(client: Any, url: str, clock: EmulatorClock) -> None:
    send(client, url, 3)
    held = receive(client, url, MaxNumberOfMessages=1)
    clock.advance(14 * DAY - 10)
    send(client, url, 1)
    clock.advance(10)
    assert len(held) == len(receive(client, url)) == 1


def test_a_batch_takes_what_it_can(client: Any, url: str, clock: EmulatorClock) -> None:
    send(client, url, 2)
    handles = [message["ReceiptHandle"] for message in receive(client, url)]
    client.delete_message(QueueUrl=url, ReceiptHandle=handles[0])
    entries = [
        {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": 0}
        for number, handle in enumerate(handles)
    ]
    answer = client.change_message_visibility_batch(QueueUrl=url, Entries=entries)
    assert [each["Id"] for each in answer["Successful"]] == ["1"]
    assert [(each["Id"], each["SenderFault"]) for each in answer["Failed"]] == [("0", True)]


def test_time_that_stands_still_passes_for_who_waits(client: Any, url: str, clock: EmulatorClock) -> None:
    began = clock.now()
    send(client, url, 1, DelaySeconds=5)
    assert len(receive(client, url, WaitTimeSeconds=20)) == 1
    assert clock.now() - began == 5.0
    assert receive(client, url, WaitTimeSeconds=20) == []
    assert clock.now() - began == 25.0


def test_a_deep_queue_is_as_fast_as_a_shallow_one(client: Any, url: str) -> None:
    def seconds() -> float:
        began = time.perf_counter()
        for _ in range(10):
            received = receive(client, url)
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(received)
            ]
            client.delete_message_batch(QueueUrl=url, Entries=entries)
        return time.perf_counter() - began

    send(client, url, 200)
    shallow = seconds()
    send(client, url, 2500)
    assert seconds() < 5 * shallow  # a cost in proportion to the depth would make it 25 times


def test_no_message_goes_to_two_clients(client: Any, url: str) -> None:
    send(client, url, 600)
    received: Counter[str] = Counter()
    lock = threading.Lock()

    def drain() -> None:
        while messages := receive(client, url):
            with lock:
                received.update(message["Body"] for message in messages)

    threads = [threading.Thread(target=drain) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(received.values()) == {1}
    assert len(received) == 600
