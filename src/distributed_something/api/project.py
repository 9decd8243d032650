"""A project and its runs as Python objects. Each method calls the step that the command of its name calls."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..console import progress_line
from ..errors import DsError, UsageError
from ..inputs.config import Config
from ..report.failures import FailureGroup, group_failures
from ..runs.joblog import read_log
from ..runs.snapshot import Alive, Snapshot
from ..steps import stop
from ..steps.look.jobs import line_of, selected, with_bodies
from ..steps.project import Project as Steps
from ..steps.run import begin
from ..steps.watch.monitor import monitor
from . import html
from .live import console_for
from .table import Table


class Project:
    """A project folder: config, job files, runs. Make one by `Project.open`."""

    def __init__(self, steps: Steps, *, yes: bool = False) -> None:
        self._steps = steps
        self.yes = yes
        """Costs are confirmed, as by `ds --yes`."""

    @classmethod
    def open(cls, folder: str | Path = ".", *, engine: str | None = None, yes: bool = False) -> Project:
        """Reads the project's config. `engine` overrides its ENGINE; `yes` confirms costs, as `ds --yes`.

        Raises UsageError if the config is missing or wrong.
        """
        return cls(Steps.open(Path(folder), console_for(progress=True), engine), yes=yes)

    @property
    def folder(self) -> Path:
        """The project folder."""
        return self._steps.folder

    @property
    def config(self) -> Config:
        """The project's config, a field for each key in small letters."""
        return self._steps.config

    def submit(
        self,
        jobs: str | Path | Iterable[Mapping[str, Any]],
        *,
        shared: Mapping[str, Any] | None = None,
        fleet_file: str | Path | None = None,
    ) -> Run:
        """Sets up, queues the jobs, and starts machines. Returns the run, which `wait` watches to its end.

        `jobs` is a job file, or one dictionary of keys a job. `shared` keys are those of all jobs, and
        override the file's. Raises UsageError if a job does not fit the config; nothing is queued then.
        """
        steps = self._steps
        steps.console = console_for(progress=True, yes=self.yes)  # stderr may be another one by now
        fleet = None if fleet_file is None else Path(fleet_file)
        with _job_file(steps.folder, jobs) as file, steps.engine.exclusive():
            begin(steps, file, shared or {}, fleet)
        return self.run()

    def run(self, run: str | None = None) -> Run:
        """Returns the run with this id, or start of an id; None: the current or latest. Raises DsError."""
        found = self._steps.paths().run if run is None else self._steps.find_run(run)
        return Run(self._steps.looking_at(found), found)

    def runs(self) -> list[Run]:
        """Returns every run of the project, the newest first."""
        return [Run(self._steps.looking_at(each), each) for each in reversed(self._steps.runs())]

    def __repr__(self) -> str:
        return f"<Project {self.config.app_name} ({self.config.engine}) in {self.folder}>"


class Run:
    """One run of a project. It reads queue and ledger at each call: it is never out of date."""

    def __init__(self, steps: Steps, run: str) -> None:
        self._steps = steps
        self.id = run

    def status(self) -> Snapshot:
        """Returns how the run is: state, counts of jobs, rate, machines, cost."""
        with closing(self._steps.fold()) as fold:
            return self._steps.snapshot(fold)

    def wait(self, progress: bool = True) -> Run:
        """Watches the run to its end, as `ds monitor` does: report written, machines ended. Returns the run.

        Dead jobs raise nothing: see `failures`. Raises DsError if the run cannot end; jobs that are left
        stay in the queue then. `progress` shows a bar or a live line.
        """
        if self._steps.engine.current_run() == self.id:
            self._steps.console = console_for(progress=progress)
            monitor(self._steps, None, None)
        return self

    def jobs(self, state: str | None = None, cause: str | None = None) -> Iterator[dict[str, Any]]:
        """Yields the jobs in the order of submission, as `ds jobs --json` prints them."""
        with closing(self._steps.fold().update()) as fold:
            alive = Alive.of(self._steps.engine.machines())
            for record, body in with_bodies(fold, selected(fold, state, cause, alive=alive)):
                yield line_of(record, body, alive=alive)

    def failures(self) -> list[FailureGroup]:
        """Returns the failures grouped by cause and last line, the largest group first."""
        with closing(self._steps.fold().update()) as fold:
            return group_failures(self._steps.engine.store, self._steps.paths(), fold.failing())

    def table(self) -> Table:
        """Returns the jobs as rows: each job's own keys, then how it ended. `pandas.DataFrame` takes it."""
        return Table.of(self.jobs())

    def log(self, job: str) -> str:
        """Returns what the latest attempt of a job printed. `job`: its id, start of its id, or index.

        Raises UsageError if no job, or several, are meant.
        """
        with closing(self._steps.fold().update()) as fold:
            found = fold.find(job)
            if len(found) != 1:
                raise UsageError(f"{job}: {len(found)} jobs have this id or index", "Run.jobs() lists them")
            text = read_log(self._steps.engine.store, self._steps.paths(), found[0].log)
        return text.decode(errors="replace")

    def stop(self, *, now: bool = False) -> None:
        """Lets running jobs finish and leases no more. `now`: running jobs go back to the queue."""
        stop.stop(self._steps, now=now)

    def __repr__(self) -> str:
        try:
            return f"<Run {self.id}: {progress_line(self.status())}>"
        except DsError as error:
            return f"<Run {self.id}: {error.what}>"

    def _repr_html_(self) -> str:
        return html.of_run(self.id, self.status(), self.failures())


@contextmanager
def _job_file(folder: Path, jobs: str | Path | Iterable[Mapping[str, Any]]) -> Iterator[Path]:
    """Yields a job file: the one given, or one of these jobs, which is removed at the end."""
    if isinstance(jobs, str | Path):
        yield folder / jobs
        return
    from msgspec.json import encode

    path = folder / ".ds" / f"jobs-{os.urandom(4).hex()}.jsonl"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        with path.open("wb") as file:
            for index, group in enumerate(jobs):
                try:
                    file.write(encode(dict(group)) + b"\n")
                except (TypeError, ValueError) as error:
                    what = f"job {index}: cannot be written as JSON: {error}"
                    raise UsageError(what, "give it text, numbers, lists and dictionaries") from error
        yield path
    finally:
        path.unlink(missing_ok=True)
