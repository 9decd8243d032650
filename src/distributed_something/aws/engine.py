"""The engine `aws`: the verbs of `engine.Engine` and `engine.Renting` that act; `Current` has the others.

It calls the parts of this package in the right order, and decides little itself: `provision` makes resources,
`ec2/requests/launch` asks for machines, `look` reads and explains, `teardown` removes. Called by the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from ..background import remove_if_free
from ..budget import Quote
from ..clock import Clock
from ..errors import DsError, NotSignedIn, Unreachable
from ..inputs.config import Config
from ..ledger import RunPaths
from ..s3.access import Access
from ..s3.session import NoAnswer, QueueGone, aws_errors
from ..s3.uploads import end_old_uploads
from ..words import many
from . import earlier
from .checks.limits import check_size
from .current import Current
from .ec2.capacity import left_out, past_lives
from .ec2.fleets import FleetKind
from .ec2.prices import Pool, ask, ask_on_demand, price_now
from .ec2.requests.launch import Asked, Launch
from .ec2.requests.ownfleet import on_demand_of
from .ec2.shrinking import idle, instances, instead_of_spot, spread
from .iam.roles import Where
from .look import Facts
from .message import job_room
from .provision import Provision
from .shape import task_size
from .teardown import Teardown
from .watch.alarms import guard_machines
from .watch.dashboard import put_dashboard
from .watch.schedule import GRACE_SECONDS, Order, check_function, memory_key, put_schedule


def make(folder: Path, config: Config, clock: Clock, *, say: Callable[[str], None]) -> AwsEngine:
    """Makes the engine of a project folder. Nothing is started or asked for yet."""
    return AwsEngine(folder, config, clock, say=say)


class AwsEngine(Current):
    """Implements engine.Engine and engine.Renting."""

    name = "aws"
    poll_interval = 60.0
    final_poll_interval = 60.0  # SQS's counts may be a minute behind
    job_bytes: int | None = job_room()

    @cached_property
    def _provision(self) -> Provision:
        return Provision(self.session, self._config, self.region, self._clock, self._say)

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
        end_old_uploads(self._config, Access(self._config, self.session), self._clock.now(), self._say)
        self._forget()
        remove_if_free(self._lock)
        return list(dict.fromkeys(left))

    def _teardown(self, cluster: str | None = None, queues: Sequence[str] = ()) -> Teardown:
        config = self._config._replace(ecs_cluster=cluster or self._config.ecs_cluster)
        return Teardown(config, self.session, self._looker.fleets, self._clock, self._any_record(), queues)
