"""Runs everything on this machine: no account, no service to start."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from .. import background
from ..clock import Clock
from ..engine import Counts, Diagnosis, KnownJob, Machines
from ..errors import DsError, QueueDamaged
from ..inputs.config import Config
from ..inputs.secrets import read_secrets
from ..job import Needs
from ..packing import Capacity
from ..system.leftovers import sweep_below
from ..system.state import STATE_VARIABLE, make_private, one_run, state_folder
from .place import (
    Place,
    capacity_of,
    check_gpus,
    check_server,
    default_of,
    end_uploads,
    need_image,
    open_store,
    slots_of,
)
from .queue import SqliteQueue
from .queue_file import lock_of
from .store import TEMPORARY

START_SECONDS = 20.0
"""Time limit for a starting machine process to take orders, in seconds."""

END_SECONDS = 90.0
"""Time limit for the workers' end, in seconds."""

FULL_BELOW = 1 << 16
"""Free space, in bytes, below which a disk counts as full."""
_RUN = "run"


def make(folder: Path, config: Config, clock: Clock, *, say: Callable[[str], None]) -> LocalEngine:
    """Makes the engine of a project folder. Nothing is started or asked for yet."""
    return LocalEngine(folder, config, clock, say)


class LocalEngine:
    """Implements engine.Engine with a SQLite queue, worker processes and folders."""

    name = "local"
    poll_interval = 0.25
    final_poll_interval = 0.002
    job_bytes = None
    tasks_per_machine = 1

    def __init__(
        self, project: Path, config: Config, clock: Clock, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._project = project
        self._config = config
        self._say = say
        self._image_is_here = False
        self._clock = clock
        self._place = Place(state_folder(project, config.app_name))
        self._queue: SqliteQueue | None = None
        self.store = open_store(project, config, say=say)
        self._folder = config.store_folder(project)

    def capacity(self) -> Capacity:
        """Returns what this machine has for jobs."""
        return capacity_of(self._config)

    def current_run(self) -> str | None:
        """Returns the run that the queue belongs to."""
        if not self._place.database.exists() and not lock_of(self._place.database).exists():
            return None
        try:
            return self._open().get_meta(_RUN)
        except QueueDamaged:  # then the machine process knows: a stop must reach it
            run = (self._status() or {}).get("run")
            if not isinstance(run, str):
                raise
            return run

    def plan(self, run: str) -> Sequence[str]:
        """Returns the one step."""
        queue = f"queue {self._place.database}"
        if not self._place.database.exists():
            return [f"create {queue}"]
        return [f"keep {queue}" if self.current_run() == run else f"empty {queue}"]

    def setup(self, run: str, on_created: Callable[[str], None]) -> None:
        """Creates the queue; empties that of an earlier run.

        Raises DsError if no container can run, or a secret or a GPU is missing.
        """
        self._need_image()
        read_secrets(self._config, os.environ)
        check_gpus(self._config)
        new = not self._place.database.exists()
        if new or self.current_run() != run:
            check_server(self._config)
        queue = self._open()
        if new:
            on_created(f"queue {self._place.database}")
        if queue.get_meta(_RUN) != run:
            self.end()  # workers of the earlier run that found nothing more to do
            queue.purge()
            queue.set_meta(_RUN, run)

    def queue(self) -> SqliteQueue:
        """Returns the queue of the current run."""
        if self.current_run() is None:
            raise DsError(f"{self._config.app_name} has no queue: it is not set up", "ds setup")
        return self._open()

    def _open(self) -> SqliteQueue:
        if self._queue is None:
            self._queue = self._place.open_queue(self._config)
        return self._queue

    def start(
        self, run: str, _fleet_file: Path | None, _made: Callable[[str], None], _most: int | None = None
    ) -> str:
        """Starts the one machine process in the background; it is ready on return."""
        self._need_image()
        read_secrets(self._config, os.environ)
        check_gpus(self._config)
        with background.free(self._place.lock) as lock:
            if lock is not None:
                self._spawn(run, lock)
            elif (self._status() or {}).get("stopping") and self._alive():
                raise DsError(
                    "the workers are stopping: new ones can be started when they have ended",
                    "wait for `ds stop` to end, or ds stop --now; then ds start",
                )
        return f"local-{run}"

    def _need_image(self) -> None:
        """Makes the environment of jobs and pulls the image, unless they are there."""
        if not self._image_is_here:
            self._config.shell(self._project).make(self._say)
            need_image(self._config, self._project, self._say)
        self._image_is_here = True

    def _spawn(self, run: str, lock: int) -> None:
        command = [
            sys.executable,
            "-m",
            f"{__package__}.machine",
            str(self._project),
            str(self._place.folder),
        ]
        environment = {**os.environ, STATE_VARIABLE: str(self._place.folder)}
        failure, log = "the workers could not be started", self._place.log
        background.leave([*command, run], lock, environment, failure=failure, log=log)

    def machines(self) -> Machines:
        """Returns the state of the machine process, by its own file and its lock."""
        slots = slots_of(self._config)
        facts, needs = self._status(), self._needs()
        if facts is None:
            return Machines(target=0, running=0, slots=slots, needs=needs)
        alive = self._alive()
        stopping = facts.get("stopping")
        return Machines(
            target=0 if facts.get("ended") else 1,
            running=int(alive),
            lost=0 if alive or facts.get("ended") else 1,
            slots=facts.get("slots", slots),
            draining=alive and stopping is not None,
            ended=None if alive else facts.get("ended"),
            diagnosis=self._diagnose(facts, alive),
            needs=needs,
        )

    def _needs(self) -> tuple[tuple[Needs, int], ...]:
        with suppress(DsError):  # a damaged queue: other verbs say so
            if self._place.database.exists():
                return tuple(self._open().needs(default_of(self._config)))
        return ()

    def _diagnose(self, facts: dict[str, Any], alive: bool) -> Diagnosis | None:
        if alive and facts.get("dying"):
            with suppress(OSError):
                lines = self._place.log.read_text(errors="replace").split("\n")
                last = next((line for line in reversed(lines) if line.strip()), "")
                why = last.strip() or "something kills them, a job perhaps"
                return Diagnosis(f"the workers keep dying: {why} (see {self._place.log})")
        for folder in filter(None, (self._place.folder, self._folder)) if alive else ():
            if not folder.exists():
                return Diagnosis(f"the folder {folder} is away: bring it back, and the work goes on")
            if not os.access(folder, os.W_OK):
                return Diagnosis(f"the folder {folder} cannot be written: change that, and the work goes on")
            if _free_bytes(folder) < FULL_BELOW:
                return Diagnosis(f"the disk of {folder} is full: make room, and the work goes on")
        if not alive and not facts.get("ended"):
            return Diagnosis("the workers were killed; `ds monitor` or `ds start` starts them again")
        return None

    def explain(self, counts: Counts) -> str | None:
        """Returns why no job runs although some wait."""
        machines = self.machines()
        if machines.diagnosis:
            return machines.diagnosis.what
        if not machines.running:
            return f"no workers are running{f' ({machines.ended})' if machines.ended else ''}: ds start"
        whole = self.capacity().whole
        if counts.waiting and machines.needs and not any(each.fit(whole) for each, _ in machines.needs):
            return f"no waiting job fits this machine: it has {whole}"
        return counts.explain_delay(self._open().next_visible(), self._clock.now())

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the app for one `ds run` at a time. Raises DsError where another one is under way."""
        lock = self._place.folder / "run.lock"
        return one_run(lock, self._config.app_name, self._alive, self.current_run)

    def damage(self) -> str:
        """Reads the whole queue, and returns what is wrong with it."""
        try:
            if not self._place.database.exists():
                return f"the queue {self._place.database} is gone"
            queue = self._open()
            queue.check()
            return "" if queue.get_meta(_RUN) else f"the queue {self._place.database} names no run"
        except QueueDamaged as error:
            return error.what

    def unlike(self, jobs: Iterable[KnownJob]) -> int:
        """Returns how many jobs are not in the queue as they are known; states count while no worker runs."""
        return self._open().unlike(jobs, states=not self._alive())

    def rebuild(self, run: str, jobs: Iterable[KnownJob]) -> None:
        """Ends the workers and makes the queue anew; the damaged file stays beside it until clean-up."""
        self._end(signal.SIGINT)
        self._close()
        place = self._place
        make_private(place.folder)
        with background.free(place.lock) as lock:
            if lock is None:
                raise DsError("workers are being started just now", "run the command again")
            made = place.folder / "rebuilt.db"
            for each in place.folder.glob(f"{made.name}*"):
                each.unlink()
            with Place.open_as(made, self._config) as queue:
                queue.restore(jobs)
                queue.set_meta(_RUN, run)
            for ending in ("", "-wal", "-shm"):
                old = place.database.with_name(place.database.name + ending)
                if old.exists():
                    old.replace(old.with_name("damaged.db" + ending))
            made.replace(place.database)
            if not lock_of(place.database).exists():
                lock_of(made).replace(lock_of(place.database))
            lock_of(made).unlink(missing_ok=True)

    def _close(self) -> None:
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def stop(self, *, now: bool = False) -> None:
        """Signals the machine process to stop."""
        self._signal(signal.SIGINT if now else signal.SIGUSR1)

    def end(self) -> Sequence[str]:
        """End the machine process and wait for it."""
        self._end(signal.SIGTERM)
        return ()

    def _end(self, order: signal.Signals) -> None:
        self._signal(order)
        deadline = self._clock.monotonic() + END_SECONDS
        pause = 0.002
        while self._alive():
            if self._clock.monotonic() > deadline:
                raise DsError(f"the workers did not end within {END_SECONDS:.0f} s", "ds stop --now")
            self._clock.wait(pause)
            pause = min(pause * 1.5, 0.02)

    def remove(self) -> Sequence[str]:
        """Remove the state folder; outputs, logs and ledger stay in the store."""
        from ..worker.attempt.scratch import remove_folder

        if self._alive():
            self._end(signal.SIGINT)
        else:
            self._sweep()
        self._close()
        remove_folder(self._place.folder)
        if self._folder:
            sweep_below(self._folder, TEMPORARY)
        else:
            end_uploads(self._config, self._clock, self._say)
        return [str(self._place.folder)] if self._place.folder.exists() else []

    def _status(self) -> dict[str, Any] | None:
        try:
            facts = json.loads(self._place.status.read_text())
        except (OSError, ValueError):
            return None
        return facts if isinstance(facts, dict) else None

    def _alive(self) -> bool:
        """Returns whether a machine process holds the lock."""
        return background.is_held(self._place.lock)

    def _signal(self, number: signal.Signals) -> None:
        """Signals the machine process, waiting for one that is starting; sweeps if it was killed."""
        from ..worker.attempt.process import LINUX, environment_of

        deadline = self._clock.monotonic() + START_SECONDS
        while self._alive() and self._clock.monotonic() < deadline:
            pid = (self._status() or {}).get("pid", 0)
            if pid and (not LINUX or self._place.mark in environment_of(pid)):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
                return
            self._clock.wait(0.02)
        self._sweep()

    def _sweep(self) -> None:
        """Kill what a killed machine process and its workers left running."""
        facts = self._status()
        if facts is None or facts.get("ended"):
            return
        from ..worker.attempt.process import kill_marked

        with background.free(self._place.lock) as lock:
            if lock is not None:
                kill_marked(self._place.mark)
                if self._config.in_containers:
                    from ..system.containers.docker import STATE_LABEL, sweep

                    sweep(STATE_LABEL, str(self._place.folder))


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
