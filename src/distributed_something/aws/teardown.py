"""Removing what runs made: independent steps, and then a look at what is still there.

A step that fails does not stop those after it, and what it could not remove is among the leftovers. What is
absent is fine. Things are found by name, by the run record, and by their tags: a step that a killed process
could not write down is found all the same. What is found by its name goes only where it bears the app's tag.
Log groups stay, for as long as their retention says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ..clock import Clock
from ..errors import DsError, NotSignedIn, Unreachable
from ..inputs.config import Config
from ..runs.record import RunRecord
from .ec2.fleets import Fleet, FleetKind, Fleets
from .ecs.current_state import describe_service, ecs_tags, find_one
from .ecs.resources import Kind
from .session import AwsSession, NoAnswer, aws_errors
from .sqs.queues import QueueNames, queue_url
from .watch.alarms import delete_alarms, find_alarms
from .watch.dashboard import delete_dashboard
from .watch.schedule import delete_schedule

DRAIN_SECONDS = 180.0
"""How long tasks may take to end: the two minutes that they have, and some."""

LEAVE_SECONDS = 120.0
"""How long things that were removed may still be seen."""

_LOOK_SECONDS = 5.0


class Teardown:
    """Removes what the app's runs made. `remove` may be repeated; it ends by looking again."""

    def __init__(
        self, config: Config, session: AwsSession, fleets: Fleets, clock: Clock, record: RunRecord | None
    ) -> None:
        self._config = config
        self._session = session
        self._fleets = fleets
        self._clock = clock
        self._record = record
        self._service = config.app_name + "Service"
        self._family = config.app_name + "Task"
        self._cluster = config.ecs_cluster
        self._names = QueueNames(config.sqs_queue_name, config.sqs_dead_letter_queue)

    def remove(self, *, keep_queues: bool = False, told: Sequence[str] = ()) -> list[str]:
        """Remove everything, with the queues or without; what is left, a line each, with why where known.

        `told`: lines on what is known to stay, for somebody to remove later. Raises NotSignedIn, and NoAnswer
        where nobody answers at the beginning, or at the end.
        """
        steps: list[Callable[[], object]] = [
            self._stop_service,
            *(partial(self._end_fleets, kind) for kind in FleetKind),
            self._end_machines,
            self._delete_service,
            self._deregister_tasks,
            *([] if keep_queues else [self._delete_queues]),
            self._delete_templates,
            self._delete_alarms,
            self._delete_dashboard,
            self._delete_cluster,
        ]
        first = _answered([_tried(step) for step in steps[:2]])  # by ECS, or at least by EC2
        done = [*first, *(_tried(step) for step in steps[2:])]
        failed = [line for each in done for line in each.lines]
        left = list(dict.fromkeys([*told, *failed, *self._leftovers(keep_queues)]))
        return left or _tried(self._delete_schedule).lines  # until all has gone, the auto-monitor tries again

    # -- Steps

    def _stop_service(self) -> None:
        """Want no task any more, so that nothing is started on machines that end."""
        service = self._found_service()
        if service is not None and service["status"] == "ACTIVE" and service["desiredCount"]:
            with aws_errors(f"stopping the service {self._service}"):
                self._ecs.update_service(cluster=self._cluster, service=self._service, desiredCount=0)

    def _end_fleets(self, kind: FleetKind) -> list[str]:
        """End all fleets of the app that may start machines, each by itself; why, where one would not.

        By kind: one may have rights for one only.
        """
        steps = (partial(self._fleets.cancel, [fleet]) for fleet in self._app_fleets(kind))
        return [line for step in steps for line in _tried(step).lines]

    def _end_machines(self) -> None:
        """End every machine that bears the app's tag. None while a fleet stands: it would replace them."""
        if any(self._app_fleets(kind) for kind in FleetKind):
            return
        machines = self._fleets.machines(self._config.app_name)
        self._fleets.terminate(machine.id for machine in machines if machine.running)

    def _delete_service(self) -> None:
        """Delete the service once its tasks have ended; if they do not end in time, all the same."""
        waited = 0.0
        while (service := self._found_service()) is not None and service["status"] == "ACTIVE":
            if waited >= DRAIN_SECONDS or not (service["runningCount"] or service["pendingCount"]):
                with aws_errors(f"deleting the service {self._service}"):
                    self._ecs.delete_service(cluster=self._cluster, service=self._service, force=True)
                return
            self._clock.wait(_LOOK_SECONDS)
            waited += _LOOK_SECONDS

    def _deregister_tasks(self) -> None:
        """Every active revision of the task definition that we made; the reference's of this name stay."""
        for arn in self._revisions():
            with aws_errors(f"removing the task definition {self._family}"):
                self._ecs.deregister_task_definition(taskDefinition=arn)

    def _delete_queues(self) -> None:
        """Those that bear the app's tag; that of the jobs first: while it is there, the run needs all."""
        client = self._session.client("sqs")
        for name in self._names.all:
            if (url := queue_url(client, name)) and self._is_ours(Kind.QUEUE, name):
                with aws_errors(f"deleting the queue {name}"):
                    client.delete_queue(QueueUrl=url)

    def _delete_templates(self) -> None:
        for name in self._fleets.templates(self._config.app_name):
            self._fleets.delete_template(name)

    def _delete_alarms(self) -> None:
        delete_alarms(self._session, find_alarms(self._session, self._config.app_name))

    def _delete_dashboard(self) -> None:
        if self._config.clean_dashboard:
            delete_dashboard(self._session, self._config)

    def _delete_cluster(self) -> None:
        """Only one that we made, that nobody uses, and that is not everybody's `default`."""
        if self._cluster == "default" or not self._is_ours(Kind.CLUSTER, self._cluster):
            return
        waited = 0.0
        while self._used("registeredContainerInstancesCount", "runningTasksCount", "pendingTasksCount"):
            if waited >= LEAVE_SECONDS or self._used("activeServicesCount"):
                return  # not by us, as far as we can see
            self._clock.wait(_LOOK_SECONDS)  # machines that have ended leave the cluster a while later
            waited += _LOOK_SECONDS
        if not self._used("activeServicesCount"):
            with aws_errors(f"deleting the cluster {self._cluster}"):
                self._ecs.delete_cluster(cluster=self._cluster)

    def _delete_schedule(self) -> None:
        """Of the auto-monitor; last, so that it goes on where this process is killed."""
        recorded = self._record is not None and f"schedule {self._config.app_name}" in self._record.resources
        if recorded or self._config.auto_monitor:
            delete_schedule(self._session, self._config.app_name)

    # -- What is there

    @property
    def _ecs(self) -> Any:
        return self._session.client("ecs")

    def _found_service(self) -> dict[str, Any] | None:
        with aws_errors(f"looking for the service {self._service}"):
            found = describe_service(self._session, self._service, self._cluster)
        return found if found is not None and self._is_tagged(ecs_tags(found)) else None

    def _revisions(self) -> list[str]:
        """The active revisions of the task definition that bear the app's tag."""
        with aws_errors(f"looking for the task definition {self._family}"):
            pages = self._ecs.get_paginator("list_task_definitions").paginate(
                familyPrefix=self._family, status="ACTIVE"
            )
            arns = [str(arn) for page in pages for arn in page["taskDefinitionArns"]]
            named = [arn for arn in arns if arn.rpartition("/")[2].rpartition(":")[0] == self._family]
            return [arn for arn in named if self._is_tagged(self._revision_tags(arn))]

    def _revision_tags(self, arn: str) -> dict[str, str]:
        return ecs_tags(self._ecs.describe_task_definition(taskDefinition=arn, include=["TAGS"]))

    def _app_fleets(self, kind: FleetKind) -> list[Fleet]:
        """The fleets with the app's tag, and those in the record, that may start machines."""
        app = self._config.app_name
        recorded = self._record.fleets if self._record is not None else ()
        found = {fleet.id: fleet for fleet in self._fleets.of_app(app, [kind])}
        if others := [each for each in recorded if each.startswith(kind) and each not in found]:
            found |= {fleet.id: fleet for fleet in self._fleets.recorded(others, app)}
        return [fleet for fleet in found.values() if fleet.alive]

    def _is_ours(self, kind: Kind, name: str) -> bool:
        with aws_errors(f"looking for the {kind} {name}"):
            found = find_one(self._session, kind, name, self._cluster)
        return found is not None and self._is_tagged(found.tags)

    def _is_tagged(self, tags: Mapping[str, str]) -> bool:
        return tags.get("ds:app") == self._config.app_name

    def _used(self, *counts: str) -> bool:
        """Whether one of these counts of the cluster is above zero."""
        with aws_errors(f"looking at the cluster {self._cluster}"):
            found = find_one(self._session, Kind.CLUSTER, self._cluster, self._cluster)
        return found is not None and any(found.settings.get(name) for name in counts)

    def _leftovers(self, keep_queues: bool) -> list[str]:
        """What is still there, after as many looks as it takes AWS to forget what was removed.

        Nobody waits for a look that is refused: a right does not come by itself.
        """
        waited, pause = 0.0, _LOOK_SECONDS
        while True:
            found = _answered([_tried(look) for look in self._looks(keep_queues)])
            if waited >= LEAVE_SECONDS or not any(each.may_pass for each in found):
                return [line for each in found for line in each.lines]
            self._clock.wait(pause)
            waited, pause = waited + pause, pause * 2

    def _looks(self, keep_queues: bool) -> Sequence[Callable[[], object]]:
        looks: list[Callable[[], object]] = [
            *(partial(self._left_fleets, kind) for kind in FleetKind),
            self._left_machines,
            self._left_service,
            self._left_task_definition,
            self._left_templates,
            self._left_alarms,
        ]
        return (
            looks if keep_queues else [*looks, *(partial(self._left_queue, name) for name in self._names.all)]
        )

    def _left_fleets(self, kind: FleetKind) -> list[str]:
        return [f"fleet {fleet.id}" for fleet in self._app_fleets(kind)]

    def _left_machines(self) -> list[str]:
        machines = self._fleets.machines(self._config.app_name)
        return [f"machine {machine.id}" for machine in machines if machine.running]

    def _left_service(self) -> list[str]:
        service = self._found_service()
        return [f"service {self._service}"] if service and service["status"] == "ACTIVE" else []

    def _left_task_definition(self) -> list[str]:
        return [f"task definition {self._family}"] if self._revisions() else []

    def _left_templates(self) -> list[str]:
        return [f"launch template {name}" for name in self._fleets.templates(self._config.app_name)]

    def _left_alarms(self) -> list[str]:
        return [f"alarm {name}" for name in find_alarms(self._session, self._config.app_name)]

    def _left_queue(self, name: str) -> list[str]:
        return [f"queue {name}"] if self._is_ours(Kind.QUEUE, name) else []


class _Told(NamedTuple):
    """What a step or look has to tell, a line each; `may_pass`: after a while perhaps no more.

    `silence` is its error, where nobody answered.
    """

    lines: list[str]
    may_pass: bool
    silence: NoAnswer | None = None


def _tried(step: Callable[[], object]) -> _Told:
    """What a step or look has to tell; its error, where it failed, as a line like the others.

    Raises NotSignedIn: all the others would fail in the same way, and nothing is known of what is left.
    """
    try:
        found = step()
    except NotSignedIn:
        raise
    except DsError as error:
        silence = error if isinstance(error, NoAnswer) else None
        return _Told([error.what], isinstance(error, Unreachable), silence)
    lines = found if isinstance(found, list) else []
    return _Told(lines, bool(lines))


def _answered(told: Sequence[_Told]) -> Sequence[_Told]:
    """These, where somebody answered one of them. Raises NoAnswer: without a network, all others fail too."""
    silence = [each.silence for each in told if each.silence is not None]
    if len(silence) == len(told):
        raise silence[0]
    return told
