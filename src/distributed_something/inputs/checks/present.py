"""Looks for many keys of a store at a time: the inputs of every job of a file, and whatever lies there.

`check` looks for inputs, `worker/forecast.py` for outputs too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, Protocol

from ...engine import Store, StoredFile
from ...job import Job, in_batches
from ..config import Config
from ..jobs.jobfile import JobFile
from ..templates.paths import Input, InputTemplate
from .fit import STAND_INS

BATCH = 20_000
BATCH_BYTES = 16 << 20
"""Jobs, and bytes of them, that are looked at together."""

LISTED_FROM = 20
"""Keys in one folder of a bucket from which the folder is listed: a listing tells of 1,000 keys at once."""

LISTED_BEYOND = 4
"""Files to list for one key that is looked for; of a larger folder the keys are asked for one by one."""

LISTINGS_AT_ONCE = 16

_KEPT = 100_000  # maximum files below folders that are remembered from one batch to the next


class Presence(NamedTuple):
    """What was found: `lacking` jobs lack an input, such as `missing` of job `example`; sizes in bytes."""

    jobs: int = 0
    lacking: int = 0
    missing: str = ""
    example: int = 0
    largest: int = 0
    largest_job: int = 0


def look_for(config: Config, file: JobFile, store: Store, most: int | None = None) -> Presence:
    """Looks for the inputs of each job (of the first `most`). Raises UsageError for one that does not fit."""
    templates = [InputTemplate(text) for text in config.inputs]
    lookup = Lookup(store, lists=config.in_bucket)
    found = Presence()
    for batch in in_batches(islice(file.jobs(), most), BATCH, BATCH_BYTES):
        wanted = [(job.index + 1, [each.key for each in inputs_of(templates, job)]) for job in batch]
        known = {
            key: sum(file.size for file in files) if files else None
            for key, files in lookup.of({key for _, keys in wanted for key in keys}).items()
        }
        for number, keys in wanted:
            found = _with(found, number, keys, known)
    return found


def inputs_of(templates: Iterable[InputTemplate], job: Job) -> list[Input]:
    """Returns the inputs of a job. Raises UsageError where it does not fit."""
    values = {**job.keys, **STAND_INS, "job_id": job.id}
    return [each for template in templates for each in template.fill_all(values)]


def _with(found: Presence, number: int, keys: list[str], known: Mapping[str, int | None]) -> Presence:
    """The same with one more job."""
    missing = next((key for key in keys if known[key] is None), None)
    size = sum(known[key] or 0 for key in keys)
    found = found._replace(jobs=found.jobs + 1)
    if missing is not None:
        first = (found.missing, found.example) if found.lacking else (missing, number)
        found = found._replace(lacking=found.lacking + 1, missing=first[0], example=first[1])
    return found._replace(largest=size, largest_job=number) if size > found.largest else found


class Listing(Protocol):
    """What a look for keys reads of a store."""

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """Yields every file whose key starts with `prefix`."""

    def stat(self, keys: Iterable[str]) -> Sequence[StoredFile | None]:
        """Returns each file; None: there is no such file."""


class Lookup:
    """Finds files by key, and all files below a folder (a key that ends in "/"), many at a time.

    `lists`: where many keys lie in one folder, that folder is listed.
    """

    def __init__(self, store: Listing, *, lists: bool) -> None:
        self._store = store
        self._lists = lists
        self._below: dict[str, Sequence[StoredFile]] = {}
        self._kept = 0
        self._large: set[str] = set()

    def of(self, keys: Collection[str]) -> dict[str, Sequence[StoredFile]]:
        """Returns what lies at each key; nothing: neither a file nor a folder with files."""
        folders = {key for key in keys if key.endswith("/")}
        found = {key: self._below[key] for key in folders & self._below.keys()}
        alone: list[str] = []
        for folder, names in self._grouped(set(keys) - found.keys()):
            if folder and folder not in self._large and len(names) >= LISTED_FROM:
                found |= self._listed(folder, names)
            alone += (name for name in names if name not in found)
        single = [key for key in alone if not key.endswith("/")]
        stats = self._store.stat(single)
        found |= ((key, [file] if file else []) for key, file in zip(single, stats, strict=True))
        found |= self._each_listed([key for key in alone if key.endswith("/")])
        self._keep({key: found[key] for key in folders - self._below.keys()})
        return found

    def _grouped(self, keys: Iterable[str]) -> Iterable[tuple[str, list[str]]]:
        groups: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            groups[key.rstrip("/").rpartition("/")[0] if self._lists else ""].append(key)
        return groups.items()

    def _listed(self, folder: str, names: list[str]) -> dict[str, Sequence[StoredFile]]:
        """Lists a folder, and returns what it holds of these names right below it; nothing of a large one."""
        found: dict[str, list[StoredFile]] = {name: [] for name in names}
        start, most = len(folder) + 1, LISTED_BEYOND * len(names) + 1000
        for count, file in enumerate(self._store.list(folder + "/")):
            if count > most:
                self._large.add(folder)
                return {}
            for key in (file.key, file.key[: file.key.find("/", start) + 1]):
                if key in found:
                    found[key].append(file)
        return dict(found)

    def _each_listed(self, folders: list[str]) -> dict[str, Sequence[StoredFile]]:
        if not self._lists or len(folders) < 2:
            return {key: list(self._store.list(key)) for key in folders}
        with ThreadPoolExecutor(LISTINGS_AT_ONCE) as pool:
            return dict(zip(folders, pool.map(lambda key: list(self._store.list(key)), folders), strict=True))

    def _keep(self, found: Mapping[str, Sequence[StoredFile]]) -> None:
        """Remembers folders: many jobs may have one in common."""
        size = sum(1 + len(files) for files in found.values())
        if self._kept + size > _KEPT:
            self._below.clear()
            self._kept = 0
        if size <= _KEPT:
            self._below.update(found)
            self._kept += size
