"""Records what ran the jobs of a run: job files, and the workers' versions and images.

    runs/<APP_NAME>/<run>/ran/files/<hash>.json      a job file that was submitted
                             /workers/<hash>.json    what some of the workers were; alike ones share a file
                             /configs/<time>.json    the config from a time on, in Unix milliseconds

A file's name is the hash of its content: writing the same facts again changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import __version__
from ..engine import Store
from ..errors import DsError
from ..inputs.config import Config, values_given
from ..ledger import RunPaths
from ..system.containers.find import installed
from ..system.files import open_regular

SHOWN = 20
"""Limit of each kind in a report; a run has one or two."""


def note_job_file(store: Store, paths: RunPaths, path: Path) -> None:
    """Records the hash of a submitted file, if the file still exists. Raises DsError."""
    with suppress(OSError), open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        _note(store, paths, "files", {"name": path.name, "sha256": digest, "bytes": file.tell()})


def note_worker(store: Store, paths: RunPaths, container: Mapping[str, Any]) -> None:
    """Records this worker; `container` has what ECS says about its container, or nothing."""
    _note(store, paths, "workers", _surroundings(container.get("Image"), container.get("ImageID")))


def note_config(store: Store, paths: RunPaths, config: Config, now: float) -> None:
    """Records the config that workers have from now on, if it is another one than before. Raises DsError."""
    known, values = _noted(store, paths, "configs"), values_given(config)
    if not known or known[-1].get("config") != values:
        text = json.dumps({"t": now, "config": values}).encode()
        store.write(f"{_prefix(paths, 'configs')}{int(now * 1000):015}.json", text)


def what_ran(store: Store, paths: RunPaths, config: Config) -> dict[str, Any]:
    """Returns the job files, the recorded workers (without any, this computer's), and the configs in time."""
    return {
        "job_files": _noted(store, paths, "files"),
        "workers": _noted(store, paths, "workers") or [_here(config)],
        "configs": _noted(store, paths, "configs"),
    }


def _here(config: Config) -> dict[str, Any]:
    """Returns the facts of workers on this computer."""
    engines = installed(config.container_engines, Path()) if config.in_containers else []
    digest = next(filter(None, (each.digest(config.dockerhub_tag) for each in engines)), None)
    return _surroundings(config.dockerhub_tag if digest else None, digest)


def _surroundings(image: object, digest: object) -> dict[str, Any]:
    facts = {
        "version": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "system": f"{os.uname().sysname} {os.uname().machine}",
        "image": image,
        "image_digest": digest,
    }
    return {name: str(value) for name, value in facts.items() if value}


def _note(store: Store, paths: RunPaths, kind: str, facts: Mapping[str, Any]) -> None:
    text = json.dumps(facts, sort_keys=True).encode()
    name = hashlib.sha256(text).hexdigest()[:16]
    store.write_if_absent(f"{_prefix(paths, kind)}{name}.json", text)


def _noted(store: Store, paths: RunPaths, kind: str) -> list[dict[str, Any]]:
    """Returns the records of a kind; unreadable ones are left out."""
    found: list[dict[str, Any]] = []
    with suppress(DsError):
        for file in store.list(_prefix(paths, kind)):
            with suppress(DsError, ValueError):
                facts = json.loads(store.read(file.key))
                if isinstance(facts, dict) and len(found) < SHOWN:
                    found.append(facts)
    return found


def _prefix(paths: RunPaths, kind: str) -> str:
    return f"{paths.root}ran/{kind}/"
