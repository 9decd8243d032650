"""Many failures read as few problems: grouped by cause and by what the jobs said last."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from .engine import Store, check_key
from .errors import DsError, KeyRefused
from .job import State
from .ledger import JobRecord, RunPaths

TAIL_BYTES = 2048
_OURS = "[ds] "
_FOLDS = (
    (re.compile(r"(?:[\w.~-]*/)+[\w.~%+-]*"), "<path>"),
    (re.compile(r"\b(?:0x)?[0-9a-f]{8,}\b", re.IGNORECASE), "<hex>"),
    (re.compile(r"\d+(?:[.,:]\d+)*"), "<n>"),
)


class FailureGroup:
    """Jobs that failed alike: their cause, a line that one of them said last, and their ids."""

    def __init__(self, cause: str, example: str) -> None:
        self.cause = cause
        self.example = example
        self.ids: list[str] = []
        self.dead = 0


def read_log(store: Store, paths: RunPaths, place: str | None, limit: int | None = None) -> bytes:
    """The text at a place in a log segment (`file@offset+length`), or its last `limit` bytes.

    Without a length it is an attempt that still runs: everything from the offset on.
    """
    if not place:
        return b""
    found = _piece(paths, place, limit)
    if found is None:
        return b""
    try:
        return store.read(*found)
    except DsError:
        return b""


def _piece(paths: RunPaths, place: str, limit: int | None) -> tuple[str, int, int | None] | None:
    """The (key, start, length) of a place; None where it is none."""
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


def last_line(text: str) -> str:
    """The last line with something on it, the project's own notes only where there is nothing else."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(_OURS)]
    return (said or lines or [""])[-1]


def fold_line(line: str) -> str:
    """The line with paths, long hexadecimal and numbers taken out, so that alike failures are alike."""
    for pattern, word in _FOLDS:
        line = pattern.sub(word, line)
    return line


def _tails(store: Store, paths: RunPaths, records: Sequence[JobRecord]) -> Iterator[str]:
    """What each job said last; nothing where its log cannot be read."""
    found = [_piece(paths, record.log or "", TAIL_BYTES) for record in records]
    texts = store.read_many(
        (key, start, TAIL_BYTES if size is None else size) for key, start, size in filter(None, found)
    )
    for piece in found:
        text = next(texts, None) if piece else None
        yield (text or b"").decode(errors="replace")


def group_failures(store: Store, paths: RunPaths, records: Iterable[JobRecord]) -> list[FailureGroup]:
    """The failed and dead jobs in groups, the largest first."""
    groups: dict[tuple[str, str], FailureGroup] = {}
    failed = [record for record in records if record.state is State.DEAD or record.failed]
    for record, text in zip(failed, _tails(store, paths, failed), strict=True):
        line = last_line(text)
        if not line or line.startswith(_OURS):
            line = record.detail or line
        key = (record.cause or "", fold_line(line))
        group = groups.setdefault(key, FailureGroup(record.cause or "", line))
        group.ids.append(record.id)
        group.dead += record.state is State.DEAD
    return sorted(groups.values(), key=lambda group: -len(group.ids))
