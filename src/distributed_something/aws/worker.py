"""The worker of a task on a machine of the fleet: `ds worker`.

It reads its settings from the task's environment (`task_environment`) and from the run's `run.json` in the
bucket. It works until it is asked to stop, waits while the queue is empty, and ends if the queue is deleted.
Its credentials are those of the task's role. Called by the command `worker`.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..background import complain
from ..clock import Clock, SystemClock
from ..engine import Store
from ..errors import OK, DsError, UsageError
from ..inputs.config import Config
from ..job import LEASE_SECONDS, Needs
from ..ledger import RunPaths
from ..packing import Capacity
from ..runs.following import Followed
from ..runs.joblog import live_key
from ..runs.provenance import note_worker
from ..runs.runfile import RunFile, largest_noted, read_run_file
from ..s3.access import Access
from ..s3.session import AwsSession, QueueGone
from ..s3.store import WORKER_RETRY_SECONDS, S3Store
from ..system.hardware import Lender, Share, find_gpus, variables_here
from ..worker.attempt.process import adopt_orphans
from ..worker.attempt.slot import Slot
from ..worker.attempt.task import Task, compile_task
from ..worker.attempt.workplace import clear_remains
from ..worker.files.done import recipe_of
from ..worker.files.project import Carried, prefix_of
from ..worker.gather import Gathered, GatheredLog, GatheringSlot, KeptLedger, LogKeeper
from ..worker.health import Health
from ..worker.interruption import ANSWER_SECONDS, WARY_SECONDS, InterruptionWatch, Metadata, Silent
from ..worker.loop import Identity, Stop, Worker
from ..worker.orders import Orders
from .ec2.requests.userdata import STOP_SECONDS
from .sqs.queues import QueueNames, QueueUrls
from .sqs.worker_queue import WorkersQueue
from .watch.heartbeat import Heartbeat, heartbeat_prefix
from .watch.reporting import JobLines, Reporting

POLL_SECONDS = 5.0
"""Wait for a job in one call, in seconds; SQS allows 20, but an idle worker should end sooner."""

SILENCE_SECONDS = 10.0
"""Read timeout of SQS in seconds, longer than POLL_SECONDS: renewals and stops wait this long."""

LAST_SECONDS = 30.0
"""Part of the time between stop request and kill that is kept to end jobs, save logs and give jobs back."""

SETTLE_SECONDS = 30.0
"""Default of DS_SETTLE_SECONDS: how long ends of attempts wait to be settled together, and half of how long
text waits to be stored, in seconds. A lost worker repeats what it has not settled."""

MOST_SLOTS = 1024

ORDERS = {
    signal.SIGTERM: Stop(STOP_SECONDS - LAST_SECONDS, "terminated"),
    signal.SIGINT: Stop(0.0, "stopped now"),
    signal.SIGUSR1: Stop(None, "drain"),
}


class Settings(NamedTuple):
    """The settings in the task's environment. `stagger` is the wait between starts of two slots, in seconds.

    Without a `log_group` nothing is sent to CloudWatch. `container_metadata` is the URL of ECS's facts on the
    container. `dead_queue` is a name; empty: the config's.
    """

    app: str
    run: str
    queue_url: str
    bucket: str
    region: str
    slots: int
    stagger: float
    scratch: Path
    log_group: str = ""
    container_metadata: str = ""
    dead_queue: str = ""
    settle_seconds: float = SETTLE_SECONDS
    memory: int = 0
    """Memory of the task in MB; 0: unknown."""
    gpus: int = 0
    """GPUs of each slot."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Raises UsageError, naming the variable, if one is missing or not valid."""
        app, run, queue_url, bucket = (
            _needed(environment, name) for name in ("APP_NAME", "DS_RUN", "SQS_QUEUE_URL", "AWS_BUCKET")
        )
        region = environment.get("AWS_REGION") or _needed(environment, "AWS_DEFAULT_REGION")
        slots = _number(environment, "DOCKER_CORES", "1")
        if not 1 <= slots <= MOST_SLOTS:
            raise UsageError(f"DOCKER_CORES: {slots:g} is not between 1 and {MOST_SLOTS}", _FIX)
        stagger = max(_number(environment, "SECONDS_TO_START", "0"), 0.0)
        scratch = Path(environment.get("DS_SCRATCH") or tempfile.gettempdir())
        log_group = environment.get("LOG_GROUP_NAME", "")
        container = environment.get("ECS_CONTAINER_METADATA_URI_V4", "")
        dead = environment.get("DS_DEAD_QUEUE", "")
        settle = max(_number(environment, "DS_SETTLE_SECONDS", str(SETTLE_SECONDS)), 0.0)
        return cls(
            app,
            run,
            queue_url,
            bucket,
            region,
            int(slots),
            stagger,
            scratch,
            log_group,
            container,
            dead,
            settle,
            int(_number(environment, "DS_TASK_MEMORY", "0")),
        )

    def sized(self, largest: Needs, gpus: int, *, shared: bool) -> Settings:
        """Returns the settings with as many slots as such jobs fit into the task, which has `gpus`."""
        whole = Needs(self.slots, self.memory or largest.memory * self.slots, gpus)
        fitting = Capacity(whole, shares_gpus=shared).fitting(largest)
        return self._replace(slots=max(min(self.slots, fitting), 1), gpus=largest.gpus)


_FIX = "`ds worker` runs in a task that `ds start` has made: the task's environment tells it what to do"


def _needed(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise UsageError(f"{name}: not in the environment", _FIX)
    return value


def _number(environment: Mapping[str, str], name: str, default: str) -> float:
    text = environment.get(name) or default
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"{name}: {text!r} in the environment is not a number", _FIX) from error


def queue_urls(settings: Settings, config: Config) -> QueueUrls:
    """The app's queues: they have the same home as the address in the environment."""
    home, _, jobs = settings.queue_url.rpartition("/")
    names = QueueNames(jobs, settings.dead_queue or config.sqs_dead_letter_queue)
    return QueueUrls(settings.queue_url, f"{home}/{names.dead}", f"{home}/{names.carried}")


def machine_name(metadata: Metadata | None) -> str:
    """The machine's instance id; off EC2 its host's name."""
    with suppress(Silent):
        if metadata is not None and (name := metadata.get("instance-id")):
            return name
    return os.uname().nodename


def container_facts(url: str) -> dict[str, Any]:
    """ECS's facts on this container: its image, the image's digest, …; empty if it does not answer."""
    address = urlsplit(url)
    if not address.hostname:
        return {}
    connection = HTTPConnection(address.hostname, address.port or 80, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", address.path)
        found = json.loads(connection.getresponse().read(1 << 16))
    except (OSError, HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return found if isinstance(found, dict) else {}


def run(environment: Mapping[str, str], clock: Clock | None = None) -> int:
    """Runs a worker until it is asked to stop; returns 0 then.

    Raises UsageError if environment or config are wrong, QueueGone if the queue does not exist (any more).
    On return every leased job is settled or given back, and no file of it is left on the machine.
    """
    task = _Task(Settings.read(environment), Metadata.of(environment), clock or SystemClock())
    adopt_orphans()
    return task.work()


class _Task:
    """Builds one worker from its parts, and runs it."""

    def __init__(self, settings: Settings, metadata: Metadata | None, clock: Clock) -> None:
        self._settings = settings
        self._metadata = metadata
        self._clock = clock
        self._name = f"{os.uname().nodename}-{os.urandom(3).hex()}"
        self._machine = machine_name(metadata)
        self._paths = RunPaths(settings.app, settings.run)
        self._session = AwsSession(settings.region)
        bucket = S3Store(settings.bucket, session=self._session, retry_seconds=WORKER_RETRY_SECONDS)
        self._store: Store = bucket
        self._gone: QueueGone | None = None
        self._root = settings.scratch / f"ds-{settings.app}"

    def work(self) -> int:
        """Run until told to stop."""
        facts = read_run_file(self._store, self._settings.app, self._settings.run)
        config = facts.config
        access = Access(config, self._session, retry_seconds=WORKER_RETRY_SECONDS, say=complain)
        self._store = access.joined(self._store)
        largest = largest_noted(self._store, self._settings.app, self._settings.run)
        if largest is None:
            self._settings = self._settings._replace(gpus=config.gpus)
        else:
            gpus = len(find_gpus().ids) if largest.gpus else 0
            self._settings = self._settings.sized(largest, gpus, shared=config.gpus_shared)
        self._root = config.scratch_root() or self._root
        self._note_provenance()
        if not config.command and not config.handler:
            raise UsageError(
                "the config has neither COMMAND nor HANDLER: there is nothing to run for a job",
                "give one of them, or use an image with a worker of its own",
            )
        group = self._settings.log_group
        reporting = Reporting(self._session, self._clock, group, self._name, self._machine)
        shared = Gathered(self._store, self._paths.logs, f"{self._name}.log")
        logs = [self._log(number, shared, reporting.lines()) for number in range(self._settings.slots)]
        followed = Followed(self._store, self._paths, self._clock)
        with self._queue(config) as queue, _cleared(self._root):
            queue.counts()  # raises if they do not exist or are forbidden
            pulse = Heartbeat(
                self._store,
                heartbeat_prefix(self._paths) + self._machine,
                self._clock,
                lambda: queue.answered,
            )
            with (
                reporting.of(self._root),
                pulse,
                LogKeeper(logs, followed, self._write_live, 2 * self._settings.settle_seconds) as keeper,
            ):
                self._run(self._worker(config, _task(facts), queue, logs, keeper), queue)
        if self._gone is not None:
            raise self._gone
        return OK

    def _write_live(self, texts: bytes) -> None:
        self._store.write(live_key(self._paths, self._name), texts)

    def _note_provenance(self) -> None:
        """Notes image and versions for the run's report. Jobs run even if that fails."""
        try:
            note_worker(self._store, self._paths, container_facts(self._settings.container_metadata))
        except DsError as error:
            complain(f"{self._name}: {error.what}")

    def _run(self, worker: Worker, queue: WorkersQueue) -> None:
        orders = Orders(lambda stop: self._stop(queue, worker, stop), self._clock)
        queue.on_gone = lambda gone: self._end(gone, orders)
        orders.on_signals(ORDERS)
        self._watch_for_interruptions(orders, queue)
        complain(f"{self._name}: {self._settings.slots} slots for run {self._settings.run}")
        worker.run()
        queue.wait_for_receivers(LAST_SECONDS)

    def _stop(self, queue: WorkersQueue, worker: Worker, stop: Stop) -> None:
        complain(f"{self._name}: stopping: {stop.why}")
        queue.leave()
        worker.stop(stop)

    def _end(self, gone: QueueGone, orders: Orders) -> None:
        self._gone = gone
        orders.give(Stop(0.0, "the queue has gone"))

    def _watch_for_interruptions(self, orders: Orders, queue: WorkersQueue) -> None:
        if self._metadata is None:
            return

        def be_wary(until: float) -> None:
            if (left := until - self._clock.now()) > 0:
                complain(f"{self._name}: this machine may be interrupted soon: taking no new jobs for now")
                queue.pause(min(left, WARY_SECONDS))

        InterruptionWatch(self._metadata, self._clock, orders.give, be_wary, reserve=LAST_SECONDS).start()

    def _queue(self, config: Config) -> WorkersQueue:
        return WorkersQueue(
            self._session,
            queue_urls(self._settings, config),
            run=self._settings.run,
            policy=config.retry_policy,
            term=_term(config),
            clock=self._clock,
            connections=8,
            read_seconds=SILENCE_SECONDS,
        )

    def _log(self, number: int, shared: Gathered, lines: JobLines | None) -> GatheredLog:
        return GatheredLog(self._store, self._paths.logs, f"{self._name}-{number}.log", shared, lines)

    def _worker(
        self, config: Config, task: Task, queue: WorkersQueue, logs: Sequence[GatheredLog], keeper: LogKeeper
    ) -> Worker:
        health = Health(self._store, self._paths.paused + self._name, machine=self._machine)
        return Worker(
            queue,
            [
                self._slot(self._kept(task, config, number), number, log, health)
                for number, log in enumerate(logs)
            ],
            KeptLedger(self._store, f"{self._paths.events}{self._name}.jsonl", keeper),
            Identity(self._name, self._machine),
            config.retry_policy,
            self._clock,
            term=_term(config),
            delays=[number * self._settings.stagger for number in range(len(logs))],
            poll=POLL_SECONDS,
            settle_seconds=self._settings.settle_seconds,
            health=health,
        )

    def _kept(self, task: Task, config: Config, number: int) -> Task:
        """The task with the variables that keep a job to its slot's part of the machine."""
        slots = self._settings.slots * config.tasks_per_machine
        share = Share(number, slots, self._settings.gpus, config.gpus_shared)
        gpus = Lender(share) if share.gpus and find_gpus().ids else None
        return task._replace(environment=variables_here(share, config.worker_environment()), gpus=gpus)

    def _slot(self, task: Task, number: int, log: GatheredLog, health: Health) -> Slot:
        folder = self._root / f"slot-{number}"
        return GatheringSlot(task, self._store, folder, log, self._settings.run, self._name, health)


def _task(facts: RunFile) -> Task:
    """Compiles the run's config. The user's variables and secrets are in our environment already."""
    config = facts.config
    hidden = {name: os.environ[name] for name in config.secrets if name in os.environ}
    recipe = recipe_of(config, Path.cwd(), "", facts.files, facts.environment, facts.shared)
    carried = Carried(facts.files, prefix_of(RunPaths(facts.app, facts.run)), facts.shared)
    return compile_task(config, {}, hidden, recipe=recipe, carried=carried)


@contextmanager
def _cleared(root: Path) -> Iterator[None]:
    """Removes what workers that were killed left, before and after."""
    clear_remains(root)
    root.mkdir(0o700, parents=True, exist_ok=True)
    try:
        yield
    finally:
        clear_remains(root)


def _term(config: Config) -> float:
    """Lease term in seconds: a lost machine's jobs come back within two minutes."""
    return min(config.sqs_message_visibility, LEASE_SECONDS)
