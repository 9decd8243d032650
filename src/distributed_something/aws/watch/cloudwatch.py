"""Sends lines to CloudWatch Logs in batches, in a thread of its own, so that no caller waits for AWS.

The bucket has all these lines too. While CloudWatch is slow or down, lines wait in memory up to a limit;
dropped lines are counted, and a message says how many. Called by `reporting.py`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from ...background import complain
from ...clock import Clock
from ...s3.session import AwsSession, error_code

BATCH_BYTES = 1 << 20
BATCH_LINES = 10_000
LINE_OVERHEAD = 26
"""CloudWatch's limits of a call, and its overhead in bytes for each line."""

LINE_BYTES = 80_000
"""Longer lines are cut into pieces of this size. CloudWatch takes 256 KiB; bytes that are not UTF-8 grow."""

BUFFER_BYTES = 32 << 20
HELD_OVERHEAD = 250
"""Approximate memory of a waiting line in bytes, without its text."""

GATHER_SECONDS = 10.0
LONGEST_PAUSE = 30.0
READ_SECONDS = 10.0
CLOSE_SECONDS = 10.0
LAST_TRIES = 3
"""Failures in a row after which the last lines are dropped at the end."""

_STREAMS_REMEMBERED = 10_000


class Stream(NamedTuple):
    """A log stream of a log group."""

    group: str
    name: str


class Line(NamedTuple):
    """A line: its time in milliseconds since the epoch, and its size as CloudWatch counts it."""

    when: int
    text: str
    size: int


class LineBuffer:
    """Lines that wait to be sent, by stream, within `limit` bytes. Threads may share it."""

    def __init__(self, limit: int = BUFFER_BYTES) -> None:
        self._limit = limit
        self._held = 0
        self._dropped = 0
        self._streams: dict[Stream, tuple[float, deque[Line]]] = {}
        self._lock = threading.Lock()

    def add(self, stream: Stream, data: bytes, now: float) -> None:
        """Takes one line, in pieces if it is long; drops it if there is no room."""
        pieces = [data[at : at + LINE_BYTES] for at in range(0, len(data), LINE_BYTES)] or [b" "]
        with self._lock:
            if self._held + len(data) > self._limit:
                self._dropped += 1
                return
            _, lines = self._streams.setdefault(stream, (now, deque()))
            when = max(int(now * 1000), lines[-1].when if lines else 0)  # a call needs them in time order
            for piece in pieces:
                text = piece.decode("utf-8", "replace")
                size = len(text.encode()) + LINE_OVERHEAD
                lines.append(Line(when, text, size))
                self._held += size + HELD_OVERHEAD

    def take(self, before: float, now: float = math.inf) -> tuple[Stream, list[Line]] | None:
        """Next batch: from the oldest stream, if it is older than `before` or the buffer is full.

        A stream that is younger than `now` is old: the clock was set back.
        """
        with self._lock:
            first = next(iter(self._streams.items()), None)
            if first is None or (before < first[1][0] <= now and self._held < BATCH_BYTES):
                return None
            stream, (_, lines) = first
            batch: list[Line] = []
            room = BATCH_BYTES
            while lines and len(batch) < BATCH_LINES and lines[0].size <= room:
                room -= lines[0].size
                batch.append(lines.popleft())
            self._held -= _held(batch)
            if not lines:
                del self._streams[stream]
            return stream, batch

    def put_back(self, stream: Stream, batch: list[Line]) -> None:
        """Takes a batch back, to be sent first."""
        with self._lock:
            _, lines = self._streams.pop(stream, (0.0, deque()))
            lines.extendleft(reversed(batch))
            self._streams = {stream: (0.0, lines), **self._streams}
            self._held += _held(batch)

    def drop(self, count: int) -> None:
        """Counts lines that will never be sent."""
        with self._lock:
            self._dropped += count

    def drop_all(self) -> None:
        """Drops everything that waits."""
        with self._lock:
            self._dropped += sum(len(lines) for _, lines in self._streams.values())
            self._streams.clear()
            self._held = 0

    def take_dropped(self) -> int:
        """Lines that were dropped since the last call of this."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            return dropped


def _held(lines: Iterable[Line]) -> int:
    return sum(line.size + HELD_OVERHEAD for line in lines)


class CloudWatch:
    """Sends lines to CloudWatch Logs. `add` never waits, never raises and makes no call."""

    def __init__(self, session: AwsSession, clock: Clock, buffer: LineBuffer | None = None) -> None:
        self._session = session
        self._clock = clock
        self._buffer = buffer or LineBuffer()
        self._known: set[Stream] = set()
        self._failures = 0
        self._under_way = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloudwatch", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def add(self, stream: Stream, line: bytes) -> None:
        """Queues a line to be sent soon."""
        self._buffer.add(stream, line, self._clock.now())

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Sends what waits, for up to `seconds`; the rest is dropped, and a message says so."""
        self._closing.set()
        self._thread.join(seconds)
        self._buffer.drop_all()
        if self._thread.is_alive():
            self._buffer.drop(self._under_way)
        self._tell_dropped()

    def _run(self) -> None:
        while True:
            closing = self._closing.is_set()
            now = self._clock.now()
            batch = self._buffer.take(math.inf if closing else now - GATHER_SECONDS, now)
            if batch is None:
                if closing:
                    return
                self._clock.wait(GATHER_SECONDS / 4, self._closing)
            elif not self._sent(*batch):
                self._buffer.put_back(*batch)
                if closing and self._failures >= LAST_TRIES:
                    return
                pause = min(0.5 * 2 ** min(self._failures, 10), LONGEST_PAUSE)
                self._clock.wait(0.5 if closing else pause, None if closing else self._closing)

    def _sent(self, stream: Stream, lines: list[Line]) -> bool:
        """Whether the lines are settled: CloudWatch has them, or will never take them."""
        import botocore.exceptions

        self._under_way = len(lines)
        try:
            self._send(stream, lines)
        except botocore.exceptions.ClientError as error:
            code = error_code(error)
            self._known.discard(stream)
            if code == "InvalidParameterException":
                self._buffer.drop(len(lines))
                return True
            return self._failed(str(error))
        except Exception as error:  # noqa: BLE001  an error here must not stop jobs
            return self._failed(str(error) or type(error).__name__)
        self._failures = 0
        self._tell_dropped()
        return True

    def _send(self, stream: Stream, lines: list[Line]) -> None:
        client: Any = self._session.client("logs", 1, read_seconds=READ_SECONDS, patience=1.0)
        if stream not in self._known:
            with suppress(client.exceptions.ResourceAlreadyExistsException):  # an earlier attempt's
                client.create_log_stream(logGroupName=stream.group, logStreamName=stream.name)
            if len(self._known) >= _STREAMS_REMEMBERED:
                self._known.clear()
            self._known.add(stream)
        answer = client.put_log_events(
            logGroupName=stream.group,
            logStreamName=stream.name,
            logEvents=[{"timestamp": line.when, "message": line.text} for line in lines],
        )
        self._buffer.drop(_refused(answer.get("rejectedLogEventsInfo", {}), len(lines)))

    def _failed(self, why: str) -> bool:
        self._failures += 1
        if self._failures == 1:
            complain(f"CloudWatch does not take lines now: {why.splitlines()[0]}; the bucket has all logs")
        return False

    def _tell_dropped(self) -> None:
        if dropped := self._buffer.take_dropped():
            complain(f"CloudWatch: {dropped:,} lines were not sent; the bucket has all logs")


def _refused(info: dict[str, int], count: int) -> int:
    """Lines of a call that CloudWatch refused as too old or too new."""
    old = max(info.get("tooOldLogEventEndIndex", 0), info.get("expiredLogEventEndIndex", 0))
    return old + count - info.get("tooNewLogEventStartIndex", count)
