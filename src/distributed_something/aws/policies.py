"""Who may do what: the policies of the roles, and of the person who types the commands. Pure.

A grant names its actions one by one, and the narrowest resources that IAM allows: by name where we give the
name, by the tag `ds:app` where AWS does, by the account at least. Where IAM takes nothing narrower than "*",
the grant says why. Tests hold each grant against the calls that the code makes, both ways.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..config import Config
from .queues import QueueNames
from .roles import LINKED, PATH, PROFILE, TAGGING_ROLE, Role, Where

Document = dict[str, Any]

MANAGED_LIMIT = 6_144
"""Characters of a managed policy, spaces not counted; the policies inside one role may have 10,240."""

_APP_TAG = "aws:ResourceTag/ds:app"
_NEW_TAG = "aws:RequestTag/ds:app"
_NO_NARROWER = "IAM knows no narrower resource for these"


class Grant(NamedTuple):
    """Actions that are allowed on resources. `why_all` says why, where the resource is "*"."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, Any]] = {}
    why_all: str = ""

    def statement(self) -> Document:
        """As a policy has it."""
        found: Document = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": sorted(self.actions),
            "Resource": sorted(self.resources),
        }
        return found | ({"Condition": self.conditions} if self.conditions else {})


class Trusted(NamedTuple):
    """A role as it is to be: who may take it on, for what, and with which rights by group."""

    role: Role
    service: str
    purpose: str
    groups: Mapping[str, tuple[Grant, ...]]

    def policies(self) -> dict[str, Document]:
        """The policies inside the role, by name: one for each group of actions."""
        return {name: document(grants) for name, grants in self.groups.items()}


def document(grants: Iterable[Grant]) -> Document:
    """A policy of these grants."""
    return {"Version": "2012-10-17", "Statement": [each.statement() for each in grants]}


def compact(policy: Document) -> str:
    """A policy as it is sent: without spaces, as they count in a role."""
    return json.dumps(policy, separators=(",", ":"))


# The machines' own trust has no condition: EC2 takes a role on for an instance without naming an account.
_NO_SOURCE = frozenset({"ec2.amazonaws.com"})


def trust(where: Where, service: str) -> Document:
    """Who may take a role on: one service, for this account only where the service says for whom it asks."""
    statement: Document = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    if service not in _NO_SOURCE:
        statement["Condition"] = {"StringEquals": {"aws:SourceAccount": where.number}}
    return {"Version": "2012-10-17", "Statement": [statement]}


class Buckets(NamedTuple):
    """Buckets that tasks use, by name: those that they also write to, and those that they only read."""

    written: tuple[str, ...] = ()
    read: tuple[str, ...] = ()

    def joined(self, other: Buckets) -> Buckets:
        """These and others: an account serves many projects, each with its own."""
        written = tuple(sorted({*self.written, *other.written}))
        return Buckets(written, tuple(sorted({*self.read, *other.read} - {*written})))


def buckets_of(config: Config) -> Buckets:
    """The buckets that a config names: SOURCE_BUCKET is read, AWS_BUCKET and any other *_BUCKET written."""
    named = {name: value for name, value in config.extra.items() if name.endswith("_BUCKET") and value}
    source = {named.pop("SOURCE_BUCKET", "")} - {""}
    written = {config.aws_bucket, *named.values()} - {""}
    return Buckets(tuple(sorted(written)), tuple(sorted(source - written)))


def buckets_in(policy: Document, part: str) -> Buckets:
    """The buckets that a policy of `store` allows: the inverse of what makes it."""
    found: dict[str, tuple[str, ...]] = {}
    start, end = f"arn:{part}:s3:::", "/*"
    for each in policy.get("Statement", ()):
        names = [arn[len(start) : -len(end)] for arn in each["Resource"] if arn.endswith(end)]
        found[str(each.get("Sid"))] = tuple(sorted(names))
    return Buckets(found.get("Write", ()), found.get("Read", ()))


# -- Roles --------------------------------------------------------------------------------------------------


def trusted(where: Where, buckets: Buckets) -> tuple[Trusted, ...]:
    """The roles of an account whose tasks use these buckets."""
    return (
        Trusted(Role.TASK, "ecs-tasks.amazonaws.com", "what workers and jobs may do", _task(where, buckets)),
        Trusted(
            Role.EXECUTION,
            "ecs-tasks.amazonaws.com",
            "pulls images, writes what containers print",
            _execution(where),
        ),
        Trusted(Role.MACHINE, "ec2.amazonaws.com", "lets machines join a cluster", _machine(where)),
        Trusted(Role.FLEET, "spotfleet.amazonaws.com", "starts machines for a fleet file", _fleet(where)),
    )


_TASK_QUEUE = (
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
    "sqs:SendMessage",
)
_READ = ("s3:GetObject",)
_WRITE = ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject")


def _task(where: Where, buckets: Buckets) -> dict[str, tuple[Grant, ...]]:
    """Queues of our making (their tag says so), the named buckets, and what the reference's worker logs.

    A condition on tags would refuse every line of a log: IAM sees the tags of groups, and none on streams.
    """
    queues = Grant(
        "Queues", _TASK_QUEUE, (where.arn("sqs", "*", region="*"),), {"StringLike": {_APP_TAG: "*"}}
    )
    logs = Grant(
        "Logs",
        ("logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"),
        (where.arn("logs", "log-group:*", region="*"),),
    )
    return {"queue": (queues,), **_store(where, buckets), "logs": (logs,)}


def _store(where: Where, buckets: Buckets) -> dict[str, tuple[Grant, ...]]:
    every = (*buckets.written, *buckets.read)
    grants = [Grant("List", ("s3:ListBucket",), _bucket_arns(where, every))] if every else []
    if buckets.written:
        grants.append(Grant("Write", _WRITE, _bucket_arns(where, buckets.written, "/*")))
    if buckets.read:
        grants.append(Grant("Read", _READ, _bucket_arns(where, buckets.read, "/*")))
    return {"store": tuple(grants)} if grants else {}


def _bucket_arns(where: Where, names: Sequence[str], inside: str = "") -> tuple[str, ...]:
    return tuple(f"arn:{where.part}:s3:::{name}{inside}" for name in names)


def _execution(where: Where) -> dict[str, tuple[Grant, ...]]:
    """For the ECS agent: the log streams of containers, and images from the account's own registry."""
    groups = [where.arn("logs", f"log-group:*_perInstance{end}", region="*") for end in ("", ":*")]
    repositories = where.arn("ecr", "repository/*", region="*")
    pull = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
    sign_in = Grant("SignIn", ("ecr:GetAuthorizationToken",), ("*",), why_all=_NO_NARROWER)
    return {
        "logs": (Grant("Streams", ("logs:CreateLogStream", "logs:PutLogEvents"), tuple(groups)),),
        "images": (sign_in, Grant("Pull", pull, (repositories,))),
    }


def _machine(where: Where) -> dict[str, tuple[Grant, ...]]:
    """For the ECS agent: its place in a cluster of this account. It makes no cluster of its own."""
    clusters, instances = (
        where.arn("ecs", f"{kind}/*", region="*") for kind in ("cluster", "container-instance")
    )
    on_cluster = (
        "ecs:DeregisterContainerInstance",
        "ecs:RegisterContainerInstance",
        "ecs:SubmitAttachmentStateChanges",
        "ecs:SubmitContainerStateChange",
        "ecs:SubmitTaskStateChange",
    )
    on_instance = ("ecs:Poll", "ecs:StartTelemetrySession", "ecs:UpdateContainerInstancesState")
    find = Grant("Endpoint", ("ecs:DiscoverPollEndpoint",), ("*",), why_all=_NO_NARROWER)
    return {
        "cluster": (Grant("Join", on_cluster, (clusters,)), Grant("Work", on_instance, (instances,)), find)
    }


def _fleet(where: Where) -> dict[str, tuple[Grant, ...]]:
    """For spot fleets: to start machines, which get our instance profile only, and to end them.

    To tag and to end machines has no condition: a fleet that could not do so would be paid for.
    """
    describe = ("ec2:DescribeImages", "ec2:DescribeInstanceStatus", "ec2:DescribeSubnets")
    start = ("ec2:RequestSpotInstances", "ec2:RunInstances")
    why = "machines are started from images, subnets and groups that belong to others too"
    own = where.arn("ec2", "*/*", region="*")
    return {
        "machines": (
            Grant("Look", describe, ("*",), why_all=_NO_NARROWER),
            Grant("Start", start, ("*",), why_all=why),
            Grant("TagAndEnd", ("ec2:CreateTags", "ec2:TerminateInstances"), (own,)),
            _pass(where, "Pass", Role.MACHINE, "ec2"),
        )
    }


def _pass(where: Where, sid: str, role: Role, *services: str) -> Grant:
    to = {"StringEquals": {"iam:PassedToService": [f"{each}.amazonaws.com" for each in services]}}
    return Grant(sid, ("iam:PassRole",), (where.role(role),), to)


# -- The person who types the commands ----------------------------------------------------------------------


def user_grants(config: Config, where: Where) -> tuple[Grant, ...]:
    """What the four steps and what comes after them need, for one app."""
    return (
        *_user_queues(config, where),
        *_user_store(config, where),
        *_user_cluster(config, where),
        *_user_machines(config, where),
        *_user_watch(config, where),
        *_user_check(config, where),
    )


def _of_app(config: Config) -> dict[str, dict[str, str]]:
    return {"StringEquals": {_APP_TAG: config.app_name}}


def _for_app(config: Config) -> dict[str, dict[str, str]]:
    return {"StringEquals": {_NEW_TAG: config.app_name}}


def _user_queues(config: Config, where: Where) -> tuple[Grant, ...]:
    """All of the app's three queues, by their names."""
    names = QueueNames(config.sqs_queue_name, config.sqs_dead_letter_queue)
    actions = (
        "sqs:CreateQueue",
        "sqs:DeleteQueue",
        "sqs:GetQueueUrl",
        "sqs:ListQueueTags",
        "sqs:PurgeQueue",
        "sqs:SetQueueAttributes",
        "sqs:TagQueue",
        *_TASK_QUEUE,
    )
    queues = (names.jobs, names.dead, names.carried)
    return (Grant("Queues", actions, tuple(where.arn("sqs", each) for each in dict.fromkeys(queues))),)


def _user_store(config: Config, where: Where) -> tuple[Grant, ...]:
    buckets = buckets_of(config)
    return _store(where, buckets).get("store", ())


def _user_cluster(config: Config, where: Where) -> tuple[Grant, ...]:
    """The cluster and the app's service by name; tasks and machines by the cluster that they are in."""
    cluster = where.arn("ecs", f"cluster/{config.ecs_cluster}")
    service = where.arn("ecs", f"service/{config.ecs_cluster}/{config.app_name}Service")
    family = where.arn("ecs", f"task-definition/{config.app_name}Task:*")
    inside = {"ArnEquals": {"ecs:cluster": cluster}}
    register = ("ecs:CreateCluster", "ecs:RegisterTaskDefinition")
    every = (
        "ecs:DeregisterTaskDefinition",
        "ecs:DescribeTaskDefinition",
        "ecs:ListTaskDefinitions",
    )
    return (
        Grant(
            "Cluster",
            ("ecs:DeleteCluster", "ecs:DescribeClusters"),
            (cluster,),
        ),
        Grant(
            "Service",
            ("ecs:CreateService", "ecs:DeleteService", "ecs:DescribeServices", "ecs:UpdateService"),
            (service,),
        ),
        Grant("Tag", ("ecs:TagResource",), (cluster, service, family)),
        Grant("Register", register, ("*",), _for_app(config), _NO_NARROWER),
        Grant("Definitions", every, ("*",), why_all=_NO_NARROWER),
        Grant(
            "Tasks",
            ("ecs:DescribeContainerInstances", "ecs:DescribeTasks", "ecs:ListTasks"),
            ("*",),
            inside,
            "what is in a cluster is named by chance; the condition names the cluster",
        ),
        Grant(
            "PassToTasks",
            ("iam:PassRole",),
            (where.role(Role.TASK), where.role(Role.EXECUTION)),
            {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
        ),
    )


def _user_machines(config: Config, where: Where) -> tuple[Grant, ...]:
    """Fleets: made with the app's tag, and changed or ended only with it."""
    make = ("ec2:CreateFleet", "ec2:CreateLaunchTemplate", "ec2:RequestSpotFleet", "ec2:RunInstances")
    change = (
        "ec2:CancelSpotFleetRequests",
        "ec2:CreateLaunchTemplateVersion",
        "ec2:DeleteFleets",
        "ec2:DeleteLaunchTemplate",
        "ec2:ModifyFleet",
        "ec2:ModifySpotFleetRequest",
        "ec2:TerminateInstances",
    )
    by = ["CreateFleet", "CreateLaunchTemplate", "RequestSpotFleet", "RunInstances"]
    ours = where.arn("ec2", "*/*")
    fleets = (where.role(Role.FLEET), where.arn("iam", f"role/{TAGGING_ROLE}", region=""))
    to_fleets = {"StringEquals": {"iam:PassedToService": "spotfleet.amazonaws.com"}}
    return (
        Grant(
            "Machines",
            make,
            ("*",),
            why_all="images, subnets and groups that a fleet uses belong to others too",
        ),
        Grant("OwnMachines", change, (ours,), _of_app(config)),
        Grant("TagMachines", ("ec2:CreateTags",), (ours,), {"StringEquals": {"ec2:CreateAction": by}}),
        _pass(where, "PassToMachines", Role.MACHINE, "ec2"),
        Grant("PassToFleets", ("iam:PassRole",), fleets, to_fleets),
    )


def _user_watch(config: Config, where: Where) -> tuple[Grant, ...]:
    """Logs, dashboard and alarms, by the app's names: an alarm's begins with the app's and a dot."""
    names = (config.log_group_name, config.log_group_name + "_perInstance")
    groups = tuple(where.arn("logs", f"log-group:{name}{end}") for name in names for end in ("", ":*"))
    make = ("logs:CreateLogGroup", "logs:PutRetentionPolicy", "logs:TagResource")
    dashboard = where.arn("cloudwatch", f"dashboard/{config.app_name}", region="")
    alarms = where.arn("cloudwatch", f"alarm:{config.app_name}.*")
    change = ("cloudwatch:DeleteAlarms", "cloudwatch:PutMetricAlarm")
    show = ("cloudwatch:DeleteDashboards", "cloudwatch:GetDashboard", "cloudwatch:PutDashboard")
    look = ("cloudwatch:DescribeAlarms", "logs:DescribeLogGroups")
    return (
        Grant("Logs", make, groups),
        Grant("Alarms", change, (alarms,)),
        Grant("Dashboard", show, (dashboard,)),
        Grant("Lists", look, ("*",), why_all="lists show every name, or none"),
    )


def _user_check(config: Config, where: Where) -> tuple[Grant, ...]:
    """What `ds check` and the monitor look at, and nobody can change by looking."""
    describe = (
        "ec2:DescribeFleetHistory",
        "ec2:DescribeFleetInstances",
        "ec2:DescribeFleets",
        "ec2:DescribeImages",
        "ec2:DescribeInstanceTypeOfferings",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeInstances",
        "ec2:DescribeKeyPairs",
        "ec2:DescribeLaunchTemplates",
        "ec2:DescribeRegions",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSpotFleetInstances",
        "ec2:DescribeSpotFleetRequestHistory",
        "ec2:DescribeSpotFleetRequests",
        "ec2:DescribeSpotPriceHistory",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcs",
        "iam:ListRoles",
        "servicequotas:GetServiceQuota",
        "sts:GetCallerIdentity",
    )
    roles = (
        where.arn("iam", f"role{PATH}*", region=""),
        where.arn("iam", f"instance-profile{PATH}{PROFILE}", region=""),
        where.arn("iam", f"role/{TAGGING_ROLE}", region=""),
    )
    look = ("iam:GetInstanceProfile", "iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies")
    images = f"arn:{where.part}:ssm:{where.region}::parameter/aws/service/ecs/optimized-ami/*"
    services = where.arn("ecs", f"cluster/{config.ecs_cluster}")
    return (
        Grant("Look", describe, ("*",), why_all=_NO_NARROWER),
        Grant("Roles", look, roles),
        Grant("NewestImage", ("ssm:GetParameter",), (images,)),
        Grant(
            "OtherServices",
            ("ecs:ListServices",),
            ("*",),
            {"ArnEquals": {"ecs:cluster": services}},
            "a list of services has no resource; the condition names the cluster",
        ),
    )


def user_policy(config: Config, where: Where) -> Document:
    """The policy of the person who types the commands for one app."""
    return document(user_grants(config, where))


# -- The person who sets an account up ----------------------------------------------------------------------


def administrator_grants(where: Where) -> tuple[Grant, ...]:
    """What `ds account` needs: roles at our own path, and to see whether a run uses them."""
    roles = where.arn("iam", f"role{PATH}*", region="")
    profile = where.arn("iam", f"instance-profile{PATH}{PROFILE}", region="")
    linked = where.arn("iam", "role/aws-service-role/*", region="")
    return (
        Grant(
            "Roles",
            (
                "iam:CreateRole",
                "iam:DeleteRole",
                "iam:DeleteRolePolicy",
                "iam:GetRole",
                "iam:GetRolePolicy",
                "iam:ListRolePolicies",
                "iam:PutRolePolicy",
                "iam:TagRole",
                "iam:UpdateAssumeRolePolicy",
            ),
            (roles,),
        ),
        Grant(
            "Profile",
            (
                "iam:AddRoleToInstanceProfile",
                "iam:CreateInstanceProfile",
                "iam:DeleteInstanceProfile",
                "iam:GetInstanceProfile",
                "iam:RemoveRoleFromInstanceProfile",
                "iam:TagInstanceProfile",
            ),
            (profile,),
        ),
        Grant("PutIntoProfile", ("iam:PassRole",), (where.role(Role.MACHINE),)),
        Grant(
            "Linked",
            ("iam:CreateServiceLinkedRole",),
            (linked,),
            {"StringEquals": {"iam:AWSServiceName": list(LINKED.values())}},
        ),
        Grant(
            "Look",
            ("ec2:DescribeRegions", "iam:ListRoles", "sts:GetCallerIdentity", "tag:GetResources"),
            ("*",),
            why_all=_NO_NARROWER,
        ),
    )


def administrator_policy(where: Where) -> Document:
    """The policy of the person who sets an account up."""
    return document(administrator_grants(where))
