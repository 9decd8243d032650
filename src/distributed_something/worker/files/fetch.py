"""Fetches the inputs of an attempt. Called by `worker.attempt.slot`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...engine import Store, StoredFile
from ...errors import KeyMissing
from .manifest import MANIFESTS, clean_prefix


def fetch_inputs(
    store: Store,
    keys: Sequence[str],
    folder: Path,
    check: Callable[[], None],
    seen: list[StoredFile] | None = None,
) -> int:
    """Fetches each key into `folder` under its base name. Returns the bytes fetched.

    A key that ends in "/" fetches everything below it, names kept relative to it. Raises KeyMissing
    (also for two inputs of one name) and KeyRefused. `check` is called before each file, and may raise to
    end it all. `seen` receives the files as the store had them before the first was fetched.
    """
    found = _resolve(store, keys, stat=seen is not None)
    _check_names([(file.key, name) for file, name in found])
    if seen is not None:
        seen += (file for file, _ in found)
    for target in {(folder / name).parent for _, name in found}:
        target.mkdir(parents=True, exist_ok=True)

    def files() -> Iterator[tuple[str, Path]]:
        for file, name in found:
            check()
            yield file.key, folder / name

    return sum(store.fetch_many(files()))


def look_at_inputs(store: Store, keys: Sequence[str]) -> list[StoredFile]:
    """Returns the inputs of a job as the store has them now. Raises KeyMissing and KeyRefused."""
    return [file for file, _ in _resolve(store, keys, stat=True)]


def _resolve(store: Store, keys: Sequence[str], *, stat: bool) -> list[tuple[StoredFile, str]]:
    """Returns (file, name in the folder) of each input; sizes and tags only with `stat`."""
    single = [clean_prefix(key) for key in keys if not key.endswith("/")]
    looked = dict(zip(single, store.stat(single) if stat else map(_unseen, single), strict=True))
    found: list[tuple[StoredFile, str]] = []
    for key in keys:
        cleaned = clean_prefix(key)
        if key.endswith("/"):
            found += _below(store, cleaned + "/")
            continue
        file = looked[cleaned]
        if file is None:
            raise KeyMissing(f"{cleaned}: not in the store")
        found.append((file, cleaned.rpartition("/")[2]))
    return found


def _unseen(key: str) -> StoredFile:
    return StoredFile(key, 0)


def _below(store: Store, prefix: str) -> list[tuple[StoredFile, str]]:
    found = [file for file in store.list(prefix) if f"/{MANIFESTS}/" not in file.key]
    if not found:
        raise KeyMissing(f"{prefix}: nothing below it in the store")
    return [(file, file.key[len(prefix) :]) for file in found]


def _check_names(found: Sequence[tuple[str, str]]) -> None:
    """Raises KeyMissing if two inputs would lie at one place, or one where another needs a folder."""
    taken: set[str] = set()
    for source, name in found:
        if name in taken:
            raise KeyMissing(f"{source}: another input has the name {name!r}")
        taken.add(name)
    for source, name in found:
        parts = name.split("/")
        if above := taken.intersection("/".join(parts[:end]) for end in range(1, len(parts))):
            raise KeyMissing(f"{source}: another input has the name {min(above)!r}")
