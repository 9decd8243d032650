"""The engine `aws`: SQS, S3, ECS and EC2. What to do is decided elsewhere; here it is done, in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ..clock import Clock
from ..engine import Cost, Counts, Machines
from ..errors import DsError, Unreachable, UsageError
from ..inputs.config import Config
from ..job import LEASE_SECONDS, RetryPolicy
from ..ledger import RunPaths, job_ids
from ..runs.record import RunRecord, read_record, record_path
from ..system.state import one_run
from .ec2.cost import Bill
from .ec2.launch import Launch
from .ec2.region import Region
from .ec2.shrinking import idle, spread
from .ecs.apply import Applier
from .ecs.current_state import find, find_one
from .ecs.desired import desired
from .ecs.ownership import check_queues, check_service, may_serve_others
from .ecs.resources import Action, Kind, Resource, Step, compare
from .ecs.worker_image import carried_worker
from .iam.roles import Where
from .look import Facts, Looker, machines_of, why_idle
from .message import job_room
from .names import instance_log_group
from .s3.store import S3Store
from .session import AwsSession, QueueGone, aws_errors
from .shape import MachineShape, misfit, task_size
from .sqs.queue import SqsQueue
from .sqs.queues import QueueNames, dead_queue_of, find_queues
from .teardown import Teardown
from .watch.alarms import delete_alarms, find_alarms, old_enough, plan, put_alarms
from .watch.dashboard import put_dashboard
from .watch.heartbeat import heard
from .watch.schedule import GRACE_SECONDS, Order, check_function, memory_key, put_schedule


class _Seen(NamedTuple):
    """What is there before a change; the machines are as the types have it that will be asked for."""

    shape: MachineShape
    queues: Sequence[Resource]
    others: Sequence[Resource] = ()


def make(folder: Path, config: Config, clock: Clock, *, say: Callable[[str], None]) -> AwsEngine:
    """Makes the engine of a project folder. Nothing is started or asked for yet."""
    return AwsEngine(folder, config, clock, say=say)


class AwsEngine:
    """Implements engine.Engine and engine.Renting.

    Nothing is asked of AWS before the first verb; every verb raises DsError. `say` is told what is changed of
    that which was there already, a line each.
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
        self._given = self._config = config
        self._clock = clock
        self._store_class = store
        self._task_logs = task_logs
        self._say = say
        self.tasks_per_machine = config.tasks_per_machine
        self.session = session or AwsSession(config.aws_region, config.aws_profile or None, endpoint)
        self.region = Region(self.session, config)
        self._looker = Looker(self.session, config.app_name, config.ecs_cluster)
        self._run: str | None = None
        self._queue: SqsQueue | None = None
        self._facts: Facts | None = None
        self._bill: Bill | None = None
        self._emulated = endpoint is not None

    @cached_property
    def store(self) -> S3Store:
        """The bucket. Raises UsageError where the config names none."""
        if not self._config.aws_bucket:
            what = "AWS_BUCKET: missing: nowhere to keep inputs, outputs, logs and ledger"
            raise UsageError(what, "AWS_BUCKET = 'your-bucket' in the config")
        return self._store_class(self._config.aws_bucket, session=self.session)

    # -- Queue and run

    @property
    def names(self) -> QueueNames:
        """The queues, as far as is known: see `_use_own_dead`."""
        return QueueNames(self._config.sqs_queue_name, self._config.sqs_dead_letter_queue)

    def _use_own_dead(self) -> None:
        """The config names a queue of dead jobs that serves other apps too: ours is another one."""
        self._config = self._config._replace(sqs_dead_letter_queue=self.names.own_dead)

    def current_run(self) -> str | None:
        """The run in the tags of the app's queue; asked until there is one."""
        if self._run is None:
            with aws_errors(f"looking for the queue {self.names.jobs}"):
                found = find_one(self.session, Kind.QUEUE, self.names.jobs, self._config.ecs_cluster)
            if found is not None and found.tags.get("ds:app") == self._config.app_name:
                self._run = found.tags.get("ds:run")
                if dead_queue_of(found.settings) == self.names.own_dead:
                    self._use_own_dead()
        return self._run

    def asked_run(self) -> str | None:
        """The current run, asked anew; one call where the queue's address is known."""
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
                raise DsError(f"the queues of {self._config.app_name} are not all there", "ds setup")
            self._queue = SqsQueue(
                self.session,
                urls,
                run=run,
                policy=RetryPolicy(self._config.job_retries),
                term=LEASE_SECONDS,
                clock=self._clock,
                known=lambda: job_ids(self.store, RunPaths(self._config.app_name, run)),
            )
        return self._queue

    # -- Setting up

    def plan(self, run: str) -> Sequence[str]:
        """The steps of `setup`."""
        return [*self._purge_plan(run), *(step.text for step in self._steps(run, self._see(run)))]

    def _purge_plan(self, run: str) -> Sequence[str]:
        old = self.current_run()
        return [f"empty queue {self.names.jobs}: of run {old}"] if old not in (None, run) else []

    def setup(self, run: str, on_created: Callable[[str], None]) -> None:
        """Make what is missing, bring the rest in line. Machines and jobs of an earlier run are ended."""
        seen = self._see(run)  # what is wrong is said before anything is changed
        if self._purge_plan(run):
            fleets = self._looker.fleets
            fleets.cancel([each for each in fleets.of_app(self._config.app_name) if each.alive])
            fleets.terminate(each.id for each in fleets.machines(self._config.app_name) if each.running)
            self.queue().purge()  # while it still has the old run's tag: after a failure it is purged again
        self._ensure(run, on_created, seen)
        self._forget()
        self._run = run

    def _ensure(self, run: str, on_created: Callable[[str], None], seen: _Seen) -> None:
        """Apply the plan. The queue comes first: its address, which tasks are told, is known then."""
        steps = self._steps(run, seen)
        new = [step for step in steps if step.action is Action.CREATE and step.resource.kind is Kind.QUEUE]
        if new:
            self._apply(new, on_created)
            steps = self._steps(run, seen._replace(queues=self._queues()))
        self._apply(steps, on_created)

    def _apply(self, steps: Sequence[Step], on_created: Callable[[str], None]) -> None:
        applier = Applier(self.session, self._config.ecs_cluster, self._clock)
        for step in steps:
            applier.apply(step)
            if step.action is Action.CREATE:
                on_created(f"{step.resource.kind} {step.resource.name}")
            elif step.action is Action.UPDATE:
                self._say(f"changed {step.subject}")

    def _see(self, run: str, shape: MachineShape | None = None) -> _Seen:
        """Read what is there, once. Raises DsError where config or account cannot have what is wanted."""
        self.region.check_bucket(self.store.bucket)
        shape = shape or self.region.shape(self._config.machine_type)
        self._check_fits(shape)
        self.region.check_roles()
        self._config, app = self._given, self._given.app_name
        queues = self._queues()
        if any(each.name == self.names.dead and may_serve_others(each, app) for each in queues):
            self._use_own_dead()
            queues = self._queues()
        check_queues(queues, app)
        seen = _Seen(shape, queues)
        wanted = (each for each in self._wanted(run, seen) if each.kind is not Kind.QUEUE)
        others = [*find(self.session, wanted, self._config.ecs_cluster)]
        check_service(others, app, self._config.ecs_cluster)
        return seen._replace(others=others)

    def _check_fits(self, shape: MachineShape) -> None:
        if why := misfit(self._config, shape):
            raise UsageError(f"no task fits on a machine: {why}", "lower it, or name a larger MACHINE_TYPE")

    def _steps(self, run: str, seen: _Seen) -> list[Step]:
        """The steps from what was seen to what there should be."""
        return compare(self._wanted(run, seen), [*seen.queues, *seen.others])

    def _wanted(self, run: str, seen: _Seen) -> Sequence[Resource]:
        """What there should be; tasks are told the queue's address as AWS has it, where it is there."""
        url = next((each.settings["QueueUrl"] for each in seen.queues if each.name == self.names.jobs), None)
        account, carried = self.region.account, carried_worker(self._config)
        return desired(self._config, account, seen.shape, run=run, queue_url=url, carried=carried)

    def _queues(self) -> list[Resource]:
        """Those of the app's queues that are there."""
        names = (self.names.dead, self.names.jobs, self.names.carried)
        wanted = (Resource(Kind.QUEUE, name) for name in names)
        return list(find(self.session, wanted, self._config.ecs_cluster))

    # -- Machines

    def check_fleet(self, fleet_file: Path) -> None:
        """Read it, and ask EC2 about the types of machine in it."""
        self._check_fits(self._launch().read(fleet_file).shape)

    def _launch(self) -> Launch:
        return Launch(self._config, self.region, self._looker.fleets, self._clock)

    def start(self, run: str, fleet_file: Path | None, on_created: Callable[[str], None]) -> str:
        """Ask for machines, after everything that they need has been made; a second start adds a fleet.

        A fleet that an interrupted start asked for, and could not write down, is taken for this one.
        """
        launch = self._launch()
        asked = launch.read(fleet_file)  # a bad file is found before anything is changed
        if self._config.auto_monitor:
            check_function(self.session)
        known = self._fleet_ids(run)
        alive = [fleet for fleet in self._looker.fleets.of_app(self._config.app_name) if fleet.alive]
        forgotten = [fleet for fleet in alive if fleet.run == run and fleet.id not in known]
        self._ensure(run, on_created, self._see(run, asked.shape))
        if self._config.auto_monitor:  # before the machines, which cost money
            self._watch(run, on_created)
        mine = [fleet for fleet in alive if fleet.run == run]
        machines = sum(fleet.target for fleet in mine)
        if forgotten:
            self._want_tasks(machines * self.tasks_per_machine)
            fleet = forgotten[-1].id
        else:
            self._want_tasks((machines + self._config.cluster_machines) * self.tasks_per_machine)
            with self._refused(machines):
                fleet = launch.ask(asked, run, len(known), on_created)
        self._show(run, [*known, fleet])
        return fleet

    @contextmanager
    def _refused(self, machines: int) -> Iterator[None]:
        """Within: where a fleet is refused, the service wants what the machines of the others can run.

        Where AWS could not be reached the fleet may have been made: the next start finds it.
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
        """Have the auto-monitor look at the run from now on, until its machines have had their time."""
        config = self._config
        until = self._clock.now() + config.max_run_hours * 3600 + GRACE_SECONDS
        self.store.delete([memory_key(RunPaths(config.app_name, run))])  # of looks before this start
        order = Order(config.app_name, run, config.aws_region, self.store.bucket)
        if put_schedule(self.session, Where(self.region.account.number, config.aws_region), order, until):
            on_created(f"schedule {config.app_name}")

    def _show(self, run: str, fleets: Sequence[str]) -> None:
        """Make the dashboard, where the config wants one. The fleet stands whether that succeeds or not."""
        if not self._config.create_dashboard:
            return
        try:
            put_dashboard(self.session, self._config, fleets, run)
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
        """End a fleet, and let the service want what the others can run."""
        run = self.current_run() or ""
        self._looker.fleets.cancel(self._looker.fleets.recorded([fleet], self._config.app_name))
        facts = self._look(run)
        self._want_tasks(facts.target * self.tasks_per_machine)

    def _any_record(self) -> RunRecord | None:
        """The run record; None where there is none, or a damaged one: tags find what is in it."""
        with suppress(UsageError):
            return read_record(record_path(self._project, self._config.app_name))
        return None

    def _record(self, run: str) -> RunRecord | None:
        record = self._any_record()
        return record if record is not None and record.run == run else None

    def _fleet_ids(self, run: str) -> tuple[str, ...]:
        """The run's fleets, as the record has them; without a record, those with the run's tag."""
        record = self._record(run)
        if record is not None:
            return record.fleets
        fleets = self._looker.fleets.of_app(self._config.app_name)
        return tuple(fleet.id for fleet in fleets if fleet.run == run)

    def machines(self) -> Machines:
        """How machines and tasks are: one look, with a few calls."""
        run = self.current_run()
        if run is None:
            self._facts = Facts()
            return Machines(replaces_lost=True)
        facts = self._look(run)
        tasks = self.tasks_per_machine
        now = self._clock.now()
        machines = machines_of(facts, slots=self._slots() * tasks, tasks=tasks, now=now)
        bill = self._bill_of(run)
        usd = bill.cost(facts.machines, now)
        return machines._replace(cost=None if usd is None else Cost(usd, bill.per_hour))

    def _bill_of(self, run: str) -> Bill:
        if self._bill is None:
            key = RunPaths(self._config.app_name, run).root + "machines.json"
            bid = self._config.machine_price
            real = not (self._emulated and bid is not None)  # an emulator's prices are no prices
            self._bill = Bill(self.session, self.store, key, bid, ask=real)
        return self._bill

    def _look(self, run: str) -> Facts:
        self._facts = self._looker.look(run, self._fleet_ids(run), self._clock.now())
        return self._facts

    def _slots(self) -> int:
        if self._config.docker_cores:
            return self._config.docker_cores
        return task_size(self._config, self.region.shape(self._config.machine_type)).slots

    def explain(self, counts: Counts) -> str | None:
        """Why no job runs although some wait, from the latest look."""
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
        """The cluster that the run was set up in, where the config names another one by now."""
        record = self._record(self.current_run() or "")
        return record.cluster if record and record.cluster != self._config.ecs_cluster else None

    def shrink(self, target: int, spare: int, busy: Collection[str]) -> Sequence[str]:
        """Lower the fleets' targets first, so that what is then ended is not replaced."""
        run = self.current_run() or ""
        facts = self._facts or self._look(run)
        fleets = [fleet for fleet in facts.fleets if fleet.alive]
        for fleet, wanted in spread(fleets, target):
            self._looker.fleets.set_target(fleet, wanted)
        if spare:
            busy = self._looker.place(busy)
        ended = idle(facts.machines, busy)[:spare]
        self._looker.fleets.terminate(ended)
        self._looker.forget()
        return ended

    def guard(self) -> Sequence[str]:
        """Give machines whose worker is silent an alarm that ends them, and take it from those heard again.

        A worker of the reference's gives no signs of life: its machines are left alone.
        """
        run = self.current_run()
        if run is None or self._config.image_starts_worker:
            return []
        facts, now = self._facts or self._look(run), self._clock.now()
        began = old_enough(facts.machines, now)
        if not began or facts.pages > 1:
            return []  # none can be silent yet, or this look has made its calls; alarms that stand go later
        app = self._config.app_name
        signs = heard(self.session, self.store.bucket, RunPaths(app, run))
        wanted = plan(app, began, signs, find_alarms(self.session, app), now)
        delete_alarms(self.session, wanted.delete)
        put_alarms(self.session, self._config, run, wanted.put)
        return [
            f"{machine}: its worker is silent; an alarm ends it if it does nothing" for machine in wanted.put
        ]

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the app for one `ds run` at a time on this computer, and none while a fleet is at work."""
        lock = self._project / ".ds" / f"{self._config.app_name}-aws.lock"
        return one_run(lock, self._config.app_name, self._has_a_fleet, lambda: self._run)

    def _has_a_fleet(self) -> bool:
        run = self.current_run()
        return run is not None and self._look(run).target > 0

    # -- Ending

    def stop(self, *, now: bool = False) -> None:
        """No task and no new machine is wanted any more.

        ECS tells the tasks to end: what a worker finishes within two minutes is done, the rest goes back.
        `now` ends the machines too, at once; without it whoever stops ends them when no task is left.
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
        """Remove what the run made; where jobs are dead, not the queues: `ds retry` needs them.

        Where nobody can tell, the queues stay and are among what is left: the machines go all the same.
        """
        told: list[str] = []
        try:
            keep = self.current_run() is not None and self.queue().counts().dead > 0
        except QueueGone:  # somebody else ends the run too
            keep = False
        except DsError as error:
            keep, told = True, [f"queue {self.names.jobs}, as it may have dead jobs: {error.what}"]
        left = self._teardown().remove(keep_queues=keep, told=told)
        if not keep:
            self._forget()
        return left

    def remove(self) -> Sequence[str]:
        """Remove what every run of the app made."""
        left = self._teardown().remove()
        self._forget()
        return left

    def _teardown(self) -> Teardown:
        fleets, record = self._looker.fleets, self._any_record()
        return Teardown(self._config, self.session, fleets, self._clock, record)

    def _forget(self) -> None:
        self._run, self._facts, self._bill = None, None, None
        self._looker.forget()
        if self._queue is not None:
            self._queue.close()
            self._queue = None
