"""Finds the latest pictures of a run, and makes small ones of them, once each. `model` calls it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from ..engine import Store, StoredFile
from ..ledger import Fold, JobRecord
from ..ledger.keyed import key_names, parsed
from . import files

SHOWN = 12
"""Most pictures on the first page."""

JOBS = 24
"""Number of the latest jobs whose outputs are looked through."""

OF_JOB = 2
"""Most pictures of one job."""

SIZE = 320
"""Width and height of a small picture, in pixels at most."""

MOST_BYTES = 64 << 20
"""Largest file that a small picture is made of, in bytes."""

PLAIN_BYTES = 2 << 20
"""Largest file that is shown as it is, in bytes."""

PIXELS = 200_000_000
"""Most pixels of a picture that is opened."""

KEPT = 500
"""Number of small pictures that are kept."""

Read = Callable[[int, int], bytes]


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
    for file in files.outputs(store, record):
        if files.how_shown(file.key).picture and file.size <= MOST_BYTES:
            yield file


class Thumbnails:
    """Makes small pictures and keeps them in a folder. Thread-safe: each file is written whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, file: StoredFile, read: Read) -> tuple[bytes, str] | None:
        """Returns a small picture and its content type; None: none can be made of this file."""
        shown = files.how_shown(file.key)
        if shown.kind == "picture" and (file.key.endswith(".svg") or file.size <= PLAIN_BYTES // 16):
            return read(0, file.size), shown.content_type
        name = hashlib.sha256(f"{file.key}\0{file.size}\0{file.tag}".encode("utf-8", "replace")).hexdigest()
        place = self._folder / f"{name}.png"
        with suppress(OSError):
            return place.read_bytes(), "image/png"
        small = shrink(read(0, file.size)) if file.size <= MOST_BYTES else None
        if small is None:
            plain = shown.kind == "picture" and file.size <= PLAIN_BYTES
            return (read(0, file.size), shown.content_type) if plain else None
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


def shrink(data: bytes) -> bytes | None:
    """Returns a small PNG of a picture (TIFF of 16 bits too); None: it is none, or Pillow is missing."""
    try:
        from PIL import Image
    except ImportError:
        return None
    try:
        with Image.open(BytesIO(data)) as image:
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


def _stretched(image: Any) -> Any:
    """Returns a picture of more than 8 bits with its darkest value black and its brightest white."""
    wide = image.convert("F")
    low, high = wide.getextrema()
    scale = 255 / (high - low) if high > low else 0
    return wide.point(lambda value: value * scale - low * scale).convert("L")
