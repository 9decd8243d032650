"""Turns jobs into full batches for SQS: leaves known jobs out, numbers the rest, cuts by count and bytes.

Used by `queue.py` for `put`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

from ...job import Job
from ..message import MAX_BYTES, Message, data_type, size, unsendable
from .channel import BATCH
from .send import Batch, Outgoing


class Submitted:
    """The job ids of a run: in SQS already (`known`), or given to `put` and not confirmed yet."""

    def __init__(self, known: Callable[[], Iterable[str]]) -> None:
        self._load: Callable[[], Iterable[str]] | None = known
        self._ids: set[int] = set()  # as numbers: 77 MB for a million
        self._next = 0
        self._open: set[str] = set()
        self._again: set[str] = set()

    def __len__(self) -> int:
        return len(self._ids) - len(self._open) - len(self._again)

    def begin(self) -> None:
        """Begins a submission. Unconfirmed jobs of the last one are sent if they are given again."""
        if self._load is not None:
            self._ids = {int(each, 16) for each in self._load()}
            self._next = len(self._ids)
            self._load = None
        self._again |= self._open
        self._open = set()

    def take(self, job_id: str) -> int | None:
        """Returns the next index for a job to send; None: the job is known."""
        number = int(job_id, 16)
        if number in self._ids:
            if job_id not in self._again:
                return None
            self._again.discard(job_id)
        self._ids.add(number)
        self._open.add(job_id)
        self._next += 1
        return self._next - 1

    def confirm(self, ids: Iterable[str]) -> None:
        """Marks jobs as stored in SQS."""
        self._open.difference_update(ids)


_ID_HERE = "the job's own id"
_INDEX_HERE = 8_888_888_888_888_888_888
"""Stand for the values; the index is as long as one can be."""


class Batcher:
    """Cuts batches by count and by bytes. Leaves out jobs that are known, and those that SQS would refuse."""

    def __init__(self, submitted: Submitted, run: str) -> None:
        self.known = 0
        self.failed: list[tuple[str, str]] = []
        self._submitted = submitted
        # Only id and index differ from job to job: they are put into this JSON, which is ten times as fast.
        facts = Message(Job(_ID_HERE, _INDEX_HERE, b""), run=run).attributes()
        self._overhead = size(b"", facts)
        self._before_id, rest = _json(facts).split(_ID_HERE)
        self._before_index, self._end = rest.split(str(_INDEX_HERE))

    def batches(self, jobs: Iterable[Job]) -> Iterator[Batch]:
        """Yields batches for the sender. An error of `jobs` is raised after the jobs before it."""
        self._submitted.begin()
        batch: list[Outgoing] = []
        room, broken = MAX_BYTES, None
        try:
            for job in jobs:
                message = self._message(job)
                if message is None:
                    continue
                bytes_of = len(message.body) + self._overhead
                if batch and (len(batch) == BATCH or bytes_of > room):
                    yield batch
                    batch, room = [], MAX_BYTES
                batch.append(message)
                room -= bytes_of
        except Exception as error:  # noqa: BLE001  raised below, after the jobs before it
            broken = error
        if batch:
            yield batch
        if broken is not None:
            raise broken

    def _message(self, job: Job) -> Outgoing | None:
        index = self._submitted.take(job.id)
        if index is None:
            self.known += 1
            return None
        if why := unsendable(job.body, self._overhead):
            self.failed.append((job.id, why))
            return None
        return Outgoing(
            job.id, job.body, self._before_id + job.id + self._before_index + str(index) + self._end
        )


def _json(facts: dict[str, str]) -> str:
    return json.dumps(
        {name: {"DataType": data_type(name), "StringValue": value} for name, value in facts.items()}
    )
