"""The engines there are: the one table of their names, and what is known of each before there is one.

Nothing of an engine is imported before it is chosen.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, without the milliseconds that typing takes of `ds --help`
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .check import Check
    from .engine import Engine
    from .project import Project

    Make = Callable[[Project], Engine]
    Checks = Callable[[Project, Path | None, Path | None], Sequence[Check]]


class EngineKind:
    """How to make an engine, and the facts of it that the core asks for. A value: nothing changes it.

    `checks` are what `ds check` looks at, for a job file and a fleet file where they are given; they may
    raise UsageError.
    """

    __slots__ = ("checks", "foreign_workers", "make", "rehearses", "rents", "works_as_set_up")

    def __init__(
        self,
        make: Make,
        checks: Checks,
        *,
        rents: bool = True,
        foreign_workers: bool = True,
        works_as_set_up: bool = True,
        rehearses: bool = False,
    ) -> None:
        self.make = make
        self.checks = checks
        self.rents = rents
        """A fleet file, and the config's keys on machines and disks, say what to rent."""
        self.foreign_workers = foreign_workers
        """The image may start a worker of its own kind; without that, COMMAND or HANDLER is needed."""
        self.works_as_set_up = works_as_set_up
        """Workers go by the config of the latest `ds setup`; without that, by the one they find at start."""
        self.rehearses = rehearses
        """What goes wrong can be ordered (`--faults`), and the story of it is told at the end."""


def _local(project: Project) -> Engine:
    from .local.engine import LocalEngine

    return LocalEngine(project.folder, project.config, project.clock, project.console.say)


def _local_checks(project: Project, job_file: Path | None, fleet_file: Path | None) -> Sequence[Check]:
    from .local.check import checks

    return checks(project, job_file, fleet_file)


def _aws(project: Project) -> Engine:
    from .aws.engine import AwsEngine

    return AwsEngine(project.folder, project.config, project.clock, say=project.console.say)


def _aws_checks(project: Project, job_file: Path | None, fleet_file: Path | None) -> Sequence[Check]:
    from .aws.check import checks

    return checks(project, job_file, fleet_file)


def _rehearsal(project: Project) -> Engine:
    from .rehearsal.engine import RehearsalEngine

    return RehearsalEngine(project.folder, project.config, project.clock, project.console.say, project.faults)


def _rehearsal_checks(project: Project, job_file: Path | None, fleet_file: Path | None) -> Sequence[Check]:
    from .rehearsal.check import checks

    return checks(project, job_file, fleet_file)


ENGINES: Mapping[str, EngineKind] = {
    "local": EngineKind(_local, _local_checks, rents=False, foreign_workers=False, works_as_set_up=False),
    "aws": EngineKind(_aws, _aws_checks),
    "rehearsal": EngineKind(_rehearsal, _rehearsal_checks, rehearses=True),
}
