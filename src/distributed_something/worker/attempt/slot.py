"""Runs one attempt at a time: done check, inputs, the job's process, outputs, and cleaning up.

What can go wrong in an attempt becomes an Outcome with its cause; nothing is raised for it. A slot knows no
queue and no ledger: the worker's loop calls `begin`, `run` and, from another thread, `cancel`.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...engine import Store, StoredFile
from ...errors import DsError, KeyRefused, SickMachine, UsageError
from ...job import Cause, Job, Lease, Outcome, State
from ..files.done import Done, fingerprint, look
from ..files.fetch import fetch_inputs, look_at_inputs
from ..files.project import ProjectFolder, link_to
from ..files.publish import Claim, publish_outputs
from ..files.shared import SharedFolder
from ..health import Health, PatientStore, cannot_write, sickness
from .collect import fetch_outputs, join_csv
from .container import Containers
from .execute import Cancelled, Executor
from .logs import SlotLog
from .scratch import Scratch
from .task import Task, Work
from .workplace import Workplace

FOLDERS = ("work_dir", "input_dir", "output_dir")


class Failed(Exception):
    """A step around the job's own process failed: (cause, detail)."""


class Slot:
    """Runs attempts in its own folder. `run` belongs to one thread; `cancel` may come from any."""

    def __init__(
        self,
        task: Task,
        store: Store,
        folder: Path,
        log: SlotLog,
        run: str,
        worker: str,
        containers: Containers | None = None,
        *,
        keep: bool = False,
        health: Health | None = None,
    ) -> None:
        """`folder` is the slot's own; a job with an output runs in it while it bears the job's name.

        `keep`: leaves it as it is, under its own name, until the next slot is made there.
        """
        self._task = task
        self._keep = keep
        self._health = health or Health(store)
        self._store = store
        self._log = log
        self._run = run
        self._worker = worker
        self._place = Workplace(folder, keep=keep)
        carried = task.carried
        self._shared = SharedFolder(store, carried.shared, folder.parent) if carried.shared else None
        self._names = FOLDERS if self._shared is None else (*FOLDERS, "shared_dir")
        self._folders = self._named(self._place.folder)
        self._scratch = Scratch(self._place.folder, [Path(self._folders[name]) for name in FOLDERS])
        kept = self._place.home / "project"
        self._project = ProjectFolder(store, carried, kept) if carried.files else None
        project = self._project.path if self._project else Path.cwd()
        self._executor = Executor(task, self._scratch, log, self._folders, worker, containers, project)
        self._expected: dict[str, tuple[Lease, Work]] = {}
        self._fetched = 0
        self._phases: dict[str, float] = {}

    def cancel(self, cause: Cause) -> None:
        """Ends the attempt that runs now; it ends with this cause."""
        self._executor.cancel(cause)

    def begin(self) -> None:
        """Prepares for an attempt."""
        self._executor.begin()
        self._fetched = 0
        self._phases = {}
        self._log.begin()

    @property
    def _inputs(self) -> Path:
        return Path(self._folders["input_dir"])

    @property
    def _outputs(self) -> Path:
        return Path(self._folders["output_dir"])

    @property
    def log_place(self) -> str:
        """Where the log of the attempt that runs now begins."""
        return self._log.place

    def run(self, lease: Lease, takes_long: Callable[[Slot], None]) -> Outcome:
        """Runs one attempt, after `begin`. Leaves no process and no file of the job behind.

        Raises SickMachine if the machine or the store cannot work, and nothing else.
        Calls `takes_long` with this slot, once or more, before whatever may take longer than a moment.
        """
        started = time.monotonic()
        failed: Exception | None = None
        try:
            outcome = self._attempt(lease, lambda: takes_long(self))
        except Cancelled as end:
            outcome = Outcome(State.WAITING, end.args[0])
        except Exception as error:  # noqa: BLE001  an error of ours must not lose the job or end the loop
            failed = error
            cause, detail = error.args if isinstance(error, Failed) else (_cause_of(error), _describe(error))
            self._log.note(f"{cause}: {detail}")
            # what the store refuses for its name, it refuses at every attempt
            refused = isinstance(error.__cause__, KeyRefused | UsageError) or isinstance(error, UsageError)
            outcome = Outcome(State.DEAD if refused else State.WAITING, cause, detail)
        self._clean(lease)
        if outcome.cause is not None and (sick := self._fault_of_machine(failed, outcome)) is not None:
            self._log.note(f"given back: {sick.what}")
            self._log.end()
            raise sick
        seconds, log = time.monotonic() - started, self._log.end()
        if self._log.lost:
            outcome = outcome._replace(detail=_joined(outcome.detail, "its log could not be kept"))
        return outcome._replace(seconds=seconds, log=log, phases=self._phases, bytes_in=self._fetched)

    def _fault_of_machine(self, error: Exception | None, outcome: Outcome) -> SickMachine | None:
        """Returns the machine's fault behind a failure; None: it has none.

        Called when the job's own files are removed: a disk that is still full was not filled by this job.
        """
        if sick := sickness(error):
            return sick
        cause = error.__cause__ or error if error is not None else None
        try:
            if outcome.cause is Cause.DISK_FULL or isinstance(cause, OSError):
                self._scratch.check()
        except OSError as wrong:
            return sickness(wrong) or cannot_write(f"the disk of {self._scratch.folder}", wrong)
        if isinstance(cause, OSError | DsError) and not isinstance(cause, KeyRefused | UsageError):
            return self._health.store_fault()
        return None

    def check_machine(self) -> None:
        """Raises SickMachine if the machine or the store cannot work now."""
        try:
            self._scratch.clear()
            self._executor.check_machine()
            if self._shared is not None:
                self._shared.ensure(lambda: None, lambda: None)
        except OSError as error:
            raise sickness(error) or cannot_write(f"the disk of {self._scratch.folder}", error) from error
        self._health.check_store()

    def close(self) -> None:
        """Ends the handler's process and closes what is open."""
        self._executor.close()
        self._scratch.close()
        if self._shared is not None:
            self._shared.close()
        self._place.close()

    def expect(self, leases: Sequence[Lease]) -> None:
        """Resolves jobs that may run soon, many at once, as that is quicker."""
        known, self._expected = self._expected, {}
        for lease in leases:
            found = known.get(lease.job.id)
            with suppress(UsageError):  # raised again when it is run
                work = found[1] if found and found[0] is lease else self._resolved(lease)
                self._expected[lease.job.id] = lease, work

    def _named(self, folder: Path) -> dict[str, str]:
        """Returns a job's folders by name."""
        return {name: os.path.join(folder, name.removesuffix("_dir")) for name in self._names}  # noqa: PTH118  quick

    def _work(self, lease: Lease) -> Work:
        found = self._expected.pop(lease.job.id, None)
        return found[1] if found and found[0] is lease else self._resolved(lease)

    def _resolved(self, lease: Lease) -> Work:
        """Resolves a job for the folders that it will most likely have."""
        if self._task.output is None or self._keep:
            return self._task.work(lease, self._folders)
        return self._task.work(lease, self._named(self._place.expected(lease.job.id)))

    def _claim(self, lease: Lease, work: Work) -> Work:
        """Names the slot's folder after the job. Returns the work as it is there."""
        expected = self._task.output is not None
        if not self._place.claim(lease.job.id):
            self._log.note(f"an attempt at this job lives on: this one runs in {self._place.folder}")
            expected = False
        self._moved()
        return work if expected else self._task.work(lease, self._folders)

    def _moved(self) -> None:
        self._scratch.move(self._place.folder)
        self._folders = self._named(self._place.folder)
        self._executor.place(self._folders)

    def _attempt(self, lease: Lease, takes_long: Callable[[], None]) -> Outcome:
        task, job, work = self._task, lease.job, self._work(lease)
        if not self._scratch.quiet:
            self._scratch.clear()  # what could not be removed after the last attempt
        check_cancelled = self._executor.check_cancelled
        done = Done(False)
        if task.done_check and work.prefix and not work.collect:
            takes_long()
            done = self._look_if_done(job, work, work.prefix)
            if done.skip:
                return Outcome(State.SKIPPED, detail=done.why, output=work.prefix)
        if work.prefix and not self._keep:
            work = self._claim(lease, work)
        if self._shared is not None:
            self._shared.ensure(takes_long, check_cancelled)
            self._executor.see(self._shared.path)
            link_to(self._shared.path, Path(self._folders["shared_dir"]))
        seen: list[StoredFile] | None = [] if work.prefix else None
        if work.inputs:
            takes_long()
            with _Phase(self._phases, "in", Cause.INPUT_MISSING):
                self._fetched = fetch_inputs(
                    self._store, work.inputs, self._inputs, check_cancelled, seen, lists=task.rules.lists
                )
        if work.collect:
            takes_long()
        joins = work.collect and not (work.argv or work.handler)
        if work.collect and not joins:
            with _Phase(self._phases, "in", Cause.INPUT_MISSING):
                self._fetched = fetch_outputs(self._store, work.collect, self._inputs, check_cancelled)
        check_cancelled()
        if self._project:
            self._project.ensure(self._log.note)
            link_to(self._project.path, self._place.folder / "project")
        if work.collect and joins:
            outcome = self._join(work.collect)
        else:
            outcome = self._executor.run(lease, work, takes_long, self._fetched)
        if outcome.state is State.SUCCEEDED and work.prefix:
            self._executor.kill_strays(job.id)  # one could change an output after it was hashed
            takes_long()
            made_by = fingerprint(task.rules.recipe, job.keys, seen or ())
            with _Phase(self._phases, "out", Cause.UPLOAD):
                outcome = self._publish(lease, work, made_by, outcome)
        if outcome.state is State.SUCCEEDED and done.why:
            outcome = outcome._replace(detail=_joined(f"ran again: {done.why}", outcome.detail))
        return outcome

    def _join(self, listed: str) -> Outcome:
        """Joins the files of all jobs. Raises UsageError, which becomes the reason of the failure."""
        assert self._task.join is not None
        kind, name = self._task.join
        joined = f"{self._task.app}.{kind}"
        if kind == "csv":
            join = join_csv
        else:
            from .parquet import join_parquet as join
        check = self._executor.check_cancelled
        rows = join(self._store, listed, name, self._outputs / joined, check)
        self._log.note(f"{joined}: {rows:,} rows")
        return Outcome(State.SUCCEEDED, exit_code=0)

    def _look_if_done(self, job: Job, work: Work, prefix: str) -> Done:
        """Looks for the job's outputs; notes in its log why it runs again."""
        rules = self._task.rules

        def made_by() -> Mapping[str, Any]:
            return fingerprint(
                rules.recipe, job.keys, look_at_inputs(self._store, work.inputs, lists=rules.lists)
            )

        done = look(self._store, prefix, job.id, rules, made_by)
        if done.why and not done.skip:
            self._log.note(f"runs again: {done.why}")
        return done

    def _publish(self, lease: Lease, work: Work, made_by: Mapping[str, Any], outcome: Outcome) -> Outcome:
        task, prefix = self._task, work.prefix or ""
        owner = f"collect {task.app}" if work.collect else ""
        by_files = task.done_check and task.rules.rule is not None and not work.collect
        claim = Claim(lease.job.id, self._run, lease.attempt, self._worker, made_by, owner, by_files)
        shared = task.rules.shared or bool(work.collect)
        note, check = self._log.note, self._executor.check_cancelled
        store = PatientStore(self._store, self._health, check)
        manifest = publish_outputs(store, prefix, self._outputs, claim, note, check, shared=shared)
        if manifest is None:
            detail = "the command succeeded but wrote no file to {output_dir}"
            self._log.note(detail)
            return outcome._replace(state=State.WAITING, cause=Cause.OUTPUT_MISSING, detail=detail)
        size = sum(file.size for file in manifest.files)
        return outcome._replace(output=prefix, bytes_out=size)

    def _clean(self, lease: Lease) -> None:
        """Removes what the job left: processes that got out of its group, and files."""
        self._executor.kill_strays(lease.job.id)
        self._executor.take_back_gpus()
        if self._keep:
            return
        try:
            self._scratch.clear()
        except OSError as error:
            self._log.note(f"what the job left could not be removed: {error}")
        if self._place.is_claimed:
            try:
                self._place.go_home()
            except OSError as error:  # the next job with an output moves it
                self._log.note(f"the job's folder could not be renamed: {error}")
            self._moved()


class _Phase:
    """Notes the seconds spent in a phase of the attempt, and gives what fails in it its cause."""

    def __init__(self, phases: dict[str, float], name: str, cause: Cause) -> None:
        self._phases, self._name, self._cause = phases, name, cause
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self._phases[self._name] = time.monotonic() - self._start
        if isinstance(error, OSError | DsError | ValueError):
            raise Failed(_cause_of(error, self._cause), _describe(error)) from error


def _cause_of(error: Exception, otherwise: Cause = Cause.EXIT) -> Cause:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Cause.DISK_FULL if full else otherwise


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _describe(error: Exception) -> str:
    return (error.what if isinstance(error, DsError) else f"{type(error).__name__}: {error}")[:500]
