"""Runs a slot's jobs in containers: one container a job, of the image that the config names.

A container sees the slot's own folder at the same path, the project folder read-only without its `.ds`, and
the machine's network; nothing else. Its environment holds what the config and we give to jobs. It has no
capability and a limited number of processes, and runs as the user who runs the worker. Its processor time and
memory are unknown: the engine does not report them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ...errors import DsError, SickMachine
from ...inputs.config import Config
from ...system.docker import (
    BUCKET_FOLDER,
    STATE_LABEL,
    WORKER_LABEL,
    Docker,
    bind,
    confined,
    hide,
    variables,
)
from ...system.hardware import VISIBLE
from .process import Ended, memory_kills

_HOST = "/opt/distributed-something-host.py"
"""Path in a container of the program that calls HANDLER, with the image's own Python."""

_NOT_STARTED = "0001-01-01"

NO_ENGINE = (b"Cannot connect to the Docker daemon", b"error during connect", b"connection refused")
"""What the engine's command says where no engine answers it."""

START_SECONDS = 30.0
"""Time after which a container that has not been made has the engine asked whether it answers, in seconds."""

WORD_SECONDS = 2.0
"""Maximum delay of an engine's word that a container ended for lack of memory, in seconds."""

_WORD_PAUSE = 0.1


class Limits(NamedTuple):
    """Limits of a container: `memory` in MiB, `cpu_shares` in 1/1024 of a core when cores are short.

    Each attempt that ran out of memory has the next get `factor` times as much, `most` at most.
    """

    memory: int | None = None
    cpu_shares: int | None = None
    factor: float = 1.0
    most: int = 1 << 40

    def memory_after(self, kills: int) -> int | None:
        """Returns the memory of an attempt after so many that ran out of it, in MiB; None: no limit."""
        if self.memory is None:
            return None
        return max(self.memory, int(min(self.memory * self.factor ** min(kills, 100), self.most)))


class Verdict(NamedTuple):
    """How a container ended. `memory`: it ran out of memory, as a sentence. `broken`: it never started."""

    ended: Ended
    memory: str = ""
    broken: str = ""


def handler_command(handler: str) -> list[str]:
    """Returns the command that calls the function in a container."""
    return ["python3", _HOST, "--once", handler]


def _gpus_of(given: Mapping[str, str]) -> list[str]:
    """Returns the options that give a container the GPUs of its slot."""
    if ids := given.get(VISIBLE["nvidia"]):
        return ["--gpus", f'"device={ids}"']
    if given.get(VISIBLE["amd"]):
        return ["--device", "/dev/kfd", "--device", "/dev/dri"]
    return []


class Containers(NamedTuple):
    """Settings of all containers: the engine, the image, the limits of each, and the app's state folder.

    `bucket` is the folder that stands for the bucket; None: containers do not see it.
    """

    docker: Docker
    image: str
    limits: Limits
    state: str
    bucket: Path | None = None


def containers_of(config: Config, docker: Docker, state: Path, bucket: Path | None) -> Containers:
    """Returns how a config's jobs run in containers of this machine. `bucket`: see `Containers`."""
    shares = config.cpu_shares and config.cpu_shares // (config.docker_cores or 1)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    limits = Limits(config.memory, shares, config.memory_retry, machine)
    return Containers(docker, config.dockerhub_tag, limits, str(state), bucket)


class Container:
    """Runs the containers of one slot, one at a time: `command`, then `end`."""

    def __init__(
        self,
        kind: Containers,
        folder: Path,
        project: Path,
        given: Mapping[str, str],
        secrets: Mapping[str, str] = {},
        *,
        kills: Callable[[], int] = memory_kills,
        word_seconds: float = WORD_SECONDS,
    ) -> None:
        self._kind = kind
        self._kills = kills
        self._word_seconds = word_seconds
        self._name = ""
        self._unremoved: list[str] = []
        self._variables = folder.parent / f"{folder.name}.env"
        self._made = folder.parent / f"{folder.name}.cid"
        """The engine's command writes it once the container is made."""
        # of the GPUs that a container has, it may see all: they have other numbers there
        seen = {name: value for name, value in given.items() if name != VISIBLE["nvidia"]}
        self._placed: list[str] = []
        self._needs_home = os.getuid() != 0 and "HOME" not in {**given, **secrets}
        self._options = [
            *variables(seen, self._variables),
            *(word for name in secrets for word in ("--env", name)),  # by name: no file has their values
            *(["--cpu-shares", str(max(kind.limits.cpu_shares, 2))] if kind.limits.cpu_shares else []),
            *bind(str(project), str(project), read_only=True),
            *(hide(str(keys)) if (keys := project / ".ds").is_dir() else ()),
            *bind(str(Path(__file__).with_name("host.py")), _HOST, read_only=True),
            *(bind(str(kind.bucket), BUCKET_FOLDER) if kind.bucket else ()),
            *_gpus_of(given),
            *confined(),
            *("--label", f"{STATE_LABEL}={kind.state}"),
            *("--label", f"{WORKER_LABEL}={given['DS_WORKER']}"),
        ]
        self._memory = kind.limits.memory
        self._seen: list[str] = []
        self._worker = given["DS_WORKER"]
        hidden = {os.fsencode(name): os.fsencode(value) for name, value in secrets.items()}
        self._outside = {**os.environb, b"DS_WORKER": self._worker.encode(), **hidden}

    def give_memory(self, kills: int, own: float | None = None) -> str:
        """Sets the memory of the next containers, after so many attempts that ran out of it.

        `own`: what the job itself needs, in MB; None: MEMORY. Returns it in words if it was raised; else an
        empty text.
        """
        limits = self._kind.limits._replace(memory=int(own)) if own else self._kind.limits
        self._memory = memory = limits.memory_after(kills)
        raised = memory is not None and memory != limits.memory
        return f"{memory:,} MB of memory" if raised else ""

    def see(self, folder: Path) -> None:
        """Has the next containers see one more folder, to read only."""
        self._seen = [*bind(str(folder), str(folder), read_only=True)]

    def place(self, folder: Path, given: Mapping[str, str]) -> None:
        """Has the next containers see this folder; `given` are the variables that name places in it."""
        home = {"HOME": given["DS_WORK_DIR"]} if self._needs_home else {}
        named = [word for name, value in {**home, **given}.items() for word in ("--env", f"{name}={value}")]
        self._placed = [*bind(str(folder), str(folder)), "--workdir", given["DS_WORK_DIR"], *named]

    def command(self, argv: list[str], own: Mapping[bytes, bytes]) -> tuple[list[str], dict[bytes, bytes]]:
        """Returns a command that runs `argv` in a new container, with `own` in its environment, and the
        environment of that command itself."""
        self._name = f"ds-{self._worker}-{os.urandom(4).hex()}"
        self._kills_before = self._kills()
        self._made.unlink(missing_ok=True)
        more = [
            word for name, value in own.items() for word in ("--env", f"{name.decode()}={os.fsdecode(value)}")
        ]
        words = [
            *(self._kind.docker.program, "run", "--name", self._name, "--pull=never", "--init"),
            *("--cidfile", str(self._made)),
            *("--network", "host", *self._options, *self._seen, *self._placed, *more),
            *(("--memory", f"{self._memory}m", "--memory-swap", f"{self._memory}m") if self._memory else ()),
            *("--entrypoint", argv[0], "--", self._kind.image, *argv[1:]),
        ]
        return words, {**self._outside, **own}

    def end(self, ended: Ended | None) -> Verdict | None:
        """Removes the container. Returns how it ended; None if `ended` is None: we ended it.

        A container that cannot be removed is removed before the next one: its job may run on.
        """
        try:
            return None if ended is None else self._judge(ended)
        finally:
            self.leave()
            with suppress(DsError):
                self._remove()

    def leave(self) -> None:
        """Leaves the container, if it was made, to the next removal."""
        self._unremoved.append(self._name)

    def _remove(self) -> None:
        if self._unremoved:
            self._kind.docker.remove(self._unremoved)
            self._unremoved = []

    def _judge(self, ended: Ended) -> Verdict:
        code = ended.exit_code
        if code == 0:
            return Verdict(ended)
        try:
            killed, started, exit_code, error = self._state()
        except DsError as failed:  # never made, or taken away by somebody else
            self.check_engine()
            return Verdict(ended, broken=failed.what if code == 125 else "")
        if started.startswith(_NOT_STARTED):
            if "no space left" in error.lower():
                raise SickMachine(f"the container engine's disk is full: {error.strip()[:200]}")
            return Verdict(ended, broken=error.strip() or "docker could not start it")
        if exit_code != str(code):
            raise SickMachine("the container engine was away while the job ran")
        limit = f": MEMORY = {self._memory}" if self._memory else ""
        memory = f"killed for lack of memory{limit}" if killed == "true" else ""
        number = (code or 0) - 128
        if number in set(signal.Signals):
            ended = ended._replace(exit_code=None, signal=number)
        return Verdict(ended, memory)

    def check_made(self) -> None:
        """Raises SickMachine if the container is not made yet, and the engine does not answer."""
        if not self._made.exists():
            self.check_engine()

    def check_engine(self) -> None:
        """Raises SickMachine if the engine does not answer, or cannot remove earlier containers."""
        try:
            self._kind.docker.alive()
            self._remove()
        except DsError as error:
            raise SickMachine(f"the container engine does not answer: {error.what}") from error

    def _state(self) -> list[str]:
        """Asks the engine for (out of memory, start, exit code, error).

        The engine may learn of an out-of-memory kill after the container's end: then it is asked again.
        """
        asked = "{{.State.OOMKilled}}|{{.State.StartedAt}}|{{.State.ExitCode}}|{{.State.Error}}"
        until = time.monotonic() + self._word_seconds
        while True:
            said = self._kind.docker.call("container", "inspect", "--format", asked, self._name)
            found = said.split("|", 3)
            if found[0] == "true" or self._kills() == self._kills_before or time.monotonic() > until:
                return found
            time.sleep(_WORD_PAUSE)

    def close(self) -> None:
        """Removes the files beside the slot's folder."""
        self._variables.unlink(missing_ok=True)
        self._made.unlink(missing_ok=True)
