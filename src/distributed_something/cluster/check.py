"""`ds check` for every engine of pilots: the work, and whether other computers see the project."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import DsError
from ..inputs.checks.findings import Check, Finding, error, ok, warning, work_findings
from ..inputs.checks.program import runnable_findings
from ..inputs.config import Config
from ..inputs.jobs.jobfile import JobFile
from ..local.check import container_findings, disk_findings, folder_findings, job_checks, secret_findings
from ..system.mounts import NETWORK_FILE_SYSTEMS, file_system
from . import pilots
from .folder import TWO_WINNERS, AppFolder, two_winners
from .shared.files import TEMPORARY, Files

NODE_ONLY = frozenset({"tmpfs", "ramfs", "overlay", "squashfs", "iso9660"})
"""Types of file systems that no other node sees."""


def pilot_checks(
    folder: Path, config: Config, job_file: JobFile | None, engine: str, *own: Check
) -> list[Check]:
    """Returns the checks of a project that runs by pilots: those of every engine, and the engine's own."""
    app = AppFolder(folder, config.app_name, engine)
    written = {app.folder, config.store_folder(folder) or app.folder}
    found = [
        Check("the work", lambda: work_findings(config)),
        Check("the program", lambda: _program(config, folder)),
        Check("the secrets", lambda: secret_findings(config)),
        Check("the folders", lambda: folder_findings({*written, folder / "files"})),
        Check("the disk", lambda: disk_findings(written)),
        *own,
    ]
    return found + job_checks(config, job_file, folder, pilots.capacity_of(config))


def _program(config: Config, folder: Path) -> Iterator[Finding]:
    yield from container_findings(config, folder, limited=False)
    if config.setup:
        yield ok("SETUP: runs on the nodes; programs are not looked for here")
    try:
        if says := config.shell(folder).to_make():
            yield ok(says)
    except DsError as failed:
        yield error(failed.what, failed.fix)
    yield from runnable_findings(config, folder)


def shared_findings(folder: Path) -> Iterator[Finding]:
    """Whether the project's folder can be shared by nodes, and keeps what a queue needs of it."""
    kind = file_system(folder)
    if kind in NODE_ONLY:
        yield error(
            f"the project {folder} lies on this computer's own disk ({kind}): no node sees it",
            "move it to a file system that all nodes have, such as the home or the project space",
        )
        return
    yield from promise_findings(folder)
    if kind not in NETWORK_FILE_SYSTEMS | TWO_WINNERS:
        what = f"the project {folder} lies on {kind}, which may be a disk of this computer alone"
        yield warning(what, "see that every node has this folder: `srun ls` of it")


def promise_findings(folder: Path) -> Iterator[Finding]:
    """Whether the file system of the project's folder keeps what a queue needs of it."""
    kind = file_system(folder)
    if kind in TWO_WINNERS or not keeps_promises(folder):
        yield error(*two_winners(kind))
    else:
        yield ok(f"the project lies on {kind}, where links and renames have one winner")


def keeps_promises(folder: Path) -> bool:
    """Whether link(2) has one winner here, and says so to the loser."""
    files, names = Files(), [folder / f"{TEMPORARY}check-{os.urandom(6).hex()}" for _ in range(2)]
    try:
        return (
            files.create(names[0], b"one")
            and not files.create(names[0], b"two")
            and (files.read(names[0]) == b"one")
        )
    except OSError:
        return False
    finally:
        with suppress(OSError):
            files.remove(names[0])
