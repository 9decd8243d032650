"""The first three steps in a row: `ds run` and the Python API begin a run with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .project import Project
from .setup import setup
from .start import check_fleet, show_cost, start
from .submit import check, submit_checked


def begin(
    project: Project,
    job_file: Path,
    shared: Mapping[str, Any],
    fleet_file: Path | None,
    *,
    unchecked: bool = False,
) -> None:
    """Check the files, set up, queue the jobs, and start machines. The caller holds `engine.exclusive`.

    Raises UsageError before anything is made if a file is wrong. `unchecked`: see `submit.check`.
    """
    if fleet_file is not None:  # before setup, so that a bad file does not cost the last run's queue
        if not fleet_file.is_file():
            raise UsageError(f"{fleet_file}: there is no such file", "name a fleet file, or none")
        check_fleet(project, fleet_file)
    checked = check(project, job_file, shared, unchecked=unchecked)
    show_cost(project, fleet_file, checked.total)
    setup(project)
    submit_checked(project, checked)
    start(project, fleet_file)
