"""Returns the cells of a table of jobs: facts of the ledger and the jobs' own keys.

`ds jobs --columns`, `--csv` and the page's download call it. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..ledger import JobRecord
from .snapshot import Alive, job_line

FACTS = (
    "index", "id", "state", "attempts", "cause", "exit_code", "seconds", "max_rss_bytes", "worker", "machine",
    "started", "ended", "detail", "output", "log",
)  # fmt: skip
"""Columns besides the jobs' own keys."""


def cells(
    record: JobRecord, keys: Mapping[str, Any], columns: Sequence[str], *, alive: Alive
) -> list[object]:
    """Returns the cells of one job. A column that is no fact is a key of the job; None: it has none."""
    line = {**job_line(record, None), "state": alive.state(record).value}
    return [
        (line[name] if name in line else getattr(record, name)) if name in FACTS else _text(keys.get(name))
        for name in columns
    ]


def _text(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
