"""From jobs to full batches for SQS: known ones left out, the rest numbered, and cut by count and bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

from ...job import Job
from ..message import MAX_BYTES, Message, data_type, size, unsendable
from .channel import BATCH
from .idset import IdSet
from .send import Batch, Outgoing


class Submitted:
    """The ids of a run: in SQS already (`known`), or given to `put` and not yet confirmed."""

    def __init__(self, known: Callable[[], Iterable[str]]) -> None:
        self._load: Callable[[], Iterable[str]] | None = known
        self._ids = IdSet()
        self._next = 0
        self._open: set[str] = set()
        self._again: set[str] = set()

    def __len__(self) -> int:
        return len(self._ids) - len(self._open) - len(self._again)

    def begin(self) -> None:
        """A new submission: what the last one left unconfirmed is to be sent if it is given again."""
        if self._load is not None:
            self._ids = IdSet(self._load())
            self._next = len(self._ids)
            self._load = None
        self._again |= self._open
        self._open = set()

    def take(self, job_id: str) -> int | None:
        """The number of a job that is to be sent, which no other has; None where it is known."""
        if not self._ids.add(job_id):
            if job_id not in self._again:
                return None
            self._again.discard(job_id)
        self._open.add(job_id)
        self._next += 1
        return self._next - 1

    def confirm(self, ids: Iterable[str]) -> None:
        """These are stored."""
        self._open.difference_update(ids)


_ID_HERE = "the job's own id"
_INDEX_HERE = 8_888_888_888_888_888_888
"""As long as the values themselves can be."""


class Filler:
    """Fills batches by count and by bytes, leaving out what is known and what SQS would not take."""

    def __init__(self, submitted: Submitted, run: str) -> None:
        self.known = 0
        self.failed: list[tuple[str, str]] = []
        self._submitted = submitted
        # What differs from job to job is put between these, as building JSON takes ten times as long.
        facts = Message(Job(_ID_HERE, _INDEX_HERE, b""), run=run).attributes()
        self._overhead = size(b"", facts)
        self._before_id, rest = _json(facts).split(_ID_HERE)
        self._before_index, self._end = rest.split(str(_INDEX_HERE))

    def batches(self, jobs: Iterable[Job]) -> Iterator[Batch]:
        """Batches for the sender."""
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
        except Exception as error:  # noqa: BLE001  raised below: what came before it is sent all the same
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
