"""What a job's container is, and what a container engine does with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

CALL_SECONDS = 60.0
ANSWER_SECONDS = 15.0
"""Maximum time of an engine's answer to a plain question, in seconds: then it is away."""

PULL_SECONDS = 3600.0


class Mount(NamedTuple):
    """A file or folder of this machine that a container sees."""

    source: str
    target: str
    read_only: bool = False


class Box(NamedTuple):
    """One job's container. `given`, `own` and `secrets` are its variables; files may have all but the last.

    `options` is what the engine's `options` returned. `hidden` is a folder below a mount that is empty to
    the container, except for other mounts. `home` is a folder outside of all that the container sees, where
    its engine keeps files. `memory` in MiB.
    """

    image: str
    mounts: Sequence[Mount]
    home: Path
    state: str
    worker: str
    given: Mapping[str, str] = {}
    secrets: Mapping[str, str] = {}
    options: Sequence[str] = ()
    hidden: str = ""
    nvidia: str = ""
    """The GPUs of NVIDIA that it may use, by number; empty: none."""
    amd: bool = False
    cpu_shares: int | None = None
    memory: int | None = None
    name: str = ""
    folder: str = ""
    """Where its command begins."""
    own: Mapping[str, str] = {}
    argv: Sequence[str] = ()

    @property
    def made(self) -> Path:
        """The file that the engine's command writes once the container is made."""
        return self.home.with_suffix(".cid")

    def inside(self) -> list[Mount]:
        """Returns the mounts in the hidden folder: they come after it."""
        return [each for each in self.mounts if self.hidden and is_below(each.target, self.hidden)]

    def outside(self) -> list[Mount]:
        """Returns the other mounts."""
        return [each for each in self.mounts if not (self.hidden and is_below(each.target, self.hidden))]


class End(NamedTuple):
    """How a container ended, as its engine tells it; `error` is why it could not be started."""

    out_of_memory: bool
    started: str
    exit_code: str
    error: str


class ContainerEngine(Protocol):
    """A program that runs containers."""

    name: ClassVar[str]
    tells: ClassVar[bool]
    """Whether it runs containers elsewhere, and tells how one ended. If not, a container is its own process,
    with usage and end as the system reports them, and no limit of its own."""

    def alive(self) -> str:
        """Returns the engine's version. Raises DsError if no engine answers."""

    def digest(self, image: str) -> str | None:
        """Returns what tells a local image from another of its name; None: unknown."""

    def has_image(self, image: str) -> bool:
        """Whether an image is on this machine."""

    def pull(self, image: str) -> None:
        """Pulls an image from its registry. Raises DsError."""

    def options(self, box: Box) -> Sequence[str]:
        """Makes what the containers of a slot share, and returns the options that lead to it."""

    def words(self, box: Box) -> tuple[list[str], dict[str, str]]:
        """Returns the command that runs a container, and the variables of that command. Pure."""

    def end_of(self, name: str) -> End:
        """Returns how a container ended. Raises DsError. Only asked of an engine that `tells`."""

    def remove(self, names: Sequence[str]) -> None:
        """Ends and removes containers; a missing one is no error. Raises DsError."""

    def labelled(self, label: str, value: str) -> list[str]:
        """Returns the ids of the containers with a label, ended ones included. Raises DsError."""


def is_below(path: str, folder: str) -> bool:
    """Whether a path is that of a folder, or below it."""
    return Path(path).is_relative_to(folder)


def csv_mount(*fields: str) -> tuple[str, str]:
    """Returns the option --mount, whatever characters are in the names of folders."""
    return "--mount", ",".join('"' + field.replace('"', '""') + '"' for field in fields)
