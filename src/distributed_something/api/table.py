"""A run's jobs as rows of one table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import html

FACTS = ("id", "state", "attempts", "cause", "exit_code", "seconds", "max_rss_bytes", "output")
"""Columns behind a job's own keys."""


class Table(list[dict[str, Any]]):
    """Rows with the same columns. A notebook shows it as a table; `pandas.DataFrame(table)` takes it."""

    @classmethod
    def of(cls, lines: Iterable[dict[str, Any]]) -> Table:
        """Makes rows of jobs as `Run.jobs` yields them. A key with the name of a fact is `job.<key>`."""
        groups = []
        for line in lines:
            group = (line["job"] or {}).get("group")
            keys = group if isinstance(group, dict) else {}
            own = {f"job.{key}" if key in FACTS else key: value for key, value in keys.items()}
            groups.append((own, {name: line[name] for name in FACTS}))
        names = dict.fromkeys(name for own, _ in groups for name in own)
        return cls({**dict.fromkeys(names), **own, **facts} for own, facts in groups)

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return [*self[0]] if self else []

    def _repr_html_(self) -> str:
        return html.of_rows(self.columns, self)
