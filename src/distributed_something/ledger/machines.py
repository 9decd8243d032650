"""Reads from a run's index on which machines jobs failed and succeeded. `steps/watch/exclude.py` calls it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..exclusion import Elsewhere, Failure, Span
from ..job import State
from .batch import STATES
from .fold import Fold

MOST_FAILURES = 10_000
"""Latest failures that are looked at: the cost of a look is bounded."""

_DONE = f"state = {STATES.index(State.SUCCEEDED)}"
_FAILED = """SELECT json_extract(facts, '$.machine'), number, t, json_extract(facts, '$.cause'),
    json_extract(facts, '$.exit_code') FROM past
    WHERE json_extract(facts, '$.event') IN ('failed', 'dead') ORDER BY rowid DESC LIMIT ?"""


def failures(fold: Fold, most: int = MOST_FAILURES) -> list[Failure]:
    """Returns the latest failed attempts of which the machine is known."""
    return [
        Failure(machine, number, at, str(cause) if code is None else f"{cause} {code}")
        for machine, number, at, cause, code in fold.query(_FAILED, (most,))
        if machine
    ]


def charged_to(fold: Fold, spans: Sequence[Span]) -> list[str]:
    """Returns the ids of dead jobs that failed on these machines since they were last put back."""
    where, values = _on(spans, "json_extract(facts, '$.machine')", "past.t")
    retried = """SELECT max(t) FROM past AS back
        WHERE back.number = past.number AND json_extract(back.facts, '$.event') = 'retried'"""
    sql = f"""SELECT DISTINCT id FROM states JOIN jobs USING (number) JOIN past USING (number)
        WHERE state = {STATES.index(State.DEAD)} AND json_extract(facts, '$.event') IN ('failed', 'dead')
        AND {where} AND past.t > ifnull(({retried}), 0)"""  # noqa: S608
    return [job_id for (job_id,) in fold.query(sql, values)]


def latest_success(fold: Fold, spans: Sequence[Span]) -> float | None:
    """Returns when a job last succeeded on a host, in Unix seconds; None: none has."""
    where, values = _on(spans)
    sql = f"SELECT max(ended) FROM states WHERE {_DONE} AND {where}"  # noqa: S608
    latest: float | None = next(fold.query(sql, values))[0]
    return latest


def elsewhere(fold: Fold, spans: Sequence[Span], since: float, jobs: Sequence[int] = ()) -> Elsewhere:
    """Returns how many jobs, and how many of these, have succeeded on other hosts since then."""
    where, values = _on(spans)
    sql = f"""SELECT count(*), ifnull(sum(number IN (SELECT value FROM json_each(?))), 0)
        FROM states WHERE {_DONE} AND ended >= ? AND NOT {where}"""  # noqa: S608
    return Elsewhere(*next(fold.query(sql, (json.dumps(jobs), since, *values))))


def _on(
    spans: Sequence[Span], machine: str = "machine", when: str = "ended"
) -> tuple[str, list[str | float]]:
    """Returns a condition of SQL, and its values: on one of these machines, at its time."""
    one = f"(ifnull({machine}, '') = ? AND {when} >= ? AND {when} < ?)"
    return f"({' OR '.join([one] * len(spans))})", [value for span in spans for value in span]
