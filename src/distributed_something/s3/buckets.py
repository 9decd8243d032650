"""Joins the project's bucket and any other bucket to one store. Used by workers."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..engine import StoredFile
from .store import S3Store
from .transfer import FILES_AT_ONCE, at_once, read_ahead

_ELSEWHERE = re.compile(r"s3://?(?P<bucket>[^/]+)/")


class Stores:
    """Implements engine.Store over the project's bucket, and over any other by keys such as s3://bucket/key.

    So INPUTS and OUTPUT of a job may name other buckets. A key keeps its form: keys of `list("s3://b/x")`
    start with s3://b/x. As callers remove doubled slashes, s3:/b/x means the same.
    """

    def __init__(self, home: S3Store) -> None:
        self._home = home
        self._others: dict[str, S3Store] = {}
        self._lock = threading.Lock()

    @property
    def folds_case(self) -> bool:
        """Whether `a` and `A` are one name: not in S3."""
        return False

    def locate(self, key: str) -> str:
        """The file's address: s3://bucket/key."""
        _, store, rest = self._at(key)
        return store.locate(rest)

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Every file whose key starts with `prefix`, in key order."""
        lead, store, rest = self._at(prefix)
        for file in store.list(rest):
            yield file._replace(key=lead + file.key) if lead else file

    def folders(self, prefix: str) -> Iterator[str]:
        """Yields the next part of the keys below `prefix`, each once, in order."""
        _, store, rest = self._at(prefix)
        return store.folders(rest)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """The file's content, or a part of it. Raises KeyMissing."""
        _, store, rest = self._at(key)
        return store.read(rest, start, length)

    def read_many(self, pieces: Iterable[tuple[str, int, int]]) -> Iterator[bytes | None]:
        """The bytes of each (key, start, length), in order, many at a time; None where there is no file."""
        return read_ahead(self.read, pieces)

    def stat(self, keys: Iterable[str]) -> Sequence[StoredFile | None]:
        """Returns each file with its size and tag, many at a time; None: there is no such file."""
        return at_once(self._stat, [(key,) for key in keys], FILES_AT_ONCE)

    def _stat(self, key: str) -> StoredFile | None:
        _, store, rest = self._at(key)
        found = store.stat([rest])[0]
        return found and found._replace(key=key)

    def write(self, key: str, data: bytes) -> None:
        """Replace the file at once."""
        _, store, rest = self._at(key)
        store.write(rest, data)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Create the file with this content unless it exists."""
        _, store, rest = self._at(key)
        return store.write_if_absent(rest, data)

    def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Replaces the file if its content is still `old`."""
        _, store, rest = self._at(key)
        return store.replace(rest, old, new)

    def append(self, key: str, data: bytes) -> None:
        """Add to the end of an appended file."""
        _, store, rest = self._at(key)
        store.append(rest, data)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files, bucket by bucket."""
        by_store: dict[S3Store, set[str]] = {}
        for key in keys:
            _, store, rest = self._at(key)
            by_store.setdefault(store, set()).add(rest)
        for store, rests in by_store.items():
            store.delete(rests)

    def fetch(self, key: str, path: Path) -> int:
        """Copy a stored file to a new local path."""
        _, store, rest = self._at(key)
        return store.fetch(rest, path)

    def publish(self, path: Path, key: str) -> int:
        """Copy a local file into its bucket."""
        _, store, rest = self._at(key)
        return store.publish(path, rest)

    def fetch_many(self, files: Iterable[tuple[str, Path]]) -> Sequence[int]:
        """Fetch each (key, path), many at a time; their sizes."""
        return at_once(self.fetch, files, FILES_AT_ONCE)

    def publish_many(self, files: Iterable[tuple[Path, str]]) -> Sequence[int]:
        """Publish each (path, key), many at a time; their sizes."""
        return at_once(self.publish, files, FILES_AT_ONCE)

    def _at(self, key: str) -> tuple[str, S3Store, str]:
        """(prefix of that store's keys here, the store, the key in it)."""
        found = _ELSEWHERE.match(key)
        if found is None:
            return "", self._home, key
        bucket = found["bucket"]
        with self._lock:
            if bucket not in self._others:
                self._others[bucket] = self._home.sibling(bucket)
            return found[0], self._others[bucket], key[found.end() :]
