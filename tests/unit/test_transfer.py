"""Many calls at a time: which begin, what they give, and what ends them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from distributed_something.s3.transfer import at_once


class Ended(Exception):
    """What a test ends calls by."""


def test_results_come_in_the_order_of_the_calls() -> None:
    turn = threading.Barrier(4, timeout=30)

    def square(number: int) -> int:
        turn.wait()  # as many at a time as were allowed
        return number * number

    assert at_once(square, ((number,) for number in range(40)), 4) == [n * n for n in range(40)]
    assert at_once(square, [], 4) == []


def test_a_call_is_drawn_when_it_can_begin_and_not_before() -> None:
    """So an order to stop, asked for before each file, ends thousands of them midway."""
    lock, drawn, ended = threading.Lock(), 0, 0

    def calls() -> Iterator[tuple[()]]:
        nonlocal drawn
        for _ in range(1000):
            with lock:
                drawn += 1
                assert drawn - ended <= 3
            yield ()

    def call() -> None:
        nonlocal ended
        with lock:
            ended += 1

    at_once(call, calls(), 3)
    assert drawn == ended == 1000


def test_an_error_out_of_what_is_to_be_done_ends_it_once_nothing_is_under_way() -> None:
    begun: list[int] = []
    finished: list[int] = []

    def calls() -> Iterator[tuple[int]]:
        for number in range(1000):
            if len(finished) >= 5:
                raise Ended
            yield (number,)

    def call(number: int) -> None:
        begun.append(number)
        finished.append(number)

    with pytest.raises(Ended):
        at_once(call, calls(), 3)
    assert sorted(begun) == sorted(finished)
    assert 5 <= len(finished) <= 8


def test_after_a_failure_no_call_begins() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def call(number: int) -> None:
        begun.append(number)
        if number == 3:
            failed.set()
            raise Ended
        failed.wait(30)

    with pytest.raises(Ended):
        at_once(call, ((number,) for number in range(1000)), 4)
    assert len(begun) < 20
