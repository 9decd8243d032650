"""Joins a project's store and any bucket to one store: keys such as s3://bucket/key lead to others."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Protocol

from ..engine import Store, StoredFile

_ELSEWHERE = re.compile(r"s3://?(?P<bucket>[^/]+)/")


class Opener(Protocol):
    """Opens a bucket that is not the store's."""

    def __call__(self, bucket: str, key: str | None, /) -> Store:
        """Opens a bucket; `key` is what is read of it first; None: it is written to."""


class Stores:
    """Implements engine.Store over the project's store, and over other buckets by keys like s3://bucket/key.

    So INPUTS and OUTPUT of a job may name other buckets. A key keeps its form: keys of `list("s3://b/x")`
    start with s3://b/x. As callers remove doubled slashes, s3:/b/x means the same.
    """

    def __init__(self, home: Store, others: Opener) -> None:
        self.home = home
        self._open = others
        self._others: dict[tuple[str, bool], Store] = {}
        self._lock = threading.Lock()

    @property
    def folds_case(self) -> bool:
        """Whether the project's store takes `a` and `A` for one name."""
        return self.home.folds_case

    def locate(self, key: str) -> str:
        """The file's address: a path, or s3://bucket/key."""
        found = _ELSEWHERE.match(key)
        return f"s3://{found['bucket']}/{key[found.end() :]}" if found else self.home.locate(key)

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
        """The bytes of each (key, start, length), in order; None where there is no file."""
        placed = ((*self._at(key)[1:], start, length) for key, start, length in pieces)
        for store, group in groupby(placed, itemgetter(0)):
            yield from store.read_many((key, start, length) for _, key, start, length in group)

    def stat(self, keys: Iterable[str]) -> Sequence[StoredFile | None]:
        """Returns each file with its size and tag; None: there is no such file."""
        found: list[StoredFile | None] = []
        for (lead, store), group in groupby(keys, lambda key: self._at(key)[:2]):
            files = store.stat([self._at(key)[2] for key in group])
            found += [file and file._replace(key=lead + file.key) for file in files] if lead else files
        return found

    def write(self, key: str, data: bytes) -> None:
        """Replace the file at once."""
        _, store, rest = self._at(key, writes=True)
        store.write(rest, data)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Create the file with this content unless it exists."""
        _, store, rest = self._at(key, writes=True)
        return store.write_if_absent(rest, data)

    def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Replaces the file if its content is still `old`."""
        _, store, rest = self._at(key, writes=True)
        return store.replace(rest, old, new)

    def append(self, key: str, data: bytes) -> None:
        """Add to the end of an appended file."""
        _, store, rest = self._at(key, writes=True)
        store.append(rest, data)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files, store by store."""
        for (_, store), group in groupby(keys, lambda key: self._at(key, writes=True)[:2]):
            store.delete([self._at(key, writes=True)[2] for key in group])

    def fetch(self, key: str, path: Path) -> int:
        """Copy a stored file to a new local path."""
        _, store, rest = self._at(key)
        return store.fetch(rest, path)

    def publish(self, path: Path, key: str) -> int:
        """Move or copy a local file into its store."""
        _, store, rest = self._at(key, writes=True)
        return store.publish(path, rest)

    def fetch_many(self, files: Iterable[tuple[str, Path]]) -> Sequence[int]:
        """Fetch each (key, path), each run of files of one store as that store does; their sizes."""
        sizes: list[int] = []
        for (_, store), group in groupby(files, lambda file: self._at(file[0])[:2]):
            sizes += store.fetch_many((self._at(key)[2], path) for key, path in group)
        return sizes

    def publish_many(self, files: Iterable[tuple[Path, str]]) -> Sequence[int]:
        """Publish each (path, key), as `fetch_many` fetches."""
        sizes: list[int] = []
        for (_, store), group in groupby(files, lambda file: self._at(file[1], writes=True)[:2]):
            sizes += store.publish_many((path, self._at(key, writes=True)[2]) for path, key in group)
        return sizes

    def _at(self, key: str, *, writes: bool = False) -> tuple[str, Store, str]:
        """(prefix of that store's keys here, the store, the key in it)."""
        found = _ELSEWHERE.match(key) if key.startswith("s3:") else None
        if found is None:
            return "", self.home, key
        bucket, rest = found["bucket"], key[found.end() :]
        with self._lock:
            store = self._others.get((bucket, writes))
            if store is None:
                store = self._others[bucket, writes] = self._open(bucket, None if writes else rest)
        return found[0], store, rest
