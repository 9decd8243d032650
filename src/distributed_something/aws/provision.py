"""Makes queues, log groups, cluster, task definition and service of a run, or brings them in line.

`see` reads what the account has and changes nothing; `steps` compares it with what the run needs; `ensure`
applies the steps. Machines are not its business: see `ec2/requests/launch.py`. Called by the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ..clock import Clock
from ..errors import UsageError
from ..inputs.config import Config
from ..s3.session import AwsSession
from .ec2.requests.region import Region
from .ecs.apply import Applier
from .ecs.current_state import find
from .ecs.desired import desired
from .ecs.ownership import check_queues, check_service, may_serve_others
from .ecs.resources import Action, Kind, Resource, Step, compare
from .ecs.worker_image import injected_worker
from .names import bucket_of
from .shape import MachineShape, misfit
from .sqs.channel import DEPTHS
from .sqs.queues import QueueNames, dead_queue_of, short_visibility


class Seen(NamedTuple):
    """What the account has before a change. `shape` is that of the machines that will be asked for."""

    shape: MachineShape
    names: QueueNames
    queues: Sequence[Resource]
    others: Sequence[Resource] = ()

    @property
    def queue_url(self) -> str | None:
        """The address of the queue of jobs; None: there is no such queue yet."""
        return next((each.settings["QueueUrl"] for each in self.queues if each.name == self.names.jobs), None)


class Provision:
    """Compares what a run needs with what the account has, and makes the difference. Raises DsError."""

    def __init__(
        self, session: AwsSession, config: Config, region: Region, clock: Clock, say: Callable[[str], None]
    ) -> None:
        self._session = session
        self._config = config
        self._region = region
        self._clock = clock
        self._say = say

    def check_fits(self, shape: MachineShape) -> None:
        """Raises UsageError if ECS would not place the tasks on such a machine."""
        if why := misfit(self._config, shape):
            raise UsageError(f"no task fits on a machine: {why}", "lower it, or name a larger MACHINE_TYPE")

    def see(self, run: str, shape: MachineShape | None = None) -> Seen:
        """Reads what the account has, once. Raises DsError if the account cannot have what the run needs."""
        self._region.check_bucket(bucket_of(self._config))
        if short := short_visibility(self._config):
            raise short
        shape = shape or self._region.shape(self._config.machine_type)
        self.check_fits(shape)
        self._region.check_roles()
        app, names = self._config.app_name, QueueNames.of(self._config)
        queues = self._queues(names)
        if any(each.name == names.dead and may_serve_others(each, app) for each in queues):
            names = names.with_own_dead()
            queues = self._queues(names)
        elif standing := self._standing_dead(names, queues):
            names = replace(names, dead=standing)
            queues = self._queues(names)
            self._say(f"note: dead jobs of the run are in {standing}: the run keeps this queue of dead jobs")
        check_queues(queues, app)
        seen = Seen(shape, names, queues)
        wanted = (each for each in self._wanted(run, seen) if each.kind is not Kind.QUEUE)
        others = [*find(self._session, wanted, self._config.ecs_cluster)]
        check_service(others, app, self._config.ecs_cluster)
        return seen._replace(others=others)

    def steps(self, run: str, seen: Seen) -> list[Step]:
        """The steps from what was seen to what the run needs."""
        return compare(self._wanted(run, seen), [*seen.queues, *seen.others])

    def ensure(self, run: str, on_created: Callable[[str], None], seen: Seen) -> None:
        """Applies the steps. New queues come first: tasks get the address that the queue of jobs has then."""
        steps = self.steps(run, seen)
        new = [step for step in steps if step.action is Action.CREATE and step.resource.kind is Kind.QUEUE]
        if new:
            self._apply(new, on_created)
            seen = seen._replace(queues=self._queues(seen.names))
            if any(may_serve_others(each, self._config.app_name) for each in seen.queues):
                self.ensure(run, on_created, self.see(run, seen.shape))  # made by another app just now
                return
            steps = self.steps(run, seen)
        self._apply(steps, on_created)

    def _apply(self, steps: Sequence[Step], on_created: Callable[[str], None]) -> None:
        applier = Applier(self._session, self._config.ecs_cluster, self._clock)
        for step in steps:
            applier.apply(step)
            if step.action is Action.CREATE:
                on_created(f"{step.resource.kind} {step.resource.name}")
            elif step.action is Action.UPDATE:
                self._say(f"changed {step.subject}")

    def _wanted(self, run: str, seen: Seen) -> Sequence[Resource]:
        return desired(
            self._config,
            self._region.account,
            seen.shape,
            run=run,
            names=seen.names,
            queue_url=seen.queue_url,
            injected=injected_worker(self._config),
        )

    def _standing_dead(self, names: QueueNames, queues: Sequence[Resource]) -> str | None:
        """The run's queue of dead jobs if an earlier config named it, and it holds jobs; None: no such."""
        jobs = next((each for each in queues if each.name == names.jobs), None)
        name = dead_queue_of(jobs.settings) if jobs is not None else None
        if name is None or name in (names.dead, names.own_dead):
            return None
        found = [*find(self._session, [Resource(Kind.QUEUE, name)], self._config.ecs_cluster)]
        ours = [each for each in found if each.tags.get("ds:app") == self._config.app_name]
        return name if any(_holds_jobs(each.settings) for each in ours) else None

    def _queues(self, names: QueueNames) -> list[Resource]:
        """The queues of the app that exist."""
        wanted = (Resource(Kind.QUEUE, name) for name in (names.dead, names.jobs, names.carried))
        return list(find(self._session, wanted, self._config.ecs_cluster))


def _holds_jobs(attributes: Mapping[str, Any]) -> bool:
    return any(int(attributes.get(name, 0)) for name in DEPTHS)
