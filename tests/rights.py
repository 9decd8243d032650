"""The rights that calls of AWS need, those that each role has, and the calls that tests see a role make."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from distributed_something.aws.iam.policies import Buckets, Grant, trusted
from distributed_something.aws.iam.roles import Role, Where
from distributed_something.aws.iam.user_policies import user_grants
from distributed_something.aws.session import AwsSession
from distributed_something.inputs.config import parse_config

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

NOT_GRANTED = {"ec2:RunInstances", "ssm:GetParameter"}
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
    (found,) = [each for each in trusted(WHERE, Buckets(("results",), ("images",))) if each.role is role]
    return granted(grant for grants in found.groups.values() for grant in grants)


def of_people() -> set[str]:
    """The rights of a person who uses every command."""
    buckets = "AWS_BUCKET = 'results'\nSOURCE_BUCKET = 'images'\n"
    config = parse_config(f"APP_NAME = 'App'\nAUTO_MONITOR = True\n{buckets}")
    return granted(user_grants(config, WHERE))


SEEN: defaultdict[Role | None, dict[str, str]] = defaultdict(dict)
"""Each call that the sessions of a role (None: of people) have made, with the test that made it first."""


def recorded(session: AwsSession, role: Role | None = None) -> AwsSession:
    """Has every call of a session recorded that no client has been made of yet."""

    def note(model: Any, **_: object) -> None:
        prefix = PREFIXES[model.service_model.service_name]
        SEEN[role].setdefault(f"{prefix}:{model.name}", os.environ.get("PYTEST_CURRENT_TEST", ""))

    session._botocore().register("before-call.*.*", note)
    return session


def beyond(role: Role | None) -> dict[str, str]:
    """The recorded calls that the role may not make."""
    allowed = of_people() if role is None else in_role(role)
    return {call: test for call, test in SEEN[role].items() if not actions([call]) - NOT_GRANTED <= allowed}
