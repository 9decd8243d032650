"""Runs a slot's jobs in containers: one container a job, of the image that the config names.

A container sees the slot's own folder at the same path, the project folder read-only without its `.ds`, and
the machine's network; nothing else. Its environment holds what the config and we give to jobs. It has no
capability and a limited number of processes, and runs as the user who runs the worker. Its processor time and
memory are unknown where the engine runs it elsewhere: Docker and Podman do not report them.
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
from ...system.containers.box import Box, ContainerEngine, End, Mount
from ...system.containers.docker import BUCKET_FOLDER
from ...system.hardware import VISIBLE
from .process import Ended, memory_kills
from .scratch import remove_folder

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

    def of_slot(self, slots: int) -> Limits:
        """Returns the limits of each of so many containers that have this memory together."""
        if self.memory is None:
            return self
        return self._replace(memory=max(self.memory // slots, 1), most=min(self.most, self.memory))

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


class Containers(NamedTuple):
    """Settings of all containers: the engine, the image, the limits of each, and the app's state folder.

    `bucket` is the folder that stands for the bucket; None: containers do not see it.
    """

    engine: ContainerEngine
    image: str
    limits: Limits
    state: str
    bucket: Path | None = None


def containers_of(
    config: Config, engine: ContainerEngine, state: Path, bucket: Path | None = None
) -> Containers:
    """Returns how a config's jobs run in containers of this machine. `bucket`: see `Containers`."""
    shares = config.cpu_shares and config.cpu_shares // (config.docker_cores or 1)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    limits = Limits(config.memory, shares, config.memory_retry, machine)
    return Containers(engine, config.dockerhub_tag, limits, str(state), bucket)


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
        self._home = folder.parent / f"{folder.name}.container"
        # of the GPUs that a container has, it may see all: they have other numbers there
        seen = {name: value for name, value in given.items() if name != VISIBLE["nvidia"]}
        self._needs_home = kind.engine.tells and os.getuid() != 0 and "HOME" not in {**given, **secrets}
        self._mounts = self._fixed = [
            Mount(str(project), str(project), read_only=True),
            Mount(str(Path(__file__).with_name("host.py")), _HOST, read_only=True),
            *([Mount(str(kind.bucket), BUCKET_FOLDER)] if kind.bucket else []),
        ]
        self._box = Box(
            kind.image,
            self._mounts,
            self._home,
            kind.state,
            given["DS_WORKER"],
            given=seen,
            secrets=secrets,
            hidden=str(keys) if (keys := project / ".ds").is_dir() else "",
            nvidia=given.get(VISIBLE["nvidia"], ""),
            amd=bool(given.get(VISIBLE["amd"])),
            cpu_shares=kind.limits.cpu_shares,
            memory=kind.limits.memory,
        )
        self._placed: Mapping[str, str] = {}
        self._seen: list[Mount] = []
        self._unremoved: list[str] = []
        self._outside = {**os.environb, b"DS_WORKER": given["DS_WORKER"].encode()}

    @property
    def tells(self) -> bool:
        """Whether the engine tells how a container ended; see `ContainerEngine`."""
        return self._kind.engine.tells

    def give_memory(self, kills: int, own: float | None = None) -> str:
        """Sets the memory of the next containers, after so many attempts that ran out of it.

        `own`: what the job itself needs, in MB; None: MEMORY. Returns it in words if it was raised; else an
        empty text.
        """
        limits = self._kind.limits._replace(memory=int(own)) if own else self._kind.limits
        memory = limits.memory_after(kills)
        self._box = self._box._replace(memory=memory)
        raised = self.tells and memory is not None and memory != limits.memory
        return f"{memory:,} MB of memory" if raised else ""

    def give_gpus(self, seen: Mapping[str, str]) -> None:
        """Gives the next containers the GPUs that these variables name, and no other."""
        nvidia, amd = (seen.get(VISIBLE[maker], "") for maker in ("nvidia", "amd"))
        self._box = self._box._replace(nvidia=nvidia, amd=bool(amd))

    def see(self, folder: Path) -> None:
        """Has the next containers see one more folder, to read only."""
        self._seen = [Mount(str(folder), str(folder), read_only=True)]

    def place(self, folder: Path, given: Mapping[str, str]) -> None:
        """Has the next containers see this folder; `given` are the variables that name places in it."""
        self._placed = {**({"HOME": given["DS_WORK_DIR"]} if self._needs_home else {}), **given}
        self._mounts = [*self._fixed, Mount(str(folder), str(folder))]
        self._box = self._box._replace(folder=given["DS_WORK_DIR"])

    def command(self, argv: list[str], own: Mapping[bytes, bytes]) -> tuple[list[str], dict[bytes, bytes]]:
        """Returns a command that runs `argv` in a new container, with `own` in its environment, and the
        environment of that command itself."""
        self._kills_before = self._kills()
        engine, name = self._kind.engine, f"ds-{self._box.worker}-{os.urandom(4).hex()}"
        texts = {key.decode(): os.fsdecode(value) for key, value in own.items()}
        texts.pop(VISIBLE["nvidia"], None)
        mounts = [*self._mounts, *self._seen]
        self._box = box = self._box._replace(
            name=name, argv=argv, mounts=mounts, own={**self._placed, **texts}
        )
        box.made.unlink(missing_ok=True)
        words, variables = engine.words(box._replace(options=engine.options(box)))
        given = {os.fsencode(key): os.fsencode(value) for key, value in variables.items()}
        return words, {**self._outside, **own, **given}

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
        self._unremoved.append(self._box.name)

    def _remove(self) -> None:
        if self._unremoved:
            self._kind.engine.remove(self._unremoved)
            self._unremoved = []

    def _judge(self, ended: Ended) -> Verdict:
        code = ended.exit_code
        if code == 0:
            return Verdict(ended)
        if not self.tells:
            if code == 255 and not self._kind.engine.has_image(self._kind.image):
                raise SickMachine(f"the image {self._kind.image} is away")
            return Verdict(_signalled(ended))
        try:
            killed, started, exit_code, error = self._state()
        except DsError as failed:  # never made, or taken away by somebody else
            self.check_engine()
            return Verdict(ended, broken=failed.what if code == 125 else "")
        if started.startswith(_NOT_STARTED):
            if "no space left" in error.lower():
                raise SickMachine(f"the container engine's disk is full: {error.strip()[:200]}")
            return Verdict(ended, broken=error.strip() or f"{self._kind.engine.name} could not start it")
        if exit_code != str(code):
            raise SickMachine("the container engine was away while the job ran")
        memory = f"killed for lack of memory: MEMORY = {self._box.memory}" if killed else ""
        return Verdict(_signalled(ended), memory if self._box.memory else memory.partition(":")[0])

    def check_made(self) -> None:
        """Raises SickMachine if the container is not made yet, and the engine does not answer."""
        if self.tells and not self._box.made.exists():
            self.check_engine()

    def check_engine(self) -> None:
        """Raises SickMachine if the engine does not answer, or cannot remove earlier containers."""
        try:
            self._kind.engine.alive()
            self._remove()
        except DsError as error:
            raise SickMachine(f"the container engine does not answer: {error.what}") from error

    def _state(self) -> End:
        """Asks the engine how the container ended.

        The engine may learn of an out-of-memory kill after the container's end: then it is asked again.
        """
        until = time.monotonic() + self._word_seconds
        while True:
            found = self._kind.engine.end_of(self._box.name)
            if found.out_of_memory or self._kills() == self._kills_before or time.monotonic() > until:
                return found
            time.sleep(_WORD_PAUSE)

    def close(self) -> None:
        """Removes what the engine kept beside the slot's folder."""
        for each in self._home.parent.glob(f"{self._home.stem}.*"):
            if each.is_dir():
                remove_folder(each)
            else:
                each.unlink(missing_ok=True)


def _signalled(ended: Ended) -> Ended:
    """Returns an end with an exit code above 128 as that by a signal, which it stands for."""
    number = (ended.exit_code or 0) - 128
    return ended._replace(exit_code=None, signal=number) if number in set(signal.Signals) else ended
