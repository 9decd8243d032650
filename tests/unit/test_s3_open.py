"""A store on S3 before its first request."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from distributed_something.aws import store as module
from distributed_something.aws.session import AwsSession
from distributed_something.aws.store import S3Store


def test_threads_that_begin_at_once_open_the_bucket_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    def slowly(*_: object, **__: object) -> object:
        opened.append(object())
        time.sleep(0.02)
        return opened[-1]

    monkeypatch.setattr(module, "open_bucket", slowly)
    store = S3Store("bucket", session=AwsSession("us-east-1", endpoint="http://127.0.0.1:9", key="key"))
    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(lambda _: store._open(), range(8))]
    assert len(opened) == 1 and found == opened * 8
