"""Reads existing resources, in the form that `resources.compare` needs. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ...s3.session import AwsSession, aws_errors, or_none
from ..sqs.queues import queue_url
from .resources import Kind, Resource


def find(session: AwsSession, wanted: Iterable[Resource], cluster: str) -> Iterator[Resource]:
    """Yields the wanted resources that exist, as they are. Names match exactly."""
    for each in wanted:
        with aws_errors(f"looking for the {each.kind} {each.name}"):
            found = find_one(session, each.kind, each.name, cluster)
        if found is not None:
            yield found


def find_one(session: AwsSession, kind: Kind, name: str, cluster: str) -> Resource | None:
    """A resource as it is; None: it does not exist. Raises botocore's errors."""
    if kind is Kind.QUEUE:
        return _queue(session, name)
    if kind is Kind.LOG_GROUP:
        return _log_group(session, name)
    if kind is Kind.CLUSTER:
        return _cluster(session, name)
    if kind is Kind.TASK_DEFINITION:
        return _task_definition(session, name)
    return _service(session, name, cluster)


def _queue(session: AwsSession, name: str) -> Resource | None:
    client = session.client("sqs")
    url = queue_url(client, name)
    if url is None:
        return None
    attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    tags = client.list_queue_tags(QueueUrl=url).get("Tags", {})
    return Resource(Kind.QUEUE, name, {"QueueUrl": url, **attributes}, tags=tags)


def _log_group(session: AwsSession, name: str) -> Resource | None:
    pages = session.client("logs").get_paginator("describe_log_groups").paginate(logGroupNamePrefix=name)
    groups = (group for page in pages for group in page["logGroups"])
    found = next((group for group in groups if group["logGroupName"] == name), None)
    return None if found is None else Resource(Kind.LOG_GROUP, name, found)


def _cluster(session: AwsSession, name: str) -> Resource | None:
    clusters = session.client("ecs").describe_clusters(clusters=[name], include=["TAGS"])["clusters"]
    found = [each for each in clusters if each["clusterName"] == name and each["status"] == "ACTIVE"]
    return Resource(Kind.CLUSTER, name, found[0], tags=ecs_tags(found[0])) if found else None


def _task_definition(session: AwsSession, family: str) -> Resource | None:
    look = session.client("ecs").describe_task_definition  # a missing family has no code of its own
    answer = or_none(look, "ClientException", taskDefinition=family, include=["TAGS"])
    if answer is None or answer["taskDefinition"]["status"] != "ACTIVE":
        return None
    definition = answer["taskDefinition"]
    return Resource(Kind.TASK_DEFINITION, family, definition, tags=ecs_tags(answer))


def _service(session: AwsSession, name: str, cluster: str) -> Resource | None:
    service = describe_service(session, name, cluster)
    if service is None or service["status"] != "ACTIVE":
        return None
    revision = service["taskDefinition"].rpartition("/")[2]
    family = revision.partition(":")[0]
    newest = _task_definition(session, family)
    if newest is not None and str(newest.settings["taskDefinitionArn"]).endswith(f"/{revision}"):
        revision = family
    return Resource(Kind.SERVICE, name, {**service, "taskDefinition": revision}, tags=ecs_tags(service))


def describe_service(session: AwsSession, name: str, cluster: str) -> dict[str, Any] | None:
    """A service as ECS describes it, in any state; None: it or its cluster does not exist."""
    look = session.client("ecs").describe_services
    answer = or_none(look, "ClusterNotFoundException", cluster=cluster, services=[name], include=["TAGS"])
    if answer is None:
        return None
    found: list[dict[str, Any]] = [each for each in answer["services"] if each["serviceName"] == name]
    return found[0] if found else None


def ecs_tags(described: Any) -> dict[str, str]:
    """The tags of something that ECS describes."""
    return {tag["key"]: tag["value"] for tag in described.get("tags", ())}
