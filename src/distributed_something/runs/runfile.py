"""Reads and writes `run.json`: a run's facts and config, for workers that have no project folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import __version__
from ..engine import Store, StoredFile, check_key
from ..errors import KeyMissing, KeyRefused, UsageError
from ..inputs.config import Config, config_of, values_given
from ..inputs.files import ProjectFile
from ..job import Needs
from ..ledger import RunPaths

_FIX = "ds setup"


class RunFile(NamedTuple):
    """A run's facts: its app, its id, the version that set it up, and its config without the environment.

    `files` are the project files that travel with the jobs; `environment` is the digest of the environment.
    `shared` are the inputs that all jobs share, by name, as the store had them.
    """

    app: str
    run: str
    version: str
    config: Config
    files: Mapping[str, ProjectFile] = {}
    environment: str = ""
    shared: Mapping[str, StoredFile] = {}


def write_run_file(
    store: Store,
    config: Config,
    engine: str,
    run: str,
    files: Mapping[str, ProjectFile] = {},
    environment: str = "",
    shared: Mapping[str, StoredFile] = {},
) -> None:
    """Writes the facts of the run; a later set-up of the same run replaces them."""
    facts = {
        "app": config.app_name,
        "run": run,
        "engine": engine,
        "version": __version__,
        "config": values_given(config),
        "files": {name: file._asdict() for name, file in files.items()},
        "environment": environment,
        "shared": shared,
    }
    store.write(run_file_key(config.app_name, run), json.dumps(facts, ensure_ascii=False, indent=1).encode())


def read_run_file(store: Store, app: str, run: str) -> RunFile:
    """Returns a run's facts. Raises UsageError if they are missing or malformed."""
    key = run_file_key(app, run)
    where = store.locate(key)
    try:
        text = store.read(key)
    except KeyMissing as error:
        raise UsageError(f"{where}: missing: the run is not set up, or was removed", _FIX) from error
    try:
        facts: Any = json.loads(text)
        values = dict(facts["config"])
        files = {check_key(name): ProjectFile(**file) for name, file in facts.get("files", {}).items()}
        config, environment = config_of(values, where), str(facts.get("environment", ""))
        shared = {check_key(name): StoredFile(*each) for name, each in facts.get("shared", {}).items()}
        found = RunFile(facts["app"], facts["run"], str(facts["version"]), config, files, environment, shared)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, KeyRefused) as error:
        raise UsageError(f"{where}: does not describe a run", _FIX) from error
    if (found.app, found.run) != (app, run) or found.config.app_name != app:
        raise UsageError(f"{where}: describes another run: {found.app!r} {found.run!r}", _FIX)
    return found


def note_largest(store: Store, app: str, run: str, largest: Needs) -> None:
    """Notes the most that jobs of a run need, for workers whose queue does not choose jobs by it."""
    noted = largest_noted(store, app, run)
    store.write(_needs_key(app, run), json.dumps((noted or largest).most(largest)).encode())


def largest_noted(store: Store, app: str, run: str) -> Needs | None:
    """Returns the most that jobs of a run need of each; None: no job says it."""
    try:
        return Needs(*map(int, json.loads(store.read(_needs_key(app, run)))))
    except (KeyMissing, ValueError, TypeError):
        return None


def lends_gpus(store: Store, app: str, run: str, usual: int) -> bool:
    """Whether a job of a run has said that it needs more GPUs than is usual: then no job sees all of them."""
    return (largest_noted(store, app, run) or Needs()).gpus > usual


def _needs_key(app: str, run: str) -> str:
    return RunPaths(app, run).root + "needs.json"


def run_file_key(app: str, run: str) -> str:
    """Returns the store key of a run's file, which is there from `setup` on."""
    return RunPaths(app, run).root + "run.json"
