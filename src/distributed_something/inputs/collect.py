"""Reads COLLECT: a command, or the built-in join of CSV files. Pure; checks, steps and workers call it."""

from __future__ import annotations

from .template import TRUSTED, CommandTemplate, check_names

CSV = "csv"
"""Value of COLLECT for the built-in join; `csv:NAME` names the files to join."""

NAMES = TRUSTED | {"outputs_dir"}
"""Placeholders that COLLECT can have."""


def csv_name(collect: str) -> str | None:
    """Returns the name pattern of the files to join; None: COLLECT is a command."""
    kind, _, name = collect.strip().partition(":")
    return (name or "*.csv") if kind == CSV and " " not in collect.strip() else None


def collect_command(collect: str) -> CommandTemplate | None:
    """Compiles COLLECT; None: it is no command. Raises UsageError, also for a placeholder it cannot have."""
    if not collect or csv_name(collect):
        return None
    template = CommandTemplate(collect, "COLLECT", NAMES)
    check_names(template, NAMES, "COLLECT")
    return template
