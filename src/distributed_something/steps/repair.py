"""Rebuilds a damaged queue from the ledger and the job lists. `ds repair` and `ds start` call it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import tee
from typing import NamedTuple

from ..engine import KnownJob, Repairing
from ..errors import DsError, UsageError
from ..job import Cause, Job
from ..ledger import Fold, RunPaths
from ..system.state import one_at_a_time
from ..words import many
from .project import Project


class Repaired(NamedTuple):
    """What was wrong with the queue (empty: nothing), and the jobs of the new one."""

    damage: str
    jobs: int = 0
    ended: int = 0
    lost: int = 0
    """Jobs that the ledger names and no job list has: what they are is not known."""


def repair(project: Project) -> Repaired:
    """Rebuild the run's queue if it is damaged, and say what is not known. Ended jobs stay ended."""
    engine = project.engine
    if not isinstance(engine, Repairing):
        what = f"the engine {engine.name!r} has no queue on this machine that could be repaired"
        raise UsageError(what, "ds status shows the run, ds retry puts dead jobs back")
    record = project.record()
    if record.engine != engine.name:
        raise DsError(f"the latest run is one of {record.engine!r}", f"ds repair --engine {record.engine}")
    paths = RunPaths(project.config.app_name, record.run)
    damage = engine.damage()
    fold = Fold(engine.store, paths).update()  # in memory: the kept index may be damaged too
    known = _Known(fold)
    if not damage and (unlike := engine.unlike(known)):
        damage = f"the queue does not have {many(unlike, 'job')} as the ledger has them"
    if not damage:
        return Repaired("", fold.total)
    with one_at_a_time(project.folder):
        project.console.say(f"note: {damage}; rebuilding the queue of {record.run}")
        engine.rebuild(record.run, _needy(project, known))
    repaired = Repaired(damage, known.jobs, known.ended, known.lost)
    _say(project, repaired)
    return repaired


class _Known:
    """What a fold knows of each job, in the order of submission; counts while it is read."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self.jobs = self.ended = self.lost = 0

    def __iter__(self) -> Iterator[KnownJob]:
        self.jobs = self.ended = self.lost = 0
        for record, body in self._fold.update().with_bodies():
            ended = record.state.final
            self.lost += not body and not ended
            if body or ended:
                self.jobs += 1
                self.ended += ended
                cause: Cause | None = None
                with suppress(ValueError):
                    cause = Cause(record.cause) if record.cause else None
                job = Job(record.id, record.index, body)
                yield KnownJob(job, record.state, record.attempts, cause, record.detail or "")


def _needy(project: Project, known: Iterable[KnownJob]) -> Iterator[KnownJob]:
    """Yields the jobs with what they need, where they say it."""
    from ..inputs.checks.sizing import with_needs

    config, engine = project.config, project.engine
    kept, jobs = tee(known)
    needy = with_needs(config, engine.store, (each.job for each in jobs), engine.capacity().default)
    return (each._replace(job=job) for each, job in zip(kept, needy, strict=True))


def _say(project: Project, repaired: Repaired) -> None:
    say = project.console.say
    left = repaired.jobs - repaired.ended
    say(f"the queue has {many(repaired.jobs, 'job')} again: {repaired.ended:,} have ended, {left:,} are left")
    say("not known: which jobs were running (they run again), and how long failed jobs were to wait")
    say("not known: jobs of a submission that had not ended; submit the file again, and nothing comes twice")
    if repaired.lost:
        what = f"not known: {many(repaired.lost, 'job')} that no job list has; submit the job file again"
        say(what)
