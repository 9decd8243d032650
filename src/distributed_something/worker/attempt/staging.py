"""Inputs from the store, outputs to it, and the manifest that proves an output complete."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ... import __version__
from ...engine import Store
from ...errors import KeyMissing, KeyRefused

MANIFESTS = ".ds"
"""The folder of manifests under an output's prefix."""

_OURS = re.compile(f"runs/[^/]+/[0-9]{{8}}T[0-9]{{6}}Z-[0-9a-f]+/|(.*/)?{re.escape(MANIFESTS)}/", re.DOTALL)
"""Keys that no job publishes: of a run's ledger, logs and report, and of manifests."""


class OutputFile(NamedTuple):
    """A published file: `name` relative to the output's prefix, `size` in bytes."""

    name: str
    size: int
    sha256: str


class Manifest(NamedTuple):
    """The proof that an attempt's outputs are complete. It is written after them, and only if absent."""

    job: str
    run: str
    attempt: int
    worker: str
    finished: str
    files: tuple[OutputFile, ...]
    version: str = __version__

    def to_json(self) -> bytes:
        """As stored."""
        document = {**self._asdict(), "files": [file._asdict() for file in self.files]}
        return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest | None:
        """A stored manifest; None where it is none (cut short, or somebody else's file)."""
        try:
            found = json.loads(data)
            files = tuple(OutputFile(f["name"], f["size"], f["sha256"]) for f in found["files"])
            names = ("job", "run", "attempt", "worker", "finished", "version")
            job, run, attempt, worker, finished, version = (found[name] for name in names)
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        if not isinstance(attempt, int) or not all(isinstance(f.name, str) for f in files):
            return None
        return cls(job, run, attempt, worker, finished, files, version)


class DoneRule(NamedTuple):
    """The reference's rule for "done already": enough files, large enough, with a string in their key."""

    files: int
    min_bytes: int
    containing: str


def clean_prefix(text: str) -> str:
    """A prefix as written by users, without doubled or outer slashes: its store key."""
    return "/".join(part for part in text.split("/") if part)


def fetch_inputs(store: Store, keys: Sequence[str], folder: Path, check: Callable[[], None]) -> int:
    """Fetch each key into `folder` under its base name; bytes fetched.

    A key that ends in "/" fetches everything below it, names kept relative to it. Raises KeyMissing
    (also where two inputs would have one name) and KeyRefused. `check` is asked before each file that
    the store takes up, and ends it all by what it raises.
    """
    found = [pair for key in keys for pair in _expand(store, key)]
    _check_names(found)
    for target in {(folder / name).parent for _, name in found}:
        target.mkdir(parents=True, exist_ok=True)

    def files() -> Iterator[tuple[str, Path]]:
        for source, name in found:
            check()
            yield source, folder / name

    return sum(store.fetch_many(files()))


def _check_names(found: Sequence[tuple[str, str]]) -> None:
    """Raise KeyMissing where two inputs would lie at one place, or one where another needs a folder."""
    taken: set[str] = set()
    for source, name in found:
        if name in taken:
            raise KeyMissing(f"{source}: another input has the name {name!r}")
        taken.add(name)
    for source, name in found:
        parts = name.split("/")
        if above := taken.intersection("/".join(parts[:end]) for end in range(1, len(parts))):
            raise KeyMissing(f"{source}: another input has the name {min(above)!r}")


def _expand(store: Store, key: str) -> Iterator[tuple[str, str]]:
    cleaned = clean_prefix(key)
    if not key.endswith("/"):
        yield cleaned, cleaned.rpartition("/")[2]
        return
    prefix = cleaned + "/"
    found = [file.key for file in store.list(prefix) if f"/{MANIFESTS}/" not in file.key]
    if not found:
        raise KeyMissing(f"{prefix}: nothing below it in the store")
    yield from ((source, source[len(prefix) :]) for source in found)


def is_done(store: Store, prefix: str, job_id: str, rule: DoneRule | None) -> bool:
    """Whether this job's outputs are complete: by their manifest, else by the reference's rule.

    A manifest counts only while the files that it names are there with their sizes.
    """
    manifest = read_manifest(store, prefix, job_id)
    if manifest is not None:
        return _is_complete(store, prefix, manifest.files)
    if rule is None:
        return False
    matching = (
        1
        for key, size in store.list(prefix + "/")
        if size >= rule.min_bytes and rule.containing in key[len(prefix) :] and not _is_manifest(key, prefix)
    )
    return sum(matching) >= rule.files


def _is_complete(store: Store, prefix: str, files: Sequence[OutputFile]) -> bool:
    """Asks for just these files: the prefix may hold those of many jobs."""
    try:
        sizes = store.sizes(f"{prefix}/{file.name}" for file in files)
    except KeyRefused:  # a manifest of somebody else's, with a name that is none
        return False
    return list(sizes) == [file.size for file in files]


def _is_manifest(key: str, prefix: str) -> bool:
    return key.startswith(f"{prefix}/{MANIFESTS}/")


def read_manifest(store: Store, prefix: str, job_id: str) -> Manifest | None:
    """The manifest of a job under an output's prefix, if there is one."""
    try:
        return Manifest.from_json(store.read(_manifest_key(prefix, job_id)))
    except KeyMissing:
        return None


def _manifest_key(prefix: str, job_id: str) -> str:
    return f"{prefix}/{MANIFESTS}/{job_id}.json"


class Claim(NamedTuple):
    """Who publishes: this attempt of this job of this run."""

    job: str
    run: str
    attempt: int
    worker: str


def publish_outputs(
    store: Store,
    prefix: str,
    folder: Path,
    claim: Claim,
    note: Callable[[str], None],
    check: Callable[[], None],
) -> Manifest | None:
    """Publish every plain file below `folder` under `prefix`, then the manifest.

    `check` is asked before each file, as in `fetch_inputs`. None where `folder` has no file. Where a second
    delivery of the same attempt has already published, its files stay and its manifest is returned. After a
    failure there may be files, but no manifest. Raises KeyRefused, before anything is published, where a file
    would lie among those of runs.
    """
    if folder.is_symlink():
        raise ValueError(f"the job put a link in the place of {{output_dir}}: {folder.readlink()}")
    files = sorted(_plain_files(folder, note))
    if not files:
        return None
    _check_not_ours(f"{prefix}/{name}" for name in files)
    key = _manifest_key(prefix, claim.job)
    standing = read_manifest(store, prefix, claim.job)
    if standing is not None and standing.run == claim.run and standing.attempt >= claim.attempt:
        return standing
    store.delete([key])
    published = _publish(store, prefix, folder, files, check)
    finished = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    manifest = Manifest(claim.job, claim.run, claim.attempt, claim.worker, finished, published)
    if not store.write_if_absent(key, manifest.to_json()):
        return read_manifest(store, prefix, claim.job) or manifest
    return manifest


def _check_not_ours(keys: Iterable[str]) -> None:
    """Raise KeyRefused where a job would write what tells of runs: a value in OUTPUT may say anything."""
    for key in keys:
        if _OURS.match(key):
            fix = "let OUTPUT lead elsewhere than to runs/ and .ds/"
            raise KeyRefused(f"output {key!r}: lies among what runs keep of themselves", fix)


def _publish(
    store: Store, prefix: str, folder: Path, names: Sequence[str], check: Callable[[], None]
) -> tuple[OutputFile, ...]:
    def checked() -> Iterator[str]:
        for name in names:
            check()
            yield name

    digests = [_sha256(folder / name) for name in checked()]  # before: publishing may move the files away
    sizes = store.publish_many((folder / name, f"{prefix}/{name}") for name in checked())
    return tuple(map(OutputFile, names, sizes, digests))


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain_files(folder: Path, note: Callable[[str], None]) -> Iterator[str]:
    """Names relative to `folder`. Links are published as what they point to while that is the job's own."""
    own = folder.parent.resolve()
    for where, folders, names in os.walk(folder):
        for name in [*names, *(f for f in folders if (Path(where) / f).is_symlink())]:
            path = Path(where) / name
            relative = path.relative_to(folder).as_posix()
            if MANIFESTS in relative.split("/"):  # further down too: it may be another job's prefix
                note(f"output {relative!r} left out: the folder {MANIFESTS!r} is kept for manifests")
            elif path.is_symlink() and not _resolve_link(path, own):
                note(f"output {relative!r} left out: a link to something that is not a file of the job")
            elif not path.is_file():
                note(f"output {relative!r} left out: not a plain file")
            else:
                relative.encode()  # a name that is not UTF-8 is no key: UnicodeEncodeError
                yield relative


def _resolve_link(path: Path, own: Path) -> bool:
    """Replace a link to one of the job's own files by a copy of the file; whether that was possible."""
    target = Path(os.path.realpath(path))  # Path.resolve raises for a link to itself
    if not (target.is_file() and target.is_relative_to(own)):
        return False
    path.unlink()
    shutil.copyfile(target, path)
    return True
