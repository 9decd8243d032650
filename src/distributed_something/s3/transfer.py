"""Runs transfers to and from a bucket: how many at a time, in which part sizes, in how much memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, islice
from queue import Empty, SimpleQueue
from typing import Any, Self, TypeVar

from ..errors import KeyMissing

PART_BYTES = 8 << 20
"""Part size in bytes: files up to it travel in one request (parts are larger above 74 GB)."""

CHUNK_BYTES = 1 << 20
"""Size in bytes of the pieces that are written: reused memory is not mapped again."""

PARTS_AT_ONCE = 6
FILES_AT_ONCE = 32
MEMORY_BYTES = 80 << 20
"""Limit in bytes of all transfers of the process together; the libraries hold as much again. A file above
400 GB needs more: two parts of it."""

AHEAD_BYTES = 32 << 20
"""Limit in bytes of what is read ahead."""

_MOST_PARTS = 9_500

_T = TypeVar("_T")


class _Memory:
    """Limits the memory of all transfers of this process."""

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Within: reserves `amount` bytes (at most the limit), after waiting for them."""
        amount = min(amount, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


MEMORY = _Memory(MEMORY_BYTES)


def parts(size: int) -> tuple[int, int]:
    """(bytes of a part, parts at a time) of an upload: at most 10,000 parts, in limited memory."""
    part = max(PART_BYTES, -(-size // _MOST_PARTS))
    return part, max(1, PARTS_AT_ONCE * PART_BYTES // part)


def write_from(answer: Any, file: int, offset: int) -> None:
    """Writes the body of an obstore answer as it arrives, at an offset of an open file."""
    for chunk in answer.stream(min_chunk_size=CHUNK_BYTES):
        view = memoryview(chunk)
        while view:
            written = os.pwrite(file, view, offset)
            view, offset = view[written:], offset + written


class _Helpers:
    """Up to `most` threads that make calls. Leaving drops calls that have not begun, and waits for none.

    So Ctrl-C works at once: Python handles it only between two steps of the main thread, and a request of
    obstore is a single step, which may take minutes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads = 0
        self._todo: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Empty):
            while True:
                self._todo.get_nowait()
        for _thread in range(self._threads):
            self._todo.put(None)

    def submit(self, call: Callable[[], _T]) -> Future[_T]:
        """Queues a call."""
        if self._threads < self._most:
            self._threads += 1
            threading.Thread(target=self._help, name="transfer", daemon=True).start()
        future: Future[_T] = Future()
        self._todo.put((future, call))
        return future

    def _help(self) -> None:
        while (task := self._todo.get()) is not None:
            future, call = task
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001  raised by Future.result
                future.set_exception(error)


def aside(call: Callable[[], _T]) -> _T:
    """Makes a call in a thread, so that the main thread can handle Ctrl-C meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        return call()
    with _Helpers(1) as helpers:
        return helpers.submit(call).result()


def at_once(verb: Callable[..., _T], calls: Iterable[tuple[Any, ...]], limit: int) -> Sequence[_T]:
    """Makes the calls, `limit` at a time. Returns their results in order. Each call is drawn when it begins.

    After a failure of a call or of `calls`, no more begin; it is raised when none is under way.
    """
    rest = iter(calls)
    first = [*islice(rest, limit)]
    if len(first) < 2:
        return [verb(*call) for call in first]
    todo, lock, over = enumerate(chain(first, rest)), threading.Lock(), threading.Event()
    results: dict[int, _T] = {}

    def draw() -> tuple[int, tuple[Any, ...]] | None:
        with lock:
            return None if over.is_set() else next(todo, None)

    def work() -> None:
        try:
            while (drawn := draw()) is not None:
                number, call = drawn
                results[number] = verb(*call)
        finally:  # all are drawn, or one has failed
            over.set()

    with _Helpers(len(first)) as helpers:
        try:
            workers = [helpers.submit(work) for _ in first]
            wait(workers)
        finally:
            over.set()
    for worker in workers:
        worker.result()
    return [results[number] for number in range(len(results))]


def read_ahead(
    read: Callable[[str, int, int], bytes], pieces: Iterable[tuple[str, int, int]]
) -> Iterator[bytes | None]:
    """Yields what `read` returns for each piece, in order; reads ahead up to AHEAD_BYTES."""

    def get(key: str, start: int, length: int) -> bytes | None:
        try:
            return read(key, start, length)
        except KeyMissing:
            return None

    rest = deque(pieces)
    if len(rest) == 1:
        yield get(*rest.pop())
        return
    ahead: deque[tuple[int, Future[bytes | None]]] = deque()
    held = 0
    with _Helpers(FILES_AT_ONCE) as helpers:
        while rest or ahead:
            while rest and len(ahead) < FILES_AT_ONCE and (not ahead or held + rest[0][2] <= AHEAD_BYTES):
                piece = rest.popleft()
                held += piece[2]
                ahead.append((piece[2], helpers.submit(partial(get, *piece))))
            size, future = ahead.popleft()
            yield future.result()
            held -= size
