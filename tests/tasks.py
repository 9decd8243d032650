"""A run on the emulator, and `ds worker` as its tasks run it: real processes, and a bucket of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import until
from distributed_something.aws.iam.roles import Role
from distributed_something.aws.sqs.queue import SqsQueue
from distributed_something.aws.sqs.queues import QueueNames, QueueUrls
from distributed_something.inputs.config import parse_config
from distributed_something.job import Job
from distributed_something.ledger import Fold, RunPaths, write_jobs
from distributed_something.rehearsal.emulator.server import CREDENTIALS
from distributed_something.runs.runfile import write_run_file
from distributed_something.s3.store import S3Store
from distributed_something.worker.attempt.process import kill_marked
from emulating import REGION, delete_queues, endpoint, ensure_queues, session
from rights import overheard


@dataclass(frozen=True)
class Run:
    """A run that is set up and submitted: what `ds setup` and `ds submit` leave behind."""

    app: str
    names: QueueNames
    urls: QueueUrls
    store: S3Store
    queue: SqsQueue
    jobs: list[Job]

    paths = property(lambda self: RunPaths(self.app, "run1"))

    def fold(self) -> Fold:
        return Fold(self.store, self.paths).update()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Every event of that name in the ledger."""
        data = b"".join(self.store.read(file.key) for file in self.store.list(self.paths.events))
        return [event for event in map(json.loads, data.splitlines()) if event["event"] == name]

    def environment(self, **more: str) -> dict[str, str]:
        """What a task finds in its environment."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DS_"))}
        task = {
            "APP_NAME": self.app,
            "AWS_BUCKET": self.store.bucket,
            "AWS_REGION": REGION,
            "DOCKER_CORES": "1",
            "DS_RUN": "run1",
            "LOG_GROUP_NAME": self.app,
            "SECONDS_TO_START": "0",
            "SQS_QUEUE_URL": self.urls.jobs,
            "AWS_ENDPOINT_URL": endpoint(),
            "AWS_EC2_METADATA_DISABLED": "true",
            "DS_SETTLE_SECONDS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return {**plain, **CREDENTIALS, **task, **more}

    def lines(self, stream: str, group: str = "") -> list[str]:
        """The lines of a log stream; none where there is no such stream."""
        logs = session().client("logs")
        found: list[str] = []
        more: dict[str, Any] = {}
        while True:
            try:
                page = logs.get_log_events(
                    logGroupName=group or self.app, logStreamName=stream, startFromHead=True, **more
                )
            except logs.exceptions.ResourceNotFoundException:
                return []
            if not page["events"]:
                return found
            found += [event["message"] for event in page["events"]]
            more = {"nextToken": page["nextForwardToken"]}

    def delete_queues(self) -> None:
        delete_queues(session(), self.names)


def new_run(groups: Iterable[Mapping[str, Any]], **config: object) -> Run:
    """Set up a run of its own on the emulator, with these jobs."""
    app = f"t{uuid.uuid4().hex[:10]}"
    names = QueueNames(f"{app}Queue", f"{app}DeadMessages")
    urls = ensure_queues(session(), names)
    session().client("s3").create_bucket(Bucket=app)
    for group in (app, f"{app}_perInstance"):
        session().client("logs").create_log_group(logGroupName=group)
    store = S3Store(app, session=session())
    given = {"APP_NAME": app, "ENGINE": "aws", "AWS_BUCKET": app, **config}
    write_run_file(store, parse_config("".join(f"{k} = {v!r}\n" for k, v in given.items())), "aws", "run1")
    bodies = [json.dumps({"group": group}, separators=(",", ":")).encode() for group in groups]
    jobs = [Job(uuid.uuid5(uuid.NAMESPACE_OID, str(n)).hex[:16], n, body) for n, body in enumerate(bodies)]
    queue = SqsQueue(session(), urls, run="run1")
    if jobs:
        assert queue.put(jobs).sent == len(jobs)
        write_jobs(store, RunPaths(app, "run1").jobs + "1.jsonl", jobs)
    return Run(app, names, urls, store, queue, jobs)


@contextmanager
def worker(run: Run, scratch: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """`ds worker` as a task of the run; it is killed at the end, with all that its jobs left running.

    Its calls are held against the rights of its role.
    """
    with ExitStack() as stack:
        way = stack.enter_context(overheard(endpoint(), Role.TASK))
        yield stack.enter_context(_worker(run, scratch, {"AWS_ENDPOINT_URL": way, **more}))


@contextmanager
def _worker(run: Run, scratch: Path, more: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    mark = f"DS_SCRATCH={scratch}"
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed_something", "worker"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=run.environment(DS_SCRATCH=str(scratch), **more),
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait(10)
        kill_marked(f"{mark}\0".encode())
        assert process.stderr is not None
        process.stderr.close()


def ends(process: subprocess.Popen[str], seconds: float = 20.0) -> tuple[int, str]:
    """Wait for a worker's end: its exit code, and what it said."""
    _, said = process.communicate(timeout=seconds)
    return process.returncode, said


def until_done(run: Run, count: int, seconds: float = 40.0) -> None:
    """Wait until so many jobs of the run are finished in the ledger."""
    fold = Fold(run.store, run.paths)
    final = lambda: sum(r.state.value in ("succeeded", "dead") for r in fold.update().jobs.values())  # noqa: E731
    until(lambda: final() >= count, f"{count} jobs to be finished", seconds)
