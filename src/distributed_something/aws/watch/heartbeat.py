"""Signs of life: each machine's worker writes one down every two minutes, and whoever watches lists them.

    runs/<APP_NAME>/<run>/alive/<machine>

A sign is an object that is written again and again, so that there are never more than machines. When it was
written S3's own clock tells. A worker writes it while its queue answers it: it asks for jobs, or renews the
leases of those that it has. So one that has had a single job for hours is heard of, and one that hangs, or
has lost its network, is not.
"""

from __future__ import annotations

from collections.abc import Callable

from ...background import complain
from ...clock import Clock
from ...engine import Store
from ...ledger import RunPaths
from ...system.repeating import Repeating
from ..session import AwsSession, aws_errors

ALIVE_SECONDS = 120.0
"""Between two signs of a worker."""

ANSWERED_SECONDS = 300.0
"""A worker whose queue has not answered it for longer gives no sign. It asks every 40 seconds at least."""


def alive_prefix(paths: RunPaths) -> str:
    """Where the signs of a run's machines lie."""
    return paths.root + "alive/"


class Pulse(Repeating):
    """While entered: gives the signs of a worker's machine.

    `answered` tells when the worker's queue last answered it, in Unix seconds.
    """

    def __init__(self, store: Store, key: str, clock: Clock, answered: Callable[[], float]) -> None:
        super().__init__("pulse", ALIVE_SECONDS, self.beat, clock)
        self._store = store
        self._key = key
        self._answered = answered

    def beat(self) -> bool:
        """Give a sign, unless the queue is silent; whether it was given."""
        if self._clock.now() - self._answered() > ANSWERED_SECONDS:
            return False
        try:
            self._store.write(self._key, b"")
        except Exception as error:  # noqa: BLE001  whatever the store raises, jobs go on; the next may succeed
            complain(f"no sign of life could be given: {error}")
            return False
        return True


def heard(session: AwsSession, bucket: str, paths: RunPaths) -> dict[str, float]:
    """When each machine of the run last gave a sign, in Unix seconds: one call for each thousand of them."""
    prefix = alive_prefix(paths)
    with aws_errors("looking for signs of life"):
        pages = session.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {
            each["Key"][len(prefix) :]: each["LastModified"].timestamp()
            for page in pages
            for each in page.get("Contents", ())
        }
