"""What an app has in its project's folder, on the shared file system: a folder for each run, and a few facts.

run-<n>       the n-th run that was set up: made by one only; the highest is the current one
<run>/        that run's queue: see place.py
logs/         what pilots print
started.json  when pilots were last asked for
pilots.json   squeue's latest answer, which all commands share
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import DsError
from .pilots import Pilot
from .shared.files import Files
from .shared.place import Place, from_json, to_json

SQUEUE_SECONDS = 30.0
"""squeue is asked no more often than this, by all commands of an app together."""

FIRST_SECONDS = 60.0
SOON_SECONDS = 3.0
"""In the first of these after a start, it may be asked as often as in the second, when there is news."""


class AppFolder:
    """The folder of an app. Its state lies with the project, as every node has to see it."""

    def __init__(self, project: Path, app: str, files: Files | None = None) -> None:
        self.folder = project / ".ds" / f"{app}.slurm"
        self._files = files or Files()

    @property
    def logs(self) -> Path:
        """Where pilots print to."""
        return self.folder / "logs"

    def make(self) -> None:
        """Make the folder; only its user may read it."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.logs.mkdir(mode=0o700, exist_ok=True)

    def place(self, run: str) -> Place:
        """The folder of a run."""
        return Place(self.folder / run, self._files)

    def current_run(self) -> str | None:
        """The run that was set up last; None where none is."""
        number = self._latest()
        return self._files.peek(self._pointer(number)).decode() or None if number else None

    def set_current(self, run: str) -> None:
        """Make this run the current one. Raises DsError where another command sets up another one now."""
        number = self._latest() + 1
        if not self._files.create(self._pointer(number), run.encode()):
            what = f"another `ds setup` began run {self.current_run()} at the same time"
            raise DsError(what, "ds setup, which goes on with that run")
        if number > 1:
            self._files.remove(self._pointer(number - 1))

    def _latest(self) -> int:
        names = self._files.names(self.folder)
        return max(
            (int(name[4:]) for name in names if name.startswith("run-") and name[4:].isdecimal()), default=0
        )

    def _pointer(self, number: int) -> Path:
        return self.folder / f"run-{number:08d}"

    # facts

    def note_start(self, now: float) -> None:
        """Note that pilots were asked for: from now on MAX_RUN_HOURS count."""
        self._write("started.json", {"at": now})

    def started(self) -> float | None:
        """When pilots were last asked for (Unix seconds); None: never."""
        facts = self._read("started.json")
        return None if facts is None else float(facts["at"])

    def is_over(self, hours: float, now: float) -> bool:
        """Whether the latest start was longer ago than MAX_RUN_HOURS."""
        started = self.started()
        return started is not None and now - started > hours * 3600

    def note_pilots(self, pilots: list[Pilot], now: float, ended: Counter[str]) -> None:
        """Keep squeue's answer for the next command. `ended`: how often each pilot had ended before it."""
        facts = {"at": now, "started": self._pilots_started(), "ended": ended, "pilots": pilots}
        self._write("pilots.json", facts)

    def pilots(self, now: float, ended: Counter[str]) -> list[Pilot] | None:
        """squeue's latest answer, without pilots that have `ended` since; None where it is too old.

        Soon after a start it is so once another pilot has begun to print, or while Slurm has not said why one
        waits: people wait for that.
        """
        facts = self._read("pilots.json")
        if facts is None or facts["at"] > now:
            return None
        soon = now - (self.started() or 0.0) < FIRST_SECONDS
        known = [Pilot(*each) for each in facts["pilots"]]
        unsaid = any(not (pilot.running or pilot.reason) for pilot in known)
        news = soon and (unsaid or facts["started"] != self._pilots_started())
        if now - facts["at"] >= (SOON_SECONDS if news else SQUEUE_SECONDS):
            return None
        before = facts["ended"]
        return [each.ended() if ended[each.id] > before.get(each.id, 0) else each for each in known]

    def _pilots_started(self) -> int:
        return len(self._files.names(self.logs))

    def forget_pilots(self) -> None:
        """Have the next command ask squeue."""
        self._files.remove(self.folder / "pilots.json")

    def _write(self, name: str, facts: dict[str, Any]) -> None:
        self._files.publish(self.folder / name, to_json(facts), sync=False)

    def _read(self, name: str) -> dict[str, Any] | None:
        text = self._files.peek(self.folder / name)
        found: dict[str, Any] | None = from_json(text) if text else None
        return found
