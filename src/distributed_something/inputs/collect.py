"""Reads COLLECT: a command, a function, or the built-in join. Pure; checks, steps and workers call it."""

from __future__ import annotations

import re
from typing import NamedTuple

from .templates.template import TRUSTED, CommandTemplate, check_names

NAMES = TRUSTED | {"outputs_dir"}  # placeholders that COLLECT can have

_HANDLER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


class Join(NamedTuple):
    """The built-in join: `csv` or `parquet`, and the name pattern of the files to join."""

    kind: str
    name: str


def join_of(collect: str) -> Join | None:
    """Returns the built-in join that `csv`, `parquet` or `csv:NAME` asks for; None: it is no join."""
    kind, _, name = collect.strip().partition(":")
    if kind not in ("csv", "parquet") or " " in collect.strip():
        return None
    return Join(kind, name or f"*.{kind}")


def collect_handler(collect: str) -> str | None:
    """Returns the function that COLLECT names as `module:function`; None: it names none."""
    name = collect.strip()
    return name if join_of(collect) is None and _HANDLER.fullmatch(name) else None


def collect_command(collect: str) -> CommandTemplate | None:
    """Compiles COLLECT; None: it is no command. Raises UsageError, also for a placeholder it cannot have."""
    if not collect or join_of(collect) or collect_handler(collect):
        return None
    template = CommandTemplate(collect, "COLLECT", NAMES)
    check_names(template, NAMES, "COLLECT")
    return template
