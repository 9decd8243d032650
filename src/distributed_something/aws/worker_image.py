"""The image that brings our worker into a user's image."""

from __future__ import annotations

import os

from .. import __version__
from ..config import Config
from .desired import Carried, has_own_worker

IMAGE_VARIABLE = "DS_WORKER_IMAGE"
"""Names another image with the worker, such as a copy in a registry of one's own."""

_IMAGE = f"ghcr.io/distributedscience/distributed-something-worker:{__version__}"


def carried_worker(config: Config) -> Carried | None:
    """The image to take the worker from; None where the user's image has its own."""
    return None if has_own_worker(config) else Carried(os.environ.get(IMAGE_VARIABLE) or _IMAGE)
