"""Finds what earlier configs of an app made under other names: by tag, and in the run record.

The engine calls it for `remove`. It changes nothing; `teardown` looks at each resource before it removes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..clock import Clock
from ..inputs.config import Config
from ..runs.record import RunRecord
from ..s3.session import AwsSession, aws_errors
from ..words import many
from .ecs.resources import Kind
from .sqs.channel import Channel
from .sqs.queues import QueueNames, queue_url

_TYPES = ["sqs", "ecs:service", "ecs:cluster"]


class Earlier(NamedTuple):
    """Names of queues, and of clusters with a service, that are not in the config."""

    queues: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """One line for each."""
        named = ((Kind.QUEUE, self.queues), (Kind.CLUSTER, self.clusters))
        return [f"{kind} {name}, which the config does not name" for kind, names in named for name in names]


def in_record(config: Config, record: RunRecord | None) -> Earlier:
    """Returns what the record names."""
    if record is None:
        return Earlier()
    made = [each.partition(" ") for each in record.resources]
    return _without_named(
        config,
        [record.queue, *(name for kind, _, name in made if kind == Kind.QUEUE)],
        [record.cluster, *(name for kind, _, name in made if kind == Kind.CLUSTER)],
    )


def by_tag(session: AwsSession, config: Config) -> Earlier:
    """Returns what has the app's tag. What was removed just now may still be in it. Raises DsError."""
    pages = session.client("resourcegroupstaggingapi").get_paginator("get_resources")
    tags = [{"Key": "ds:app", "Values": [config.app_name]}]
    with aws_errors("looking by tag for what earlier configs made"):
        arns = [
            str(each["ResourceARN"])
            for page in pages.paginate(TagFilters=tags, ResourceTypeFilters=_TYPES)
            for each in page["ResourceTagMappingList"]
        ]
    queues = [arn.rpartition(":")[2] for arn in arns if arn.split(":")[2] == "sqs"]
    clusters = [arn.split("/")[1] for arn in arns if ":cluster/" in arn or arn.count("/") == _OF_A_SERVICE]
    return _without_named(config, queues, clusters)


_OF_A_SERVICE = 2
"""Slashes in a service's ARN: service/CLUSTER/NAME. One of the older form does not tell its cluster."""


def joined(*found: Earlier) -> Earlier:
    """Returns the names of all, each once."""
    return Earlier(
        tuple(dict.fromkeys(name for each in found for name in each.queues)),
        tuple(dict.fromkeys(name for each in found for name in each.clusters)),
    )


def without_jobs(session: AwsSession, clock: Clock, named: Earlier) -> tuple[Earlier, list[str]]:
    """Returns the names without queues if one of them holds jobs, which may still be wanted; and their lines.

    Names that do not exist are left out too.
    """
    client, empty, holding = session.client("sqs"), list[str](), list[str]()
    for name in named.queues:
        url = queue_url(client, name)
        jobs = sum(Channel(client, url, clock).depths()) if url else 0
        if jobs:
            what = f"queue {name} of an earlier config, with {many(jobs, 'job')}"
            holding.append(f"{what}: name it in the config, then ds monitor or ds cleanup")
        elif url:
            empty.append(name)
    if holding:  # it needs the others, of the dead say
        return named._replace(queues=()), [
            *holding,
            *(f"queue {name} of an earlier config" for name in empty),
        ]
    return named._replace(queues=tuple(empty)), []


def _without_named(config: Config, queues: Sequence[str], clusters: Sequence[str]) -> Earlier:
    known = QueueNames.of(config).all
    return Earlier(
        tuple(name for name in dict.fromkeys(queues) if name not in known),
        tuple(name for name in dict.fromkeys(clusters) if name != config.ecs_cluster),
    )
