"""Reads what jobs printed, at a place of a log segment that the ledger names: `file@offset+length`."""

from __future__ import annotations

import json
from contextlib import suppress

from ..engine import Store, check_key
from ..errors import DsError, KeyRefused
from ..ledger import JobRecord, RunPaths

TAIL_BYTES = 4096
"""Part of a running job's log in which its last line is looked for, in bytes."""


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


def live_key(paths: RunPaths, worker: str) -> str:
    """The file with the last text of the jobs that run in a worker which gathers logs."""
    return f"{paths.logs}{worker}.live"


def read_running(
    store: Store, paths: RunPaths, place: str | None, job_id: str, worker: str | None, attempt: int
) -> bytes:
    """Returns the text so far of an attempt without an end: what is stored, and its last text in `live_key`.

    What lies between them is not stored yet; a line says so.
    """
    text = read_log(store, paths, place)
    try:
        live = json.loads(store.read(live_key(paths, worker or "")))[job_id]
        if live["attempt"] != attempt:
            return text
        begin, last = int(live["begin"]), str(live["text"]).encode("utf-8", "surrogateescape")
    except (DsError, ValueError, KeyError, TypeError):
        return text
    if begin > len(text):
        return text + b"[ds] ... %d bytes are not stored yet ...\n" % (begin - len(text)) + last
    return text + last[len(text) - begin :]


def tail_of(store: Store, paths: RunPaths, record: JobRecord) -> str:
    """Returns the end of what a running job has printed, as far as it is stored. Raises DsError."""
    with suppress(DsError, ValueError, KeyError, TypeError):
        live = json.loads(store.read(live_key(paths, record.worker or "")))[record.id]
        if live["attempt"] == record.attempt:
            return str(live["text"])
    found = piece_of(paths, record.log or "", None)
    if found is None:
        return ""
    key, start, _ = found
    size = sum(file.size for file in store.list(key))
    start = max(start, size - TAIL_BYTES)
    return store.read(key, start, size - start).decode(errors="replace") if size > start else ""


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
