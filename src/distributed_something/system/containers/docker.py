"""Calls Docker and Podman, and removes containers.

They are called by their command lines, which know sockets, contexts, registries and credentials.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import DsError
from .box import ANSWER_SECONDS, CALL_SECONDS, PULL_SECONDS, Box, End, Mount, csv_mount

if TYPE_CHECKING:
    from pathlib import Path

MOST_PROCESSES = 4096  # maximum processes and threads of a container
WORKER_FOLDER = "/opt/distributed-something"  # folder of the injected worker in a task's containers
IMAGE_FOLDER = "/opt/ds"  # folder of the injected worker in the image that brings it
BUCKET_FOLDER = "/home/ubuntu/bucket"  # folder in which images made for the reference look for the bucket

STATE_LABEL = "distributed-something.state"
"""Label with the state folder of the app that a container belongs to."""

WORKER_LABEL = "distributed-something.worker"


def call(program: str, *arguments: str, seconds: float = CALL_SECONDS) -> str:
    """Returns what a command prints. Raises DsError with the last line of its error output."""
    import subprocess

    name = program.rpartition("/")[2]
    try:
        done = subprocess.run(
            [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = f"no answer in {seconds:.0f} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        raise DsError(f"{name} {arguments[0]}: {why}", f"{name} info") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise DsError(f"{name} {arguments[0]}: {said[-1][:500]}", f"{name} info")
    return done.stdout.decode(errors="replace")


@dataclass(frozen=True)
class Docker:
    """Calls Docker, by the path of its command."""

    program: str
    name: ClassVar[str] = "docker"
    tells: ClassVar[bool] = True
    _asks_version: ClassVar[str] = "{{.Server.Version}}"
    _removes: ClassVar[Sequence[str]] = ("rm", "--force", "--volumes")
    _hiding: ClassVar[Sequence[str]] = ()

    @classmethod
    def installed(cls) -> Docker | None:
        """Returns the command on the PATH; None: not installed. Does not ask whether an engine answers it."""
        import shutil

        found = shutil.which(cls.name)
        return None if found is None else cls(found)

    def call(self, *arguments: str, seconds: float = CALL_SECONDS) -> str:
        """Returns what a command prints. Raises DsError with the last line of its error output."""
        return call(self.program, *arguments, seconds=seconds)

    def alive(self) -> str:
        """Returns the engine's version. Raises DsError if no engine answers."""
        return self.call("version", "--format", self._asks_version, seconds=ANSWER_SECONDS).strip()

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
            self.call("pull", "--quiet", self._in_registry(image), seconds=PULL_SECONDS)
        except DsError as error:
            fix = f"correct DOCKERHUB_TAG, or {self.name} login, or {self.name} build it here"
            raise DsError(f"the image {image} cannot be pulled: {error.what}", fix) from error

    def remove(self, names: Sequence[str]) -> None:
        """Ends and removes containers; a missing one is no error. Raises DsError."""
        if names:
            self.call(*self._removes, *names)

    def labelled(self, label: str, value: str) -> list[str]:
        """Returns the ids of the containers with a label, ended ones included. Raises DsError."""
        return self.call("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}={value}").split()

    def end_of(self, name: str) -> End:
        """Returns how a container ended."""
        asked = "{{.State.OOMKilled}}|{{.State.StartedAt}}|{{.State.ExitCode}}|{{.State.Error}}"
        killed, *others = self.call("container", "inspect", "--format", asked, name).split("|", 3)
        return End(killed == "true", *others)

    def options(self, box: Box) -> Sequence[str]:
        """Writes the file of the variables of a slot's containers."""
        return variables(box.given, box.home.with_suffix(".env"))

    def words(self, box: Box) -> tuple[list[str], dict[str, str]]:
        """Returns the command that runs a container, and the variables of that command."""
        memory = f"{box.memory}m"
        words = [
            *(self.program, "run", "--name", box.name, "--pull=never", "--init", "--network", "host"),
            *("--cidfile", str(box.made), *box.options),
            *(word for name in box.secrets for word in ("--env", name)),  # by name: no file has their values
            *(["--cpu-shares", str(max(box.cpu_shares, 2))] if box.cpu_shares else []),
            *_binds(box.outside()),
            *(hide(box.hidden, *self._hiding) if box.hidden else ()),
            *_binds(box.inside()),
            *self._gpus(box),
            *confined(),
            *self._further(),
            *("--label", f"{STATE_LABEL}={box.state}", "--label", f"{WORKER_LABEL}={box.worker}"),
            *("--workdir", box.folder),
            *(word for name, value in box.own.items() for word in ("--env", f"{name}={value}")),
            *(("--memory", memory, "--memory-swap", memory) if box.memory else ()),
            *("--entrypoint", box.argv[0], "--", box.image, *box.argv[1:]),
        ]
        return words, dict(box.secrets)

    def _gpus(self, box: Box) -> list[str]:
        if box.nvidia:
            return ["--gpus", f'"device={box.nvidia}"']
        return ["--device", "/dev/kfd", "--device", "/dev/dri"] if box.amd else []

    def _further(self) -> list[str]:
        return []

    def _in_registry(self, image: str) -> str:
        return image


class Podman(Docker):
    """Calls Podman, whose command line is Docker's with a few other options. It has no daemon."""

    name: ClassVar[str] = "podman"
    _asks_version: ClassVar[str] = "{{.Client.Version}}"
    _removes: ClassVar[Sequence[str]] = ("rm", "--force", "--time", "0", "--volumes", "--ignore")
    _hiding: ClassVar[Sequence[str]] = ("notmpcopyup",)
    """Without it, the empty folder is filled with what it is to hide."""

    def _gpus(self, box: Box) -> list[str]:
        if box.nvidia:  # as the Container Device Interface names them
            return [word for each in box.nvidia.split(",") for word in ("--device", f"nvidia.com/gpu={each}")]
        return super()._gpus(box)

    def _further(self) -> list[str]:
        """Without root, the user is the same one inside. SELinux gives no label to folders that are ours."""
        return [*([] if os.getuid() == 0 else ["--userns", "keep-id"]), "--security-opt", "label=disable"]

    def _in_registry(self, image: str) -> str:
        """Returns the name with its registry, which is Docker Hub where none is named, as for Docker."""
        first, _, rest = image.partition("/")
        if rest and ({".", ":"} & set(first) or first == "localhost"):
            return image
        return f"docker.io/{image}" if rest else f"docker.io/library/{image}"


def sweep(label: str, value: str) -> None:
    """Removes left-over containers, as far as possible."""
    for engine in filter(None, (Docker.installed(), Podman.installed())):
        with suppress(DsError):
            engine.remove(engine.labelled(label, value))


def confined(*, as_caller: bool = True) -> list[str]:
    """Returns the options that take rights from a container.

    It runs `as_caller`, who owns its files, or as the user whom its image names.
    """
    user = ["--user", f"{os.getuid()}:{os.getgid()}"] if as_caller else []
    rights = ["--security-opt", "no-new-privileges", "--cap-drop", "ALL"]
    return [*rights, "--pids-limit", str(MOST_PROCESSES), *user]


def bind(source: str, target: str, *, read_only: bool = False) -> tuple[str, str]:
    """Returns the option that mounts a folder of this machine, whatever characters are in its name."""
    return csv_mount("type=bind", f"src={source}", f"dst={target}", *(["readonly"] if read_only else []))


def _binds(mounts: Sequence[Mount]) -> list[str]:
    return [word for each in mounts for word in bind(*each[:2], read_only=each.read_only)]


def hide(folder: str, *options: str) -> tuple[str, str]:
    """Returns the option that hides a folder behind an empty one."""
    return csv_mount("type=tmpfs", f"dst={folder}", "tmpfs-mode=0755", *options)


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
