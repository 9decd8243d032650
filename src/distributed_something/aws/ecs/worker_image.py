"""The image that brings our worker into a user's image."""

from __future__ import annotations

import os

from ... import __version__
from ...inputs.config import Config
from .desired import Carried

IMAGE_VARIABLE = "DS_WORKER_IMAGE"
"""Names the image with the worker where the config's WORKER_IMAGE does not."""

_IMAGE = f"ghcr.io/distributedscience/distributed-something-worker:{__version__}"


OWN = "own"
"""As WORKER_IMAGE: the image of DOCKERHUB_TAG has the worker itself, as `ds` on its PATH."""


def carried_worker(config: Config) -> Carried | None:
    """The image to take the worker from; None where the user's image has one of another kind."""
    if config.image_starts_worker:
        return None
    named = config.worker_image or os.environ.get(IMAGE_VARIABLE) or _IMAGE
    return Carried("", start=("ds", "worker")) if named == OWN else Carried(named)
