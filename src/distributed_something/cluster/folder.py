"""What an app has in its project's folder, on the shared file system: a folder for each run, and a few facts.

run-<n>       the n-th run that was set up: made by one only; the highest is the current one
<run>/        that run's queue: see place.py
logs/         what pilots print
started.json  when pilots were last asked for
pilots.json   squeue's latest answer, which all commands share
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DsError
from ..system.state import make_private, refuse_foreign
from .lives import Life, signs
from .pilots import Pilot
from .shared.files import Files
from .shared.place import Place, from_json, to_json, unseen

TWO_WINNERS = frozenset(
    {"fuse.seaweedfs", "fuse.weed", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.goofys"}
)
"""Types of file systems on which two nodes can make the same name."""

SQUEUE_SECONDS = 30.0
"""squeue is asked no more often than this, by all commands of an app together."""

SOON_SECONDS = 3.0
"""It is asked again after this time where its first answer since a start does not say why a pilot waits."""


class AppFolder:
    """The folder of an app. Its state lies with the project, as every node has to see it."""

    def __init__(self, project: Path, app: str, engine: str, files: Files | None = None) -> None:
        self.folder = project / ".ds" / f"{app}.{engine}"
        for each in (self.folder.parent, self.folder):
            refuse_foreign(each, "run ds as that user, or copy the project to a folder of your own")
        self._files = files or Files()

    @property
    def logs(self) -> Path:
        """Where pilots print to."""
        return self.folder / "logs"

    def make(self) -> None:
        """Make the folder; only its user may read it."""
        make_private(self.logs)

    def place(self, run: str) -> Place:
        """The folder of a run."""
        return Place(self.folder / run, self._files)

    def current_run(self) -> str | None:
        """The run that was set up last; None where none is."""
        if not (number := self._latest()):
            return None
        text = self._files.peek(self._pointer(number))
        if not text.endswith(b"\n"):
            raise unseen(self._pointer(number))
        return text.decode().strip()

    def set_current(self, run: str) -> None:
        """Make this run the current one. Raises DsError where another command sets up another one now."""
        number = self._latest() + 1
        if not self._files.create(self._pointer(number), f"{run}\n".encode()):
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

    def note_pilots(self, pilots: Sequence[Pilot], now: float, lived: Sequence[Life]) -> None:
        """Keep squeue's answer for the next command. `lived`: the lives that were known before it."""
        earlier = self._read("pilots.json")
        soon = earlier is None and any(not (pilot.running or pilot.reason) for pilot in pilots)
        pause = SOON_SECONDS if soon else SQUEUE_SECONDS
        if earlier is not None and earlier["soon"]:
            pause = 2 * SQUEUE_SECONDS - SOON_SECONDS
        facts = {"at": now, "until": now + pause, "soon": soon, "signs": signs(lived), "pilots": pilots}
        self._write("pilots.json", facts)

    def pilots(self, now: float, lived: Sequence[Life]) -> list[Pilot] | None:
        """squeue's latest answer, and what pilots have said themselves since; None where it is too old."""
        facts = self._read("pilots.json")
        if facts is None or not facts["at"] <= now < facts["until"]:
            return None
        latest, new = {life.pilot: life for life in sorted(lived)}, signs(lived) - Counter(facts["signs"])
        known = [Pilot(*each) for each in facts["pilots"]]
        return [_as_it_says(each, latest[each.id]) if new[each.id] else each for each in known]

    def pilots_without_squeue(self, now: float, lived: Sequence[Life], why: str) -> list[Pilot] | None:
        """squeue's latest answer, which holds for a while more as squeue is silent; None: there is none."""
        if (facts := self._read("pilots.json")) is None:
            return None
        self._write("pilots.json", {**facts, "until": now + SQUEUE_SECONDS, "silent": why})
        return self.pilots(now, lived)

    def silent(self) -> str:
        """Why what is known of pilots is old; empty: it is not."""
        return str((self._read("pilots.json") or {}).get("silent", ""))

    def forget_pilots(self) -> None:
        """Have the next command ask squeue."""
        self._files.remove(self.folder / "pilots.json")

    def _write(self, name: str, facts: dict[str, Any]) -> None:
        self._files.publish(self.folder / name, to_json(facts) + b"\n", sync=False)

    def _read(self, name: str) -> dict[str, Any] | None:
        text = self._files.peek(self.folder / name)
        found: dict[str, Any] | None = from_json(text) if text.endswith(b"\n") else None
        return found


def two_winners(kind: str | None) -> tuple[str, str]:
    """The error, and its fix, of a project on a file system where two heads of one epoch are possible."""
    what = f"the project lies on a file system ({kind}) that can give one name to two files"
    return what, "move it to NFS, Lustre, GPFS, GlusterFS or another file system with safe hard links"


def _as_it_says(pilot: Pilot, life: Life) -> Pilot:
    return pilot.ended() if life.over else pilot._replace(running=True, node=life.node, start=life.start)
