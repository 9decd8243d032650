"""Watches a run: looks at it again and again, and acts on what each look shows.

`ds monitor` and `ds run` call `monitor`; the auto-monitor calls `Watch`, one look a call. What to do is
decided in `scaling.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ... import budget, failing
from ...clock import BackOff
from ...engine import Renting
from ...errors import DsError, Unreachable, UsageError
from ...notify.notifier import Notifier
from ...runs.record import read_record
from ...runs.snapshot import Snapshot, Tally
from ...scaling import (
    AGREEING_LOOKS,
    Action,
    Finish,
    GiveUp,
    Load,
    Look,
    Replace,
    decide,
    drained,
    machines_for,
    shrink,
)
from ...system.state import one_at_a_time
from ...words import many
from ..project import Project
from ..setup import keep_record
from ..start import cancel_fleet, start
from .collect import begin_collecting
from .exclude import exclude_bad
from .finish import end
from .limits import too_many_dead

if TYPE_CHECKING:
    from ...console import Watcher
    from ...report.failures import Said

LOOKING_SHARE = 0.03  # largest share of its time that a watch spends on looking
LOOK_SECONDS_MOST = 2.0  # longest pause that the cost of a look alone causes, in seconds
LOOKS_THAT_FAIL = 60  # failed looks in a row before a watch gives up: an hour, at one a minute


def monitor(project: Project, record: Path | None, every: float | None, *, cheapest: bool = False) -> int:
    """Watch until no job is left, write the report, end the machines. Returns the exit code.

    Killed at any point and started again it ends in the same place: its memory holds nothing that it
    cannot read again. `every`: seconds between looks; None: as the engine and the cost of a look suggest.
    """
    if record is not None or project.record_path.exists():
        _check_record(project, record or project.record_path, named=record is not None)
    watch = Watch(project, cheapest=cheapest)
    with project.console.watch() as watcher:
        notifier = Notifier(project.config, project.engine.store, project.paths(), watcher.note)
        try:
            action = _until_end(project, watch, watcher, notifier, every)
        except DsError as error:
            notifier.end(watch.snapshot, error.what)
            raise
    if isinstance(action, GiveUp):
        what = f"{many(watch.open_jobs, 'job', 'is', 'are')} left, and the workers have ended: {action.why}"
        notifier.end(watch.snapshot, what)
        raise DsError(what, action.fix)
    try:
        return end(project, project.fold())
    finally:
        notifier.end(watch.snapshot)


def _until_end(
    project: Project, watch: Watch, watcher: Watcher, notifier: Notifier, every: float | None
) -> Action | None:
    """Watch until all jobs have ended, those of COLLECT too. Returns the last action: Finish or GiveUp."""
    restarts = BackOff(RESTART_SECONDS, MOST_RESTART_SECONDS)
    while not isinstance(action := watch.look(watcher), GiveUp):
        notifier.look(watch.snapshot, watch.moved, project.clock.now())
        if isinstance(action, Finish):
            if not begin_collecting(project):
                break
            watcher.note("all jobs have ended: collecting their outputs")
            watch.forget()
            if not watch.running and not isinstance(project.engine, Renting):
                start(project, None)
        elif isinstance(action, Replace):
            watcher.note("the workers were killed: starting them again")
            try:
                start(project, None)
                restarts = BackOff(RESTART_SECONDS, MOST_RESTART_SECONDS)
            except DsError as error:  # the machine has no room for a process now, say
                pause = restarts.next()
                if pause == MOST_RESTART_SECONDS:
                    raise
                watcher.note(f"{error.what}; the next try is in {pause:g} s")
                project.clock.wait(pause)
        if every is None:
            watch.rest()
        else:  # looks that agree on the end must lie further apart than the queue's counts may lag
            least = 0.0 if watch.open_jobs else project.engine.final_poll_interval
            project.clock.wait(max(every, least))
    return action


RESTART_SECONDS = 0.5
MOST_RESTART_SECONDS = 32.0
"""Pauses before killed workers are started again double from the first; at the last the monitor ends."""


def _check_record(project: Project, path: Path, *, named: bool) -> None:
    """Raises UsageError for another app's record, and for one that the reference wrote.

    A record that was not `named` on the command line may be damaged: the tags lead to the run.
    """
    try:
        record = read_record(path)
    except UsageError:
        if named:
            raise
        return
    if record.app != project.config.app_name:
        raise UsageError(
            f"{path}: belongs to the app {record.app!r}, and this project's is {project.config.app_name!r}",
            "name this project's record, or choose the project with -C",
        )
    if record.is_references and record.engine == project.engine.name:
        what = (
            f"{path}: the reference started this run, so its jobs are in no list of ours; nothing was changed"
        )
        raise UsageError(what, "let its own monitor end it; or ds cleanup, which first says what it removes")


class Memory(NamedTuple):
    """The latest looks and loads of a watch, the newest last."""

    looks: tuple[Look, ...] = ()
    loads: tuple[Load, ...] = ()


class Watch:
    """Looks at a run, and shrinks a rented fleet that is larger than the remaining jobs need.

    A new watch decides the same after a few looks, or at once with the `memory` of another watch.
    `patience` limits how many looks in a row may fail before the error is raised.
    """

    def __init__(
        self,
        project: Project,
        *,
        cheapest: bool = False,
        memory: Memory | None = None,
        patience: int = LOOKS_THAT_FAIL,
        fold: Tally | None = None,
    ) -> None:
        self.fold: Tally = project.fold() if fold is None else fold
        self._project = project
        self._began = project.clock.now()
        self._cheapest = cheapest
        self._patience = patience
        known = memory or Memory()
        self._looks: list[Look] = [*known.looks]
        self._loads: list[Load] = [*known.loads]
        self._cost = 0.0
        self._noted: type | None = None
        self._said: Said = {}
        self._snapshot: Snapshot | None = None

    @property
    def memory(self) -> Memory:
        """The looks that another watch needs to continue from here."""
        return Memory(tuple(self._looks), tuple(self._loads))

    @property
    def open_jobs(self) -> int:
        """Number of open jobs at the last look."""
        return self._looks[-1].open_jobs if self._looks else 0

    @property
    def running(self) -> int:
        """Number of running machines at the last look."""
        return self._looks[-1].machines_running if self._looks else 0

    @property
    def snapshot(self) -> Snapshot | None:
        """The last look; None: there was none."""
        return self._snapshot

    @property
    def moved(self) -> float:
        """When a job last ended, else when the run began (Unix seconds)."""
        if (at := self.fold.last_end or self.fold.first) is None:
            with suppress(DsError):
                at = self._project.record().started / 1000
        return at or self._began

    def forget(self) -> None:
        """Forget the latest looks: the run goes on, with a job more."""
        self._looks = [each._replace(open_jobs=1) for each in self._looks[-1:]]

    def look(self, watcher: Watcher) -> Action | None:
        """Look once, show the result, and shrink a fleet that is too large. Returns what else to do.

        Raises DsError if the run cannot end: its queue is gone, or no machine can come.
        """
        began = self._project.clock.monotonic()
        snapshot = self._snapshot = self._patient_look(watcher)
        if exclude_bad(self._project, snapshot, self.fold, watcher.note):
            snapshot = self._snapshot = self._patient_look(watcher)
        watcher.show(snapshot)
        if snapshot.machines.unfulfillable:
            cancel_fleet(self._project, snapshot.machines)
        if snapshot.why_idle and snapshot.jobs.waiting:
            watcher.note(snapshot.why_idle)
        if snapshot.queued is None and snapshot.jobs.final < snapshot.jobs.total:
            lost = snapshot.machines.queue_lost
            gone = lost or "the queue is gone, and jobs are left: somebody cleaned up"
            raise DsError(gone, "ds run JOBFILE begins a new run")
        self._looks = [*self._looks, _seen(snapshot)][-AGREEING_LOOKS:]
        action = decide(self._looks)
        engine = self._project.engine
        if (end := self._hold_limits(snapshot, watcher)) is not None:
            rents, runs = snapshot.machines.replaces_lost, snapshot.machines.running
            action = end if (drained(self._looks) if rents else not runs) else None
        elif action is None and self._ends_canary(snapshot, watcher):
            pass  # the machines that are now asked for are not yet too many
        elif action is None and snapshot.machines.replaces_lost and isinstance(engine, Renting):
            less = self._shrink(engine, snapshot)
            for note in [less] if less else self._guard(engine):
                watcher.note(note)
        self._cost = self._project.clock.monotonic() - began
        return action

    def _hold_limits(self, snapshot: Snapshot, watcher: Watcher) -> GiveUp | None:
        """Print a notice, or drain the run if it is over a limit and jobs are left. Returns why it ends."""
        if not _open_jobs(snapshot):
            return None
        verdict = self._judge(snapshot)
        if verdict is not None and type(verdict) is not self._noted:  # once: the sum changes at every look
            ends = ": running jobs finish or go back, and the machines end"
            watcher.note(verdict.why + ends if isinstance(verdict, GiveUp) else verdict.text)
        self._noted = type(verdict)
        if not isinstance(verdict, GiveUp):
            return None
        try:
            self._drain(snapshot)
        except DsError as error:
            watcher.note(f"{error.what}; the next look drains again")
        return verdict

    def _judge(self, snapshot: Snapshot) -> GiveUp | budget.Notice | None:
        """Returns whether too many jobs are dead, or what is to be said about the budget."""
        if why := too_many_dead(self._project, snapshot, self.fold, self._said):
            return GiveUp(why, failing.FIX)
        if not snapshot.machines.replaces_lost:
            return None
        verdict = budget.judge(snapshot.budget, snapshot.spent)
        return GiveUp(verdict.text, verdict.fix) if isinstance(verdict, budget.Over) else verdict

    def _ends_canary(self, snapshot: Snapshot, watcher: Watcher) -> bool:
        """Ask for the other machines if the canary's jobs have ended well. Returns whether that was done."""
        project, engine = self._project, self._project.engine
        canary = project.config.canary or 0
        if not canary or snapshot.jobs.final < canary or not isinstance(engine, Renting):
            return False
        record = project.record()
        if not record.held:
            return False
        machines = snapshot.machines
        slots = machines.slots // max(machines.running * engine.tasks_per_machine, 1)
        needed = machines_for(_open_jobs(snapshot), slots=slots, tasks=engine.tasks_per_machine)
        wanted = min(project.config.machines_wanted, max(needed, 1))
        try:
            engine.grow(wanted)
        except DsError as error:
            watcher.note(f"{error.what}; the next look asks for the other machines")
            return False
        keep_record(project, record._replace(held=False))
        watcher.note(f"canary: {many(canary, 'job')} ended well: {many(wanted, 'machine')} asked for")
        return True

    def _drain(self, snapshot: Snapshot) -> None:
        """Stop the run; end the machines once no worker runs. Each look repeats what is still missing."""
        machines, engine = snapshot.machines, self._project.engine
        idle = bool(machines.running and machines.draining and machines.tasks == 0)
        to_come = machines.target and machines.replaces_lost
        if idle or to_come or (machines.running and not machines.draining):
            engine.stop(now=idle)

    def _patient_look(self, watcher: Watcher) -> Snapshot:
        """Returns a snapshot; looks again while the network or AWS fails, up to `patience` times."""
        failed = 0
        while True:
            try:
                return self._project.snapshot(self.fold)
            except Unreachable as error:
                failed += 1
                if failed >= self._patience:
                    raise
                watcher.note(f"{error.what}; looking again")
            self._project.clock.wait(self._project.engine.poll_interval)

    def rest(self) -> None:
        """Wait for the next look, or less if the queue is empty sooner.

        A look takes time from the jobs, so the pause grows with its cost. The rate of a young run is
        uncertain, so it is trusted only for as long again as it was measured.
        """
        engine, clock, snapshot = self._project.engine, self._project.clock, self._snapshot
        jobs, rate = (snapshot.queued, snapshot.rate) if snapshot else (None, 0.0)
        seconds = max(engine.poll_interval, min(self._cost / LOOKING_SHARE, LOOK_SECONDS_MOST))
        until = clock.monotonic() + (seconds if jobs else engine.final_poll_interval)
        began = self.fold.first or clock.now()
        while (left := until - clock.monotonic()) > 0:
            measured = clock.now() - began
            soon = max(min(jobs / rate / 4, measured), engine.final_poll_interval) if jobs and rate else left
            clock.wait(min(left, soon))
            if soon < left:
                try:
                    before, jobs = jobs, engine.queue().counts().open
                except DsError:  # the next look meets the same error, and is patient
                    return
                if not jobs:
                    return
                rate = max(rate, ((before or 0) - jobs) / soon)

    def _shrink(self, engine: Renting, snapshot: Snapshot) -> str | None:
        """End machines that the remaining jobs do not need. Returns what was done, in words."""
        project, machines, tasks = self._project, snapshot.machines, self._project.engine.tasks_per_machine
        busy = _busy(self.fold)
        self._loads = [*self._loads, _load(snapshot, len(busy))][-AGREEING_LOOKS:]
        if not machines.running:
            return None
        now = project.clock.now()
        less = shrink(
            self._loads,
            slots=machines.slots // (machines.running * tasks),
            tasks=tasks,
            cheapest=self._cheapest,
            age=now - project.record().started / 1000 if project.record_path.exists() else 0.0,
        )
        if less is None:
            return None
        spare = less.spare if self._loads[-1].busy < machines.running else 0
        try:
            ended = engine.shrink(less.target, spare, busy)
        except DsError as error:
            return f"{error.what}; the machines stay for now"
        self._loads.clear()  # earlier loads say nothing about the smaller fleet
        enough = f"{many(less.target, 'machine', 'is', 'are')} enough for what is left"
        return f"{enough}: {many(len(ended), 'idle one', 'was', 'were')} ended" if ended else enough

    def _guard(self, engine: Renting) -> Sequence[str]:
        """Have the engine deal with machines that are silent or missing. Returns what was done, in words."""
        project = self._project
        try:
            lines = engine.guard()
            if (tried := engine.tried()) and project.record_path.exists():
                with one_at_a_time(project.folder):
                    keep_record(project, project.record().with_tried(tried, project.clock.now()))
            return lines
        except DsError as error:
            return (f"{error.what}; silent machines stay for now",)


def _seen(snapshot: Snapshot) -> Look:
    """Returns what `decide` needs. Counts open jobs in the queue, or in the ledger if the queue is gone."""
    machines = snapshot.machines
    target = 0 if machines.replaces_lost else machines.target  # the fleet itself starts machines
    gone = snapshot.queued is None
    return Look(_open_jobs(snapshot), target, machines.running, machines.ended, gone)


def _open_jobs(snapshot: Snapshot) -> int:
    return snapshot.jobs.total - snapshot.jobs.final if snapshot.queued is None else snapshot.queued


def _load(snapshot: Snapshot, busy: int) -> Load:
    """Returns how much of the fleet is busy: all of it if jobs are leased that the ledger does not show."""
    machines = snapshot.machines
    known = not snapshot.unseen
    busy = min(busy, machines.running) if known else machines.running
    return Load(_open_jobs(snapshot), machines.target, machines.running, busy)


def _busy(fold: Tally) -> set[str]:
    """Returns the machines and workers that have a job under way."""
    return {f"{record.machine or ''} {record.worker or ''}" for record in fold.running()}
