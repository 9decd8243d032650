"""A project folder with all that a command needs of it: config, engine, console, clock."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..clock import Clock, SystemClock
from ..console import Console
from ..engine import Cost, Engine
from ..errors import DsError, UsageError
from ..inputs.config import Config, load_config
from ..ledger import Fold, RunPaths
from ..runs.record import RunRecord, read_record, record_path
from ..runs.snapshot import Snapshot, take

if TYPE_CHECKING:
    from ..inputs.check import Check


class Project:
    """What `-C DIR` and `--engine E` choose."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        console: Console,
        clock: Clock,
        *,
        faults: str = "",
        engine: Engine | None = None,
    ) -> None:
        """`faults` is what goes wrong in a rehearsal. `engine` replaces the engine that the config names."""
        self.folder = folder
        self.config = config
        self.console = console
        self.clock = clock
        self._faults = faults
        self._given_engine = engine

    @classmethod
    def open(cls, folder: Path, console: Console, engine: str | None = None, faults: str = "") -> Project:
        """Reads the project's config; `engine` overrides its ENGINE.

        Raises UsageError if the config is missing or wrong, or if the engine knows no faults.
        """
        config = load_config(folder.absolute())
        config = config._replace(engine=engine) if engine else config
        if faults and not config.engine_kind.rehearses:
            raise UsageError("--faults: only a rehearsal goes wrong on request", "add --engine rehearsal")
        return cls(folder.absolute(), config, console, SystemClock(), faults=faults)

    @cached_property
    def engine(self) -> Engine:
        """The engine that the config names. It is imported and made at the first use."""
        if self._given_engine is not None:
            return self._given_engine
        make = self.config.engine_kind.module("engine").make
        faults = {"faults": self._faults} if self._faults else {}
        made: Engine = make(self.folder, self.config, self.clock, say=self.console.say, **faults)
        return made

    def checks(self, job_file: Path | None, fleet_file: Path | None) -> Sequence[Check]:
        """Returns the checks of `ds check` for the engine that the config names. Raises UsageError."""
        checks = self.config.engine_kind.module("check").checks
        found: Sequence[Check] = checks(self.folder, self.config, job_file, fleet_file)
        return found

    @property
    def record_path(self) -> Path:
        """Where the run record lies."""
        return record_path(self.folder, self.config.app_name)

    @property
    def example_jobs(self) -> str:
        """The job file that a hint names: one that is there, or whatever the user has."""
        example = "files/exampleJob.json"
        return example if (self.folder / example).is_file() else "JOBFILE"

    def record(self) -> RunRecord:
        """The run record. Raises DsError where there is none."""
        if not self.record_path.exists():
            what = f"{self.config.app_name} is not set up: {self.record_path} is missing"
            raise DsError(what, "ds setup")
        return read_record(self.record_path)

    def current_run(self) -> str | None:
        """The run that is set up, or else the latest that the store remembers."""
        return self.engine.current_run() or self._latest_run()

    def _latest_run(self) -> str | None:
        prefix = f"runs/{self.config.app_name}/"
        runs = {file.key[len(prefix) :].partition("/")[0] for file in self.engine.store.list(prefix)}
        return max(runs, default=None)

    def paths(self) -> RunPaths:
        """Where the current run lies in the store. Raises DsError where there is none."""
        run = self.current_run()
        if run is None:
            raise DsError(f"{self.config.app_name} has no run yet", f"ds run {self.example_jobs}")
        return RunPaths(self.config.app_name, run)

    def fold(self) -> Fold:
        """The state of every job of the current run."""
        return Fold(self.engine.store, self.paths())

    def snapshot(self, fold: Fold | None = None) -> Snapshot:
        """How the current run is now; `fold` (or a new one) is brought up to date first."""
        engine = self.engine
        run = engine.current_run()
        shown = run or self._latest_run()
        # the ledger is flushed before the queue is told: read in the other order, it is never behind
        counts = engine.queue().counts() if run else None
        paths = RunPaths(self.config.app_name, shown or "none")
        fold = (fold or Fold(engine.store, paths)).update()
        machines = engine.machines()
        if run is None and machines.replaces_lost:  # the run has ended: its engine has forgotten it
            from ..report.build import reported_cost

            usd = reported_cost(engine.store, paths)
            machines = machines._replace(cost=None if usd is None else Cost(usd))
        return take(
            fold,
            app=self.config.app_name,
            engine=engine.name,
            run=shown,
            machines=machines,
            counts=counts,
            now=self.clock.now(),
            why_idle=engine.explain(counts) if counts and counts.open else None,
            silent=self.config.image_starts_worker,
        )
