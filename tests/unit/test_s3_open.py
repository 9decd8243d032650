"""A store on S3 before its first request."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from distributed_something.s3.session import AwsSession
from distributed_something.s3.store import S3Store


class SlowToOpen(S3Store):
    """Notes each opening of the bucket, which takes a while."""

    opened: list[object]

    def _opened(self, silence: float) -> object:
        self.opened.append(silence)
        time.sleep(0.02)
        return object()


def test_threads_that_begin_at_once_open_the_bucket_once() -> None:
    store = SlowToOpen("bucket", session=AwsSession("us-east-1", endpoint="http://127.0.0.1:9", key="key"))
    store.opened = []
    with ThreadPoolExecutor(8) as threads:
        found = {*threads.map(lambda _: store._open(), range(8))}
    assert len(store.opened) == len(found) == 1
