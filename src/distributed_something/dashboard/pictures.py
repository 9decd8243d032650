"""Finds the latest pictures of a run, and makes small ones of them, once each. `model` calls it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from ..engine import Store, StoredFile, check_key
from ..errors import KeyMissing
from ..ledger import Fold, JobRecord
from ..ledger.keyed import key_names, parsed
from . import files

SHOWN = 12  # most pictures on the first page
JOBS = 24  # number of the latest jobs whose outputs are looked through
OF_JOB = 2  # most pictures of one job
SIZE = 320  # width and height of a small picture, in pixels at most
MOST_BYTES = 64 << 20  # largest file that a small picture is made of, in bytes
PLAIN_BYTES = 2 << 20  # largest file that is shown as it is, in bytes
PIXELS = 200_000_000  # most pixels of a picture that is opened
KEPT = 500  # number of small pictures that are kept
METADATA_BYTES = 1 << 20  # most bytes of a description in an OME-Zarr image

CODECS = {
    *("none", "blosc", "zstd", "gzip", "zlib", "bz2", "lz4"),
    *("bytes", "transpose", "crc32c", "sharding_indexed"),
}
"""How the numbers of an OME-Zarr image may be packed: none of these runs what it reads."""

KIND = re.compile(r"[<>|][biuf][1248]|bool|u?int(8|16|32|64)|float(16|32|64)")  # types of these numbers


def latest(
    fold: Fold, store: Store, known: dict[tuple[str, float | None], list[StoredFile]]
) -> list[dict[str, Any]]:
    """Returns the pictures of the jobs that succeeded last. `known` keeps what was listed for a job."""
    shown: list[tuple[JobRecord, StoredFile]] = []
    last = "SELECT number FROM states WHERE state = 2 AND output IS NOT NULL ORDER BY ended DESC LIMIT ?"
    for record in fold.records(f"number IN ({last})", (JOBS,), "ORDER BY ended DESC"):
        key = (record.id, record.ended)
        if key not in known:
            known[key] = list(_pictures(store, record))
        shown += [(record, file) for file in known[key][:OF_JOB]]
        if len(shown) >= SHOWN:
            break
    bodies = fold.bodies({each.id: each for each, _ in shown}.values())
    return [
        {"id": each.id, "key": file.key, "label": _label(each, bodies.get(each.id), file)}
        for each, file in shown[:SHOWN]
    ]


def _label(record: JobRecord, body: bytes | None, file: StoredFile) -> str:
    """Returns the job's own values and the file's name, in short."""
    keys = parsed(body)
    values = " ".join(str(keys[name]) for name in key_names([body or b""]) if name in keys)
    return f"{values[:40] or f'job {record.index}'}: {file.key.rpartition('/')[2]}"


def _pictures(store: Store, record: JobRecord) -> Iterator[StoredFile]:
    found, zarrs = files.outputs(store, record)
    yield from zarrs
    for file in found:
        inside = f"{files.ZARR}/" in file.key
        if files.how_shown(file.key).picture and file.size <= MOST_BYTES and not inside:
            yield file


class Thumbnails:
    """Makes small pictures and keeps them in a folder. Thread-safe: each file is written whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, file: StoredFile, store: Store) -> tuple[bytes, str] | None:
        """Returns a small picture and its content type; None: none can be made of this file."""
        shown = files.how_shown(file.key)
        if shown.kind == "picture" and (file.key.endswith(".svg") or file.size <= PLAIN_BYTES // 16):
            return store.read(file.key), shown.content_type
        name = hashlib.sha256(f"{file.key}\0{file.size}\0{file.tag}".encode("utf-8", "replace")).hexdigest()
        place = self._folder / f"{name}.png"
        with suppress(OSError):
            return place.read_bytes(), "image/png"
        small = shrink(file, store)
        if small is None:
            plain = shown.kind == "picture" and file.size <= PLAIN_BYTES
            return (store.read(file.key), shown.content_type) if plain else None
        self._keep(place, small)
        return small, "image/png"

    def _keep(self, place: Path, data: bytes) -> None:
        """Writes a small picture, and removes the oldest ones. If that fails, it is made again."""
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = place.with_suffix(f".{os.urandom(4).hex()}")
            temporary.write_bytes(data)
            temporary.replace(place)
            found = sorted(self._folder.glob("*.png"), key=lambda each: -each.stat().st_mtime)
            for each in found[KEPT:]:
                each.unlink(missing_ok=True)


def shrink(file: StoredFile, store: Store) -> bytes | None:
    """Returns a small PNG of a picture (TIFF of 16 bits and OME-Zarr too); None: none can be made of it."""
    try:
        with _opened(file, store) as image:
            if image.width * image.height > PIXELS:
                return None
            if image.mode.startswith(("I", "F")):
                image = _stretched(image)
            image.thumbnail((SIZE, SIZE))
            out = BytesIO()
            image.convert("RGBA" if "A" in image.getbands() else "RGB").save(out, "PNG")
            return out.getvalue()
    except Exception:  # noqa: BLE001  the file is a job's: whatever is wrong with it, it has no small picture
        return None


def _opened(file: StoredFile, store: Store) -> Any:
    """Opens a picture. Raises any error: Pillow or zarr is missing, or the file is damaged or too large."""
    from PIL import Image

    if files.how_shown(file.key).kind == "folder":
        return Image.fromarray(_plane(file.key, store).astype("float32"))
    if file.size > MOST_BYTES:
        raise ValueError(file.size)
    return Image.open(BytesIO(store.read(file.key)))


def _stretched(image: Any) -> Any:
    """Returns a picture of more than 8 bits with its darkest value black and its brightest white."""
    wide = image.convert("F")
    low, high = wide.getextrema()
    scale = 255 / (high - low) if high > low else 0
    return wide.point(lambda value: value * scale - low * scale).convert("L")


def _plane(root: str, store: Store) -> Any:
    """Returns the middle plane of an OME-Zarr image, from its smallest copy that is not too small."""
    import zarr

    place, image = _image(root, store)
    copies = [f"{place}/{each['path']}" for each in image["datasets"]]
    facts = {copy: _shape(_of_store(copy, store))[0] for copy in copies}
    chosen = next((copy for copy in reversed(copies) if max(facts[copy][-2:]) >= SIZE), copies[0])
    names = [axis["name"] if isinstance(axis, dict) else axis for axis in image.get("axes", ())]
    shape = facts[chosen]
    where = [size // 2 if names[at : at + 1] == ["z"] else 0 for at, size in enumerate(shape[:-2])]
    with tempfile.TemporaryDirectory(prefix="ds-zarr-") as folder:
        left = MOST_BYTES
        for file in store.list(f"{check_key(chosen)}/"):
            if (left := left - file.size - 4096) < 0:
                raise ValueError(f"{chosen} is too large")
            target = Path(folder, check_key(file.key.removeprefix(f"{chosen}/")))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(store.read(file.key))
        _, form = _shape(lambda name: Path(folder, name).read_bytes())  # what was copied may be newer
        return zarr.open_array(folder, mode="r", zarr_format=form)[tuple(where)]


def _image(root: str, store: Store) -> tuple[str, Any]:
    """Returns where the first image of a folder is, and its description: in a series `0`."""
    found = _attributes(root, store)
    if "plate" in found:
        well = f"{root}/{found['plate']['wells'][0]['path']}"
        root = f"{well}/{_attributes(well, store)['well']['images'][0]['path']}"
    elif "multiscales" not in found:
        root = f"{root}/0"
    return root, _attributes(root, store)["multiscales"][0]


def _attributes(place: str, store: Store) -> dict[str, Any]:
    read = _of_store(place, store)
    try:
        found = json.loads(read("zarr.json"))["attributes"]
    except KeyMissing:
        found = json.loads(read(".zattrs"))
    return {**found, **found.get("ome", {})}


def _of_store(place: str, store: Store) -> Callable[[str], bytes]:
    return lambda name: store.read(f"{place}/{name}", 0, METADATA_BYTES)


def _shape(read: Callable[[str], bytes]) -> tuple[list[int], Literal[2, 3]]:
    """Returns the shape of an array, and its format. `read` returns a file of it.

    Raises ValueError unless the array is plain: some filters run what they read.
    """
    form: Literal[2, 3] = 3
    try:
        facts = json.loads(read("zarr.json"))
        steps = [*facts["codecs"], *(inner for each in facts["codecs"] for inner in _inner(each))]
        codecs, kind = {each["name"] for each in steps}, facts["data_type"]
        chunk = facts["chunk_grid"]["configuration"]["chunk_shape"]
    except (KeyMissing, FileNotFoundError):
        facts, form = json.loads(read(".zarray")), 2
        steps = [*(facts["filters"] or ()), facts["compressor"] or {"id": "none"}]
        codecs, kind, chunk = {each["id"] for each in steps}, facts["dtype"], facts["chunks"]
    shape = [int(size) for size in facts["shape"]]
    known = codecs <= CODECS and KIND.fullmatch(kind)
    if not known or len(shape) < 2 or math.prod(chunk) > PIXELS or math.prod(shape[-2:]) > PIXELS:
        raise ValueError(f"{codecs} {kind} {shape}")
    return shape, form


def _inner(codec: Any) -> list[Any]:
    facts = codec.get("configuration", {})
    return [*facts.get("codecs", ()), *facts.get("index_codecs", ())]
