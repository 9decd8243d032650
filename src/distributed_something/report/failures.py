"""Groups failed jobs by cause and by the telling line of their logs, for `ds failures`, report and page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence

from ..engine import Store
from ..job import Cause, State
from ..ledger import JobRecord, RunPaths
from ..runs.joblog import piece_of
from .alike import fold_line, is_ours, merge_varied, telling_line

TAIL_BYTES = 4096

Said = MutableMapping[tuple[str, float | None], tuple[str, str]]
"""For each (job, end of its attempt): the telling line, and the same line folded."""


class FailureGroup:
    """Jobs with the same failure: its cause, the telling line of one of them, and their ids."""

    def __init__(self, cause: str, example: str) -> None:
        self.cause = cause
        self.example = example
        self.ids: list[str] = []
        self.dead = 0

    def __repr__(self) -> str:
        return f"<FailureGroup {self.cause}: {self.example!r}, {len(self.ids):,} jobs, {self.dead:,} dead>"


def _tails(store: Store, paths: RunPaths, records: Sequence[JobRecord]) -> Iterator[str]:
    """Reads the log of each job. Returns an empty text for a log that cannot be read."""
    found = [piece_of(paths, record.log or "", TAIL_BYTES) for record in records]
    texts = store.read_many(
        (key, start, TAIL_BYTES if size is None else size) for key, start, size in filter(None, found)
    )
    for piece in found:
        text = next(texts, None) if piece else None
        yield (text or b"").decode(errors="replace")


def group_failures(
    store: Store,
    paths: RunPaths,
    records: Iterable[JobRecord],
    said: Said | None = None,
    most: int | None = None,
) -> list[FailureGroup]:
    """Returns the failed and dead jobs in groups, the largest first.

    `said` keeps the lines of logs that were read, and no call reads more than `most` logs: the next call
    continues.
    """
    failed = [record for record in records if record.state is State.DEAD or record.failed]
    said = {} if said is None else said
    unread = [record for record in failed if (record.id, record.ended) not in said][:most]
    unread.sort(key=lambda record: record.log or "")  # logs of one file are read from one opening
    for record, text in zip(unread, _tails(store, paths, unread), strict=True):
        line = _reason(record, telling_line(text))
        said[record.id, record.ended] = (line, fold_line(line))
    found = [said.get((record.id, record.ended), _UNREAD) for record in failed]
    keys = [(record.cause or "", folded) for record, (_, folded) in zip(failed, found, strict=True)]
    merged = merge_varied(keys)
    groups: dict[object, FailureGroup] = {}
    for record, (line, _), key in zip(failed, found, keys, strict=True):
        group = groups.setdefault(merged[key], FailureGroup(record.cause or "", line))
        group.ids.append(record.id)
        group.dead += record.state is State.DEAD
    return sorted(groups.values(), key=lambda group: -len(group.ids))


_NOT_IN_LOG = frozenset(
    {Cause.TIMEOUT, Cause.INPUT_MISSING, Cause.OUTPUT_MISSING, Cause.UPLOAD, Cause.WORKER_LOST}
)
"""Causes that the job's own output cannot name: its last line is about something else."""

_UNREAD = ("(not read yet)", "")


def _reason(record: JobRecord, line: str) -> str:
    """Returns why the attempt failed: our detail if we ended it, else the telling line of the job's log."""
    if record.detail and (record.cause in _NOT_IN_LOG or not line or is_ours(line)):
        return record.detail
    return line
