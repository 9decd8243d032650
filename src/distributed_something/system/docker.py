"""Finds and calls the container engine of this machine, and removes containers.

The engine is Docker, called by its command line, which knows sockets, contexts, registries and credentials.
Called by the engine `local`, by its workers' slots and by rehearsals, only for runs that need a container.
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
ANSWER_SECONDS = 15.0
"""Maximum time of an engine's answer to a plain question, in seconds: then it is away."""

PULL_SECONDS = 3600.0

MOST_PROCESSES = 4096
"""Maximum processes and threads of a container."""

WORKER_FOLDER = "/opt/distributed-something"
"""Folder of the injected worker in a task's containers."""

IMAGE_FOLDER = "/opt/ds"
"""Folder of the injected worker in the image that brings it."""

BUCKET_FOLDER = "/home/ubuntu/bucket"
"""Folder in which images made for the reference look for the bucket."""

STATE_LABEL = "distributed-something.state"
"""Label with the state folder of the app that a container belongs to."""

WORKER_LABEL = "distributed-something.worker"
_WITHOUT = "install Docker, or write CONTAINERS = False to run jobs as plain processes of this machine"
_ASIDE = "CONTAINERS = False says that this is meant, CONTAINERS = True insists on containers"


class Docker(NamedTuple):
    """Calls the container engine, by the path of its command."""

    program: str

    @classmethod
    def installed(cls) -> Docker | None:
        """Returns the command on the PATH; None: not installed. Does not ask whether an engine answers it."""
        import shutil

        found = shutil.which("docker")
        return None if found is None else cls(found)

    def call(self, *arguments: str, seconds: float = CALL_SECONDS) -> str:
        """Returns what a command prints. Raises DsError with the last line of its error output."""
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
        """Returns the engine's version. Raises DsError if no engine answers."""
        return self.call("version", "--format", "{{.Server.Version}}", seconds=ANSWER_SECONDS).strip()

    def digest(self, image: str) -> str | None:
        """Returns the digest of a local image: the registry's, or else the engine's own; None: unknown."""
        with suppress(DsError):
            named = "{{range .RepoDigests}}{{println .}}{{end}}{{.Id}}"
            return self.call("image", "inspect", "--format", named, image).split()[0].rpartition("@")[2]
        return None

    def has_image(self, image: str) -> bool:
        """Whether an image is on this machine."""
        with suppress(DsError):
            return bool(self.call("image", "inspect", "--format", "{{.Id}}", image).strip())
        return False

    def pull(self, image: str) -> None:
        """Pulls an image from its registry. Raises DsError."""
        try:
            self.call("pull", "--quiet", image, seconds=PULL_SECONDS)
        except DsError as error:
            fix = "correct DOCKERHUB_TAG, or docker login, or docker build it here"
            raise DsError(f"the image {image} cannot be pulled: {error.what}", fix) from error

    def remove(self, names: Sequence[str]) -> None:
        """Ends and removes containers; a missing one is no error. Raises DsError."""
        if names:
            self.call("rm", "--force", "--volumes", *names)

    def labelled(self, label: str, value: str) -> list[str]:
        """Returns the ids of the containers with a label, ended ones included. Raises DsError."""
        return self.call("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}={value}").split()


def engine_for(image: str) -> Docker:
    """Returns the engine that runs an image. Raises DsError, with other ways to go on, if none answers."""
    docker = Docker.installed()
    if docker is None:
        raise DsError(f"DOCKERHUB_TAG names the image {image}, and there is no Docker here", _WITHOUT)
    try:
        docker.alive()
    except DsError as error:
        raise DsError(f"DOCKERHUB_TAG names the image {image}, and {error.what}", _WITHOUT) from error
    return docker


def engine_of(image: str, say: Callable[[str], None], *, required: bool) -> Docker | None:
    """Returns the engine that runs the image here; None: there is none, and jobs are plain processes.

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
    """Removes left-over containers, as far as possible."""
    docker = Docker.installed()
    if docker is not None:
        with suppress(DsError):
            docker.remove(docker.labelled(label, value))


def confined() -> list[str]:
    """Returns the options that take rights from a container; it runs as the caller, who owns its files."""
    rights = ["--security-opt", "no-new-privileges", "--cap-drop", "ALL"]
    return [*rights, "--pids-limit", str(MOST_PROCESSES), "--user", f"{os.getuid()}:{os.getgid()}"]


def bind(source: str, target: str, *, read_only: bool = False) -> tuple[str, str]:
    """Returns the option that mounts a folder of this machine, whatever characters are in its name."""
    return _mount("type=bind", f"src={source}", f"dst={target}", *(["readonly"] if read_only else []))


def hide(folder: str) -> tuple[str, str]:
    """Returns the option that hides a folder behind an empty one."""
    return _mount("type=tmpfs", f"dst={folder}", "tmpfs-mode=0755")


def _mount(*fields: str) -> tuple[str, str]:
    return "--mount", ",".join('"' + field.replace('"', '""') + '"' for field in fields)


_LONGEST_LINE = 60_000


def variables(given: Mapping[str, str], file: Path) -> list[str]:
    """Returns the options that set a container's environment, by a file that only its owner reads.

    So `ps` shows no value, except one that cannot stand in a line of the file.
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
