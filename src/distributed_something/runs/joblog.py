"""Reads what jobs printed, at a place of a log segment that the ledger names: `file@offset+length`."""

from __future__ import annotations

from ..engine import Store, check_key
from ..errors import DsError, KeyRefused
from ..ledger import RunPaths


def read_log(store: Store, paths: RunPaths, place: str | None, *, skip: int = 0) -> bytes:
    """Returns the text at a place in a log segment (`file@offset+length`), without its first `skip` bytes.

    A place without a length belongs to a running attempt: everything from the offset on is returned.
    """
    found = piece_of(paths, place or "", None)
    if found is None:
        return b""
    key, start, size = found
    try:
        return store.read(key, start + skip, None if size is None else max(size - skip, 0))
    except DsError:
        return b""


def begin_of(place: str | None) -> str:
    """Returns a log's place without its length, which is known only at its end; "" of none."""
    name, _, span = (place or "").rpartition("@")
    return f"{name}@{span.partition('+')[0]}" if place else ""


def piece_of(paths: RunPaths, place: str, limit: int | None) -> tuple[str, int, int | None] | None:
    """Returns the (key, start, length) of a place; None where it is none."""
    name, _, span = place.rpartition("@")
    offset, _, length = span.partition("+")
    try:
        start, size = int(offset), int(length) if length else None
        key = check_key(paths.logs + name)
    except (ValueError, KeyRefused):
        return None
    if limit is not None and size is not None and size > limit:
        start, size = start + size - limit, limit
    return key, start, size
