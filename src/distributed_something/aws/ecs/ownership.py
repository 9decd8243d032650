"""Decides by tags and contents whether existing queues and services are the app's own. Pure.

A resource with the app's tag is the app's. One without a tag may be a leftover of the reference.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import UsageError
from ...words import many
from .resources import Kind, Resource


def may_serve_others(queue: Resource, app: str) -> bool:
    """Whether a queue may belong to others than this app.

    A queue without an owner is the app's, and is removed with the run, if it is empty and its name begins
    with the app's: a leftover of the reference.
    """
    owner = _owner(queue)
    left = not _messages(queue) and queue.name.startswith(app)
    return owner != app and not (owner is None and left)


def check_queues(found: Iterable[Resource], app: str) -> None:
    """Raises UsageError for another's queue: two apps would take each other's jobs."""
    for queue in found:
        if may_serve_others(queue, app):
            messages = _messages(queue)
            whose = _whose(queue, f"holds {messages} messages" if messages else "others may use it")
            raise UsageError(
                f"SQS_QUEUE_NAME: the queue {queue.name} {whose}",
                "give the app a queue of its own, such as SQS_QUEUE_NAME = APP_NAME + 'Queue'",
            )


def check_service(found: Iterable[Resource], app: str, cluster: str) -> None:
    """Raises UsageError if the service of the app's name is another's: we would replace its tasks.

    A service without owner and tasks is the app's: a leftover of the reference.
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
    """Says whose it is; `why` explains for one without an owner that it is not the app's."""
    owner = _owner(resource)
    return f"belongs to the app {owner}" if owner else f"was not made by us, and {why}"


def _messages(queue: Resource) -> int:
    return int(queue.settings.get("ApproximateNumberOfMessages", 0))
