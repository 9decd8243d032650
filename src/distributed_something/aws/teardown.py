"""Removes what runs made, in independent steps, then looks at what is still there.

A failed step does not stop the next ones; what it could not remove is among the leftovers. Absent resources
are no error. Resources are found by name, by run record and by tag, so a killed process leaves none unknown.
A resource found by name is removed only if it has the app's tag, or if a record of the reference names it.
Log groups stay until their retention ends.
Called by the engine for `end` and `remove`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ..clock import Clock
from ..errors import DsError, NotSignedIn, Unreachable
from ..inputs.config import Config
from ..runs.record import RunRecord
from ..s3.session import AwsSession, NoAnswer, aws_errors
from .ec2.fleets import Fleet, FleetKind, Fleets
from .ecs.current_state import describe_service, ecs_tags, find_one
from .ecs.resources import Kind
from .sqs.queues import QueueNames, queue_url
from .watch.alarms import delete_alarms, find_alarms
from .watch.dashboard import delete_dashboard
from .watch.schedule import delete_schedule

DRAIN_SECONDS = 180.0  # longest wait for tasks to end, in seconds: their two minutes, and a margin
LEAVE_SECONDS = 120.0  # longest wait until AWS shows removed resources no more, in seconds

_LOOK_SECONDS = 5.0


class Teardown:
    """Removes what the app's runs made. `remove` may be repeated; it ends by looking again."""

    def __init__(
        self,
        config: Config,
        session: AwsSession,
        fleets: Fleets,
        clock: Clock,
        record: RunRecord | None,
        queues: Sequence[str] = (),
    ) -> None:
        """`queues` are further names of queues, which an earlier config gave."""
        self._config = config
        self._session = session
        self._fleets = fleets
        self._clock = clock
        self._record = record
        self._service = config.app_name + "Service"
        self._family = config.app_name + "Task"
        self._cluster = config.ecs_cluster
        self._queues = (*QueueNames.of(config).all, *queues)

    def remove(self, *, keep_queues: bool = False, told: Sequence[str] = ()) -> list[str]:
        """Removes everything, with or without the queues. Returns a line for each resource that is left.

        `told` has lines on resources that are known to stay. Raises NotSignedIn, and NoAnswer if AWS cannot
        be reached at the beginning or at the end.
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
        """Sets the service to no task, so that none starts on machines that end."""
        service = self._found_service()
        if service is not None and service["status"] == "ACTIVE" and service["desiredCount"]:
            with aws_errors(f"stopping the service {self._service}"):
                self._ecs.update_service(cluster=self._cluster, service=self._service, desiredCount=0)

    def _end_fleets(self, kind: FleetKind) -> list[str]:
        """Cancels the app's fleets of a kind, one by one. Returns a line for each failure.

        By kind, as a user may have rights for one kind only.
        """
        steps = (partial(self._fleets.cancel, [fleet]) for fleet in self._app_fleets(kind))
        return [line for step in steps for line in _tried(step).lines]

    def _end_machines(self) -> None:
        """Terminates machines with the app's tag; none while a fleet exists, as it would replace them."""
        if any(self._app_fleets(kind) for kind in FleetKind):
            return
        machines = self._fleets.machines(self._config.app_name)
        self._fleets.terminate(machine.id for machine in machines if machine.running)

    def _delete_service(self) -> None:
        """Deletes the service when its tasks have ended, or after DRAIN_SECONDS."""
        waited = 0.0
        while (service := self._found_service()) is not None and service["status"] == "ACTIVE":
            if waited >= DRAIN_SECONDS or not (service["runningCount"] or service["pendingCount"]):
                with aws_errors(f"deleting the service {self._service}"):
                    self._ecs.delete_service(cluster=self._cluster, service=self._service, force=True)
                return
            self._clock.wait(_LOOK_SECONDS)
            waited += _LOOK_SECONDS

    def _deregister_tasks(self) -> None:
        """Deregisters our active revisions of the task definition; the reference's revisions stay."""
        for arn in self._revisions():
            with aws_errors(f"removing the task definition {self._family}"):
                self._ecs.deregister_task_definition(taskDefinition=arn)

    def _delete_queues(self) -> None:
        """Deletes the app's queues; the queue of jobs first, as a run with it needs the others."""
        client = self._session.client("sqs")
        for name in self._queues:
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
        """Deletes the cluster if we made it and it is unused; never `default`."""
        if self._cluster == "default" or not self._is_ours(Kind.CLUSTER, self._cluster):
            return
        waited = 0.0
        while self._used("registeredContainerInstancesCount", "runningTasksCount", "pendingTasksCount"):
            if waited >= LEAVE_SECONDS or self._used("activeServicesCount"):
                return  # used by others
            self._clock.wait(_LOOK_SECONDS)  # machines that have ended leave the cluster a while later
            waited += _LOOK_SECONDS
        if not self._used("activeServicesCount"):
            with aws_errors(f"deleting the cluster {self._cluster}"):
                self._ecs.delete_cluster(cluster=self._cluster)

    def _delete_schedule(self) -> None:
        """Deletes the auto-monitor's schedule; last, so that it goes on if this process is killed."""
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
        if found is None:
            return None
        tags = ecs_tags(found)
        return found if self._is_tagged(tags) or self._is_recorded(self._service, tags) else None

    def _revisions(self) -> list[str]:
        """The active revisions of the task definition with the app's tag."""
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
        """Fleets that may start machines: with the app's tag, or in the record."""
        app = self._config.app_name
        recorded = self._record.fleets if self._record is not None else ()
        found = {fleet.id: fleet for fleet in self._fleets.of_app(app, [kind])}
        if others := [each for each in recorded if each.startswith(kind) and each not in found]:
            found |= {fleet.id: fleet for fleet in self._fleets.recorded(others, app)}
        return [fleet for fleet in found.values() if fleet.alive]

    def _is_ours(self, kind: Kind, name: str) -> bool:
        with aws_errors(f"looking for the {kind} {name}"):
            found = find_one(self._session, kind, name, self._cluster)
        return found is not None and (self._is_tagged(found.tags) or self._is_recorded(name, found.tags))

    def _is_recorded(self, name: str, tags: Mapping[str, str]) -> bool:
        """Whether a record of the reference names it, and no other app's tag is on it."""
        record = self._record
        if record is None or not record.is_references or "ds:app" in tags:
            return False
        return name in (record.queue, record.cluster, self._service)

    def _is_tagged(self, tags: Mapping[str, str]) -> bool:
        return tags.get("ds:app") == self._config.app_name

    def _used(self, *counts: str) -> bool:
        """Whether one of the cluster's counts is above zero."""
        with aws_errors(f"looking at the cluster {self._cluster}"):
            found = find_one(self._session, Kind.CLUSTER, self._cluster, self._cluster)
        return found is not None and any(found.settings.get(name) for name in counts)

    def _leftovers(self, keep_queues: bool) -> list[str]:
        """Returns what is still there, after as many looks as AWS needs to show removals.

        Access-denied errors are not retried.
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
        return looks if keep_queues else [*looks, *(partial(self._left_queue, name) for name in self._queues)]

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
    """Lines of a step or look; `may_pass`: they may vanish after a while.

    `silence` is the error of a call that got no answer.
    """

    lines: list[str]
    may_pass: bool
    silence: NoAnswer | None = None


def _tried(step: Callable[[], object]) -> _Told:
    """Runs a step or look. An error becomes a line like the others.

    Raises NotSignedIn: all other steps would fail in the same way.
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
    """Returns `told` if one call got an answer. Raises NoAnswer: without a network all others fail too."""
    silence = [each.silence for each in told if each.silence is not None]
    if len(silence) == len(told):
        raise silence[0]
    return told
