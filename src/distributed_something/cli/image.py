"""Runs `ds image`: builds the image that brings the worker, or the user's image with the worker in it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import OK, DsError, UsageError
from ..system.containers.docker import IMAGE_FOLDER, WORKER_FOLDER, Docker
from ..worker import bundle

if TYPE_CHECKING:
    from ..steps.project import Project

BUILD_SECONDS = 3600.0

_CARRIER = f"""FROM scratch
COPY . {IMAGE_FOLDER}
"""
_COMBINED = """FROM {image}
COPY . {folder}
ENV PATH="$PATH:{folder}"
ENTRYPOINT ["{folder}/ds"]
CMD ["worker"]
"""


def worker(project: Project, tag: str | None, *, push: bool) -> int:
    """Build the small image that brings the worker into others. After a DsError there is no image."""
    if push and tag is None:
        raise UsageError("--push: where to?", "ds image worker --push --tag USER/ds-worker:1")
    name = tag or f"distributed-something-worker:{__version__}"
    _build(project, name, _CARRIER, push=push)
    project.console.hint(f"config: WORKER_IMAGE = {name!r}")
    return OK


def build(project: Project, tag: str | None, *, push: bool) -> int:
    """Build an image from the user's own and the worker. After a DsError there is no new image."""
    image = project.config.dockerhub_tag
    if not image:
        raise UsageError(
            "DOCKERHUB_TAG: missing: no image to put the worker into", "DOCKERHUB_TAG = 'user/image:1'"
        )
    name = tag or combined_name(image)
    _build(project, name, _COMBINED.format(image=image, folder=WORKER_FOLDER), push=push)
    project.console.hint(f"config: DOCKERHUB_TAG = {name!r} and WORKER_IMAGE = 'own'")
    return OK


def combined_name(image: str) -> str:
    """Returns the name of an image with the worker in it: 'user/image-ds:1' for 'user/image:1'."""
    plain = image.partition("@")[0]
    folder, slash, last = plain.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{folder}{slash}{name}-ds:{tag or 'latest'}"


def _build(project: Project, name: str, recipe: str, *, push: bool) -> None:
    docker = Docker.installed()
    if docker is None:
        raise DsError("no Docker here to build an image with", "install Docker")
    docker.alive()
    project.console.say("putting the worker together")
    worker = bundle.kept()
    with tempfile.TemporaryDirectory(prefix="ds-image-") as folder:
        file = Path(folder) / "Dockerfile"
        file.write_text(recipe)
        project.console.say(f"building {name}")
        docker.call(
            "build", "--quiet", "--tag", name, "--file", str(file), str(worker), seconds=BUILD_SECONDS
        )
    if push:
        project.console.say(f"pushing {name}")
        docker.call("push", name, seconds=BUILD_SECONDS)
    if project.console.json:
        project.console.data({"image": name, "pushed": push})
    else:
        project.console.line(name)
