"""A project folder with its config, engine, console and clock. Every command opens one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..budget import Budget
from ..clock import Clock, SystemClock
from ..console import Console
from ..engine import Cost, Counts, Engine, Machines
from ..errors import DsError, UsageError
from ..inputs.config import Config, load_config, refuse_store
from ..job import Job, Lease, State
from ..ledger import Fold, LedgerWriter, RunPaths
from ..runs.record import RunRecord, budget_of, excluded_of, read_record, record_path
from ..runs.snapshot import Snapshot, Tally, take
from ..system.state import state_folder

if TYPE_CHECKING:
    from ..exclusion import Pause
    from ..inputs.checks.findings import Check
    from ..inputs.jobs.jobfile import JobFile


class Project:
    """The project that `-C DIR` and `--engine E` choose."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        console: Console,
        clock: Clock,
        *,
        faults: str = "",
        engine: Engine | None = None,
        run: str | None = None,
    ) -> None:
        """`faults` is what goes wrong in a rehearsal. `engine` replaces the engine that the config names.

        `run` is the id, or the start of the id, of the run to look at; None: the current or latest one.
        """
        self.folder = folder
        self.config = config
        self.console = console
        self.clock = clock
        self._faults = faults
        self._given_engine = engine
        self._asked_run = run
        self._noted_dead: tuple[int, int] | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        console: Console,
        engine: str | None = None,
        faults: str = "",
        run: str | None = None,
    ) -> Project:
        """Reads the project's config; `engine` overrides its ENGINE. `run`: see the class.

        Raises UsageError if the config is missing or wrong, or if the engine knows no faults.
        """
        config = load_config(folder.absolute())
        config = config._replace(engine=engine) if engine else config
        refuse_store(config)
        if faults and not config.engine_kind.rehearses:
            raise UsageError("--faults: only a rehearsal goes wrong on request", "add --engine rehearsal")
        return cls(folder.absolute(), config, console, SystemClock(), faults=faults, run=run)

    @cached_property
    def engine(self) -> Engine:
        """The engine that the config names. It is imported and made at the first use."""
        if self._given_engine is not None:
            return self._given_engine
        make = self.config.engine_kind.module("engine").make
        faults = {"faults": self._faults} if self._faults else {}
        made: Engine = make(
            self.folder, self.config, self.clock, say=lambda text: self.console.say(text), **faults
        )
        return made

    def checks(self, job_file: JobFile | None, fleet_file: Path | None) -> Sequence[Check]:
        """Returns the checks of `ds check` for the engine that the config names. Raises UsageError."""
        checks = self.config.engine_kind.module("check").checks
        found: Sequence[Check] = checks(self.folder, self.config, job_file, fleet_file)
        return found

    @property
    def record_path(self) -> Path:
        """Path of the run record."""
        return record_path(self.folder, self.config.app_name)

    @property
    def example_jobs(self) -> str:
        """The job file that a hint names: the example if it is there, else JOBFILE."""
        example = "files/exampleJob.json"
        return example if (self.folder / example).is_file() else "JOBFILE"

    def record(self) -> RunRecord:
        """Returns the run record. Raises DsError if there is none."""
        if not self.record_path.exists():
            what = f"{self.config.app_name} is not set up: {self.record_path} is missing"
            raise DsError(what, "ds setup")
        return read_record(self.record_path)

    def budget(self, run: str | None) -> Budget:
        """Returns the limits of a run: those of the config, raised as its record says."""
        return budget_of(self.config, self.record_path, run)

    def excluded(self, run: str | None) -> Mapping[str, str]:
        """Returns the machines that get no more jobs of a run, and why."""
        return excluded_of(self.record_path, run)

    def current_run(self) -> str | None:
        """Returns the run to look at: the one asked for, the one set up, or the latest; None: there is none.

        Raises UsageError if no run, or several, have the id that was asked for.
        """
        if self._asked_run is not None:
            return self._found_run
        return self.engine.current_run() or self._latest_run()

    def looking_at(self, run: str) -> Project:
        """Returns the same project, looking at another run."""
        return Project(self.folder, self.config, self.console, self.clock, engine=self.engine, run=run)

    def runs(self) -> list[str]:
        """Returns the ids of all runs in the store, the oldest first."""
        prefix = f"runs/{self.config.app_name}/"
        return sorted(self.engine.store.folders(prefix))

    def find_run(self, wanted: str) -> str:
        """Returns the run with this id, start of an id, or `latest`. Raises UsageError."""
        runs = self.runs()
        found = [each for each in runs if each.startswith(wanted)] if wanted != "latest" else runs[-1:]
        if wanted in found or len(found) == 1:
            return wanted if wanted in found else found[0]
        have = f"{len(found)} runs have" if found else "no run has"
        raise UsageError(f"{wanted}: {have} this id", "ds runs")

    @cached_property
    def _found_run(self) -> str:
        return self.find_run(self._asked_run or "")

    def _latest_run(self) -> str | None:
        return max(self.runs(), default=None)

    def paths(self) -> RunPaths:
        """Returns the paths of the current run in the store. Raises DsError if there is no run."""
        run = self.current_run()
        if run is None:
            raise DsError(f"{self.config.app_name} has no run yet", f"ds run {self.example_jobs}")
        return RunPaths(self.config.app_name, run)

    def fold(self) -> Fold:
        """Returns the state of every job of the current run. Its index is kept for the next command."""
        fold = self._fold_of(self.paths())
        if self.config.image_starts_worker and self._asked_run is None and self.engine.current_run():
            self._note_new_dead(fold.update(), self.engine.queue().counts())
        return fold

    def own_ledger(self, name: str) -> LedgerWriter:
        """Opens a new segment of the run's ledger for this command: each segment has one writer."""
        return LedgerWriter(self.engine.store, f"{self.paths().events}{name}-{os.urandom(4).hex()}.jsonl")

    def note_dead(self, fold: Fold) -> None:
        """Writes to the ledger which jobs are dead by the queue, for workers that write no ledger.

        Raises DsError if the dead may not be read: the auto-monitor has few rights.
        """
        dead = [each for each in self.engine.queue().dead() if each.job.id in fold.jobs]
        now, ledger = self.clock.now(), self.own_ledger("queue")
        for each in dead:
            if fold.jobs[each.job.id].state is State.WAITING:
                lease = Lease(Job(each.job.id, each.job.index, b""), "", now, each.attempt)
                ledger.ended("dead", now, lease, None, cause=each.cause, detail=each.detail)
        ledger.flush()
        fold.update()

    def _note_new_dead(self, fold: Fold, counts: Counts) -> None:
        """Reads the queue's dead jobs if it has more than the ledger; the same difference is read once."""
        numbers = counts.dead, fold.by_state[State.DEAD]
        if numbers[0] <= numbers[1] or numbers == self._noted_dead:
            return
        self._noted_dead = numbers
        try:
            self.note_dead(fold)
        except DsError as error:
            self.console.say(f"note: {error.what}; which jobs are dead is not known")

    def _fold_of(self, paths: RunPaths) -> Fold:
        folder = state_folder(self.folder, f"{self.config.app_name}.looks")
        return Fold(self.engine.store, paths, folder / f"{paths.run}.db")

    def snapshot(self, fold: Tally | None = None) -> Snapshot:
        """Looks at the current run. `fold` (or a new one) is brought up to date first."""
        engine = self.engine
        run = engine.current_run()
        shown = self.current_run() if self._asked_run is not None or run is None else run
        if shown != run:
            run = None
        # workers flush the ledger before they settle: read after the queue, it is never behind it
        counts = engine.queue().counts() if run else None
        paths = RunPaths(self.config.app_name, shown or "none")
        if fold is None:
            fold = self._fold_of(paths) if shown else Fold(engine.store, paths)
        fold.update()
        if self.config.image_starts_worker and counts and isinstance(fold, Fold):
            self._note_new_dead(fold, counts)
        past = self._asked_run is not None and run is None
        machines = Machines() if past else engine.machines()
        if run is None and (past or machines.replaces_lost):  # its engine no longer knows the run
            from ..report.build import reported_cost

            usd = reported_cost(engine.store, paths)
            machines = machines._replace(cost=None if usd is None else Cost(usd))
        paused: Sequence[Pause] = ()
        if counts and counts.open:
            from ..worker.health import pauses

            paused = pauses(engine.store, paths.paused, self.clock.now())
        return take(
            fold,
            app=self.config.app_name,
            engine=engine.name,
            run=shown,
            machines=machines,
            counts=counts,
            now=self.clock.now(),
            why_idle=engine.explain(counts) if counts and counts.open else None,
            pauses=paused,
            budget=self.budget(shown),
            excluded=self.excluded(shown),
            silent=self.config.image_starts_worker,
        )
