"""Runs one job here and now, with the worker's own code: `ds try` and `ds replay`.

The job's output goes to the terminal, its folders stay, and nothing is published unless asked for. The run's
queue and ledger are not touched.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ..console import Console
from ..engine import Store
from ..errors import DsError, UsageError
from ..inputs.config import Config
from ..inputs.jobs.jobfile import JobFile
from ..inputs.secrets import read_secrets
from ..job import Cause, Job, Lease, Outcome
from ..ledger import JobRecord, SegmentReader, parse_job_line
from ..ledger.joblist import listed_id
from ..runs.provenance import what_ran
from ..runs.runfile import read_run_file
from ..system.containers.box import ContainerEngine
from ..system.containers.find import engine_or_none
from ..system.environment import become
from ..system.hardware import Share, cores, variables_here
from ..system.state import STATE_VARIABLE, make_private, state_folder
from ..worker.attempt.container import Containers, containers_of
from ..worker.attempt.logs import SlotLog
from ..worker.attempt.process import adopt_orphans
from ..worker.attempt.slot import Slot
from ..worker.attempt.task import compile_task
from ..worker.files.project import Carried, prefix_of
from ..worker.files.shared import shared_files
from .project import Project

_LOG = "attempt.log"


class Attempt(NamedTuple):
    """One attempt to run: the job, its number, the config, and the image by digest (None: by its tag).

    `carried` are the project files of a past run; without them the project folder's own are used.
    """

    job: Job
    number: int
    config: Config
    digest: str | None = None
    carried: Carried = Carried()


def run_here(project: Project, attempt: Attempt, *, publish: bool) -> tuple[Outcome, Path]:
    """Run one attempt in the foreground. Returns its outcome, and the folder with what it left.

    The time limit, the container and its limits, inputs and environment are those of a worker. Ctrl-C ends
    the attempt with the cause `interrupted`.
    """
    config = attempt.config
    if config.image_starts_worker:
        what = "config: neither COMMAND nor HANDLER: the image's own worker runs the jobs"
        raise UsageError(what, "write COMMAND = '…' to run a job here")
    state = state_folder(project.folder, config.app_name).with_name(f"{config.app_name}.try")
    folder = state / attempt.job.id
    make_private(folder)
    store = OwnWrites(project.engine.store, folder / _LOG, discard=not publish)
    own, slots = config.worker_environment(), config.docker_cores or cores()
    shell, secrets = config.shell(project.folder), read_secrets(config, os.environ)
    shell.make(project.console.say)
    carried = attempt.carried
    carried = carried._replace(shared=carried.shared or shared_files(config, project.engine.store))
    adopt_orphans()
    with _inside(project.folder):
        shell.adopt(own)
        share = Share(0, slots, config.gpus, config.gpus_shared)
        environment = {**variables_here(share, own), **own, STATE_VARIABLE: str(state)}
        task = compile_task(config, environment, secrets, carried=carried, python=shell.python())._replace(
            done_check=False
        )
        name, containers = f"try-{os.urandom(3).hex()}", _containers(project, attempt, state)
        slot = Slot(task, store, folder, _Shown(store, project.console), name, name, containers, keep=True)
        try:
            with _interruptible(slot):
                slot.begin()
                outcome = slot.run(Lease(attempt.job, "", 0.0, attempt.number), lambda _: None)
        finally:
            slot.close()
    return outcome, folder


class OwnWrites:
    """A store that keeps the log in a file, and discards other writes if `discard`. Reads see the store."""

    def __init__(self, store: Store, log: Path, *, discard: bool) -> None:
        self._store = store
        self._log = log
        self._discard = discard
        self.folds_case, self.locate = store.folds_case, store.locate
        self.list, self.folders, self.stat = store.list, store.folders, store.stat
        self.read_many, self.fetch, self.fetch_many = store.read_many, store.fetch, store.fetch_many
        log.write_bytes(b"")

    def append(self, _key: str, data: bytes) -> None:
        """Add to the log file: a slot appends to nothing else."""
        with self._log.open("ab") as file:
            file.write(data)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Returns the content of a stored file, or of the log."""
        if key == _LOG:
            data = self._log.read_bytes()[start:]
            return data if length is None else data[:length]
        return self._store.read(key, start, length)

    def write(self, key: str, data: bytes) -> None:
        """Replace a file, unless writes are discarded."""
        if not self._discard:
            self._store.write(key, data)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Create a file, unless writes are discarded."""
        return True if self._discard else self._store.write_if_absent(key, data)

    def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Replace a file that has not changed, unless writes are discarded."""
        return True if self._discard else self._store.replace(key, old, new)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files, unless writes are discarded."""
        if not self._discard:
            self._store.delete(keys)

    def publish(self, path: Path, key: str) -> int:
        """Publish a file, unless writes are discarded: then it stays where it is."""
        return path.stat().st_size if self._discard else self._store.publish(path, key)

    def publish_many(self, files: Iterable[tuple[Path, str]]) -> Sequence[int]:
        """Publish files, unless writes are discarded: then they stay where they are."""
        if self._discard:
            return [path.stat().st_size for path, _ in files]
        return self._store.publish_many(files)


class _Shown(SlotLog):
    """A log that is printed as it is written."""

    def __init__(self, store: Store, console: Console) -> None:
        self._console = console
        super().__init__(store, "", _LOG)

    def write(self, data: bytes) -> None:
        """Print the text and keep it."""
        if self._console.json:
            self._console.say(data.decode(errors="replace").rstrip("\n"))
        else:
            self._console.raw(data)
        super().write(data)


def _containers(project: Project, attempt: Attempt, state: Path) -> Containers | None:
    """Returns how the job runs in a container; None: as a plain process. Raises DsError."""
    config, say = attempt.config, project.console.say
    if not config.in_containers:
        return None
    names, required = config.container_engines, "CONTAINERS" in config.given
    engine = engine_or_none(config.dockerhub_tag, names, project.folder, say, required=required)
    if engine is None:
        return None
    if attempt.digest and (image := _by_digest(engine, config.dockerhub_tag, attempt.digest)):
        config = config._replace(dockerhub_tag=image)
    elif attempt.digest:
        say(f"note: the run's image {attempt.digest} is not to be had; {config.dockerhub_tag} is used")
    if not engine.has_image(config.dockerhub_tag):
        say(f"pulling {config.dockerhub_tag}")
        engine.pull(config.dockerhub_tag)
    bucket = config.store_folder(project.folder) if config.mount_bucket and not config.in_bucket else None
    return containers_of(config, engine, state, bucket)


def _by_digest(engine: ContainerEngine, image: str, digest: str) -> str | None:
    """Returns the name of the image with this digest, here or in its registry; None: there is none."""
    if engine.digest(image) == digest:
        return image
    name = image.partition("@")[0]
    repository = name if ":" not in name.rpartition("/")[2] else name.rpartition(":")[0]
    for known in (f"{repository}@{digest}", digest):
        if engine.has_image(known):
            return known
    try:
        engine.pull(f"{repository}@{digest}")
    except DsError:
        return None
    return f"{repository}@{digest}"


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Works in the project folder, as workers do. Folder and variables are the old ones afterwards."""
    before, variables = Path.cwd(), dict(os.environ)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        become(variables)


@contextmanager
def _interruptible(slot: Slot) -> Iterator[None]:
    """Has Ctrl-C end the attempt, with all of its processes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda _number, _frame: slot.cancel(Cause.INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def job_of_file(file: JobFile, wanted: str | None) -> Job:
    """Returns the job of a file with this id, index or start of an id; None: the first. Raises UsageError."""
    if wanted is None:
        return next(file.jobs())
    if wanted.isdecimal() and len(wanted) < 16:
        found = next(islice(file.jobs(), int(wanted), None), None)
        if found is not None:
            return found
    matching = [job for job in file.jobs() if job.id.startswith(wanted.lower())]
    if len(matching) != 1:
        have = f"{len(matching)} jobs have" if matching else "no job has"
        raise UsageError(f"{file.path}: {have} the id or index {wanted}", f"ds submit {file.path} --dry-run")
    return matching[0]


def attempt_of_run(project: Project, record: JobRecord, number: int | None) -> Attempt:
    """Returns the latest attempt (or another) of a job of a run, with the config and image that the run had.

    The user's own keys, and ENVIRONMENT, come from the present config: a run keeps only their names.
    """
    store, paths = project.engine.store, project.paths()
    lines = SegmentReader(store, paths.jobs).new_lines()
    body = next((parse_job_line(line + b"\n")[1] for line in lines if listed_id(line) == record.id), None)
    if body is None:
        raise DsError(f"job {record.id}: the job list of run {paths.run} does not have it", "ds jobs")
    config, carried = project.config, Carried()
    try:
        facts = read_run_file(store, paths.app, paths.run)
        carried = Carried(facts.files, prefix_of(paths), facts.shared)
        had = facts.config
        config = had._replace(environment=config.environment, extra=config.extra, store=config.store)
    except UsageError as missing:
        project.console.say(f"note: {missing.what}; the present config is used")
    config = config._replace(engine=project.config.engine)
    images = {each.get("image_digest") for each in what_ran(store, paths, config)["workers"]}
    digest = images.pop() if len(images) == 1 else None
    return Attempt(Job(record.id, record.index, body), number or record.attempt or 1, config, digest, carried)
