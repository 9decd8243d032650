"""The engine `aws`: the verbs of `engine.Engine` and `engine.Renting` on SQS, S3, ECS and EC2.

It calls the parts of this package in the right order, and decides little itself: `provision` makes resources,
`ec2/requests/launch` asks for machines, `look` reads and explains, `teardown` removes. Called by the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path

from ..background import remove_if_free
from ..budget import Quote
from ..clock import Clock
from ..engine import Cost, Counts, Machines
from ..errors import DsError, NotSignedIn, QueueIncomplete, Unreachable, UsageError
from ..inputs.config import Config
from ..job import LEASE_SECONDS
from ..ledger import RunPaths, job_ids
from ..packing import Capacity
from ..runs.record import RunRecord, read_record, record_path
from ..s3.access import Access
from ..s3.buckets import Stores
from ..s3.session import AwsSession, NoAnswer, QueueGone, aws_errors
from ..s3.store import S3Store
from ..s3.uploads import abort_old_uploads, prefixes_of
from ..system.state import one_run
from ..words import many
from . import earlier
from .checks.limits import check_size
from .ec2.capacity import left_out, lives_key, past_lives
from .ec2.cost import USD_PER_ATTEMPT, RunCost
from .ec2.fleets import FleetKind
from .ec2.prices import Pool, ask, ask_on_demand, price_now
from .ec2.requests.launch import Asked, Launch
from .ec2.requests.ownfleet import on_demand_of
from .ec2.requests.region import Region
from .ec2.shrinking import idle, instances, instead_of_spot, spread
from .ecs.current_state import find_one
from .ecs.resources import Kind
from .iam.roles import Where
from .look import Facts, Looker, machines_of, why_idle
from .message import job_room
from .names import bucket_of, instance_log_group
from .provision import Provision
from .shape import capacity_of, task_size
from .sqs.queue import SqsQueue
from .sqs.queues import QueueNames, find_queues
from .teardown import Teardown
from .watch.alarms import guard_machines
from .watch.dashboard import put_dashboard
from .watch.schedule import GRACE_SECONDS, Order, check_function, memory_key, put_schedule


def make(folder: Path, config: Config, clock: Clock, *, say: Callable[[str], None]) -> AwsEngine:
    """Makes the engine of a project folder. Nothing is started or asked for yet."""
    return AwsEngine(folder, config, clock, say=say)


class AwsEngine:
    """Implements engine.Engine and engine.Renting.

    The first verb makes the first call to AWS; every verb raises DsError. `say` gets a line for each existing
    resource that is changed.
    """

    name = "aws"
    poll_interval = 60.0
    final_poll_interval = 60.0  # SQS's counts may be a minute behind
    job_bytes: int | None = job_room()

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
        self._provision = Provision(self.session, config, self.region, clock, say)
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

    # -- Queue and run

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

    # -- Setting up

    def plan(self, run: str) -> Sequence[str]:
        """The steps of `setup`."""
        seen = self._provision.see(run)
        return [*self._purge_plan(run), *(step.text for step in self._provision.steps(run, seen))]

    def _purge_plan(self, run: str) -> Sequence[str]:
        old = self.current_run()
        return [f"empty queue {self.names.jobs}: of run {old}"] if old not in (None, run) else []

    def setup(self, run: str, on_created: Callable[[str], None]) -> None:
        """Makes what is missing, and brings the rest in line. Machines and jobs of an earlier run end."""
        seen = self._provision.see(run)  # raises before anything is changed
        if self._purge_plan(run):
            fleets = self._looker.fleets
            fleets.cancel([each for each in fleets.of_app(self._config.app_name) if each.alive])
            fleets.terminate(each.id for each in fleets.machines(self._config.app_name) if each.running)
            self.queue().purge()  # while it still has the old run's tag: after a failure it is purged again
        self._provision.ensure(run, on_created, seen)
        self._forget()
        self._run, self.names = run, seen.names

    # -- Machines

    def check_fleet(self, fleet_file: Path) -> None:
        """Reads the file, and asks EC2 about its types of machine."""
        self._provision.check_fits(self._launch().read(fleet_file).shape)

    def quote(self, fleet_file: Path | None) -> Quote:
        """Read what to ask for; of the prices now, a bid cuts off those above it."""
        asked, config = self._launch().read(fleet_file), self._config
        kinds = asked.types or config.machine_type
        bid, slots = config.machine_price, task_size(config, asked.shape).slots * config.tasks_per_machine
        on_demand = bool(config.on_demand_percent or config.on_demand_after) and self._has_prices
        prices: dict[Pool, list[tuple[float, float]]] = {}
        try:
            prices |= ask(self.session, kinds, self._clock.now())
            fixed = ask_on_demand(self.session, kinds) if on_demand else {}
        except DsError:  # an account without that right can run all the same
            fixed = {}
        now = [price for pool in prices if (price := price_now(prices, pool)) is not None]
        now = now if bid is None else [min(price, bid) for price in now] or [bid]
        now = [*now, *(each[-1][1] for each in fixed.values())]
        known = now and (fixed or not on_demand)
        return Quote(config.cluster_machines, slots, (min(now), max(now)) if known else None)

    @property
    def _has_prices(self) -> bool:
        """Whether prices are asked for: an emulator's are none, where the config bids one."""
        return not (self._emulated and self._config.machine_price is not None)

    def _launch(self, machines: int | None = None) -> Launch:
        wanted = machines or self._config.cluster_machines
        config = self._config._replace(cluster_machines=wanted)
        return Launch(config, self.region, self._looker.fleets, self._clock)

    def start(
        self, run: str, fleet_file: Path | None, on_created: Callable[[str], None], most: int | None = None
    ) -> str:
        """Makes what machines need, then asks for them. A second start adds a fleet.

        A fleet that an interrupted start asked for but could not record is used instead of a new one.
        """
        more = min(self._config.cluster_machines, most or self._config.cluster_machines)
        launch = self._launch(more)
        asked = launch.read(fleet_file)  # raises before anything is changed
        if self._config.auto_monitor:
            check_function(self.session)
        known = self._fleet_ids(run)
        alive = [fleet for fleet in self._looker.fleets.of_app(self._config.app_name) if fleet.alive]
        check_size(sum(each.target for each in alive if each.run == run) + more, self.tasks_per_machine)
        forgotten = [fleet for fleet in alive if fleet.run == run and fleet.id not in known]
        seen = self._provision.see(run, asked.shape)
        self._provision.ensure(run, on_created, seen)
        self.names = seen.names
        if self._config.auto_monitor:  # before the machines, which cost money
            self._watch(run, on_created)
        mine = [fleet for fleet in alive if fleet.run == run]
        machines = sum(fleet.target for fleet in mine)
        if forgotten:
            self._want_tasks(machines * self.tasks_per_machine)
            fleet = forgotten[-1].id
        else:
            self._want_tasks((machines + more) * self.tasks_per_machine)
            with self._refused(machines):
                fleet = launch.ask(asked, run, len(known), on_created, self._types(more, asked))
        self._show(run, [*known, fleet])
        return fleet

    def _types(self, machines: int, asked: Asked) -> Sequence[str]:
        """Returns the types of machine to ask for, without those that AWS keeps taking back; notes it."""
        config, types = self._config, asked.types or self._config.machine_type
        found = {} if asked.file else left_out(past_lives(self.store, config.app_name), types)
        for kind, why in found.items():
            self._say(f"{kind} is left out: {why} in the latest runs")
        types = [kind for kind in types if kind not in found]
        share = on_demand_of(config._replace(cluster_machines=machines))
        without = f"; without {', '.join(found)}" if found else ""
        on_demand = f", {share:,} of them on demand" if share else ""
        self._tried.append(f"{many(machines, 'machine')}{on_demand}: {', '.join(types)}{without}")
        return types

    def tried(self) -> Sequence[str]:
        """Returns what was asked for since the last call."""
        tried, self._tried = self._tried, []
        return tried

    @contextmanager
    def _refused(self, machines: int) -> Iterator[None]:
        """Within: if a fleet is refused, sets the service to the tasks that the other fleets can run.

        If AWS could not be reached, the fleet may exist: the next start finds it.
        """
        try:
            yield
        except Unreachable:
            raise
        except DsError:
            with suppress(DsError):
                self._want_tasks(machines * self.tasks_per_machine)
            raise

    def _watch(self, run: str, on_created: Callable[[str], None]) -> None:
        """Schedules the auto-monitor until the machines' time is over."""
        config = self._config
        until = self._clock.now() + config.max_run_hours * 3600 + GRACE_SECONDS
        self.store.delete([memory_key(RunPaths(config.app_name, run))])  # of looks before this start
        order = Order(config.app_name, run, config.aws_region, config.aws_bucket)
        if put_schedule(self.session, Where(self.region.account.number, config.aws_region), order, until):
            on_created(f"schedule {config.app_name}")

    def _show(self, run: str, fleets: Sequence[str]) -> None:
        """Makes the dashboard if the config wants one. The fleet stands even if that fails."""
        if not self._config.create_dashboard:
            return
        try:
            put_dashboard(self.session, self._config, fleets, run, self.names)
        except DsError as error:
            raise DsError(
                f"machines were asked for ({fleets[-1]}), but {error.what}",
                "ds start again goes on with that fleet; or CREATE_DASHBOARD = False",
            ) from error

    def _want_tasks(self, count: int) -> None:
        name = self._config.app_name + "Service"
        with aws_errors(f"telling {name} how many tasks to run"):
            self.session.client("ecs").update_service(
                cluster=self._config.ecs_cluster, service=name, desiredCount=count
            )

    def cancel(self, fleet: str) -> None:
        """Cancels a fleet, and sets the service to the tasks that the other fleets can run."""
        run = self.current_run() or ""
        self._looker.fleets.cancel(self._looker.fleets.recorded([fleet], self._config.app_name))
        facts = self._look(run)
        self._want_tasks(facts.target * self.tasks_per_machine)

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
            key = lives_key(self._config.app_name, run)
            bid = self._config.machine_price
            disk = self._config.ebs_vol_size
            self._cost = RunCost(self.session, self.store, key, bid, disk, ask=self._has_prices)
        return self._cost

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

    def shrink(self, target: int, spare: int, busy: Collection[str]) -> Sequence[str]:
        """Lowers the fleets' targets first, so that no terminated machine is replaced."""
        run = self.current_run() or ""
        facts = self._facts or self._look(run)
        fleets = [fleet for fleet in facts.fleets if fleet.alive]
        if spare:
            busy = self._looker.place(busy)
        ended = idle(facts.machines, busy)[:spare]
        spot = {machine.id: machine.spot for machine in facts.machines}
        fixed = sum(not spot[each] for each in ended)
        for fleet, wanted in spread(fleets, target):
            less = min(fixed, fleet.on_demand)
            self._looker.fleets.set_target(fleet, wanted, fleet.on_demand - less)
            fixed -= less
        self._looker.fleets.terminate(ended)
        self._looker.forget()
        return ended

    def grow(self, target: int) -> None:
        """Raises tasks and the newest fleet that stands."""
        facts = self._look(self.current_run() or "")
        fleets = [fleet for fleet in facts.fleets if fleet.alive]
        missing = target - sum(fleet.target for fleet in fleets)
        if fleets and missing > 0:
            self._want_tasks(target * self.tasks_per_machine)
            wanted = fleets[-1].target + missing
            share = on_demand_of(self._config._replace(cluster_machines=wanted))
            self._looker.fleets.set_target(fleets[-1], wanted, max(share, fleets[-1].on_demand))
            self._looker.forget()

    def exclude(self, hosts: Collection[str]) -> None:
        """Terminates the machines: the fleet replaces them."""
        ids = instances(self._looker.place(hosts))
        self._looker.fleets.terminate(ids)
        self._looker.forget()

    def guard(self) -> Sequence[str]:
        """Gives an alarm to each machine whose worker is silent, and removes it when its heartbeat is back.

        Workers of the reference send no heartbeat: their machines are left alone.
        """
        run = self.current_run()
        if run is None:
            return []
        facts = self._facts or self._look(run)
        if instead := self._fall_back(facts):
            return instead
        if self._config.image_starts_worker or not facts.running:
            return []
        if facts.pages > 1:
            return []  # this look has made its calls; alarms that stand are removed by a later one
        bucket, now = self._config.aws_bucket, self._clock.now()
        silent = guard_machines(self.session, self._config, run, bucket, facts.machines, now)
        return [f"{machine}: its worker is silent; an alarm ends it if it does nothing" for machine in silent]

    def _fall_back(self, facts: Facts) -> Sequence[str]:
        """Asks for missing machines on demand if ON_DEMAND_AFTER is over. Returns what was done, in words."""
        after = self._config.on_demand_after
        fleets = [each for each in facts.fleets if each.alive and each.id.startswith(FleetKind.EC2)]
        if not after or not facts.tasks("desiredCount"):
            return []
        found = instead_of_spot(fleets, facts.machines, self._clock.now(), after * 60)
        if found is None:
            return []
        fleet, wanted = found
        self._looker.fleets.set_target(fleet, fleet.target, wanted)
        machines = f"{many(wanted, 'machine')} of {fleet.target:,} asked for on demand"
        self._tried.append(f"no new machine for {after:g} minutes: {machines}")
        return self._tried[-1:]

    def exclusive(self) -> AbstractContextManager[None]:
        """Locks the app for one `ds run` on this computer. Raises DsError while a fleet exists."""
        return one_run(self._lock, self._config.app_name, self._has_a_fleet, lambda: self._run)

    @property
    def _lock(self) -> Path:
        return self._project / ".ds" / f"{self._config.app_name}-aws.lock"

    def _has_a_fleet(self) -> bool:
        run = self.current_run()
        return run is not None and self._look(run).target > 0

    # -- Ending

    def stop(self, *, now: bool = False) -> None:
        """Sets tasks and machines to none.

        ECS stops the tasks: a worker has two minutes to finish jobs, and gives the rest back. With `now` the
        machines are terminated at once; without it the caller ends them when no task is left.
        """
        run = self.current_run()
        if run is None:
            return
        facts = self._look(run)
        if facts.service is not None and facts.tasks("desiredCount"):
            self._want_tasks(0)
        alive = [fleet for fleet in facts.fleets if fleet.alive]
        if now:
            self._looker.fleets.cancel(alive)
            machines = self._looker.fleets.machines(self._config.app_name, run)
            self._looker.fleets.terminate(machine.id for machine in machines if machine.running)
            self._looker.forget()
            return
        for fleet in alive:
            if fleet.target:
                self._looker.fleets.set_target(fleet, 0)

    def end(self) -> Sequence[str]:
        """Removes what the run made. The queues stay if jobs are dead: `ds retry` needs them.

        If the dead jobs cannot be counted, the queues stay and are named as left; machines go in any case.
        """
        told: list[str] = []
        try:
            keep = self.current_run() is not None and self.queue().counts().dead > 0
        except QueueGone:  # another process ends the run too
            keep = False
        except DsError as error:
            keep, told = True, [f"queue {self.names.jobs}, as it may have dead jobs: {error.what}"]
        left = self._teardown().remove(keep_queues=keep, told=told)
        if not keep:
            self._forget()
        return left

    def remove(self) -> Sequence[str]:
        """Removes what every run of the app made, under names of earlier configs too."""
        named, told = earlier.in_record(self._config, self._any_record()), list[str]()
        try:
            named = earlier.joined(named, earlier.by_tag(self.session, self._config))
        except (NoAnswer, NotSignedIn):
            raise
        except DsError as error:
            told = [f"what earlier configs named otherwise, if anything: {error.what}"]
        named, holding = earlier.without_jobs(self.session, self._clock, named)
        told += holding
        for line in named.lines:
            self._say(f"also removes {line}")
        teardowns = [self._teardown(cluster) for cluster in named.clusters]
        left = [line for each in teardowns for line in each.remove(keep_queues=True)]
        left += self._teardown(queues=named.queues).remove(told=told)
        self._end_uploads()
        self._forget()
        remove_if_free(self._lock)
        return list(dict.fromkeys(left))

    def _end_uploads(self) -> None:
        bucket, prefixes = self._config.aws_bucket, prefixes_of(self._config)
        try:
            ended = abort_old_uploads(self.session, bucket, prefixes, self._clock.now()) if bucket else 0
        except DsError as error:
            if "NoSuchBucket" not in error.what:
                self._say(f"note: unfinished uploads, if any, stay: {error.what}")
        else:
            if ended:
                self._say(f"ended {many(ended, 'unfinished upload')} of killed processes in s3://{bucket}")

    def _teardown(self, cluster: str | None = None, queues: Sequence[str] = ()) -> Teardown:
        config = self._config._replace(ecs_cluster=cluster or self._config.ecs_cluster)
        return Teardown(config, self.session, self._looker.fleets, self._clock, self._any_record(), queues)

    def _forget(self) -> None:
        self._run, self._facts, self._cost = None, None, None
        self._looker.forget()
        if self._queue is not None:
            self._queue.close()
            self._queue = None
