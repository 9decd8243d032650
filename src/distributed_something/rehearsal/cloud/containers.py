"""Runs tasks of the pretend account as real containers, where that is possible."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import DsError
from ...inputs.config import Config
from ...system.containers.docker import (
    BUCKET_FOLDER,
    STATE_LABEL,
    WORKER_FOLDER,
    Docker,
    bind,
    confined,
    variables,
)


class TaskContainers(NamedTuple):
    """The container engine, and the folder of the worker that is injected into containers, if any.

    `bucket` is the folder that stands for the bucket, if containers are to see it, and `writes` to change it.
    """

    docker: Docker
    worker: Path | None
    bucket: Path | None = None
    writes: bool = False

    def command(
        self, container: Mapping[str, Any], name: str, own: Mapping[str, str], folder: Path, state: Path
    ) -> list[str]:
        """Returns what runs a container of a task definition, as Docker does on a machine of ECS.

        It sees the worker, `folder` and the bucket if it may, and no other file of this machine. Where root
        rehearses, the image's user runs it, as in ECS; another caller's files only the caller can remove.
        """
        as_caller = os.getuid() != 0
        if not as_caller:
            folder.chmod(0o777)  # for the image's user; the folder above lets no other user of the machine in
        start = [*container.get("entryPoint", ()), *container.get("command", ())]
        entry = ["--entrypoint", start[0]] if container.get("entryPoint") else []
        worker = bind(str(self.worker), WORKER_FOLDER, read_only=True) if self.worker else ()
        bucket = bind(str(self.bucket), BUCKET_FOLDER, read_only=not self.writes) if self.bucket else ()
        return [
            *(self.docker.program, "run", "--name", name, "--pull=never", "--init", "--network", "host"),
            *("--label", f"{STATE_LABEL}={state}", *confined(as_caller=as_caller)),
            *("--memory", f"{container['memory']}m", "--memory-swap", f"{container['memory']}m"),
            *("--cpu-shares", str(max(container.get("cpu", 0), 2))),
            *variables(own, folder.with_suffix(".env")),
            *(*worker, *bucket, *bind(str(folder), str(folder)), *entry, "--", container["image"]),
            *(start[1:] if entry else start),
        ]


def task_containers(config: Config, brings_worker: bool, store: Path) -> tuple[TaskContainers | None, str]:
    """Returns how tasks run in containers; or None, and why they are plain processes ("": by the config).

    `store` is the folder that stands for the bucket. Making the worker takes some seconds, once a version.
    """
    if not config.in_containers:
        return None, ""
    if config.containers not in (True, "docker"):
        return None, f"CONTAINERS = {config.containers!r}: a rehearsal runs containers by Docker"
    docker, image = Docker.installed(), config.dockerhub_tag
    if docker is None:
        return None, "there is no Docker here"
    try:
        docker.alive()
    except DsError as error:
        return None, error.what
    if not docker.has_image(image):
        return None, f"the image {image} is not on this machine (docker pull {image})"
    bucket = store if config.mount_bucket or config.image_starts_worker else None
    if bucket is not None:
        bucket.mkdir(parents=True, exist_ok=True)
    if not brings_worker:
        return TaskContainers(docker, None, bucket, config.mount_bucket), ""
    from ...worker import bundle

    if why := bundle.why_not():
        return None, why
    return TaskContainers(docker, bundle.kept(), bucket, config.mount_bucket), ""


def removal(docker: Docker, name: str) -> str:
    """Returns the keeper's order to remove the container at the end."""
    return f"{docker.program}{os.pathsep}{name}"
