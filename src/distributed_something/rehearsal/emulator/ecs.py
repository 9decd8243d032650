"""Corrections to moto's ECS, which as it comes has services without tasks and clusters that nothing holds.

- A service's tasks are not started, yet its runningCount jumps to what is wanted. Here counts say what is.
- Tasks age by being looked at, and stop without having been started. Here they are as they are.
- What a service is made with beyond moto's own list (constraints, strategy, deployment) is forgotten.
- A cluster in use can be deleted; a deleted service is listed for ever.
- Tasks of a service cannot be found, and those that have stopped are among those that run.
"""

from __future__ import annotations

import re
from typing import Any

from moto.core.utils import utcnow
from moto.ecs import models, responses
from moto.ecs.exceptions import ECSException, InvalidParameterException
from moto.ecs.models import Cluster, EC2ContainerServiceBackend, Service, Task
from moto.moto_api import state_manager

_KEPT = (
    "availabilityZoneRebalancing",
    "deploymentConfiguration",
    "placementConstraints",
    "placementStrategy",
    "enableECSManagedTags",
)


def install() -> None:
    """Give moto's ECS these corrections, in this process. Before the first request."""
    vars(models.ecs_backends).update(backend=Ecs)
    state_manager.set_transition("ecs::task", {"progression": "manual", "times": 10**9})
    original: Any = responses.EC2ContainerServiceResponse.create_service

    def create_service(self: Any) -> Any:
        answer: Any = original(self)
        for name in _KEPT:
            if (value := self._get_param(name)) is not None:
                setattr(answer.result["service"], snake(name), value)
        return answer

    setattr(responses.EC2ContainerServiceResponse, "create_service", create_service)  # noqa: B010


def snake(name: str) -> str:
    """Returns an attribute's name in Python, as moto looks for it."""
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()


class ClusterInUse(ECSException):
    """A cluster that holds something cannot be deleted."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"ClusterContains{what}Exception", f"The Cluster cannot be deleted while {what} are active."
        )


# moto finds the service that an error belongs to by the module it comes from.
ClusterInUse.__module__ = ECSException.__module__


class Ecs(EC2ContainerServiceBackend):
    """ECS of one region. `cloud` runs the tasks and updates their states."""

    def create_service(self, *args: Any, **kwargs: Any) -> Service:
        """Returns a service without a task yet."""
        service = super().create_service(*args, **kwargs)
        service.running_count = service.pending_count = 0
        return service

    def update_service(self, service_properties: dict[str, Any]) -> Service:
        """Counts stay what they are; a task definition is remembered by its ARN, as AWS shows it."""
        service = self._get_service(
            service_properties.get("cluster", "default"), service_properties["service"].split("/")[-1]
        )
        counts = service.running_count, service.pending_count
        super().update_service(service_properties)
        service.running_count, service.pending_count = counts
        if service.task_definition:
            service.task_definition = self.describe_task_definition(service.task_definition).arn
        return service

    def delete_service(self, cluster_name: str, service_name: str, force: bool) -> Service:
        """Gone once its last task is."""
        service = super().delete_service(cluster_name, service_name, force)
        service.desired_count = 0
        service.status = "DRAINING" if self.tasks_of(service) else "INACTIVE"
        return service

    def tasks_of(self, service: Service) -> list[Task]:
        """Returns those of its tasks that have not stopped."""
        return [
            task
            for task in self.tasks.get(service.cluster_name, {}).values()
            if task.group == f"service:{service.name}" and task.last_status != "STOPPED"
        ]

    def list_services(
        self, cluster_str: str, scheduling_strategy: str | None = None, launch_type: str | None = None
    ) -> list[str]:
        """Returns those that are not gone."""
        gone = {service.arn for service in self.services.values() if service.status == "INACTIVE"}
        found = super().list_services(cluster_str, scheduling_strategy, launch_type)
        return [arn for arn in found if arn not in gone]

    def delete_cluster(self, cluster_str: str) -> Cluster:
        """Refused while machines, services or tasks are in it."""
        name = self._get_cluster(cluster_str).name
        if self.container_instances.get(name):
            raise ClusterInUse("ContainerInstances")
        if any(each.cluster_name == name and each.status != "INACTIVE" for each in self.services.values()):
            raise ClusterInUse("Services")
        if any(task.last_status != "STOPPED" for task in self.tasks.get(name, {}).values()):
            raise ClusterInUse("Tasks")
        return super().delete_cluster(cluster_str)

    def describe_container_instances(
        self, cluster_str: str, list_container_instance_ids: list[str]
    ) -> tuple[list[Any], list[Any]]:
        """Also where the cluster never had one."""
        self.container_instances.setdefault(self._get_cluster(cluster_str).name, {})
        return super().describe_container_instances(cluster_str, list_container_instance_ids)

    def list_tasks(
        self,
        cluster_str: str | None = None,
        container_instance: str | None = None,
        family: str | None = None,
        started_by: str | None = None,
        service_name: str | None = None,
        desiredStatus: str | None = None,  # noqa: N803  moto's own name
    ) -> list[Task]:
        """Returns those that are to run, unless others are asked for; a service's where one is named."""
        wanted = desiredStatus or "RUNNING"
        found = super().list_tasks(cluster_str, container_instance, family, started_by, None, wanted)
        name = service_name.split("/")[-1] if service_name else None
        return [task for task in found if name is None or task.group == f"service:{name}"]

    def stop_task(self, cluster_str: str, task_str: str, reason: str) -> Task:
        """Ask for its end; it is stopped when its process has ended."""
        mark = task_str.split("/")[-1]
        for task in self.tasks.get(self._get_cluster(cluster_str).name, {}).values():
            if task.id == mark:
                to_stop(task, "UserInitiated", reason or "Task stopped by user")
                return task
        raise InvalidParameterException("The referenced task was not found.")


Ecs.__module__ = EC2ContainerServiceBackend.__module__


def to_stop(task: Task, code: str, reason: str) -> None:
    """Have a task end; the first reason stays."""
    if task.desired_status != "STOPPED":
        task.desired_status = "STOPPED"
        task.stopped_reason = reason
        vars(task).update(stop_code=code, stopping_at=utcnow())


def new_task(ecs: Ecs, service: Service, container_instance: str) -> Task:
    """Returns a task of a service on a machine; it ages only as its process does."""
    task = Task(
        ecs.clusters[service.cluster_name],
        ecs.describe_task_definition(str(service.task_definition)),
        container_instance,
        {},
        backend=ecs,
        group=f"service:{service.name}",
        launch_type="EC2",
        started_by=str(service.deployments[0]["id"]) if service.deployments else "",
        tags=list(service.tags) if service.propagate_tags == "SERVICE" else [],
    )
    vars(task).update(advance=lambda: None, created_at=utcnow(), started_at=utcnow())
    ecs.tasks.setdefault(service.cluster_name, {})[task.task_arn] = task
    return task
