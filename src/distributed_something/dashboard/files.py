"""Lists the files of a job, and says how a browser gets each: no browser runs what a job wrote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from ..engine import Store, StoredFile, files_at
from ..errors import DsError
from ..inputs.config import Config
from ..inputs.templates.paths import InputTemplate
from ..ledger import JobRecord

FILES = 200  # most files of a job that its page lists
LOOKED_AT = 10_000  # most files of a job without a manifest that are looked through
ZARR = ".zarr"  # how the folder of an OME-Zarr image ends

_IMAGES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "svg": "image/svg+xml",
}
_TEXTS = {
    *("csv", "htm", "html", "json", "jsonl", "log", "md", "py", "r"),
    *("sh", "toml", "tsv", "txt", "xml", "yaml", "yml"),
}


class Shown(NamedTuple):
    """How the server sends a file: its content type, and whether the browser shows or saves it."""

    kind: str
    content_type: str
    inline: bool
    picture: bool = False
    """A small picture can be made of it."""


def how_shown(key: str) -> Shown:
    """Decides by the end of the name: pictures are shown, all text is plain text, other files are saved."""
    if key.endswith(ZARR):
        return Shown("folder", "", inline=False, picture=True)
    end = key.rpartition("/")[2].rpartition(".")[2].lower()
    if end in _IMAGES:
        return Shown("picture", _IMAGES[end], inline=True, picture=True)
    if end in _TEXTS:
        return Shown("text", "text/plain; charset=utf-8", inline=True)
    return Shown("file", "application/octet-stream", inline=False, picture=end in ("tif", "tiff"))


def inputs(store: Store, config: Config, keys: Mapping[str, Any], record: JobRecord) -> list[StoredFile]:
    """Returns the job's input files that are in the store, at most FILES of them."""
    values = {**keys, "job_id": record.id, "attempt": record.attempt}
    return list(islice(_inputs(store, config, values), FILES))


def _inputs(store: Store, config: Config, values: Mapping[str, Any]) -> Iterator[StoredFile]:
    for text in config.inputs:
        try:
            for wanted in InputTemplate(text).fill_all(values):
                yield from files_at(store, wanted.key)
        except DsError:
            continue


def outputs(store: Store, record: JobRecord) -> tuple[list[StoredFile], list[StoredFile]]:
    """Returns the files that the job published, at most FILES of them, and the OME-Zarr images among all.

    Such an image is a folder: its size is the sum of its files, and its tag changes with theirs.
    """
    found = _outputs(store, record)
    images: dict[str, list[StoredFile]] = {}
    for file in found:
        root, below, _ = file.key.partition(f"{ZARR}/")
        if below:
            images.setdefault(root + ZARR, []).append(file)
    zarrs = [
        StoredFile(root, sum(each.size for each in inside), _hash(inside)) for root, inside in images.items()
    ]
    return found[:FILES], zarrs


def _outputs(store: Store, record: JobRecord) -> list[StoredFile]:
    from ..worker.files.manifest import MANIFESTS, read_manifest

    prefix = record.output
    if not prefix:
        return []
    try:
        manifest = read_manifest(store, prefix, record.id)
        if manifest is not None:
            return [StoredFile(f"{prefix}/{file.name}", file.size, file.sha256) for file in manifest.files]
        found = (file for file in store.list(prefix + "/") if f"/{MANIFESTS}/" not in file.key)
        return list(islice(found, LOOKED_AT))
    except DsError:
        return []


def _hash(inside: list[StoredFile]) -> str:
    text = json.dumps([(file.key, file.size, file.tag) for file in inside])
    return hashlib.sha256(text.encode()).hexdigest()
