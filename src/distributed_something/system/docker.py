"""The container engine of this machine: found, asked, and its containers taken away.

It is Docker, by its command line: that knows its sockets, contexts, registries and credentials. Nothing here
runs before a run that needs a container begins.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ..errors import DsError

if TYPE_CHECKING:
    from pathlib import Path

CALL_SECONDS = 60.0
PULL_SECONDS = 3600.0
WORKER_FOLDER = "/opt/distributed-something"
"""Where the carried worker lies in a task's containers."""

IMAGE_FOLDER = "/opt/ds"
"""Where it lies in the image that brings it."""

STATE_LABEL = "distributed-something.state"
"""Names the state folder of the app that a container belongs to."""

WORKER_LABEL = "distributed-something.worker"
_WITHOUT = "install Docker, or write CONTAINERS = False to run jobs as plain processes of this machine"
_ASIDE = "CONTAINERS = False says that this is meant, CONTAINERS = True insists on containers"


class Docker(NamedTuple):
    """The engine, by the path of its command."""

    program: str

    @classmethod
    def installed(cls) -> Docker | None:
        """The command on the PATH; whether an engine answers it is not asked."""
        import shutil

        found = shutil.which("docker")
        return None if found is None else cls(found)

    def call(self, *arguments: str, seconds: float = CALL_SECONDS) -> str:
        """What a command prints. Raises DsError with the last line of its complaint."""
        import subprocess

        try:
            done = subprocess.run(
                [self.program, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DsError(f"docker {arguments[0]}: no answer in {seconds:.0f} s", "docker info") from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
            raise DsError(f"docker {arguments[0]}: {said[-1][:500]}", "docker info")
        return done.stdout.decode(errors="replace")

    def alive(self) -> str:
        """The engine's version. Raises DsError where no engine answers."""
        return self.call("version", "--format", "{{.Server.Version}}").strip()

    def digest(self, image: str) -> str | None:
        """The digest of an image that is here: as its registry has it, or else its own; None: unknown."""
        with suppress(DsError):
            named = "{{range .RepoDigests}}{{println .}}{{end}}{{.Id}}"
            return self.call("image", "inspect", "--format", named, image).split()[0].rpartition("@")[2]
        return None

    def has_image(self, image: str) -> bool:
        """Whether the image is on this machine."""
        with suppress(DsError):
            return bool(self.call("image", "inspect", "--format", "{{.Id}}", image).strip())
        return False

    def pull(self, image: str) -> None:
        """Fetch an image from its registry. Raises DsError."""
        try:
            self.call("pull", "--quiet", image, seconds=PULL_SECONDS)
        except DsError as error:
            fix = "correct DOCKERHUB_TAG, or docker login, or docker build it here"
            raise DsError(f"the image {image} cannot be pulled: {error.what}", fix) from error

    def remove(self, names: Sequence[str]) -> None:
        """End and remove containers; one that is not there is no error. Raises DsError."""
        if names:
            self.call("rm", "--force", "--volumes", *names)

    def labelled(self, label: str, value: str) -> list[str]:
        """The ids of the containers with this label, those that have ended included. Raises DsError."""
        return self.call("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}={value}").split()


def engine_for(image: str) -> Docker:
    """The engine that is to run an image. Raises DsError, with what else one can do, where none answers."""
    docker = Docker.installed()
    if docker is None:
        raise DsError(f"DOCKERHUB_TAG names the image {image}, and there is no Docker here", _WITHOUT)
    try:
        docker.alive()
    except DsError as error:
        raise DsError(f"DOCKERHUB_TAG names the image {image}, and {error.what}", _WITHOUT) from error
    return docker


def engine_of(image: str, say: Callable[[str], None], *, required: bool) -> Docker | None:
    """Returns the engine that runs the image here, or None if there is none: then jobs are plain processes.

    Configs made for AWS name an image, so a missing engine is a note to `say`.
    Raises DsError instead if `required`.
    """
    try:
        return engine_for(image)
    except DsError as error:
        if required:
            raise
        say(f"note: {error.what}: jobs run as plain processes of this machine; {_ASIDE}")
        return None


def sweep(label: str, value: str) -> None:
    """Take away containers that somebody left, as well as that is possible."""
    docker = Docker.installed()
    if docker is not None:
        with suppress(DsError):
            docker.remove(docker.labelled(label, value))


def calling_user() -> str:
    """The user and group that containers run as: their files are the caller's."""
    return f"{os.getuid()}:{os.getgid()}"


def bind(source: str, target: str, *, read_only: bool = False) -> tuple[str, str]:
    """The option that shows a folder of this machine in a container, whatever characters are in its name."""
    return _mount("type=bind", f"src={source}", f"dst={target}", *(["readonly"] if read_only else []))


def hide(folder: str) -> tuple[str, str]:
    """The option that shows an empty folder in the place of one of this machine, with what is bound in it."""
    return _mount("type=tmpfs", f"dst={folder}", "tmpfs-mode=0755")


def _mount(*fields: str) -> tuple[str, str]:
    return "--mount", ",".join('"' + field.replace('"', '""') + '"' for field in fields)


_LONGEST_LINE = 60_000


def variables(given: Mapping[str, str], file: Path) -> list[str]:
    """The options that give a container its environment, by a file that only its owner reads.

    So `ps` shows no value, but for one that cannot stand in a line of the file.
    """
    lines, options = [], list[str]()
    for name, value in given.items():
        line = f"{name}={value}"
        if {"\n", "\r"}.isdisjoint(value) and len(line) < _LONGEST_LINE:
            lines.append(f"{line}\n")
        else:
            options += ["--env", line]
    file.touch(mode=0o600)
    file.write_text("".join(lines))
    return ["--env-file", str(file), *options]
