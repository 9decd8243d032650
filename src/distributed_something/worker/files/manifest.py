"""Reads and writes manifests: the proof that an output is complete, and of what made it.

A manifest lies at `<prefix>/.ds/<job id>.json` and is written after its files. `publish` and `done` call it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ... import __version__
from ...engine import Store, check_key
from ...errors import KeyMissing, KeyRefused

MANIFESTS = ".ds"
"""Folder of manifests under an output's prefix."""

_OURS = re.compile(f"(s3:/+[^/]+/)?runs/|(.*/)?{re.escape(MANIFESTS)}/", re.DOTALL)
"""Keys that no job publishes: of a run's ledger, logs and report, and of manifests."""


_MAY_LACK: tuple[tuple[str, Any], ...] = (("made_by", {}), ("taken_by", ""), ("owner", ""))


class OutputFile(NamedTuple):
    """A published file: `name` relative to the output's prefix, `size` in bytes."""

    name: str
    size: int
    sha256: str


class Manifest(NamedTuple):
    """The proof that an attempt's outputs are complete.

    `made_by` is the fingerprint of what made them; empty: an earlier version wrote the manifest.
    `replaces` are names of an earlier output that are to be removed. `taken_by` is the job that is replacing
    this output just now; while it is set, the manifest proves nothing but who owns the files. `owner`: see
    `publish.Claim`.
    """

    job: str
    run: str
    attempt: int
    worker: str
    finished: str
    files: tuple[OutputFile, ...]
    version: str = __version__
    made_by: Mapping[str, Any] = {}
    replaces: tuple[str, ...] = ()
    taken_by: str = ""
    owner: str = ""

    @property
    def names(self) -> set[str]:
        """Returns the names that it owns: its files, and those of an earlier output still to be removed."""
        return {file.name for file in self.files}.union(self.replaces)

    def to_json(self) -> bytes:
        """Returns it as it is stored."""
        document = {**self._asdict(), "files": [file._asdict() for file in self.files]}
        for name in ("made_by", "replaces", "taken_by", "owner"):
            if not document[name]:
                del document[name]
        return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest | None:
        """Parses a stored manifest; None: it is none (cut short, or another program's file)."""
        try:
            found = json.loads(data)
            files = tuple(OutputFile(f["name"], f["size"], f["sha256"]) for f in found["files"])
            names = ("job", "run", "attempt", "worker", "finished", "version")
            job, run, attempt, worker, finished, version = (found[name] for name in names)
            made_by, taken_by, owner = (found.get(*each) for each in _MAY_LACK)
            replaces = tuple(found.get("replaces", ()))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        texts = [*(file.name for file in files), *replaces, taken_by, owner, job]
        good = isinstance(attempt, int) and isinstance(made_by, dict)
        if not (good and all(isinstance(text, str) for text in texts)):
            return None
        return cls(job, run, attempt, worker, finished, files, version, made_by, replaces, taken_by, owner)


def manifest_key(prefix: str, job_id: str) -> str:
    """Returns the key of a job's manifest under an output's prefix."""
    return f"{prefix}/{MANIFESTS}/{job_id}.json"


def is_manifest(key: str, prefix: str) -> bool:
    """Whether a key is that of a manifest of this prefix."""
    rest = key.removeprefix(f"{prefix}/{MANIFESTS}/")
    return rest != key and "/" not in rest and rest.endswith(".json")


def is_ours(key: str, prefix: str) -> bool:
    """Whether a key below a prefix belongs to manifests, of this prefix or of one further down."""
    return f"/{MANIFESTS}/" in key[len(prefix) :]


def read_manifest(store: Store, prefix: str, job_id: str) -> Manifest | None:
    """Reads the manifest of a job under an output's prefix; None: there is none."""
    try:
        return Manifest.from_json(store.read(manifest_key(prefix, job_id)))
    except KeyMissing:
        return None


def check_not_ours(keys: Iterable[str]) -> None:
    """Raises KeyRefused for a key among those of runs and manifests: a value in OUTPUT may say anything."""
    for key in keys:
        if _OURS.match(key):
            fix = "let OUTPUT lead elsewhere than to runs/ and .ds/"
            raise KeyRefused(f"output {key!r}: lies among what runs keep of themselves", fix)


def removable(prefix: str, names: Iterable[str]) -> list[str]:
    """Returns the keys of an earlier output's names, without those that no job can have published."""
    keys = []
    for name in names:
        key = f"{prefix}/{name}"
        try:
            check_key(key)
            check_not_ours([key])
        except KeyRefused:  # a manifest that somebody else wrote
            continue
        keys.append(key)
    return keys
