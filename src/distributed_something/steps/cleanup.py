"""Removes everything that a run made, except its results. `ds cleanup` calls it."""

from __future__ import annotations

from ..errors import DsError, NotSignedIn, UsageError
from ..runs.record import RunRecord, read_record
from ..system.leftovers import sweep
from .project import Project
from .watch.finish import warn_of_damaged_record


def cleanup(project: Project) -> list[str]:
    """Remove everything the run made. Returns what a last look still finds.

    Asks first if jobs are unfinished. The run record stays if something is left, because the next clean-up
    looks for what is in it. It also stays if the run belongs to another engine, which a hint then names.
    """
    if record := _references_record(project):
        _confirm_references(project, record)
    elif _unfinished(project) != 0:
        project.console.confirm("not all jobs are finished; remove the queue all the same")
    warn_of_damaged_record(project)
    leftovers = list(project.engine.remove())
    if other := _other_engine(project):
        project.console.hint(f"ds cleanup --engine {other}, as the latest run was one of {other!r}")
    elif not leftovers:
        project.record_path.unlink(missing_ok=True)
        sweep(project.record_path.parent, f".{project.record_path.name}.")
    return leftovers


def _references_record(project: Project) -> RunRecord | None:
    """Returns the standing record if the reference wrote it for this engine; None: it did not."""
    try:
        record = read_record(project.record_path)
    except DsError:
        return None
    return record if record.is_references and record.engine == project.engine.name else None


def _confirm_references(project: Project, record: RunRecord) -> None:
    """Asks whether to remove all that the record names. Raises UsageError: then nothing is removed."""
    config = project.config
    named = (("ECS_CLUSTER", record.cluster, config.ecs_cluster),)
    for key, theirs, ours in (*named, ("SQS_QUEUE_NAME", record.queue, config.sqs_queue_name)):
        if theirs != ours:
            what = f"{project.record_path}: the reference started this run with {key} = {theirs!r}"
            raise UsageError(
                f"{what}, and the config has {ours!r}", f"write {key} = {theirs!r}, to remove the run"
            )
    taken = (
        f"fleet {', '.join(record.fleets)}, service {record.app}Service, queue {record.queue} with its jobs"
    )
    left = "its task definitions, alarms, log groups and results stay"
    project.console.say(f"a run that the reference started: {taken} will be removed; {left}")
    project.console.confirm("remove them")


def _unfinished(project: Project) -> int | None:
    """Returns the number of unfinished jobs; None: the queue cannot be read."""
    try:
        return project.snapshot().queued or 0
    except NotSignedIn:
        raise
    except DsError as error:
        project.console.say(f"note: {error.what}")
        return None


def _other_engine(project: Project) -> str | None:
    """Returns the engine of the recorded run; None: the project's own, or the record cannot be read."""
    try:
        engine = read_record(project.record_path).engine
    except DsError:
        return None
    return engine if engine != project.engine.name else None
