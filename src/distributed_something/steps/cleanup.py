"""Removes everything that a run made, except its results. `ds cleanup` calls it."""

from __future__ import annotations

from ..errors import DsError, NotSignedIn
from ..runs.record import read_record
from ..system.leftovers import sweep
from .finish import warn_of_damaged_record
from .project import Project


def cleanup(project: Project) -> list[str]:
    """Remove everything the run made. Returns what a last look still finds.

    Asks first if jobs are unfinished. The run record stays if something is left, because the next clean-up
    looks for what is in it. It also stays if the run belongs to another engine, which a hint then names.
    """
    if _unfinished(project) != 0:
        project.console.confirm("not all jobs are finished; remove the queue all the same")
    warn_of_damaged_record(project)
    leftovers = list(project.engine.remove())
    if other := _other_engine(project):
        project.console.hint(f"ds cleanup --engine {other}, as the latest run was one of {other!r}")
    elif not leftovers:
        project.record_path.unlink(missing_ok=True)
        sweep(project.record_path.parent, f".{project.record_path.name}.")
    return leftovers


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
