"""Removes everything that a run made, except its results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import DsError, NotSignedIn
from ..runs.record import read_record
from .project import Project

if TYPE_CHECKING:
    pass
from .finish import tell_of_damage


def cleanup(project: Project) -> list[str]:
    """Remove everything the run made; what is still there after a last look.

    A run of another engine stays, with its record, and is named. Where something is left the record stays
    too: the next clean-up looks for what is in it.
    """
    if _unfinished(project) != 0:
        project.console.confirm("not all jobs are finished; remove the queue all the same")
    tell_of_damage(project)
    leftovers = list(project.engine.remove())
    if other := _other_engine(project):
        project.console.hint(f"ds cleanup --engine {other}, as the latest run was one of {other!r}")
    elif not leftovers:
        project.record_path.unlink(missing_ok=True)
    return leftovers


def _other_engine(project: Project) -> str | None:
    """The engine of the run in the record, where that is not the project's; a broken record tells of none."""
    try:
        engine = read_record(project.record_path).engine
    except DsError:
        return None
    return engine if engine != project.engine.name else None


def _unfinished(project: Project) -> int | None:
    """How many jobs are not finished; None where a damaged queue keeps it to itself."""
    try:
        return project.snapshot().queued or 0
    except NotSignedIn:
        raise
    except DsError as error:
        project.console.say(f"note: {error.what}")
        return None
