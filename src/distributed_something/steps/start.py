"""Asks for machines and watches them come. `ds start` and `ds run` call it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from .. import failing
from ..budget import MEASURED_JOBS, Budget, Over, judge, offer
from ..engine import DAMAGED, Diagnosis, Machines, Renting, Repairing
from ..errors import DsError, QueueDamaged, Unreachable, UsageError
from ..job import State
from ..ledger import Fold
from ..system.state import one_at_a_time
from ..words import many
from .project import Project
from .setup import keep_record, note_made, note_start
from .watch.limits import too_many_dead

START_LOOK_SECONDS = 15.0  # longest pause between two looks at machines that are to come, in seconds

_T = TypeVar("_T")


def start(project: Project, fleet_file: Path | None) -> None:
    """Ask for machines, and write them into the run record.

    Raises DsError if the record is that of another run (perhaps of another engine); nothing has changed then.
    """
    engine = project.engine
    if fleet_file is not None and not project.config.engine_kind.rents:
        project.console.say(f"note: {fleet_file} is not used: the engine {engine.name!r} rents no machine")
    mend(project)
    record, run = project.record(), engine.current_run()
    if record.run != run:
        what = f"the latest set-up was of run {record.run} ({record.engine}), and the queue is that of {run}"
        raise DsError(what, "ds setup, to go on with the queue's run; then ds start")
    held = isinstance(engine, Renting) and _has_canary(project)
    most = 1 if held else None
    note_start(project, record.run)
    fleet = engine.start(record.run, fleet_file, lambda resource: note_made(project, resource), most)
    with one_at_a_time(project.folder):
        record = project.record().with_fleet(fleet)._replace(held=held)
        if isinstance(engine, Renting):
            record = record.with_tried(engine.tried(), project.clock.now())
        keep_record(project, record)
    if held:
        first = many(project.config.canary or 0, "job", "has", "have")
        rest = project.config.machines_wanted
        project.console.say(f"canary: one machine until {first} ended; all {rest:,} if few of them are dead")


def mend(project: Project) -> None:
    """Rebuild the queue if it is damaged. Raises DsError if there is none."""
    engine, suspect = project.engine, False
    try:
        queue = engine.queue()
        if isinstance(engine, Repairing):
            queue.counts()
            suspect = engine.machines().ended == DAMAGED
    except QueueDamaged:
        suspect = True
    if suspect:
        from .repair import repair

        repair(project)


def _has_canary(project: Project) -> bool:
    """Returns whether one machine comes first: too few jobs have ended to know how the others will."""
    config = project.config
    if not config.canary or config.machines_wanted == 1:
        return False
    return project.snapshot().jobs.final < config.canary


def show_cost(project: Project, fleet_file: Path | None, jobs: int) -> None:
    """Show what a new run of so many jobs will cost, before anything is asked for; see `_confirm`."""
    if isinstance(project.engine, Renting):
        budget, quote = Budget(project.config.budget_usd, project.config.budget_hours), project.engine.quote
        _confirm(project, offer(quote(fleet_file), jobs, project.config.job_seconds, budget), budget)


def show_rest(project: Project, fleet_file: Path | None) -> None:
    """Show what the rest of the run will cost; see `_confirm` and `cost_of_rest`."""
    _confirm(project, cost_of_rest(project, fleet_file), project.budget(project.engine.current_run()))


def cost_of_rest(project: Project, fleet_file: Path | None, more: int = 0) -> Sequence[str]:
    """Returns in words what the open jobs will cost, and `more` dead ones that are to be put back.

    Empty if nothing is rented. Raises DsError if the budget is spent, or too many of the other jobs are dead.
    """
    if not isinstance(project.engine, Renting) and not project.config.failure_limits:
        return []
    fold = project.fold()
    snapshot = project.snapshot(fold)
    jobs = snapshot.jobs._replace(waiting=snapshot.jobs.waiting + more, dead=snapshot.jobs.dead - more)
    snapshot = snapshot._replace(jobs=jobs)
    if why := too_many_dead(project, snapshot, fold):
        raise DsError(f"no workers were started: {why}", f"{failing.FIX}; or raise the limit")
    if not isinstance(project.engine, Renting):
        return []
    if isinstance(verdict := judge(snapshot.budget, snapshot.spent), Over):
        raise DsError(f"no machines were asked for: {verdict.text}", verdict.fix)
    seconds = mean_seconds(fold) or project.config.job_seconds
    quote = project.engine.quote(fleet_file)
    return [*offer(quote, jobs.total - jobs.final, seconds, snapshot.budget, snapshot.spent)]


def _confirm(project: Project, lines: Iterable[str], budget: Budget) -> None:
    """Print what machines will cost. If the run has a budget, and costs real money, ask whether to go on.

    Raises UsageError unless the answer is yes.
    """
    for line in lines:
        project.console.say(line)
    if budget and project.config.engine_kind.rents and not project.config.engine_kind.rehearses:
        project.console.confirm("ask for these machines")


def mean_seconds(fold: Fold) -> float | None:
    """Returns the mean time of the jobs that have succeeded, in seconds; None: too few have."""
    done, spent = fold.by_state[State.SUCCEEDED], fold.spent.get("succeeded", 0.0)
    return spent / done if done >= MEASURED_JOBS and spent else None


def raise_budget(project: Project, more: Budget) -> Budget:
    """Add to the run's budget. Returns the new limits. Raises UsageError if the config has no such limit."""
    config = project.config
    for name, limit, wanted in (
        ("BUDGET_USD", config.budget_usd, more.usd),
        ("BUDGET_HOURS", config.budget_hours, more.hours),
    ):
        if wanted is not None and limit is None:
            what = f"--budget: the config has no {name}: there is nothing to raise"
            raise UsageError(what, f"write {name} = {wanted:g} into the config, then ds setup")
    with one_at_a_time(project.folder):
        record = project.record().with_budget(more)
        keep_record(project, record)
    return project.budget(record.run)


def await_machines(project: Project, seconds: float) -> Machines:
    """Watch the machines come, for this many seconds at most. Returns their state at the last look.

    Raises DsError if none can come, after the fleet has been cancelled.
    """
    engine, until = project.engine, project.clock.monotonic() + seconds
    shown: tuple[object, ...] = ()
    told: Diagnosis | None = None
    while True:
        machines = patiently(
            project, until, engine.machines, lambda said: project.console.say(f"note: {said}")
        )
        if machines.unfulfillable:
            cancel_fleet(project, machines)
        if machines.replaces_lost and shown != machines[:2]:
            shown = machines[:2]
            project.console.say(f"{machines.running:,} of {machines.target:,} machines")
        if machines.running >= machines.target or project.clock.monotonic() >= until:
            return machines
        if machines.diagnosis and machines.diagnosis != told:
            told = machines.diagnosis
            project.console.say(f"note: {told.what}" + (f"; {told.fix}" if told.fix else ""))
        pause = min(START_LOOK_SECONDS, engine.poll_interval)
        project.clock.wait(min(pause, max(until - project.clock.monotonic(), 0.0)))


def check_fleet(project: Project, fleet_file: Path) -> None:
    """Raises UsageError if `start` would refuse the fleet file. Engines that rent nothing accept any."""
    if isinstance(project.engine, Renting):
        project.engine.check_fleet(fleet_file)


def cancel_fleet(project: Project, machines: Machines) -> NoReturn:
    """Cancel the newest fleet, because it cannot get a machine. Raises DsError with the reason."""
    engine, diagnosis = project.engine, machines.diagnosis or Diagnosis("no reason is known")
    if isinstance(engine, Renting):
        for fleet in project.record().fleets[-1:]:
            engine.cancel(fleet)
    raise DsError(f"no machine can come: {diagnosis.what}; the fleet was taken back", diagnosis.fix)


def patiently(project: Project, until: float, look: Callable[[], _T], say: Callable[[str], None]) -> _T:
    """Returns what `look` returns; repeats it while the network fails, until that time (monotonic).

    A failed look changes nothing about the machines, so it does not end the watching.
    """
    while True:
        try:
            return look()
        except Unreachable as error:
            if project.clock.monotonic() >= until:
                raise
            say(f"{error.what}; looking again")
        project.clock.wait(min(START_LOOK_SECONDS, project.engine.poll_interval))
