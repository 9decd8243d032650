"""Fetches the inputs of an attempt. Called by `worker.attempt.slot`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...engine import Store, StoredFile, check_key
from ...errors import KeyMissing, KeyRefused
from ...inputs.templates.paths import Input
from .done import Reading, look_for
from .manifest import MANIFESTS


def fetch_inputs(
    store: Store,
    inputs: Sequence[Input],
    folder: Path,
    check: Callable[[], None],
    seen: list[StoredFile] | None = None,
    *,
    lists: bool = False,
) -> int:
    """Fetches each input into `folder` under its name. Returns the bytes fetched.

    A key that ends in "/" fetches everything below it, with names relative to it. Raises KeyMissing (also
    if two inputs would have one name) and KeyRefused (a key that no folder can hold). `check` is called
    before each file, and may raise to end it all. `seen` receives the files as the store had them before.
    `lists`: see `done.Rules`.
    """
    found = resolve(store, inputs, stat=seen is not None, lists=lists)
    if seen is not None:
        seen += (file for file, _ in found)
    for target in {(folder / name).parent for _, name in found}:
        target.mkdir(parents=True, exist_ok=True)

    def files() -> Iterator[tuple[str, Path]]:
        for file, name in found:
            check()
            yield file.key, folder / name

    return sum(store.fetch_many(files()))


def look_at_inputs(store: Reading, inputs: Sequence[Input], *, lists: bool = False) -> list[StoredFile]:
    """Returns the inputs of a job as the store has them now. Raises KeyMissing and KeyRefused."""
    return [file for file, _ in _located(store, inputs, stat=True, lists=lists)]


def resolve(
    store: Reading, inputs: Sequence[Input], *, stat: bool, lists: bool = False
) -> list[tuple[StoredFile, str]]:
    """Returns (file, name in the folder) of each input; sizes and tags only with `stat`.

    Raises KeyMissing, also if two inputs would have one name, and KeyRefused.
    """
    found = _located(store, inputs, stat=stat, lists=lists)
    _check_names([(file.key, name) for file, name in found])
    return found


def _located(
    store: Reading, inputs: Sequence[Input], *, stat: bool, lists: bool
) -> list[tuple[StoredFile, str]]:
    """Returns (file, name in the folder) of each input; sizes and tags only with `stat`."""
    single = [each.key for each in inputs if not each.key.endswith("/")]
    looked = dict(
        zip(single, look_for(store, single, lists=lists) if stat else map(_unseen, single), strict=True)
    )
    found: list[tuple[StoredFile, str]] = []
    for key, name in inputs:
        if key.endswith("/"):
            found += _below(store, key, name)
            continue
        file = looked[key]
        if file is None:
            raise KeyMissing(f"{key}: not in the store")
        found.append((file, name))
    return found


def _unseen(key: str) -> StoredFile:
    return StoredFile(key, 0)


def _below(store: Reading, prefix: str, into: str) -> list[tuple[StoredFile, str]]:
    """Returns the files below a prefix, with their names below `into`."""
    found = [file for file in store.list(prefix) if f"/{MANIFESTS}/" not in file.key]
    if not found:
        raise KeyMissing(f"{prefix}: nothing below it in the store")
    return [(file, into + _name_below(prefix, file.key)) for file in found]


def _name_below(prefix: str, key: str) -> str:
    try:
        return check_key(key[len(prefix) :])
    except KeyRefused as error:
        fix = "give it a name without empty parts and parts '.' or '..', or leave it out of INPUTS"
        raise KeyRefused(f"{key}: no folder can hold a file of that name", fix) from error


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
