"""Brings the inputs that all jobs share to a machine, once: SHARED_INPUTS. Set-up, checks and slots call it.

    <root>/shared-<digest>/files     to read only; the digest is of names, sizes and tags
    <root>/shared-<digest>/state     what the files were when they had been brought

Each slot that uses the folder has a lock on it (flock); the one that brings the files has it alone. It stays
while a worker of the machine uses it: `workplace.clear_remains` removes it after the last one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ...engine import Store, StoredFile
from ...errors import DsError, SickMachine, UsageError
from ...inputs.checks.findings import Finding, Room, input_findings, ok, refused, warning
from ...inputs.config import Config
from ...inputs.jobs.jobfile import JobFile
from ...inputs.templates.paths import InputTemplate
from ...words import bytes_text, many
from ..attempt.scratch import FULL_BELOW, remove_folder
from ..attempt.workplace import OPEN_FOLDER, is_there
from .done import Reading
from .fetch import resolve
from .project import make_read_only, state_of

MOST_FILES = 10_000
"""Maximum files of all entries: their names are in the run's facts, and each job looks at each of them."""

WAIT_SECONDS = 0.2
"""Pause between two looks whether another slot has brought the files, in seconds."""


def shared_files(config: Config, store: Reading) -> dict[str, StoredFile]:
    """Returns the files of SHARED_INPUTS by their names below {shared_dir}, as the store has them now.

    Raises UsageError if one is missing, or two would have one name.
    """
    if not config.shared_inputs:
        return {}
    inputs = []
    for text in config.shared_inputs:
        template = InputTemplate(text, "SHARED_INPUTS")
        if template.names:
            what = f"SHARED_INPUTS: {text}: has a key of the job in it, and all jobs share these files"
            raise UsageError(what, "name it in INPUTS")
        inputs.append(template.fill({}))
    try:
        found = resolve(store, inputs, stat=True)
    except DsError as error:
        fix = "put it into the store, or correct SHARED_INPUTS"
        raise UsageError(f"SHARED_INPUTS: {error.what}", fix) from error
    if len(found) > MOST_FILES:
        what = f"SHARED_INPUTS: {len(found):,} files, and {MOST_FILES:,} is the most"
        raise UsageError(what, "put them into an archive")
    return {name: file for file, name in found}


def stored_findings(
    config: Config, file: JobFile | None, store: Store, where: str, room: Room | None
) -> Iterator[Finding]:
    """Whether the shared inputs, and those of every job, are in the store and fit into `room` together."""
    if config.shared_inputs:
        try:
            files = shared_files(config, store)
        except UsageError as missing:
            yield refused(missing)
        else:
            size = sum(each.size for each in files.values())
            what = f"SHARED_INPUTS: {many(len(files), 'file')}, {bytes_text(size)}, fetched once a machine"
            if room and size > room.size:
                yield warning(f"{what}, and {room.what} has {bytes_text(room.size)}", room.fix)
            else:
                yield ok(what)
            room = room and room._replace(size=max(room.size - size, 0))
    if file is not None:
        yield from input_findings(config, file, store, where, room)


class SharedFolder:
    """The folder of a machine with the shared inputs, for the jobs of one slot."""

    def __init__(self, store: Store, files: Mapping[str, StoredFile], root: Path) -> None:
        described = json.dumps([[name, *file] for name, file in sorted(files.items())])
        self._folder = root / f"shared-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
        self.path = self._folder / "files"
        self._store = store
        self._files = files
        self._held = -1
        self._state: list[list[int]] = []

    def ensure(self, waits: Callable[[], None], check: Callable[[], None]) -> None:
        """Sees that the files are there as they were brought; the first slot of a machine brings them.

        Calls `waits` before anything that takes long, and meanwhile `check`, which may raise to end it.
        Raises SickMachine if they cannot be brought: no job is at fault.
        """
        if self._held >= 0 and state_of(self.path, self._files) == self._state:
            return
        self.close()  # a job has changed a file: it is brought anew when no slot uses the folder
        waits()
        while not self._take(check):
            check()
            time.sleep(WAIT_SECONDS)

    def close(self) -> None:
        """Lets go of the folder."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _take(self, check: Callable[[], None]) -> bool:
        """Takes the folder for use, or brings the files. Returns whether it may be used."""
        self._folder.mkdir(0o700, exist_ok=True)
        try:
            opened = os.open(self._folder, OPEN_FOLDER)
        except FileNotFoundError:  # removed since
            return False
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if is_there(opened, self._folder) and self._is_whole():
                self._held, opened = opened, -1
                return True
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_there(opened, self._folder) and not self._is_whole():
                self._bring(check)
        except BlockingIOError:  # another slot brings them, or uses a folder in which a job changed a file
            pass
        finally:
            if opened >= 0:
                os.close(opened)
        return False

    def _is_whole(self) -> bool:
        with suppress(OSError, ValueError):
            self._state = json.loads((self._folder / "state").read_bytes())
            return bool(self._state) and state_of(self.path, self._files) == self._state
        return False

    def _bring(self, check: Callable[[], None]) -> None:
        part = self._folder / "part"
        (self._folder / "state").unlink(missing_ok=True)
        for remains in (self.path, part):
            remove_folder(remains)
        size, free = sum(file.size for file in self._files.values()), shutil.disk_usage(self._folder).free
        if free < size + FULL_BELOW:
            what = f"SHARED_INPUTS have {bytes_text(size)}, and the disk of {self._folder} {bytes_text(free)}"
            raise SickMachine(what)

        def files() -> Iterator[tuple[str, Path]]:
            for name, file in self._files.items():
                check()
                yield file.key, part / name

        try:
            for folder in {(part / name).parent for name in self._files}:
                folder.mkdir(parents=True, exist_ok=True)
            self._compare()
            self._store.fetch_many(files())
            self._compare()  # what was replaced meanwhile may have come half from the old, half from the new
            if any((part / name).stat().st_size != file.size for name, file in self._files.items()):
                raise DsError("a file came with another size than the store has")
            make_read_only(part)
            part.rename(self.path)
            state = json.dumps(state_of(self.path, self._files))
            (self._folder / "state").write_text(state)
        except (OSError, DsError) as error:
            remove_folder(part)
            why = error.what if isinstance(error, DsError) else str(error)
            raise SickMachine(f"SHARED_INPUTS cannot be brought: {why}") from error

    def _compare(self) -> None:
        """Raises DsError if the store has other files than at set-up."""
        wanted = list(self._files.values())
        for file, found in zip(wanted, self._store.stat(file.key for file in wanted), strict=True):
            if found != file:
                is_not = "is gone" if found is None else "has changed"
                raise DsError(f"{file.key} {is_not} since the set-up: ds stop, ds setup, ds start")
