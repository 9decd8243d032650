"""Keeps a service's tasks running: as many as desired, on machines that have room."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from moto.core.utils import utcnow
from moto.ecs.models import Service

from ..emulator.clock import steady
from ..emulator.ecs import Ecs, new_task, to_stop
from .machines import Machine, Running
from .placing import Host, Need, need_of, place, why_not
from .task import Task

Start = Callable[[Machine, Any, dict[str, Any]], Task]
"""Starts a task's process: on a machine, for ECS's record of the task, its own container's definition."""

EVENTS_KEPT = 100
STOPPED_KEPT = 200
QUICK_SECONDS = 10.0
LONGEST_PAUSE = 20.0
PULL_PAUSE = 2.0
"""Between two tries to start tasks whose image cannot be pulled; in ECS it grows."""


class Services:
    """The scheduler of all services of a region. One thread turns it, holding the lock of the calls."""

    def __init__(self, ecs: Ecs, start: Start) -> None:
        self._ecs = ecs
        self._start = start
        self._quick_ends: dict[str, int] = {}
        self._not_before: dict[str, float] = {}

    def turn(self, machines: Iterable[Machine]) -> None:
        """Look at every task and service once, and do what is to be done now."""
        there = list(machines)
        for machine in there:
            for running in list(machine.tasks.values()):
                self._look(machine, running)
        for service in list(self._ecs.services.values()):
            self._keep(service, there)
        for machine in there:
            machine.tell()
        self._count(there)

    # Tasks

    def _look(self, machine: Machine, running: Running) -> None:
        record = running.record
        code = running.process.ended()
        if code is None:
            if record.desired_status == "STOPPED":
                running.process.stop(running.stop_seconds)
                record.last_status = "STOPPING"
            return
        running.process.wait(1.0)
        _stopped(record, "EssentialContainerExited", "Essential container in task exited", exitCode=code)
        del machine.tasks[record.task_arn]
        if record.stop_code == "EssentialContainerExited":
            self._back_off(running)
        self._forget_old(record.cluster_name)

    def _back_off(self, running: Running) -> None:
        """Wait longer and longer before the next start, where tasks end as soon as they have begun."""
        quick = steady() - running.since < QUICK_SECONDS
        ends = self._quick_ends.get(running.service, 0) + 1 if quick else 0
        self._quick_ends[running.service] = ends
        self._not_before[running.service] = steady() + min(0.25 * 2.0**ends, LONGEST_PAUSE) * (ends > 1)
        service = self._ecs.services.get(running.service)
        if ends == 3 and service is not None:
            _tell(service, f"(service {service.name}) is unable to consistently start tasks successfully.")

    def _forget_old(self, cluster: str) -> None:
        tasks = self._ecs.tasks.get(cluster, {})
        stopped = [arn for arn, task in tasks.items() if task.last_status == "STOPPED"]
        for arn in stopped[:-STOPPED_KEPT]:
            del tasks[arn]

    # Services

    def _keep(self, service: Service, machines: list[Machine]) -> None:
        key = f"{service.cluster_name}:{service.name}"
        mine = [
            (machine, running)
            for machine in machines
            for running in machine.tasks.values()
            if running.service == key
        ]
        if service.status == "INACTIVE" and not mine:
            return
        self._end_some(service, mine)
        going = [running for _, running in mine if running.record.desired_status == "RUNNING"]
        missing = service.desired_count - len(mine)  # at most 100 per cent: who ends makes room first
        if service.status == "ACTIVE" and missing > 0 and steady() >= self._not_before.get(key, 0.0):
            self._fill(service, key, missing, machines)
        elif service.status == "ACTIVE" and len(going) == service.desired_count == len(mine):
            _tell(service, f"(service {service.name}) has reached a steady state.")
        if service.status == "DRAINING" and not mine:
            service.status = "INACTIVE"

    def _end_some(self, service: Service, mine: list[tuple[Machine, Running]]) -> None:
        """Tasks that are too many, of an earlier task definition, or on machines that drain."""
        deployment = service.deployments[0]["id"] if service.deployments else ""
        scaling = "ServiceSchedulerInitiated", f"Scaling activity initiated by (deployment {deployment})"
        for machine, running in mine:
            if machine.container is not None and machine.container.status == "DRAINING":
                code = "SpotInterruption" if machine.noticed <= steady() else "ServiceSchedulerInitiated"
                to_stop(running.record, code, f"(instance {machine.id}) is draining")
            elif running.record.task_definition_arn != service.task_definition:
                to_stop(running.record, *scaling)
        going = [running for _, running in mine if running.record.desired_status == "RUNNING"]
        for running in going[max(service.desired_count, 0) :]:
            to_stop(running.record, *scaling)

    def _fill(self, service: Service, key: str, missing: int, machines: list[Machine]) -> None:
        definition = self._ecs.describe_task_definition(str(service.task_definition))
        need = need_of(definition.container_definitions)
        constraints = getattr(service, "placement_constraints", None) or []
        strategies = getattr(service, "placement_strategy", None) or [{}]
        started = []
        for _ in range(missing):
            hosts = {host.id: (host, machine) for host, machine in _hosts(service.cluster_name, machines)}
            seen = [host for host, _ in hosts.values()]
            chosen = place(need, seen, constraints, strategies[0].get("type", "spread"))
            if chosen is None:
                _tell(service, why_not(service.name, need, seen, constraints))
                break
            started.append(self._run(service, key, hosts[chosen.id][1], definition, need))
        if started:
            tasks = " ".join(f"(task {task_id})" for task_id in started)
            _tell(service, f"(service {service.name}) has started {len(started)} tasks: {tasks}.")

    def _run(self, service: Service, key: str, machine: Machine, definition: Any, need: Need) -> str:
        assert machine.container is not None
        record = new_task(self._ecs, service, machine.container.container_instance_arn)
        containers = definition.container_definitions
        own = next((each for each in containers if each.get("essential", True)), containers[0])
        if not machine.fate.pulls:
            self._cannot_pull(record, key, str(own["image"]))
            return str(record.id)
        process = self._start(machine, record, own)
        record.containers[0].name = own["name"]
        record.containers[0].last_status = "RUNNING"
        stop_seconds = float(own.get("stopTimeout") or machine.agent.stop_seconds)
        machine.tasks[record.task_arn] = Running(record, key, process, need, steady(), stop_seconds)
        return str(record.id)

    def _cannot_pull(self, record: Any, key: str, image: str) -> None:
        """End a task that has not begun, in the words of ECS, and try again after a while."""
        reason = (
            f"CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve"
            f" ref {image}: pull access denied, repository does not exist or may require authorization"
        )
        _stopped(record, "TaskFailedToStart", "Task failed to start", reason=reason)
        self._not_before[key] = steady() + PULL_PAUSE
        self._forget_old(record.cluster_name)

    def _count(self, machines: list[Machine]) -> None:
        """Have services and clusters show what runs."""
        for service in self._ecs.services.values():
            service.running_count = len(self._ecs.tasks_of(service))
            service.pending_count = 0
            if service.deployments:
                service.deployments[0].update(
                    desiredCount=service.desired_count,
                    runningCount=service.running_count,
                    pendingCount=0,
                    taskDefinition=service.task_definition,
                )
        for name, cluster in self._ecs.clusters.items():
            mine = [each for each in machines if each.container is not None and each.agent.cluster == name]
            cluster.registered_container_instances_count = len(mine)
            cluster.running_tasks_count = sum(len(each.tasks) for each in mine)
            cluster.pending_tasks_count = 0
            cluster.active_services_count = sum(
                each.cluster_name == name and each.status == "ACTIVE" for each in self._ecs.services.values()
            )


def _stopped(record: Any, code: str, why: str, **facts: object) -> None:
    """Ends ECS's record of a task, and its containers, with these facts."""
    to_stop(record, code, why)
    record.last_status = "STOPPED"
    vars(record).update(stopped_at=utcnow())
    for container in record.containers:
        vars(container).update(facts, last_status="STOPPED")


def _hosts(cluster: str, machines: list[Machine]) -> Iterator[tuple[Host, Machine]]:
    for machine in machines:
        host = machine.host()
        if host is not None and machine.agent.cluster == cluster:
            yield host, machine


def _tell(service: Service, message: str) -> None:
    """Add an event, the newest first; the same again counts once a while."""
    with suppress(IndexError):
        if service.events[0]["message"] == message:
            return
    service.events.insert(0, {"id": str(uuid.uuid4()), "createdAt": utcnow(), "message": message})
    del service.events[EVENTS_KEPT:]
