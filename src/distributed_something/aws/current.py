"""Reads what the run under way has: its queue, record, machines and cost. It changes nothing.

`look` says what fleets and tasks mean. `engine.py` adds the verbs that act.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path

from ..clock import Clock
from ..engine import Cost, Counts, Machines
from ..errors import DsError, QueueIncomplete, UsageError
from ..inputs.config import Config
from ..job import LEASE_SECONDS
from ..ledger import RunPaths, job_ids
from ..packing import Capacity
from ..runs.record import RunRecord, read_record, record_path
from ..s3.access import Access
from ..s3.buckets import Stores
from ..s3.session import AwsSession, QueueGone, aws_errors
from ..s3.store import S3Store
from ..system.state import one_run
from .ec2.capacity import lives_key
from .ec2.cost import USD_PER_ATTEMPT, RunCost
from .ec2.requests.region import Region
from .ecs.current_state import find_one
from .ecs.resources import Kind
from .look import Facts, Looker, machines_of, why_idle
from .names import bucket_of, instance_log_group
from .shape import capacity_of, task_size
from .sqs.queue import SqsQueue
from .sqs.queues import QueueNames, find_queues


class Current:
    """What the engine knows of the app's run. The first verb makes the first call to AWS; all raise DsError.

    `say` gets a line for each existing resource that is changed.
    """

    def __init__(
        self,
        project: Path,
        config: Config,
        clock: Clock,
        endpoint: str | None = None,
        *,
        session: AwsSession | None = None,
        store: type[S3Store] = S3Store,
        task_logs: str = "",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._project = project
        self._config = config
        self._clock = clock
        self._store_class = store
        self._task_logs = task_logs
        self.tasks_per_machine = config.tasks_per_machine
        self.session = session or AwsSession(config.aws_region, config.aws_profile or None, endpoint)
        self.region = Region(self.session, config)
        self.names = QueueNames.of(config)
        self._say = say
        self._looker = Looker(self.session, config.app_name, config.ecs_cluster)
        self._run: str | None = None
        self._queue: SqsQueue | None = None
        self._facts: Facts | None = None
        self._cost: RunCost | None = None
        self._emulated = endpoint is not None
        self._tried: list[str] = []

    @cached_property
    def store(self) -> Stores:
        """The bucket, and others. Raises UsageError if the config names none."""
        bucket_of(self._config)
        return Access(self._config, self.session, kind=self._store_class, say=self._say).joined()

    def current_run(self) -> str | None:
        """The run in the tags of the app's queue. Asks AWS until there is one."""
        if self._run is None:
            with aws_errors(f"looking for the queue {self.names.jobs}"):
                found = find_one(self.session, Kind.QUEUE, self.names.jobs, self._config.ecs_cluster)
            if found is not None and found.tags.get("ds:app") == self._config.app_name:
                self._run = found.tags.get("ds:run")
                self.names = self.names.used_by(found.settings)
        return self._run

    def asked_run(self) -> str | None:
        """The current run, by a new call to AWS."""
        if self._queue is None:
            self._run = None
            return self.current_run()
        try:
            with aws_errors(f"looking for the queue {self.names.jobs}"):
                answer = self.session.client("sqs").list_queue_tags(QueueUrl=self._queue.urls.jobs)
        except QueueGone:
            return None
        run: str | None = answer.get("Tags", {}).get("ds:run")
        return run

    def queue(self) -> SqsQueue:
        """The queue of the current run."""
        run = self.current_run()
        if run is None:
            raise DsError(f"{self._config.app_name} has no queue: it is not set up", "ds setup")
        if self._queue is None:
            urls = find_queues(self.session, self.names)
            if urls is None:
                raise QueueIncomplete(f"the queues of {self._config.app_name} are not all there", "ds setup")
            self._queue = SqsQueue(
                self.session,
                urls,
                run=run,
                policy=self._config.retry_policy,
                term=LEASE_SECONDS,
                clock=self._clock,
                known=lambda: job_ids(self.store, RunPaths(self._config.app_name, run)),
            )
        return self._queue

    def _any_record(self) -> RunRecord | None:
        """The run record; None: missing or damaged. Tags find what is in it."""
        with suppress(UsageError):
            return read_record(record_path(self._project, self._config.app_name))
        return None

    def _record(self, run: str) -> RunRecord | None:
        record = self._any_record()
        return record if record is not None and record.run == run else None

    def _fleet_ids(self, run: str) -> tuple[str, ...]:
        """The run's fleets by its record; without a record, by the run's tag."""
        record = self._record(run)
        if record is not None:
            return record.fleets
        fleets = self._looker.fleets.of_app(self._config.app_name)
        return tuple(fleet.id for fleet in fleets if fleet.run == run)

    def machines(self) -> Machines:
        """Reads machines and tasks with a few calls."""
        run = self.current_run()
        if run is None:
            self._facts = Facts()
            return Machines(replaces_lost=True)
        facts = self._look(run)
        tasks = self.tasks_per_machine
        now = self._clock.now()
        machines = machines_of(facts, slots=self._slots() * tasks, tasks=tasks, now=now)
        cost = self._cost_of(run)
        usd = cost.usd(facts.machines, now)
        known = None if usd is None else Cost(usd, cost.per_hour, USD_PER_ATTEMPT)
        return machines._replace(cost=known, hours=cost.hours)

    def _cost_of(self, run: str) -> RunCost:
        if self._cost is None:
            key, config = lives_key(self._config.app_name, run), self._config
            bid, disk = config.machine_price, config.ebs_vol_size
            self._cost = RunCost(self.session, self.store, key, bid, disk, ask=self._has_prices)
        return self._cost

    @property
    def _has_prices(self) -> bool:
        """Whether prices are asked for: an emulator's are none, where the config bids one."""
        return not (self._emulated and self._config.machine_price is not None)

    def _look(self, run: str) -> Facts:
        self._facts = self._looker.look(run, self._fleet_ids(run), self._clock.now())
        return self._facts

    def capacity(self) -> Capacity:
        """Returns what a task has for jobs."""
        return capacity_of(self._config, self.region.shape(self._config.machine_type))

    def _slots(self) -> int:
        if self._config.docker_cores:
            return self._config.docker_cores
        return task_size(self._config, self.region.shape(self._config.machine_type)).slots

    def explain(self, counts: Counts) -> str | None:
        """Explains from the latest look why no job runs although some wait."""
        if self._facts is None:
            self.machines()
        facts = self._facts or Facts()
        if facts.running and facts.service is None and (elsewhere := self._other_cluster()):
            where = f"the run was set up in the cluster {elsewhere!r}"
            fix = f"write ECS_CLUSTER = {elsewhere!r}, or ds cleanup and begin again"
            return f"no task is in the cluster {self._config.ecs_cluster!r}: {where}; {fix}"
        term = min(LEASE_SECONDS, self._config.sqs_message_visibility)
        logs = self._task_logs or f"aws logs tail {instance_log_group(self._config)}"
        return why_idle(facts, counts, visibility=term, now=self._clock.now(), task_logs=logs)

    def _other_cluster(self) -> str | None:
        """The cluster of the run; None: the one that the config names."""
        record = self._record(self.current_run() or "")
        return record.cluster if record and record.cluster != self._config.ecs_cluster else None

    def exclusive(self) -> AbstractContextManager[None]:
        """Locks the app for one `ds run` on this computer. Raises DsError while a fleet exists."""
        return one_run(self._lock, self._config.app_name, self._has_a_fleet, lambda: self._run)

    @property
    def _lock(self) -> Path:
        return self._project / ".ds" / f"{self._config.app_name}-aws.lock"

    def _has_a_fleet(self) -> bool:
        run = self.current_run()
        return run is not None and self._look(run).target > 0

    def _forget(self) -> None:
        self._run, self._facts, self._cost = None, None, None
        self._looker.forget()
        if self._queue is not None:
            self._queue.close()
            self._queue = None
