"""Looks for the inputs of every job of a file in the store, many at a time. `check` calls it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..engine import Store
from ..job import Job, in_batches
from .config import Config
from .fit import STAND_INS
from .jobfile import JobFile
from .paths import InputTemplate

BATCH = 20_000
BATCH_BYTES = 16 << 20
"""Jobs, and bytes of them, whose inputs are looked for together."""

LISTED_FROM = 20
"""Keys in one folder of a bucket from which the folder is listed: a listing tells of 1,000 keys at once."""

_KEPT = 10_000


class Presence(NamedTuple):
    """What was found: `lacking` jobs lack an input, such as `missing` of job `example`; sizes in bytes."""

    jobs: int = 0
    lacking: int = 0
    missing: str = ""
    example: int = 0
    largest: int = 0
    largest_job: int = 0


def look_for(config: Config, file: JobFile, store: Store) -> Presence:
    """Looks for the inputs of each job. Raises UsageError for a job that does not fit."""
    templates = [InputTemplate(text) for text in config.inputs]
    sizes = _Sizes(store, lists=config.engine_kind.buckets)
    found = Presence()
    for batch in in_batches(file.jobs(), BATCH, BATCH_BYTES):
        wanted = [(job.index + 1, _keys(templates, job)) for job in batch]
        known = sizes.of({key for _, keys in wanted for key in keys})
        for number, keys in wanted:
            found = _with(found, number, keys, known)
    return found


def _keys(templates: Iterable[InputTemplate], job: Job) -> list[str]:
    values = {**job.keys, **STAND_INS, "job_id": job.id}
    return [each.key for template in templates for each in template.fill_all(values)]


def _with(found: Presence, number: int, keys: list[str], known: Mapping[str, int | None]) -> Presence:
    """The same with one more job."""
    missing = next((key for key in keys if known[key] is None), None)
    size = sum(known[key] or 0 for key in keys)
    found = found._replace(jobs=found.jobs + 1)
    if missing is not None:
        first = (found.missing, found.example) if found.lacking else (missing, number)
        found = found._replace(lacking=found.lacking + 1, missing=first[0], example=first[1])
    return found._replace(largest=size, largest_job=number) if size > found.largest else found


class _Sizes:
    """Asks for the sizes of keys: of a file, or of all below a folder (a key that ends in "/")."""

    def __init__(self, store: Store, *, lists: bool) -> None:
        self._store = store
        self._lists = lists
        self._folders: dict[str, int | None] = {}

    def of(self, keys: Iterable[str]) -> dict[str, int | None]:
        """The size of each key in bytes; None: nothing is there."""
        found: dict[str, int | None] = {}
        files: dict[str, list[str]] = {}
        for key in keys:
            if key.endswith("/"):
                found[key] = self._folder(key)
            else:
                files.setdefault(key.rpartition("/")[0] if self._lists else "", []).append(key)
        alone: list[str] = []
        for folder, names in files.items():
            if self._lists and folder and len(names) >= LISTED_FROM:
                found |= self._listed(folder, names)
            else:
                alone += names
        found |= ((key, file and file.size) for key, file in zip(alone, self._store.stat(alone), strict=True))
        return found

    def _listed(self, folder: str, names: list[str]) -> Iterator[tuple[str, int | None]]:
        wanted = set(names)
        there = {file.key: file.size for file in self._store.list(folder + "/") if file.key in wanted}
        return ((name, there.get(name)) for name in names)

    def _folder(self, key: str) -> int | None:
        if key not in self._folders:
            if len(self._folders) >= _KEPT:
                self._folders.clear()
            sizes = [file.size for file in self._store.list(key)]
            self._folders[key] = sum(sizes) if sizes else None
        return self._folders[key]
