"""Names the places of a run in the store, and reads segments that grow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..engine import Store, StoredFile

CHUNK_BYTES = 16 << 20
"""Size of one read, in bytes; a longer line is read whole."""


class RunPaths(NamedTuple):
    """Where a run lies in the store."""

    app: str
    run: str

    @property
    def root(self) -> str:
        """The prefix of everything of the run."""
        return f"runs/{self.app}/{self.run}/"

    @property
    def jobs(self) -> str:
        """The prefix of the job lists."""
        return self.root + "jobs/"

    @property
    def events(self) -> str:
        """The prefix of the event segments."""
        return self.root + "events/"

    @property
    def logs(self) -> str:
        """The prefix of the log segments."""
        return self.root + "logs/"

    @property
    def follow(self) -> str:
        """The key of the orders for live logs."""
        return self.root + "follow"

    @property
    def paused(self) -> str:
        """The prefix of the notes of workers that pause."""
        return self.root + "paused/"


class Part(NamedTuple):
    """Complete lines of a segment, and the place of the first in it."""

    key: str
    start: int
    lines: bytes


def read_parts(store: Store, files: Iterable[tuple[StoredFile, int]]) -> Iterator[Part]:
    """Yields the complete lines of files, each from a place on, many lines in a part."""
    grown = [(file, start) for file, start in files if file.size > start]
    pieces = [(file.key, start, min(file.size - start, CHUNK_BYTES)) for file, start in grown]
    for (file, start), asked, first in zip(grown, pieces, store.read_many(iter(pieces)), strict=True):
        data, wanted = first, asked[2]
        while data:
            if end := data.rfind(b"\n") + 1:
                yield Part(file.key, start, data[:end])
                start += end
                size = CHUNK_BYTES
            elif len(data) < wanted or start + wanted >= file.size:
                break  # a line that is being written
            else:
                size = 2 * wanted  # on the local engine a job may have any size
            if start >= file.size:
                break
            wanted = min(size, file.size - start)
            data = next(store.read_many([(file.key, start, wanted)]))


class SegmentReader:
    """Reads the segments under a prefix, again and again, each byte once."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._read: dict[str, int] = {}

    def new_lines(self) -> Iterator[bytes]:
        """Yields the complete lines since the last call, in the order of `new_pieces`."""
        for piece in self.new_pieces():
            yield from piece.splitlines()

    def new_pieces(self) -> Iterator[bytes]:
        """Yields the complete lines since the last call, many in a piece: one list, and reads of what grew.

        Lines count as read once the last piece is taken: after a failure the next call yields them again.
        """
        files = [(file, self._read.get(file.key, 0)) for file in self._store.list(self._prefix)]
        read: dict[str, int] = {}
        for part in read_parts(self._store, files):
            yield part.lines
            read[part.key] = part.start + len(part.lines)
        self._read |= read
