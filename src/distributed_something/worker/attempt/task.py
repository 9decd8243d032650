"""Compiles the config once, and resolves jobs by it. Pure. Called by workers and by slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...inputs.config import Config
from ...inputs.template import CommandTemplate, Template
from ...job import Lease
from .staging import DoneRule, clean_prefix


class Work(NamedTuple):
    """One resolved attempt: keys to fetch, command, and output prefix (None: no outputs are published).

    `argv` is empty for a handler.
    """

    inputs: list[str]
    argv: list[str]
    prefix: str | None


class Task(NamedTuple):
    """The compiled config.

    Exactly one of `command` and `handler` is given. `timeout` in seconds; 0: no limit. `done_check`
    looks for finished outputs before the work, by `done_rule` if there is no manifest.
    """

    command: CommandTemplate | None
    handler: str | None
    inputs: tuple[Template, ...] = ()
    output: Template | None = None
    timeout: float = 0.0
    done_check: bool = False
    done_rule: DoneRule | None = None
    environment: Mapping[str, str] = {}

    def work(self, lease: Lease, folders: Mapping[str, str]) -> Work:
        """Resolves a job to argv, inputs and output prefix. Raises UsageError if COMMAND refuses a value."""
        if not (self.command or self.inputs or self.output):
            return Work([], [], None)
        own = {"job_id": lease.job.id, "attempt": lease.attempt}
        values: dict[str, Any] = {**lease.job.keys, **folders, **own}
        return Work(
            [key for template in self.inputs for key in template.fill_all(values)],
            self.command.argv(values) if self.command else [],
            clean_prefix(self.output.fill(values)) if self.output else None,
        )


def compile_task(config: Config, environment: Mapping[str, str]) -> Task:
    """Compiles the config; `environment` is what jobs get beside the worker's own. Raises UsageError."""
    rule = None
    if "EXPECTED_NUMBER_FILES" in config.given:
        rule = DoneRule(config.expected_number_files, config.min_file_size_bytes, config.necessary_string)
    return Task(
        command=CommandTemplate(config.command) if config.command else None,
        handler=config.handler or None,
        inputs=tuple(Template(text) for text in config.inputs),
        output=Template(config.output) if config.output else None,
        timeout=config.job_timeout,
        done_check=config.check_if_done_bool,
        done_rule=rule,
        environment=environment,
    )
