"""Writes and lists heartbeats: a machine's worker writes one every two minutes, the monitor lists them.

    runs/<APP_NAME>/<run>/alive/<machine>

A heartbeat is one object a machine, written again and again; its time is by S3's clock. A worker writes it
while its queue answers: it leases jobs, or renews leases. So a worker with one job for hours has a heartbeat,
and one that hangs or has lost its network has none.
"""

from __future__ import annotations

from collections.abc import Callable

from ...background import complain
from ...clock import Clock
from ...engine import Store
from ...ledger import RunPaths
from ...s3.session import AwsSession, aws_errors
from ...system.repeating import Repeating

HEARTBEAT_SECONDS = 120.0  # interval of a worker's heartbeats, in seconds

ANSWERED_SECONDS = 300.0
"""Silence of the queue, in seconds, after which heartbeats stop. Workers make a call every 40 s at least."""


def heartbeat_prefix(paths: RunPaths) -> str:
    """Prefix of the heartbeats of a run's machines."""
    return paths.root + "alive/"


class Heartbeat(Repeating):
    """While entered: writes the heartbeats of a worker's machine.

    `answered` returns the time of the queue's last answer (monotonic).
    """

    def __init__(self, store: Store, key: str, clock: Clock, answered: Callable[[], float]) -> None:
        super().__init__("pulse", HEARTBEAT_SECONDS, self.beat, clock)
        self._store = store
        self._key = key
        self._answered = answered

    def beat(self) -> bool:
        """Writes a heartbeat, unless the queue is silent. Returns whether it was written."""
        if self._clock.monotonic() - self._answered() > ANSWERED_SECONDS:
            return False
        try:
            self._store.write(self._key, b"")
        except Exception as error:  # noqa: BLE001  jobs go on after any error of the store
            complain(f"no heartbeat could be written: {error}")
            return False
        return True


def last_heartbeats(session: AwsSession, bucket: str, paths: RunPaths) -> dict[str, float]:
    """Time of each machine's last heartbeat, in Unix seconds. One call lists a thousand machines."""
    prefix = heartbeat_prefix(paths)
    with aws_errors("looking for heartbeats"):
        pages = session.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {
            each["Key"][len(prefix) :]: each["LastModified"].timestamp()
            for page in pages
            for each in page.get("Contents", ())
        }
