"""Notices of the metadata service become orders; where there is no such service nothing happens."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from distributed_something.testing import FakeClock
from distributed_something.worker.interruption import (
    FIRST_TRIES,
    WARY_SECONDS,
    InterruptionWatch,
    Metadata,
    Silent,
    stop_of,
)
from distributed_something.worker.loop import Stop
from distributed_something.worker.orders import Orders
from metadata import MetadataServer, metadata_server


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Script(FakeClock):
    """A clock whose waits carry out a list of actions, one a wait, and then end the watch."""

    def __init__(self, actions: list[Callable[[], object]]) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._actions = iter(actions)

    def wait(self, seconds: float, until: threading.Event | None = None) -> bool:
        self.waits.append(seconds)
        action = next(self._actions, None)
        if action is None:
            assert until is not None
            until.set()
        else:
            action()
        return super().wait(seconds, until)


@pytest.fixture
def server() -> Iterator[MetadataServer]:
    with metadata_server() as served:
        yield served


def watch(server: MetadataServer, clock: FakeClock) -> tuple[list[Stop], list[float]]:
    """Run a watch to its end: the orders it gave, and until when it told to be wary."""
    orders: list[Stop] = []
    wary: list[float] = []
    metadata = Metadata(server.endpoint)
    InterruptionWatch(metadata, clock, orders.append, wary.append, reserve=30.0).watch()
    return orders, wary


@pytest.mark.fault(26, 32)
def test_a_notice_becomes_an_order_that_leaves_the_rest_of_the_time(server: MetadataServer) -> None:
    def notice() -> None:
        server.values["spot/instance-action"] = json.dumps(
            {"action": "terminate", "time": stamp(clock.now() + 120)}
        )

    clock = Script([lambda: None, notice])
    (order,), wary = watch(server, clock)
    assert order.grace_seconds is not None and 86 <= order.grace_seconds <= 90
    assert "spot interruption" in order.why and wary == []
    assert server.asked[0] == "PUT /latest/api/token" and server.asked.count("PUT /latest/api/token") == 1


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"action":"stop","time":"soon"}', '{"time":"2026-01-01T00:00:00"}']
)
def test_a_notice_that_cannot_be_read_leaves_no_time(text: str) -> None:
    assert stop_of(text, 0.0, 30.0).grace_seconds == 0.0


def test_a_notice_of_the_past_leaves_no_time() -> None:
    assert stop_of(json.dumps({"time": stamp(1000)}), 2000.0, 30.0).grace_seconds == 0.0


@pytest.mark.fault(26)
def test_a_recommendation_makes_wary_once(server: MetadataServer) -> None:
    clock = Script([lambda: None] * 3)
    server.values["events/recommendations/rebalance"] = json.dumps({"noticeTime": stamp(clock.now() - 60)})
    orders, wary = watch(server, clock)
    assert orders == [] and wary == [1_000_000_000.0 - 60 + WARY_SECONDS]


@pytest.mark.fault(32)
def test_a_token_that_has_run_out_is_renewed(server: MetadataServer) -> None:
    metadata = Metadata(server.endpoint)
    assert metadata.get("instance-id") == "i-0123456789abcdef0"
    server.token = "another-token"
    assert metadata.get("instance-id") == "i-0123456789abcdef0"
    assert metadata.get("spot/instance-action") is None


def test_a_service_that_refuses_is_given_up_quietly(
    server: MetadataServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server.refusing = 403
    clock = Script([lambda: None] * 20)
    assert watch(server, clock) == ([], [])
    assert len(server.asked) == FIRST_TRIES
    assert clock.waits == sorted(clock.waits) and clock.waits[0] < clock.waits[-1]
    assert capfd.readouterr() == ("", "")


def test_no_service_at_all_is_given_up_quietly() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        server = MetadataServer()
        server.endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert watch(server, Script([lambda: None] * 20)) == ([], [])


def test_a_service_that_was_there_is_not_given_up(server: MetadataServer) -> None:
    def fail() -> None:
        server.refusing = 503

    def notice() -> None:
        server.refusing = 0
        server.values["spot/instance-action"] = json.dumps({"time": stamp(clock.now() + 120)})

    clock = Script([fail, *[lambda: None] * 20, notice])
    (order,), _ = watch(server, clock)
    assert order.grace_seconds
    assert max(clock.waits) == 60.0


def test_a_hidden_service_is_not_asked() -> None:
    assert Metadata.of({"AWS_EC2_METADATA_DISABLED": "true"}) is None


def test_the_environment_says_where_the_service_is(server: MetadataServer) -> None:
    metadata = Metadata.of({"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint + "/"})
    assert metadata is not None and metadata.get("instance-id") == "i-0123456789abcdef0"


def test_an_answer_that_is_no_http_is_silence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_babble, args=(listener,), daemon=True).start()
        with pytest.raises(Silent):
            Metadata(f"http://127.0.0.1:{listener.getsockname()[1]}").get("instance-id")


def _babble(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"\x00\x01\n\n")


@pytest.mark.fault(26)
def test_of_several_orders_the_earliest_end_counts() -> None:
    clock, given = FakeClock(), list[Stop]()
    orders = Orders(given.append, clock)
    for stop in (Stop(None, "a"), Stop(None, "b"), Stop(90, "c"), Stop(None, "d")):
        orders.give(stop)
    clock.advance(50)
    orders.give(Stop(60, "e"))  # 20 s later than what the other left
    orders.give(Stop(10, "f"))
    assert [stop.why for stop in given] == ["a", "c", "f"]


def test_signals_give_orders_whatever_the_main_thread_waits_for() -> None:
    code = """
import os, signal, threading, time
from distributed_something.clock import SystemClock
from distributed_something.worker.loop import Stop
from distributed_something.worker.orders import Orders

def end(stop):
    print(stop.why, flush=True)
    os._exit(0)

Orders(end, SystemClock()).on_signals({signal.SIGUSR2: Stop(5, "told")})
threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)).start()
import select
select.poll().poll(20_000)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15)
    assert (found.stdout, found.stderr) == ("told\n", "")
