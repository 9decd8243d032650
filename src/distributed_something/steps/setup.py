"""Makes what a run needs, and writes the run record. `ds setup` and `ds run` call it."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import QueueIncomplete
from ..inputs.files import ProjectFile, project_files
from ..ledger import RunPaths
from ..runs.provenance import note_config
from ..runs.record import RunRecord, new_run_id, read_record, record_key, write_record
from ..runs.runfile import write_run_file
from ..system.state import one_at_a_time
from ..worker.files.done import environment_digest
from ..worker.files.project import keep
from ..worker.files.shared import shared_files
from .project import Project


def setup(project: Project) -> str:
    """Make what a run needs. Returns the run's id.

    An unfinished run goes on, and nothing is made twice. If two set-ups run at once on this machine, the
    second finds the run of the first, and does not empty its queue.
    """
    with one_at_a_time(project.folder):
        return _set_up(project, next_run(project))


def next_run(project: Project) -> str:
    """Returns the run that `setup` is for: the one under way, or a new one.

    A run whose queues are incomplete is under way: only when they are complete can its jobs be counted.
    """
    run = project.engine.current_run()
    try:
        over = run is not None and project.snapshot().state == "finished"
    except QueueIncomplete:
        over = False
    return new_run_id(project.clock.now()) if run is None or over else run


def _set_up(project: Project, run: str) -> str:
    engine, config = project.engine, project.config
    store = engine.store
    files = project_files(config, project.folder)
    shared_files(config, store)  # refused before anything is made
    record = RunRecord.new(config, engine.name, run, store.locate("runs"), project.clock.now())
    if project.record_path.exists():
        standing = read_record(project.record_path)
        record = standing if standing.run == run else record
        if standing.is_references:
            _keep_references(project, standing)

    def note(resource: str) -> None:
        nonlocal record
        record = record.with_resources((resource,))
        write_record(project.record_path, record)

    engine.setup(run, note)
    keep_record(project, record)
    _write_facts(project, run, files)
    if config.engine_kind.works_as_set_up:
        _note_config(project, run)
    return run


def note_start(project: Project, run: str) -> None:
    """Writes what workers go by that start now, if that is the project's config and files of this moment."""
    if not (project.config.engine_kind.works_as_set_up or project.engine.machines().running):
        _write_facts(project, run, project_files(project.config, project.folder))
        _note_config(project, run)


def _note_config(project: Project, run: str) -> None:
    config = project.config
    note_config(project.engine.store, RunPaths(config.app_name, run), config, project.clock.now())


def _write_facts(project: Project, run: str, files: Mapping[str, ProjectFile]) -> None:
    store, config = project.engine.store, project.config
    keep(store, RunPaths(config.app_name, run), files, project.folder)
    shared = shared_files(config, store)
    write_run_file(store, config, project.engine.name, run, files, environment_digest(config), shared)


def _keep_references(project: Project, record: RunRecord) -> None:
    """Keeps a record of the reference beside ours: its fleet may still run."""
    kept = project.record_path.with_suffix(".reference.json")
    write_record(kept, record)
    fleets = ", ".join(record.fleets) or "none"
    project.console.say(
        f"note: the record of a run that the reference started is kept as {kept}: fleet {fleets}"
    )


def keep_record(project: Project, record: RunRecord) -> None:
    """Write the record, and a copy into the store if the auto-monitor watches the run."""
    write_record(project.record_path, record)
    if project.config.auto_monitor:
        paths = RunPaths(record.app, record.run)
        project.engine.store.write(record_key(paths), record.to_json().encode())


def note_made(project: Project, resource: str) -> None:
    """Add a resource to the record, before the next one is made."""
    with one_at_a_time(project.folder):
        write_record(project.record_path, read_record(project.record_path).with_resources((resource,)))
