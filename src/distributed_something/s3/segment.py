"""Lays out an appended file in a bucket: numbered parts; the last is rewritten until it is full. Pure."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from ..engine import StoredFile

SEGMENT_PART_BYTES = 512 << 10
"""Size in bytes to which a part of an appended file grows by rewriting; then the next part begins."""

SENT_SHARE = 3
"""Maximum bytes sent for each byte added to a file. A versioned bucket keeps, and NAT bills, them all."""


class Segment:
    """The known parts of an appended file; `ends` are their ends in it."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.lock = threading.Lock()
        self.unknown = True
        self._ends: list[int] = []
        self._growing: bytes | None = None
        self._asked = 0
        """The part that was asked to be written, and may have been: the next write replaces it."""
        self._sent = self._added = 0

    @property
    def size(self) -> int:
        """Bytes in all parts."""
        return self._ends[-1] if self._ends else 0

    @property
    def last_finished(self) -> str:
        """The last part that cannot change any more."""
        return self.part(len(self._ends) - 1) if len(self._ends) > 1 else ""

    def part(self, number: int) -> str:
        """The key of a part; the first has number 1."""
        return f"{self.key}.{number:08d}"

    def extended(self, data: bytes) -> tuple[int, bytes]:
        """The part that takes more data, with its new content. Parts of earlier processes are left alone."""
        number, whole = self._next(data)
        self._asked = number
        return number, whole

    def _next(self, data: bytes) -> tuple[int, bytes]:
        whole = (self._growing or b"") + data
        if self._asked:
            return self._asked, whole if self._asked == len(self._ends) else data
        spared = self._sent + len(whole) <= SENT_SHARE * (self._added + len(data))
        if self._growing is not None and len(whole) <= SEGMENT_PART_BYTES and spared:
            return len(self._ends), whole
        return len(self._ends) + 1, data

    def wrote(self, number: int, whole: bytes) -> None:
        """Notes the content of a part."""
        before = self.size
        self._asked = 0
        self._growing = whole
        self._set_end(number, len(whole))
        self._sent += len(whole)
        self._added += self.size - before

    def learn(self, files: Iterable[StoredFile]) -> None:
        """Reads the parts in a list of the bucket."""
        for file in files:
            digits = file.key[len(self.key) + 1 :]
            if len(digits) == 8 and digits.isdecimal() and int(digits) <= len(self._ends) + 1:
                self._set_end(int(digits), file.size)
        self.unknown = False

    def pieces(self, start: int, end: int | None) -> Iterator[tuple[str, int, int]]:
        """The (key, start, length) that make up these bytes."""
        end = self.size if end is None else min(end, self.size)
        index = bisect_right(self._ends, start)
        while start < end:
            part_start = self._ends[index - 1] if index else 0
            stop = min(end, self._ends[index])
            yield self.part(index + 1), start - part_start, stop - start
            start, index = stop, index + 1

    def _set_end(self, number: int, size: int) -> None:
        before = self._ends[number - 2] if number > 1 else 0
        self._ends[number - 1 : number] = [before + size]
