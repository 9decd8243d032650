"""Names the places of a run in the store, and reads segments that grow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..engine import Store

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
        grown = [file for file in self._store.list(self._prefix) if file.size > self._read.get(file.key, 0)]
        pieces = ((key, self._read.get(key, 0), min(size, CHUNK_BYTES)) for key, size in grown)
        read = dict[str, int]()
        for file, data in zip(grown, self._store.read_many(pieces), strict=True):
            start, wanted = self._read.get(file.key, 0), CHUNK_BYTES
            while data:
                if end := data.rfind(b"\n") + 1:
                    yield data[:end]
                    start = read[file.key] = start + end
                    wanted = CHUNK_BYTES
                elif len(data) < wanted:
                    break  # a line that is being written
                else:
                    wanted *= 2  # on the local engine a job may have any size
                if start >= file.size:
                    break
                data = next(self._store.read_many([(file.key, start, wanted)]))
        self._read |= read
