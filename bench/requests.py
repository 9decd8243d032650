"""What a worker's requests cost beside its machine: one real `ds worker` a case, on a counting emulator."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from distributed_something.aws.sqs.queue import SqsQueue
from distributed_something.aws.sqs.queues import QueueNames
from distributed_something.inputs.config import parse_config
from distributed_something.job import Job
from distributed_something.ledger import RunPaths, write_jobs
from distributed_something.rehearsal.emulator.server import CREDENTIALS, make_server
from distributed_something.runs.runfile import write_run_file
from distributed_something.s3.session import AwsSession
from distributed_something.s3.store import S3Store

from .scale import LIST_PRICES, MACHINE_USD, SLOTS
from .tools import table

REGION, RUN = "us-east-1", "bench"
SPREAD = 0.3
"""Jobs last this share more or less than the mean."""


class Case(NamedTuple):
    """Jobs of so many seconds; the first `warm` seconds are not counted, then `counted` are."""

    name: str
    seconds: float
    printing: bool
    warm: float
    counted: float


CASES = (
    Case("10 s, silent", 10, False, 15, 240),
    Case("10 s, a line a second", 10, True, 15, 240),
    Case("60 s, silent", 60, False, 45, 360),
    Case("60 s, a line a second", 60, True, 45, 360),
    Case("180 s, silent", 180, False, 60, 480),
    Case("180 s, a line a second", 180, True, 60, 480),
)


class Counting:
    """Counts an emulator's calls by the caller's access key."""

    def __init__(self, answer: Callable[..., Iterable[bytes]]) -> None:
        self._answer = answer
        self._lock = threading.Lock()
        self.calls: dict[str, Counter[str]] = {}

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        key = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition("/")[0]
        with self._lock:
            found = self.calls.setdefault(key, Counter())
            found[_name(environ)] += 1
            found["bytes put"] += environ["REQUEST_METHOD"] == "PUT" and int(
                environ.get("CONTENT_LENGTH") or 0
            )
        return self._answer(environ, start)


def _name(environ: dict[str, Any]) -> str:
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return str(target.rpartition(".")[2])
    method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
    return "LIST" if method == "GET" and "list-type" in query else str(method)


def main(_jobs: int) -> None:
    with _emulator() as (counting, endpoint), ThreadPoolExecutor(len(CASES)) as pool:
        rows = list(pool.map(lambda case: _row(case, counting, endpoint), CASES))
    heads = (
        "a worker of 4 slots",
        "PUT a job",
        "GET",
        "SQS",
        "PutLogEvents",
        "sent / ledger",
        "% of a spot machine",
    )
    table(heads, rows)


@contextmanager
def _emulator() -> Iterator[tuple[Counting, str]]:
    from distributed_something.rehearsal.emulator.http import Dispatcher

    os.environ |= {**CREDENTIALS, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
    counting = Counting(Dispatcher())
    server = make_server(0, counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield counting, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def _row(case: Case, counting: Counting, endpoint: str) -> tuple[str, ...]:
    app = f"b{uuid.uuid4().hex[:10]}"
    draws = random.Random(1)
    lengths = [
        round(case.seconds * draws.uniform(1 - SPREAD, 1 + SPREAD))
        for _ in range(round((case.warm + case.counted) / case.seconds * SLOTS * 1.5) + 8)
    ]
    store, environment = _set_up(app, endpoint, case, lengths)
    with tempfile.TemporaryDirectory() as scratch:
        words = [sys.executable, "-m", "distributed_something", "worker"]
        process = subprocess.Popen(
            words, env={**environment, "DS_SCRATCH": scratch}, stderr=subprocess.DEVNULL
        )
        time.sleep(case.warm)
        before, size = Counter(counting.calls.get(app, {})), _ledger(store, app)
        time.sleep(case.counted)
        calls, size = Counter(counting.calls[app]) - before, _ledger(store, app) - size
        assert process.poll() is None, "the worker has ended"
        process.send_signal(signal.SIGINT)
        process.wait(60)
    ended = case.counted * SLOTS / case.seconds
    sqs = sum(count for name, count in calls.items() if name not in LIST_PRICES and "Log" not in name)
    sqs -= calls["bytes put"]
    usd = sum(LIST_PRICES.get(name, 0) * count for name, count in calls.items()) + LIST_PRICES["SQS"] * sqs
    share = usd / (case.counted / 3600 * MACHINE_USD)
    sent = f"{calls['bytes put'] / max(size, 1):.1f}"
    figures = [f"{count / ended:.2f}" for count in (calls["PUT"], calls["GET"], sqs, calls["PutLogEvents"])]
    return (case.name, *figures, sent, f"{share:.1%}")


def _set_up(app: str, endpoint: str, case: Case, lengths: list[int]) -> tuple[S3Store, dict[str, str]]:
    """Makes queue, bucket and run; returns the store, and the worker's environment."""
    session = AwsSession(REGION, endpoint=endpoint)
    names = QueueNames(f"{app}Queue", f"{app}DeadMessages")
    urls = [
        session.client("sqs").create_queue(QueueName=each)["QueueUrl"]
        for each in (names.jobs, names.dead, names.carried)
    ]
    session.client("s3").create_bucket(Bucket=app)
    for group in (app, f"{app}_perInstance"):
        session.client("logs").create_log_group(logGroupName=group)
    command = "for i in $(seq {n}); do echo line $i; sleep 1; done" if case.printing else "sleep {n}"
    given = {"APP_NAME": app, "ENGINE": "aws", "AWS_BUCKET": app, "COMMAND": command}
    store = S3Store(app, session=session)
    write_run_file(store, parse_config("".join(f"{k} = {v!r}\n" for k, v in given.items())), "aws", RUN)
    bodies = [json.dumps({"group": {"n": n, "k": k}}).encode() for k, n in enumerate(lengths)]
    jobs = [Job(uuid.uuid4().hex[:16], n, body) for n, body in enumerate(bodies)]
    from distributed_something.aws.sqs.queues import QueueUrls

    SqsQueue(session, QueueUrls(*urls), run=RUN).put(jobs)
    write_jobs(store, RunPaths(app, RUN).jobs + "1.jsonl", jobs)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    task = {
        "APP_NAME": app,
        "DS_RUN": RUN,
        "AWS_BUCKET": app,
        "AWS_REGION": REGION,
        "DOCKER_CORES": str(SLOTS),
        "LOG_GROUP_NAME": app,
        "SECONDS_TO_START": "1",
        "SQS_QUEUE_URL": urls[0],
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ACCESS_KEY_ID": app,
        "AWS_SECRET_ACCESS_KEY": "bench",
    }
    return store, {**plain, **task}


def _ledger(store: S3Store, app: str) -> int:
    """Bytes of events and logs."""
    paths = RunPaths(app, RUN)
    return sum(file.size for prefix in (paths.events, paths.logs) for file in store.list(prefix))
