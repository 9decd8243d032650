"""The config as workers need it, whatever the engine."""

from __future__ import annotations

from collections.abc import Mapping

from ..config import Config
from ..template import CommandTemplate, Template
from .slot import Task
from .staging import DoneRule


def compile_task(config: Config, environment: Mapping[str, str]) -> Task:
    """What a worker does with every job; `environment` is added to its own. Raises UsageError."""
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
