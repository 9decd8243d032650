"""Whose a queue or a service is, by what AWS says of it."""

from __future__ import annotations

import pytest

from distributed_something.aws.ecs.ownership import check_queues, check_service, may_serve_others
from distributed_something.aws.ecs.resources import Kind, Resource
from distributed_something.errors import UsageError


def queue(name: str, owner: str | None = None, messages: int = 0) -> Resource:
    settings = {"ApproximateNumberOfMessages": str(messages)}
    return Resource(Kind.QUEUE, name, settings, tags={} if owner is None else {"ds:app": owner})


def service(owner: str | None = None, **counts: int) -> Resource:
    return Resource(Kind.SERVICE, "AppService", counts, tags={} if owner is None else {"ds:app": owner})


@pytest.mark.parametrize(
    ("found", "others"),
    [
        (queue("AppQueue", "App", messages=7), False),
        (queue("shared", "App"), False),
        (queue("AppQueue"), False),
        (queue("AppQueue", messages=1), True),
        (queue("DeadMessages"), True),
        (queue("AppQueue", "Other"), True),
    ],
)
def test_whose_a_queue_is(found: Resource, others: bool) -> None:
    assert may_serve_others(found, "App") is others


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (queue("AppQueue", "Other", messages=2), "the queue AppQueue belongs to the app Other"),
        (queue("AppQueue", messages=2), "was not made by us, and holds 2 messages"),
        (queue("jobs"), "the queue jobs was not made by us, and others may use it"),
    ],
)
def test_a_queue_of_somebody_else_is_not_taken(found: Resource, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_queues([queue("AppQueue", "App"), found], "App")


def test_a_service_that_runs_is_not_taken_from_anybody() -> None:
    idle = {"runningCount": 0, "pendingCount": 0}
    check_service([service("App", runningCount=3), service(**idle), queue("jobs", "Other")], "App", "default")
    with pytest.raises(
        UsageError, match=r"AppService in the cluster default was not made by us, and has 1 task$"
    ):
        check_service([service(pendingCount=1)], "App", "default")
    with pytest.raises(UsageError, match="belongs to the app Other"):
        check_service([service("Other", **idle)], "App", "default")
