"""The rights that calls of AWS need, those that each role has, and the calls that tests see a role make."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from distributed_something.aws.iam.policies import Grant, Used, trusted
from distributed_something.aws.iam.roles import Role, Where
from distributed_something.aws.iam.user_policies import administrator_grants, user_grants
from distributed_something.inputs.config import parse_config
from distributed_something.s3.session import AwsSession

WHERE = Where("123456789012", "us-east-1")

PREFIXES = {
    "cloudwatch": "cloudwatch",
    "ec2": "ec2",
    "ecs": "ecs",
    "iam": "iam",
    "lambda": "lambda",
    "logs": "logs",
    "pricing": "pricing",
    "resourcegroupstaggingapi": "tag",
    "s3": "s3",
    "scheduler": "scheduler",
    "service-quotas": "servicequotas",
    "sqs": "sqs",
    "ssm": "ssm",
    "sts": "sts",
}
"""The services that the code uses, by boto3's name, and what their actions begin with."""

OTHER_ACTIONS = {
    "s3:DeleteObjects": {"s3:DeleteObject"},
    "s3:HeadBucket": {"s3:ListBucket"},
    "s3:HeadObject": {"s3:GetObject"},
    "s3:ListMultipartUploads": {"s3:ListBucketMultipartUploads"},
    "s3:ListObjectsV2": {"s3:ListBucket"},
    "sqs:ChangeMessageVisibilityBatch": {"sqs:ChangeMessageVisibility"},
    "sqs:DeleteMessageBatch": {"sqs:DeleteMessage"},
    "sqs:SendMessageBatch": {"sqs:SendMessage"},
    "obstore:delete": {"s3:DeleteObject"},
    "obstore:get": {"s3:GetObject"},
    "obstore:head": {"s3:GetObject"},
    "obstore:put": {"s3:PutObject", "s3:AbortMultipartUpload"},
}
"""Calls whose action has another name."""

ALSO = {
    "cloudwatch:PutMetricAlarm": {"cloudwatch:TagResource", "iam:CreateServiceLinkedRole"},
    "ec2:CreateFleet": {"ec2:CreateTags", "ec2:RunInstances", "iam:PassRole"},
    "ec2:CreateLaunchTemplate": {"ec2:CreateTags"},
    "ec2:RequestSpotFleet": {"ec2:CreateTags", "ec2:RunInstances", "iam:PassRole"},
    "ecs:CreateCluster": {"ecs:TagResource"},
    "ecs:CreateService": {"ecs:TagResource"},
    "ecs:RegisterTaskDefinition": {"ecs:TagResource", "iam:PassRole"},
    "iam:AddRoleToInstanceProfile": {"iam:PassRole"},
    "iam:CreateInstanceProfile": {"iam:TagInstanceProfile"},
    "iam:CreateRole": {"iam:TagRole"},
    "lambda:CreateFunction": {"iam:PassRole", "lambda:TagResource"},
    "logs:CreateLogGroup": {"logs:TagResource"},
    "scheduler:CreateSchedule": {"iam:PassRole"},
    "scheduler:CreateScheduleGroup": {"scheduler:TagResource"},
    "sqs:CreateQueue": {"sqs:TagQueue"},
}
"""Actions that a call needs beside its own, as AWS says: for tags in it, and for roles that it hands on."""

NOT_GRANTED = {"ec2:RunInstances", "iam:PutRolePermissionsBoundary", "ssm:GetParameter"}
"""What the set-up of an account tries where it may, and leaves out where it may not."""


def actions(of: Iterable[str]) -> set[str]:
    """The rights that calls need."""
    found: set[str] = set()
    for call in of:
        found |= OTHER_ACTIONS.get(call, {call}) | ALSO.get(call, set())
    return found


def granted(grants: Iterable[Grant]) -> set[str]:
    return {action for each in grants for action in each.actions}


def in_role(role: Role) -> set[str]:
    (found,) = [each for each in trusted(WHERE, Used(("results",), ("images",))) if each.role is role]
    return granted(grant for grants in found.groups.values() for grant in grants)


def of_people() -> set[str]:
    """The rights of a person who uses every command."""
    buckets = "AWS_BUCKET = 'results'\nSOURCE_BUCKET = 'images'\n"
    config = parse_config(f"APP_NAME = 'App'\nAUTO_MONITOR = True\n{buckets}")
    return granted(user_grants(config, WHERE))


Who = Role | str
PEOPLE, ADMINISTRATOR = "people", "administrator"

SEEN: defaultdict[Who, dict[str, str]] = defaultdict(dict)
"""Each call that a role, or a person, has made, with the test that made it first."""

WIRE = {"monitoring": "cloudwatch", "tagging": "tag"}
"""Names of services in signatures, where actions begin with another one."""

ON_THE_WIRE = {
    "s3:DeletePart": {"s3:AbortMultipartUpload"},
    "s3:GetBucket": {"s3:ListBucket"},
    "s3:PostPart": {"s3:PutObject"},
    "s3:PutPart": {"s3:PutObject"},
}
"""Requests to S3 as a proxy sees them: what it cannot tell apart needs these rights."""


def recorded(session: AwsSession, who: Who = PEOPLE) -> AwsSession:
    """Has every call of a session recorded that no client has been made of yet."""

    def note(model: Any, **_: object) -> None:
        _note(who, f"{PREFIXES[model.service_model.service_name]}:{model.name}")

    session._botocore().register("before-call.*.*", note)
    return session


def _note(who: Who, call: str) -> None:
    SEEN[who].setdefault(call, os.environ.get("PYTEST_CURRENT_TEST", ""))


@contextmanager
def overheard(endpoint: str, who: Who) -> Iterator[str]:
    """A way to an emulator for processes of a role, or a person, that records each of their calls."""
    from faulty import faulty_way

    with faulty_way(endpoint) as way:
        yield way.endpoint
    for name in way.seen:
        service, _, action = name.partition(".")
        _note(who, f"{WIRE.get(service, service)}:{action}")


def allowed(who: Who) -> set[str]:
    if isinstance(who, Role):
        return in_role(who)
    return of_people() if who == PEOPLE else granted(administrator_grants(WHERE))


def beyond(who: Who) -> dict[str, str]:
    """The recorded calls that a role, or a person, may not make."""
    rights = allowed(who) | NOT_GRANTED
    return {
        call: test
        for call, test in SEEN[who].items()
        if not (ON_THE_WIRE.get(call) or actions([call])) <= rights
    }
