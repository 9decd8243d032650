"""Names the files of an app's state on this machine, and how many jobs run here at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..clock import Clock
from ..engine import Store
from ..errors import UsageError
from ..inputs.config import Config
from ..job import LEASE_SECONDS, Needs
from ..packing import Capacity
from ..s3.buckets import Stores
from ..system.state import mark_of
from ..words import many
from .queue import SqliteQueue
from .store import FolderStore

if TYPE_CHECKING:
    from ..s3.access import Access
    from ..system.containers.box import ContainerEngine


class Place(NamedTuple):
    """The files of an app's local state."""

    folder: Path

    @property
    def database(self) -> Path:
        """The queue."""
        return self.folder / "queue.db"

    @property
    def lock(self) -> Path:
        """Held by the machine process."""
        return self.folder / "machine.lock"

    @property
    def status(self) -> Path:
        """The state of the machine process."""
        return self.folder / "machine.json"

    @property
    def log(self) -> Path:
        """Messages of the machine process and the workers."""
        return self.folder / "machine.log"

    @property
    def work(self) -> Path:
        """The folders that jobs run in."""
        return self.folder / "work"

    def root(self, config: Config) -> Path:
        """Returns the folder that jobs of a config run in: `work`, or one below SCRATCH."""
        return config.scratch_root() or self.work

    @property
    def mark(self) -> bytes:
        """The text in the environment of every process of the app."""
        return mark_of(self.folder)

    def open_queue(self, config: Config, owner: str = "") -> SqliteQueue:
        """Returns the app's queue; a worker, its `owner`, gets jobs that fit this machine."""
        return self.open_as(self.database, config, owner)

    @staticmethod
    def open_as(path: Path, config: Config, owner: str = "") -> SqliteQueue:
        """Returns the queue in a file, which is made where it is missing."""
        capacity = partial(capacity_of, config) if owner else None
        policy = config.retry_policy
        return SqliteQueue(path, policy=policy, term=LEASE_SECONDS, owner=owner, capacity=capacity)


def open_store(
    project: Path, config: Config, *, durable: bool = False, say: Callable[[str], None] = lambda _: None
) -> Stores:
    """Returns the store of a config, a folder or a bucket, with other buckets beside it.

    What was written to a `durable` folder survives the loss of this machine. A bucket's first verb may start
    threads, after which no process can be forked. `say` gets what is to be known of another bucket.
    """

    @cache
    def access() -> Access:
        from ..s3.access import Access

        return Access(config, say=say)

    folder = config.store_folder(project)
    home = access().home() if folder is None else FolderStore(folder, durable=durable)
    return Stores(home, lambda bucket, key: access()(bucket, key))


def check_server(config: Config) -> None:
    """Raises DsError if the store is a bucket whose server does not answer, or ignores conditions."""
    if not config.in_bucket:
        return
    from ..s3.access import Access
    from ..s3.rights import refuse_unconditional

    refuse_unconditional(Access(config).home(), f"runs/{config.app_name}/")


def end_uploads(config: Config, clock: Clock, say: Callable[[str], None]) -> None:
    """Ends what killed workers have left of their uploads, if the store is a bucket."""
    if config.in_bucket:
        from ..s3.access import Access
        from ..s3.uploads import end_old_uploads

        end_old_uploads(config, Access(config), clock.now(), say)


def forking_store(project: Path, config: Config, *, durable: bool = False) -> Store:
    """Returns the project's store for a process that forks others: its verbs start no thread."""
    folder = config.store_folder(project)
    if folder is not None:
        return FolderStore(folder, durable=durable)
    from ..s3.access import Access
    from ..s3.plain_store import PlainStore

    return Access(config, kind=PlainStore).home()


def slots_of(config: Config) -> int:
    """Jobs at a time on this machine: TASKS_PER_MACHINE x DOCKER_CORES, or one a processor.

    With GPUS fewer, if the machine has GPUs for fewer; 0: for none.
    """
    cores = config.docker_cores
    slots = (os.cpu_count() or 1) if cores is None else config.tasks_per_machine * cores
    if not config.gpus:
        return slots
    from ..system.hardware import find_gpus, slots_with_gpus

    return slots_with_gpus(slots, config.gpus, len(find_gpus().ids), shared=config.gpus_shared)


def capacity_of(config: Config) -> Capacity:
    """Returns what this machine has for jobs: its slots, its memory and its GPUs."""
    from ..system.hardware import find_gpus

    fix = "lower what the job needs, or run on a larger machine; DOCKER_CORES says how many slots there are"
    whole = Needs(slots_of(config), _memory(), len(find_gpus().ids))
    return Capacity(whole, default_of(config), "this machine", fix, config.gpus_shared)


def default_of(config: Config) -> Needs:
    """Returns what a job takes of this machine that says nothing."""
    return Needs(1, min(config.memory or 0, _memory()) if config.in_containers else 0, config.gpus)


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def check_gpus(config: Config) -> None:
    """Raises UsageError if no slot of this machine has the GPUs that a job needs."""
    if config.gpus and not slots_of(config):
        from ..system.hardware import find_gpus

        there = many(len(find_gpus().ids), "GPU", "is", "are")
        what = f"GPUS = {config.gpus}: {there} found here, by nvidia-smi, rocm-smi or CUDA_VISIBLE_DEVICES"
        raise UsageError(what, "lower GPUS, or run on a machine that has them")


def container_engine(config: Config, project: Path, *, prepared: bool = True) -> ContainerEngine | None:
    """Returns the engine that runs the config's image here; None: no image, or CONTAINERS = False.

    Unless this process is `prepared`, the engine is found as the lines of SETUP leave PATH. Raises DsError if
    none answers: the machine's own programs may be others than the image's.
    """
    if not config.in_containers:
        return None
    from ..system.containers.find import engine_for

    own, shell = config.worker_environment(), config.shell(project)
    path = shell.variables({**os.environ, **own}).get("PATH") if config.setup and not prepared else None
    return engine_for(config.dockerhub_tag, config.container_engines, project, path)


def need_image(config: Config, project: Path, say: Callable[[str], None], *, prepared: bool = False) -> None:
    """Pulls the config's image if it is missing: no job waits for a download. Raises DsError."""
    image, engine = config.dockerhub_tag, container_engine(config, project, prepared=prepared)
    if engine is not None and not engine.has_image(image):
        say(f"pulling the image {image}")
        engine.pull(image)
