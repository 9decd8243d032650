"""The engine `local`: everything on this machine, nothing to start and no account."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ..clock import Clock
from ..config import Config
from ..engine import Machines
from ..errors import DsError
from .machine import IDLE_END_SECONDS, STATE_VARIABLE, Place, slots_of
from .queue import SqliteQueue
from .store import FolderStore

START_SECONDS = 20.0
END_SECONDS = 60.0
_RUN = "run"


def state_folder(project: Path, app: str) -> Path:
    """Where the state of an app lies: in `.ds` of its project, or below DS_STATE_DIR where that is set."""
    elsewhere = os.environ.get("DS_STATE_DIR")
    if not elsewhere:
        return project / ".ds" / app
    mark = hashlib.sha256(os.fsencode(project)).hexdigest()[:8]
    return Path(elsewhere).absolute() / f"{app}-{mark}"


class LocalEngine:
    """Implements engine.Engine with a SQLite queue, worker processes and folders."""

    name = "local"
    look_seconds = 0.25

    def __init__(self, project: Path, config: Config, clock: Clock) -> None:
        self._project = project
        self._config = config
        self._clock = clock
        self._place = Place(state_folder(project, config.app_name))
        self._queue: SqliteQueue | None = None
        self.store = FolderStore(project / config.store)

    def current_run(self) -> str | None:
        """The run that the queue belongs to."""
        if not self._place.database.exists():
            return None
        return self._open().get_meta(_RUN)

    def setup(self, run: str) -> Sequence[str]:
        """Make the queue; one of an earlier run is emptied."""
        made = [] if self._place.database.exists() else [f"queue {self._place.database}"]
        queue = self._open()
        if queue.get_meta(_RUN) != run:
            queue.purge()
            queue.set_meta(_RUN, run)
        return made

    def queue(self) -> SqliteQueue:
        """The queue of the current run."""
        if self.current_run() is None:
            raise DsError(f"{self._config.app_name} has no queue: it is not set up", "ds setup")
        return self._open()

    def _open(self) -> SqliteQueue:
        if self._queue is None:
            self._queue = self._place.open_queue(self._config)
        return self._queue

    def start(self, run: str) -> str:
        """Leave the machine process in the background; it is ready when this returns."""
        command = [sys.executable, "-m", f"{__package__}.machine"]
        process = subprocess.Popen(
            [*command, str(self._project), str(self._place.folder), run],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, STATE_VARIABLE: str(self._place.folder)},
            start_new_session=True,
            cwd="/",
        )
        assert process.stdout is not None
        with process.stdout:
            said = process.stdout.readline().decode().strip()
            rest = "" if said in ("ready", "already running") else process.stdout.read().decode().strip()
        process.returncode = 0  # it goes on without us: nothing to wait for
        if said not in ("ready", "already running"):
            raise DsError(f"the workers could not be started: {said or 'see above'}", rest)
        return f"local-{run}"

    def machines(self) -> Machines:
        """The machine process as it tells of itself, and whether it lives."""
        slots = slots_of(self._config)
        facts = self._status()
        if facts is None:
            return Machines(target=0, running=0, slots=slots)
        alive = self._alive()
        stopping = facts.get("stopping")
        return Machines(
            target=0 if facts.get("ended") else 1,
            running=int(alive),
            lost=0 if alive or facts.get("ended") else 1,
            slots=facts.get("slots", slots),
            draining=alive and stopping is not None,
            ended=None if alive else facts.get("ended"),
            trouble=self._trouble(facts, alive),
        )

    def _trouble(self, facts: dict[str, Any], alive: bool) -> str | None:
        if alive and facts.get("dying"):
            with suppress(OSError):
                lines = self._place.log.read_text(errors="replace").split("\n")
                last = next((line for line in reversed(lines) if line.strip()), "")
                return f"the workers keep dying: {last.strip()} (see {self._place.log})"
        if not alive and not facts.get("ended"):
            return "the workers were killed; `ds monitor` or `ds start` starts them again"
        return None

    def explain(self) -> str | None:
        """Why no job runs although some wait."""
        machines = self.machines()
        if machines.trouble:
            return machines.trouble
        if not machines.running:
            return f"no workers are running ({machines.ended or 'not started'}): ds start"
        counts = self._open().counts()
        when = (
            self._open().next_visible() if counts.delayed and not (counts.waiting or counts.leased) else None
        )
        if when is None:
            return None
        at = datetime.fromtimestamp(when).astimezone().strftime("%H:%M:%S")
        return f"{counts.delayed:,} jobs failed and wait before their next attempt, the first until {at}"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the app for one `ds run` at a time. Raises DsError where another one, or its workers, are at it."""
        self._place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._place.folder / "run.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                busy = self._alive()
            except BlockingIOError:
                busy = True
            if busy:
                raise DsError(
                    f"a run of {self._config.app_name} is under way: {self.current_run() or 'it begins just now'}",
                    "ds monitor follows it, ds submit adds jobs to it, ds stop ends it",
                )
            yield

    def stop(self, *, now: bool = False) -> None:
        """Tell the machine process."""
        self._signal(signal.SIGINT if now else signal.SIGUSR1)

    def end(self) -> None:
        """End the machine process and wait for it."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + END_SECONDS
        pause = 0.002
        while self._alive():
            if time.monotonic() > deadline:
                raise DsError(f"the workers did not end within {END_SECONDS:.0f} s", "ds stop --now")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)

    def remove(self) -> Sequence[str]:
        """Remove the state folder; outputs, logs and ledger stay in the store."""
        if self._alive():
            self._signal(signal.SIGINT)
            self.end()
        if self._queue is not None:
            self._queue.close()
            self._queue = None
        shutil.rmtree(self._place.folder, ignore_errors=True)
        return [str(self._place.folder)] if self._place.folder.exists() else []

    def _status(self) -> dict[str, Any] | None:
        try:
            facts = json.loads(self._place.status.read_text())
        except (OSError, ValueError):
            return None
        return facts if isinstance(facts, dict) else None

    def _alive(self) -> bool:
        """Whether a machine process holds the lock."""
        try:
            lock = os.open(self._place.lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def _signal(self, number: signal.Signals) -> None:
        facts = self._status()
        if facts is not None and self._alive():
            with suppress(ProcessLookupError):
                os.kill(facts["pid"], number)


__all__ = ["IDLE_END_SECONDS", "LocalEngine", "state_folder"]
