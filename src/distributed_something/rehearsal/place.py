"""Names a rehearsal's files, and tells whether its emulator lives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..background import is_held
from ..inputs.config import Config
from ..system.state import mark_of


def bucket_of(config: Config) -> str:
    """Returns the bucket of the project: the config's, or one of the app's name."""
    return config.aws_bucket or f"rehearsal-{config.app_name.lower().replace('_', '-')}"


class Place(NamedTuple):
    """The files of a rehearsal: `folder` is the app's state folder."""

    folder: Path

    @property
    def lock(self) -> Path:
        """Held by the emulator's process."""
        return self.folder / "rehearsal.lock"

    @property
    def facts(self) -> Path:
        """Its address, and the key of those who may call it."""
        return self.folder / "rehearsal.json"

    @property
    def log(self) -> Path:
        """Its messages."""
        return self.folder / "rehearsal.log"

    @property
    def tasks_log(self) -> Path:
        """What the tasks' containers print."""
        return self.folder / "tasks.log"

    @property
    def buckets(self) -> Path:
        """Buckets other than the project's."""
        return self.folder / "buckets"

    @property
    def work(self) -> Path:
        """Where workers work."""
        return self.folder / "tasks"

    @property
    def mark(self) -> bytes:
        """The text in the environment of every process of the rehearsal's tasks."""
        return mark_of(self.folder)

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Writes where the emulator is, readable by its user alone."""
        temporary = self.facts.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(facts))
        temporary.replace(self.facts)

    def endpoint(self) -> str | None:
        """Returns the address of the emulator that lives; None where there is none."""
        return self.told().get("endpoint") if self.alive() else None

    def key(self) -> str:
        """Returns the access key that the emulator answers to."""
        return str(self.told().get("key", ""))

    def faults(self) -> str:
        """Returns what goes wrong in the emulator that lives, as text."""
        return str(self.told().get("faults", "")) if self.alive() else ""

    def told(self) -> dict[str, Any]:
        """Returns the facts that `tell` wrote."""
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(self.facts.read_text())
            return found
        return {}

    def death(self) -> str:
        """Returns what to say of an emulator that did not end by itself; empty: it lives, or has ended."""
        told = self.told()
        if not told or self.alive():
            return ""
        return f"the rehearsal's emulator (process {told.get('pid')}) was killed, and the queue with it"

    def alive(self) -> bool:
        """Returns whether an emulator's process holds the lock."""
        return is_held(self.lock)
