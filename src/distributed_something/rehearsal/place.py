"""Where a rehearsal's files lie in its project, and whether its emulator lives."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..config import Config


def bucket_of(config: Config) -> str:
    """The bucket of the project: the config's, or one of the app's name."""
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
        """Its address."""
        return self.folder / "rehearsal.json"

    @property
    def log(self) -> Path:
        """What it has to say."""
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
        """What the environment of every process of the rehearsal's tasks holds."""
        from ..local.place import STATE_VARIABLE

        return os.fsencode(f"{STATE_VARIABLE}={self.folder}\0")

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Write down where the emulator is."""
        temporary = self.facts.with_suffix(".tmp")
        temporary.write_text(json.dumps(facts))
        temporary.replace(self.facts)

    def endpoint(self) -> str | None:
        """The address of the emulator that lives; None where there is none."""
        return self.told().get("endpoint") if self.alive() else None

    def faults(self) -> str:
        """What goes wrong in the emulator that lives, as text."""
        return str(self.told().get("faults", "")) if self.alive() else ""

    def told(self) -> dict[str, Any]:
        """What was written down of the emulator."""
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(self.facts.read_text())
            return found
        return {}

    def alive(self) -> bool:
        """Whether an emulator's process holds the lock."""
        try:
            lock = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    @contextmanager
    def free(self) -> Iterator[int | None]:
        """The lock, taken; None where an emulator's process holds it.

        Those who look whether it is held hold it for a moment too.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            taken = False
            for _ in range(20):
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    taken = True
                    break
                time.sleep(0.02)
            yield lock if taken else None
        finally:
            os.close(lock)
