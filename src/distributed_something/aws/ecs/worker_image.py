"""Chooses the image that injects our worker into a user's image."""

from __future__ import annotations

import os

from ... import __version__
from ...inputs.config import Config
from .desired import InjectedWorker

IMAGE_VARIABLE = "DS_WORKER_IMAGE"
"""Environment variable that names the worker's image; the config's WORKER_IMAGE has priority."""

_IMAGE = f"ghcr.io/distributedscience/distributed-something-worker:{__version__}"


OWN = "own"  # value of WORKER_IMAGE if the image of DOCKERHUB_TAG has the worker itself, as `ds` on its PATH


def injected_worker(config: Config) -> InjectedWorker | None:
    """The worker to inject; None: the user's image starts one of another kind."""
    if config.image_starts_worker:
        return None
    named = config.worker_image or os.environ.get(IMAGE_VARIABLE) or _IMAGE
    return InjectedWorker("", start=("ds", "worker")) if named == OWN else InjectedWorker(named)
