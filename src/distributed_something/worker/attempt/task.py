"""Compiles the config once, and resolves jobs by it. Pure. Called by workers and by slots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...inputs.collect import Join, collect_command, collect_handler, join_of
from ...inputs.config import Config
from ...inputs.needs import Resources
from ...inputs.templates.paths import Input, InputTemplate, OutputTemplate
from ...inputs.templates.template import CommandTemplate, command_of, variables_of
from ...job import Job, Lease
from ...system.hardware import Lender
from ..files.done import Recipe, Rules, recipe_of, rules_of
from ..files.project import NONE, Carried
from .collect import KEY

COLLECTED = "collected"
"""Prefix of the outputs of the collecting job. Several apps may publish there."""


NO_RESOURCES = Resources({})
NOTHING_SAID: Mapping[str, float] = {}


class Work(NamedTuple):
    """One resolved attempt: keys to fetch, command, and output prefix (None: no outputs are published).

    `argv` is empty for a handler.
    """

    inputs: list[Input]
    argv: list[str]
    prefix: str | None
    collect: str | None = None
    """Key of the list of outputs, in a collecting job. They are joined if it has no `argv` nor `handler`."""
    handler: str | None = None
    """The function of a collecting job."""
    variables: Mapping[bytes, bytes] | None = None
    """The job's keys as environment variables; None: not made yet."""


class Task(NamedTuple):
    """The compiled config.

    Exactly one of `command` and `handler` is given. `timeout` in seconds; 0: no limit. Each attempt that ran
    into it has the next get `timeout_factor` times as much, `longest` at most. `done_check` looks for
    finished outputs before the work, by `rules`.
    """

    command: CommandTemplate | None
    handler: str | None
    inputs: tuple[InputTemplate, ...] = ()
    output: OutputTemplate | None = None
    timeout: float = 0.0
    timeout_factor: float = 1.0
    longest: float = float("inf")
    done_check: bool = False
    rules: Rules = Rules()
    environment: Mapping[str, str] = {}
    secrets: Mapping[str, str] = {}
    """Further variables of the environment. No log and no file may have their values."""
    app: str = ""
    collect: CommandTemplate | None = None
    collect_handler: str | None = None
    join: Join | None = None
    """The collecting job: its command, its function, or the files to join."""
    carried: Carried = Carried()
    """Project files, of which each slot brings a copy."""
    python: str = ""
    """The Python that runs HANDLER; empty: ours."""
    resources: Resources = NO_RESOURCES
    """What single jobs need."""
    own: frozenset[str] = frozenset()
    """Variables that the user sets."""
    gpus: Lender | None = None
    """Lends GPUs to single jobs; None: they see those of their slot."""

    def said(self, job: Job, size: int) -> Mapping[str, float]:
        """Returns what a job says of its needs. `size`: bytes of its inputs. Raises UsageError."""
        if not self.resources.may_say(job.body) or KEY in (keys := job.keys):
            return NOTHING_SAID
        return self.resources.said(keys, size)

    def timeout_after(self, timeouts: int, limit: float) -> float:
        """Returns the time limit of an attempt after so many that ran into it, in seconds; 0: none."""
        if not timeouts:
            return limit
        return max(limit, min(limit * self.timeout_factor ** min(timeouts, 100), self.longest))

    def work(self, lease: Lease, folders: Mapping[str, str]) -> Work:
        """Resolves a job to argv, inputs and output prefix. Raises UsageError if COMMAND refuses a value."""
        if (self.collect or self.collect_handler or self.join) and KEY in (keys := lease.job.keys):
            return self._collecting(lease, str(keys[KEY]), folders)
        if not (self.command or self.inputs or self.output):
            return Work([], [], None)
        keys, own = lease.job.keys, {"job_id": lease.job.id, "attempt": lease.attempt}
        values: dict[str, Any] = {**keys, **folders, **own}
        return Work(
            [key for template in self.inputs for key in template.fill_all(values)],
            self.command.argv(values) if self.command else [],
            self.output.fill(values) if self.output else None,
            variables=variables_of(keys) if self.command else None,
        )

    def _collecting(self, lease: Lease, listed: str, folders: Mapping[str, str]) -> Work:
        own = {"job_id": lease.job.id, "attempt": lease.attempt, "outputs_dir": folders["input_dir"]}
        argv = self.collect.argv({**folders, **own}) if self.collect else []
        return Work([], argv, COLLECTED, listed, self.collect_handler)


def compile_task(
    config: Config,
    environment: Mapping[str, str],
    secrets: Mapping[str, str],
    *,
    recipe: Recipe | None = None,
    carried: Carried = NONE,
    python: str = "",
) -> Task:
    """Compiles the config. Raises UsageError.

    `environment` and `secrets` are what jobs get beside the worker's own. `recipe` is what makes outputs;
    None: the config, and the handler's source in the current folder.
    """
    return Task(
        command=command_of(config),
        handler=config.handler or None,
        inputs=tuple(InputTemplate(text) for text in config.inputs),
        output=OutputTemplate(config.output) if config.output else None,
        timeout=config.job_timeout,
        timeout_factor=config.timeout_retry,
        longest=config.max_run_hours * 3600,
        done_check=config.check_if_done_bool,
        rules=rules_of(config, recipe or recipe_of(config, Path(), files=carried.files)),
        environment=environment,
        secrets=secrets,
        app=config.app_name,
        collect=collect_command(config.collect),
        collect_handler=collect_handler(config.collect),
        join=join_of(config.collect),
        carried=carried,
        resources=Resources(config.resources),
        own=frozenset(config.worker_environment()),
        python=python,
    )
