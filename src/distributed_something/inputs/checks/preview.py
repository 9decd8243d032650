"""Shows a job as a worker would run it, before any worker does: command, inputs, output, environment. Pure.

`ds jobfile new`, `ds submit --dry-run` and `ds check --show` call it. The folders of a job are not known yet:
they are written relative to the folder that the command runs in, as a worker lays them out.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...job import Job
from ..config import Config
from ..templates.paths import InputTemplate, OutputTemplate
from ..templates.template import command_of, variables_of

FOLDERS = {"input_dir": "../input", "output_dir": "../output", "work_dir": ".", "shared_dir": "../shared"}
"""A job's folders, seen from the folder that its command runs in."""


class Preview(NamedTuple):
    """One job: `command` as a shell reads it, keys of its inputs, and the prefix of its outputs."""

    id: str
    keys: Mapping[str, Any]
    command: str
    inputs: list[str]
    output: str | None
    environment: Mapping[str, str]
    image: str | None


class Previewer:
    """Previews the jobs of a config. Raises UsageError for a job that does not fit."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._command = command_of(config)
        self._inputs = [InputTemplate(text) for text in config.inputs]
        self._output = OutputTemplate(config.output) if config.output else None

    def show(self, job: Job) -> Preview:
        """Returns the preview of a job's first attempt."""
        config = self._config
        keys = job.keys
        values = {**keys, **FOLDERS, "job_id": job.id, "attempt": 1}
        own = {name.decode(): os.fsdecode(value) for name, value in variables_of(keys).items()}
        return Preview(
            id=job.id,
            keys={name: value for name, value in keys.items() if name != "group"},
            command=self.command(values),
            inputs=[each.key for template in self._inputs for each in template.fill_all(values)],
            output=self._output.fill(values) if self._output else None,
            environment={**config.worker_environment(), **own, "DS_JOB_ID": job.id, "DS_ATTEMPT": "1"},
            image=config.dockerhub_tag if config.in_containers or config.engine_kind.rents else None,
        )

    def command(self, values: Mapping[str, Any]) -> str:
        """Returns the command with a job's values, quoted for a shell; or the handler's name."""
        if self._command is None:
            return self._config.handler or "(the image's own worker)"
        argv = self._command.argv({**values, **FOLDERS})
        return argv[2] if self._command.shell else shlex.join(argv)
