"""Checks this machine for `ds check`: the program or function that a job runs, disk, memory, slots."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

from ..errors import DsError, UsageError
from ..inputs.checks.findings import (
    Check,
    Finding,
    Room,
    error,
    in_turn,
    job_file_findings,
    ok,
    refused,
    warning,
    work_findings,
)
from ..inputs.checks.program import runnable_findings
from ..inputs.checks.sizing import need_findings
from ..inputs.config import Config
from ..inputs.jobs.jobfile import JobFile
from ..inputs.secrets import read_secrets
from ..packing import Capacity
from ..runs.record import record_path
from ..system.state import state_folder
from ..words import many
from ..worker.files.shared import stored_findings
from ..worker.forecast import forecast_findings
from .engine import FULL_BELOW
from .place import capacity_of, check_gpus, container_engine, open_store, slots_of

LOW_DISK = 1 << 30
LOW_MEMORY = 256 << 20
"""Memory of a slot, in bytes, below which a warning is given."""


def checks(folder: Path, config: Config, job_file: JobFile | None, _fleet_file: Path | None) -> list[Check]:
    """Returns the checks of a project that runs on this machine."""
    written = {state_folder(folder, config.app_name), record_path(folder, config.app_name).parent}
    written |= {place for place in [config.store_folder(folder)] if place}
    found = [
        Check("the work", lambda: work_findings(config)),
        Check("the program", lambda: program_findings(config, folder)),
        Check("the secrets", lambda: secret_findings(config)),
        Check("the GPUs", lambda: gpu_findings(config)),
        Check("the folders", lambda: folder_findings(written)),
        Check("the disk", lambda: disk_findings(written)),
        Check("the memory", lambda: memory_findings(config, _memory(), os.cpu_count() or 1)),
    ]
    room = _room(config, state_folder(folder, config.app_name))
    return found + job_checks(
        config, job_file, folder, capacity_of(config), room, lambda: _image(config, folder)
    )


def job_checks(
    config: Config,
    file: JobFile | None,
    folder: Path,
    capacity: Capacity,
    room: Room | None = None,
    image: Callable[[], str] = str,
) -> list[Check]:
    """Returns the checks of buckets, of shared inputs, and of a job file, if there is one, in the store.

    `capacity` is what a machine has for jobs. `image` returns the digest of their image, where they have one.
    """
    from ..s3.access import Access
    from ..s3.rights import rights_findings

    store = open_store(folder, config)
    folds_case, place = store.folds_case, config.store_place(folder)
    rights = Check("the buckets", lambda: rights_findings(config, Access(config)))
    inputs = Check("the inputs", lambda: stored_findings(config, file, store, place, room))
    if file is None:
        return [rights, inputs]
    of_file = [
        Check("the job file", lambda: job_file_findings(config, file, folder, folds_case=folds_case)),
        inputs,
        Check("what jobs need", lambda: need_findings(config, file, store, capacity)),
        Check("what is done", lambda: forecast_findings(config, file, store, folder, image())),
    ]
    return [rights, in_turn("the jobs", *of_file)]


def _image(config: Config, folder: Path) -> str:
    wanted = config.check_if_done_bool and config.output
    engine = container_engine(config, folder, prepared=False) if wanted else None
    return (engine.digest(config.dockerhub_tag) or "") if engine else ""


def gpu_findings(config: Config) -> Iterator[Finding]:
    """Whether a slot of this machine has the GPUs that a job needs."""
    try:
        check_gpus(config)
    except UsageError as missing:
        yield refused(missing)


def secret_findings(config: Config) -> Iterator[Finding]:
    """Whether each secret is there for the jobs."""
    try:
        read_secrets(config, os.environ)
    except UsageError as missing:
        yield refused(missing)


def program_findings(config: Config, folder: Path) -> Iterator[Finding]:
    """Yields whether what a job runs is there: the image's engine, or this machine's program or function."""
    if config.in_containers:
        yield from container_findings(config, folder, limited=bool(config.memory or config.cpu_shares))
    variables = yield from _prepared(config, folder)
    yield from runnable_findings(config, folder, variables)


def _prepared(config: Config, folder: Path) -> Generator[Finding, None, Mapping[str, str] | None]:
    """Yields whether the lines of SETUP run here. Returns the variables of jobs; None: not known yet."""
    shell, began = config.shell(folder), time.monotonic()
    if not (shell.setup or shell.file):
        return None
    try:
        if says := shell.to_make():
            yield ok(says)
            return None
        variables = shell.variables({**os.environ, **config.worker_environment()})
    except DsError as failed:
        yield error(failed.what, failed.fix)
        return None
    yield ok(f"SETUP: the environment of jobs is ready in {time.monotonic() - began:.1f} s")
    return variables


def _room(config: Config, folder: Path) -> Room:
    """The disk that the inputs of jobs are fetched to."""
    free = shutil.disk_usage(_nearest(folder)).free
    return Room(free, slots_of(config), f"the disk of {folder}", "make room, or lower DOCKER_CORES")


def container_findings(config: Config, folder: Path, *, limited: bool) -> Iterator[Finding]:
    """Yields whether a container engine answers and has the image. The image's content is not checked.

    `limited`: whether each job is to have a limit of its own.
    """
    image = config.dockerhub_tag
    try:
        engine = container_engine(config, folder, prepared=False)
    except DsError as failed:
        yield error(failed.what, failed.fix)
        return
    if engine is None:
        return
    if engine.has_image(image):
        yield ok(f"DOCKERHUB_TAG: {image} is here; jobs run in containers of it, by {engine.name}")
    else:
        yield warning(
            f"DOCKERHUB_TAG: {image} is not on this machine yet", f"ds setup pulls it, by {engine.name}"
        )
    if limited and not engine.tells:
        yield warning(
            f"MEMORY, CPU_SHARES: {engine.name} sets jobs no limit", "leave room, or CONTAINERS = 'podman'"
        )


def _nearest(folder: Path) -> Path:
    """Returns the folder, or its nearest existing parent."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def folder_findings(folders: set[Path]) -> Iterator[Finding]:
    """Yields an error for each folder that a run could not create or write to."""
    for folder in sorted(folders):
        there = _nearest(folder)
        if not there.is_dir():
            yield error(f"{folder}: {there} is a file, and a folder is needed there", "move the file away")
        elif not os.access(there, os.W_OK | os.X_OK):
            yield error(f"{folder}: {there} cannot be written to", f"check the rights on {there}")


def disk_findings(folders: set[Path]) -> Iterator[Finding]:
    """Yields whether there is room for outputs and for the queue: one finding a disk."""
    seen = set()
    for folder in sorted(folders):
        there = _nearest(folder)
        device = there.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(there).free
        if free < FULL_BELOW:
            yield error(f"the disk of {folder} is full", "make room")
        elif free < LOW_DISK:
            yield warning(
                f"the disk of {folder} has {free >> 20:,} MB left", "make room for outputs and logs"
            )
        else:
            yield ok(f"the disk of {folder} has {free >> 30:,} GB left")


def memory_findings(config: Config, memory: int, processors: int) -> Iterator[Finding]:
    """Yields whether the config's jobs at a time fit into `memory` (bytes) and on the processors."""
    slots = slots_of(config)
    wanted = config.tasks_per_machine * (config.memory or 0) << 20
    at_once = many(slots, "job", "at a time has", "at a time have")
    mine = config.memory if config.in_containers else None
    each = f"{at_once} {mine or memory // slots >> 20:,} MB of memory each"
    if wanted > memory:
        what = f"TASKS_PER_MACHINE x MEMORY is {wanted >> 20:,} MB, and this machine has {memory >> 20:,}"
        yield warning(what, "lower TASKS_PER_MACHINE or MEMORY")
    elif memory < slots * LOW_MEMORY:
        yield warning(each, "lower DOCKER_CORES")
    else:
        yield ok(each)
    if slots > 2 * processors:
        what = f"TASKS_PER_MACHINE x DOCKER_CORES is {slots}, and this machine has {processors} processors"
        yield warning(what, "lower DOCKER_CORES, unless jobs mostly wait")


def _memory() -> int:
    """This machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
