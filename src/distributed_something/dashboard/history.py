"""Keeps the fold of a run, and what the page shows beside it: earlier attempts, and each job's body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine import Store
from ..ledger import Entry, Fold, JobRecord, RunPaths, SegmentReader, parse_job_line

_KEPT = frozenset({"failed", "dead", "interrupted", "retried"})


class History(Fold):
    """A Fold that also keeps attempts without a result, the figures of successful attempts, and job bodies.

    `version` grows with every event and every job; `texts` are the bodies to search in, in lower case.
    """

    def __init__(self, store: Store, paths: RunPaths) -> None:
        super().__init__(store, paths)
        self.paths = paths
        self.past: dict[str, list[Mapping[str, Any]]] = {}
        self.results: dict[str, Mapping[str, Any]] = {}
        self.done_by: dict[str, int] = {}
        self.bodies: dict[str, bytes] = {}
        self.texts: dict[str, bytes] = {}
        self.version = 0
        self._lists = SegmentReader(store, paths.jobs)

    def update(self) -> History:
        """Read what is new in the store."""
        for line in self._lists.new_lines():
            job_id, body = parse_job_line(line + b"\n")
            self.bodies[job_id] = body
            self.texts[job_id] = body.lower()
            self.version += 1
        super().update()
        return self

    def _apply(self, record: JobRecord, entry: Entry) -> None:
        super()._apply(record, entry)
        self.version += 1
        if entry.event in _KEPT:
            self.past.setdefault(record.id, []).append(entry.facts())
        elif entry.event == "succeeded":
            facts = {"bytes_in": entry.bytes_in, "bytes_out": entry.bytes_out, "phases": entry.phases}
            if known := {name: value for name, value in facts.items() if value}:
                self.results[record.id] = known
            machine = machine_of(record)
            self.done_by[machine] = self.done_by.get(machine, 0) + 1


def machine_of(record: JobRecord) -> str:
    """Returns the machine of a job's latest attempt, or its worker if the machine is not known."""
    return record.machine or record.worker or ""
