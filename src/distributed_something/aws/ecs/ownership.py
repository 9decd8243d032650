"""Whose the queues and the service are that a run would take for its own: by their tags and contents. Pure.

What bears the app's tag is the app's. What bears none may be what the reference has left of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import UsageError
from ...words import many
from .resources import Kind, Resource


def may_serve_others(queue: Resource, app: str) -> bool:
    """Whether a queue is not the app's alone: another app's, or nobody's.

    One without an owner is the app's, and is removed with the run, where it is empty and bears the app's
    name: the reference has left it.
    """
    owner = _owner(queue)
    left = not _messages(queue) and queue.name.startswith(app)
    return owner != app and not (owner is None and left)


def check_queues(found: Iterable[Resource], app: str) -> None:
    """Raise UsageError where a queue is somebody else's: jobs of two apps in one would be lost to both."""
    for queue in found:
        if may_serve_others(queue, app):
            messages = _messages(queue)
            whose = _whose(queue, f"holds {messages} messages" if messages else "others may use it")
            raise UsageError(
                f"SQS_QUEUE_NAME: the queue {queue.name} {whose}",
                "give the app a queue of its own, such as SQS_QUEUE_NAME = APP_NAME + 'Queue'",
            )


def check_service(found: Iterable[Resource], app: str, cluster: str) -> None:
    """Raise UsageError where the service of the app's name is somebody else's: its tasks would become ours.

    One without an owner and without tasks is the app's: the reference has left it.
    """
    for service in found:
        if service.kind is not Kind.SERVICE or _owner(service) == app:
            continue
        tasks = sum(int(service.settings.get(name, 0)) for name in ("runningCount", "pendingCount"))
        if _owner(service) is not None or tasks:
            whose = _whose(service, f"has {many(tasks, 'task')}")
            raise UsageError(
                f"ECS_CLUSTER: the service {service.name} in the cluster {cluster} {whose}",
                "end that run first, or give the app a cluster of its own: ECS_CLUSTER = APP_NAME",
            )


def _owner(resource: Resource) -> str | None:
    return resource.tags.get("ds:app")


def _whose(resource: Resource, why: str) -> str:
    """In words; `why` one without an owner is not the app's."""
    owner = _owner(resource)
    return f"belongs to the app {owner}" if owner else f"was not made by us, and {why}"


def _messages(queue: Resource) -> int:
    return int(queue.settings.get("ApproximateNumberOfMessages", 0))
