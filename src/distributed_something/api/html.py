"""Draws a run, or a table, as the HTML that a notebook shows: no script, no style of its own page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import islice
from typing import Any

from ..console import progress_line
from ..report.failures import FailureGroup
from ..runs.snapshot import Snapshot

SHOWN_ROWS = 20
SHOWN_GROUPS = 5

_COLOURS = (("succeeded", "#2e7d5b"), ("skipped", "#7fae97"), ("dead", "#c0392b"), ("running", "#2f6fb3"))


def of_run(run: str, snapshot: Snapshot, groups: Sequence[FailureGroup]) -> str:
    """Returns a run: its counts as a bar, its progress in words, and its failures."""
    jobs = snapshot.jobs
    total = max(jobs.total, 1)
    parts = "".join(
        f'<div style="background:{colour};width:{getattr(jobs, name) / total:.3%}"></div>'
        for name, colour in _COLOURS
    )
    bar = (
        f'<div style="display:flex;height:.6em;max-width:40em;background:#8883" role="img"'
        f' aria-label="{escape(progress_line(snapshot))}">{parts}</div>'
    )
    head = f"<b>{escape(snapshot.app)}</b> <code>{escape(run)}</code> ({escape(snapshot.engine)})"
    rows = [
        {
            "jobs": len(each.ids),
            "dead": each.dead,
            "cause": each.cause,
            "why": each.example,
            "such as": each.ids[0],
        }
        for each in groups[:SHOWN_GROUPS]
    ]
    failures = of_rows(["jobs", "dead", "cause", "why", "such as"], rows) if rows else ""
    return f"<div>{head}{bar}{escape(progress_line(snapshot))}{failures}</div>"


def of_rows(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the first rows as a table."""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(row.get(name))}</td>" for name in columns) + "</tr>"
        for row in islice(rows, SHOWN_ROWS)
    )
    more = f"<p>{len(rows) - SHOWN_ROWS:,} more rows</p>" if len(rows) > SHOWN_ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(value: object) -> str:
    return "" if value is None else escape(str(value))
