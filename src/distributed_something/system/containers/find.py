"""Finds the container engine of this machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import DsError
from .apptainer import Apptainer
from .box import ContainerEngine
from .docker import Docker, Podman

_WITHOUT = "install one, or write CONTAINERS = False to run jobs as plain processes of this machine"
_ASIDE = "CONTAINERS = False says that this is meant, CONTAINERS = True insists on containers"

_MAKE: dict[str, Callable[[str, Path], ContainerEngine]] = {
    "docker": lambda program, _project: Docker(program),
    "podman": lambda program, _project: Podman(program),
    "apptainer": Apptainer,
    "singularity": Apptainer,
}


def installed(names: Sequence[str], project: Path, path: str | None = None) -> list[ContainerEngine]:
    """Returns the engines of these names that are on the PATH (None: ours), not whether they answer."""
    programs = [*names, *(["singularity"] if "apptainer" in names else [])]
    return [_MAKE[name](found, project) for name in programs if (found := shutil.which(name, path=path))]


def engine_for(image: str, names: Sequence[str], project: Path, path: str | None = None) -> ContainerEngine:
    """Returns the first of these engines that answers. Raises DsError, with other ways to go on."""
    what = f"DOCKERHUB_TAG names the image {image}, and"
    silent: DsError | None = None
    for engine in installed(names, project, path):
        try:
            engine.alive()
        except DsError as error:
            silent = silent or error
        else:
            return engine
    why = silent.what if silent else f"there is no {' or '.join(map(str.title, names))} here"
    raise DsError(f"{what} {why}", _WITHOUT) from silent


def engine_or_none(
    image: str, names: Sequence[str], project: Path, say: Callable[[str], None], *, required: bool
) -> ContainerEngine | None:
    """Returns the engine that runs the image here; None: there is none, and jobs are plain processes.

    Configs made for AWS name an image, so a missing engine is a note to `say`.
    Raises DsError instead if `required`.
    """
    try:
        return engine_for(image, names, project)
    except DsError as error:
        if required:
            raise
        say(f"note: {error.what}: jobs run as plain processes of this machine; {_ASIDE}")
        return None
