"""Writes the policies of the roles, as grants. Those of users are in `user_policies`. Pure.

A grant names its actions one by one, and the narrowest resources that IAM allows: by name where we give the
name, by the tag `ds:app` where AWS does, by the account at least. Where IAM takes nothing narrower than "*",
the grant says why. Tests compare the grants with the calls in the code, both ways.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...inputs.config import Config
from ...inputs.keys import TOPIC_PREFIX
from ...s3.rights import spots_of
from ..names import PREFIX
from .roles import ALARM_SERVICE, FUNCTION, SCHEDULES, Role, Where

Document = dict[str, Any]

MANAGED_LIMIT = 6_144
"""IAM's limit of a managed policy in characters without spaces."""

INSIDE_LIMIT = 10_240
"""IAM's limit of all policies inside one role together, in characters without spaces."""

APP_TAG = "aws:ResourceTag/ds:app"
NO_NARROWER = "IAM knows no narrower resource for these"


class Grant(NamedTuple):
    """Allows actions on resources. `why_all` gives the reason for the resource "*"."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, Any]] = {}
    why_all: str = ""

    def statement(self) -> Document:
        """The grant as a statement of a policy."""
        found: Document = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": sorted(self.actions),
            "Resource": sorted(self.resources),
        }
        return found | ({"Condition": self.conditions} if self.conditions else {})


class Trusted(NamedTuple):
    """A wanted role: the service that may assume it, its purpose, and its rights by group."""

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


def shortened(policy: Document) -> Document:
    """The same policy with lists of one written as a text: IAM limits its length."""

    def short(value: Any) -> Any:
        return value[0] if isinstance(value, list) and len(value) == 1 else value

    statements = [{name: short(value) for name, value in each.items()} for each in policy["Statement"]]
    return {**policy, "Statement": statements}


def parts(policy: Document) -> list[Document]:
    """The policy as several that allow the same together, each within MANAGED_LIMIT."""
    found: list[Document] = []
    for statement in policy["Statement"]:
        last = {**found[-1], "Statement": [*found[-1]["Statement"], statement]} if found else policy
        if found and len(compact(last)) <= MANAGED_LIMIT:
            found[-1] = last
        else:
            found.append({**policy, "Statement": [statement]})
    return found


def compact(policy: Document) -> str:
    """A policy without spaces, as they count in a role."""
    return json.dumps(policy, separators=(",", ":"))


# These services do not say for which account they take on the role of an instance, or of a function.
_NO_SOURCE = frozenset({"ec2.amazonaws.com", "lambda.amazonaws.com"})


def trust(where: Where, service: str) -> Document:
    """The trust policy: one service, for this account only if the service names the account."""
    statement: Document = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    if service not in _NO_SOURCE:
        statement["Condition"] = {"StringEquals": {"aws:SourceAccount": where.number}}
    return {"Version": "2012-10-17", "Statement": [statement]}


class Used(NamedTuple):
    """What tasks of an account use: buckets that they write to or only read, and secrets (ARNs).

    `images`: some images start their own worker. `roles` are the ARNs of the roles by which tasks ask further
    buckets; `shared` are those of the written buckets whose objects get an ACL.
    """

    written: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    images: bool = False
    roles: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config, where: Where) -> Used:
        """What a config names: SOURCE_BUCKET is read, AWS_BUCKET and any other *_BUCKET written.

        Buckets of INPUTS are read, and that of OUTPUT written, unless BUCKET_ROLES has a role for them.
        """
        named = {name: value for name, value in config.extra.items() if name.endswith("_BUCKET")}
        read, secrets = named.pop("SOURCE_BUCKET", ""), secret_arns(config, where).values()
        spots = [
            each for each in spots_of(config) if each.bucket not in config.bucket_roles and not each.home
        ]
        output = [each.bucket for each in spots if each.writes and each.bucket != config.aws_bucket]
        inputs = (each.bucket for each in spots if not each.writes)
        written, shared = (config.aws_bucket, *named.values(), *output), output if config.output_acl else ()
        roles, images = (*config.bucket_roles.values(),), config.image_starts_worker
        return Used().joined(cls(written, (read, *inputs), (*secrets,), images, roles, (*shared,)))

    @classmethod
    def by_policies(cls, store: Document, secrets: Document, part: str) -> Used:
        """What policies of `store` and `secrets` allow: the inverse of what makes them."""
        start, names = f"arn:{part}:s3:::", dict[str, tuple[str, ...]]()
        for each in store.get("Statement", ()):
            inside = (arn.removesuffix("/*") for arn in each["Resource"])
            names[each.get("Sid", "")] = tuple(arn.removeprefix(start) for arn in inside)
        readable = tuple(arn for each in secrets.get("Statement", ()) for arn in each["Resource"])
        written, read, roles, shared = (names.get(sid, ()) for sid in ("Write", "Read", "Roles", "Acl"))
        return Used().joined(cls(written, read, readable, roles=roles, shared=shared))

    def joined(self, other: Used) -> Used:
        """Adds what another project of the account uses."""
        written = {*self.written, *other.written} - {""}
        read = {*self.read, *other.read} - written - {""}
        return Used(
            tuple(sorted(written)),
            tuple(sorted(read)),
            tuple(sorted({*self.secrets, *other.secrets})),
            self.images or other.images,
            tuple(sorted({*self.roles, *other.roles})),
            tuple(sorted({*self.shared, *other.shared})),
        )


def secret_arns(config: Config, where: Where) -> dict[str, str]:
    """The ARN of each secret that the config names, by the name of its variable."""
    found = {}
    for name, place in config.secrets.items():
        kind, _, rest = place.partition(":")
        if kind in ("ssm", "secretsmanager"):
            found[name] = where.arn("ssm", f"parameter/{rest.lstrip('/')}") if kind == "ssm" else rest
    return found


# -- Roles --------------------------------------------------------------------------------------------------


def trusted(where: Where, used: Used) -> tuple[Trusted, ...]:
    """The roles of an account whose tasks use this."""
    extra = (
        Trusted(
            Role.IMAGE_TASK,
            "ecs-tasks.amazonaws.com",
            "what workers of images may do",
            _image_task(where, used),
        ),
        Trusted(
            Role.IMAGE_MACHINE,
            "ec2.amazonaws.com",
            "mounts the bucket for images with a worker",
            _image_machine(where, used),
        ),
    )
    return (
        Trusted(Role.TASK, "ecs-tasks.amazonaws.com", "what workers and jobs may do", _task(where, used)),
        Trusted(
            Role.EXECUTION,
            "ecs-tasks.amazonaws.com",
            "pulls images, writes what containers print",
            _execution(where, used.secrets),
        ),
        Trusted(Role.MACHINE, "ec2.amazonaws.com", "lets machines join a cluster", _machine(where)),
        Trusted(
            Role.FLEET,
            "spotfleet.amazonaws.com",
            "starts machines of fleet files",
            _fleet(where, used.images),
        ),
        Trusted(Role.MONITOR, "lambda.amazonaws.com", "watches and ends runs", _monitor(where, used)),
        Trusted(Role.SCHEDULE, "scheduler.amazonaws.com", "calls the auto-monitor", _schedule(where)),
        *(extra if used.images else ()),
    )


USE_QUEUES = (
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
    "sqs:SendMessage",
)
_READ = ("s3:GetObject",)
_WRITE = ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject")


def _task(where: Where, used: Used) -> dict[str, tuple[Grant, ...]]:
    """For tasks: queues with our tag, the named buckets, and the log calls of the reference's worker.

    Log calls have no condition on tags: streams have no tags, so every line would be refused.
    """
    queues = Grant("Queues", USE_QUEUES, (where.arn("sqs", "*", region="*"),), {"StringLike": {APP_TAG: "*"}})
    logs = Grant(
        "Logs",
        ("logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"),
        (where.arn("logs", "log-group:*", region="*"),),
    )
    return {"queue": (queues,), **store_grants(where, used), "logs": (logs,)}


def _image_task(where: Where, used: Used) -> dict[str, tuple[Grant, ...]]:
    """For tasks whose image starts its own worker: also the ACLs of its uploads (`UPLOAD_FLAGS`).

    The stock start script names its machine and the volumes of it: it may change no other tag, as those of
    ours lead to what must end. It may not make its alarm, which would end machines that download.
    """
    kinds = tuple(where.arn("ec2", f"{kind}/*", region="*") for kind in ("instance", "volume"))
    tagged: dict[str, Mapping[str, Any]] = {"StringLike": {APP_TAG: "*"}}
    only_name = {**tagged, "ForAllValues:StringEquals": {"aws:TagKeys": ["Name"]}}
    name = (
        Grant("Volumes", ("ec2:DescribeInstanceAttribute",), kinds[:1], tagged),
        Grant("Name", ("ec2:CreateTags",), kinds, only_name),
    )
    found = {**_task(where, used), "name": name}
    if used.written:
        acl = Grant("Share", ("s3:PutObjectAcl",), _bucket_arns(where, used.written, "/*"))
        found["share"] = (acl,)
    return found


def _image_machine(where: Where, used: Used) -> dict[str, tuple[Grant, ...]]:
    """For machines of such images: to mount the bucket, and to answer metadata without a token."""
    every = (*used.written, *used.read)
    read = (
        Grant("List", ("s3:ListBucket",), _bucket_arns(where, every)),
        Grant("Read", _READ, _bucket_arns(where, every, "/*")),
    )
    machines = where.arn("ec2", "instance/*", region="*")
    change = Grant(
        "Metadata", ("ec2:ModifyInstanceMetadataOptions",), (machines,), {"StringLike": {APP_TAG: "*"}}
    )
    return {**_machine(where), "metadata": (change,), **({"store": read} if every else {})}


def store_grants(where: Where, used: Used) -> dict[str, tuple[Grant, ...]]:
    """To list, read and write these buckets; no grant if there is none."""
    every = (*used.written, *used.read)
    grants = [Grant("List", ("s3:ListBucket",), _bucket_arns(where, every))] if every else []
    if used.written:
        grants.append(Grant("Write", _WRITE, _bucket_arns(where, used.written, "/*")))
    if used.read:
        grants.append(Grant("Read", _READ, _bucket_arns(where, used.read, "/*")))
    if used.roles:
        grants.append(Grant("Roles", ("sts:AssumeRole",), used.roles))
    if used.shared:
        grants.append(Grant("Acl", ("s3:PutObjectAcl",), _bucket_arns(where, used.shared, "/*")))
    return {"store": tuple(grants)} if grants else {}


def _bucket_arns(where: Where, names: Sequence[str], inside: str = "") -> tuple[str, ...]:
    return tuple(f"arn:{where.part}:s3:::{name}{inside}" for name in names)


def _execution(where: Where, secrets: Iterable[str]) -> dict[str, tuple[Grant, ...]]:
    """For the ECS agent: log streams of containers, the account's images, and the secrets of its apps."""
    groups = [where.arn("logs", f"log-group:*_perInstance{end}", region="*") for end in ("", ":*")]
    repositories = where.arn("ecr", "repository/*", region="*")
    pull = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
    sign_in = Grant("SignIn", ("ecr:GetAuthorizationToken",), ("*",), why_all=NO_NARROWER)
    found = {
        "logs": (Grant("Streams", ("logs:CreateLogStream", "logs:PutLogEvents"), tuple(groups)),),
        "images": (sign_in, Grant("Pull", pull, (repositories,))),
    }
    by_service = {
        ":ssm:": ("Parameters", "ssm:GetParameters"),
        ":secretsmanager:": ("Secrets", "secretsmanager:GetSecretValue"),
    }
    reading = tuple(
        Grant(sid, (action,), arns)
        for service, (sid, action) in by_service.items()
        if (arns := tuple(sorted({_whole(arn) for arn in secrets if service in arn})))
    )
    return {**found, "secrets": reading} if reading else found


def _whole(arn: str) -> str:
    """The ARN of a secret, of which ECS may be given a part: `<ARN>:<key>:<stage>:<version>`."""
    return ":".join(arn.split(":")[:7]) if ":secretsmanager:" in arn else arn


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
    find = Grant("Endpoint", ("ecs:DiscoverPollEndpoint",), ("*",), why_all=NO_NARROWER)
    return {
        "cluster": (Grant("Join", on_cluster, (clusters,)), Grant("Work", on_instance, (instances,)), find)
    }


def _fleet(where: Where, images: bool) -> dict[str, tuple[Grant, ...]]:
    """For spot fleets: to start machines, which get our instance profile only, and to end them.

    Tagging and terminating have no condition: a machine that the fleet cannot end would go on costing.
    """
    describe = ("ec2:DescribeImages", "ec2:DescribeInstanceStatus", "ec2:DescribeSubnets")
    start = ("ec2:RequestSpotInstances", "ec2:RunInstances")
    why = "machines are started from images, subnets and groups that belong to others too"
    own = where.arn("ec2", "*/*", region="*")
    machines = (Role.MACHINE, Role.IMAGE_MACHINE) if images else (Role.MACHINE,)
    return {
        "machines": (
            Grant("Look", describe, ("*",), why_all=NO_NARROWER),
            Grant("Start", start, ("*",), why_all=why),
            Grant("TagAndEnd", ("ec2:CreateTags", "ec2:TerminateInstances"), (own,)),
            pass_role(where, "Pass", machines, "ec2"),
        )
    }


def _monitor(where: Where, used: Used) -> dict[str, tuple[Grant, ...]]:
    """For the auto-monitor: to look at the runs of every app, to queue jobs of them, and to end runs."""
    written = used.written
    store = (
        Grant("List", ("s3:ListBucket", "s3:ListBucketMultipartUploads"), _bucket_arns(where, written)),
        Grant("Runs", ("s3:GetObject", "s3:PutObject"), _bucket_arns(where, written, "/runs/*")),
        Grant("Uploads", ("s3:AbortMultipartUpload",), _bucket_arns(where, written, "/*")),
    )
    own = where.arn("logs", f"log-group:/aws/lambda/{FUNCTION}:*", region="*")
    queues = where.arn("sqs", "*", region="*")
    schedules = where.arn("scheduler", f"schedule/{SCHEDULES}/*", region="*")
    return {
        **({"store": store} if written else {}),
        "logs": (Grant("Own", ("logs:CreateLogStream", "logs:PutLogEvents"), (own,)),),
        "schedule": (Grant("End", ("scheduler:DeleteSchedule", "scheduler:GetSchedule"), (schedules,)),),
        "look": (Grant("Look", _LOOKS, ("*",), why_all=NO_NARROWER),),
        "notify": (Grant("Publish", ("sns:Publish",), (where.arn("sns", f"{TOPIC_PREFIX}*", region="*"),)),),
        "collect": (Grant("Send", _PUT_BACK, (queues,), {"StringLike": {APP_TAG: "*"}}),),
        "end": _monitor_ends(where),
    }


_PUT_BACK = (
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:ReceiveMessage",
    "sqs:SendMessage",
)

_LOOKS = (
    "cloudwatch:DescribeAlarms",
    "cloudwatch:GetDashboard",
    "ec2:DescribeFleetHistory",
    "ec2:DescribeFleetInstances",
    "ec2:DescribeFleets",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeSpotFleetInstances",
    "ec2:DescribeSpotFleetRequestHistory",
    "ec2:DescribeSpotFleetRequests",
    "ec2:DescribeSpotPriceHistory",
    "ecs:DescribeClusters",
    "ecs:DescribeContainerInstances",
    "ecs:DescribeServices",
    "ecs:DescribeTaskDefinition",
    "ecs:DescribeTasks",
    "ecs:ListTaskDefinitions",
    "ecs:ListTasks",
    "pricing:GetProducts",
    "tag:GetResources",
)


def _monitor_ends(where: Where) -> tuple[Grant, ...]:
    """Resources with an app's tag; IAM sees no tags on dashboards and task definitions.

    Finding queues has no condition on tags: a deleted queue has none, and would be refused, not missing.
    """
    tagged = {"StringLike": {APP_TAG: "*"}}
    machines = (
        "ec2:CancelSpotFleetRequests",
        "ec2:DeleteFleets",
        "ec2:DeleteLaunchTemplate",
        "ec2:ModifyFleet",
        "ec2:ModifySpotFleetRequest",
        "ec2:TerminateInstances",
    )
    look = ("sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ListQueueTags")
    queues = (where.arn("sqs", "*", region="*"),)
    services = [where.arn("ecs", f"{kind}/*", region="*") for kind in ("cluster", "service")]
    in_ecs = ("ecs:DeleteCluster", "ecs:DeleteService", "ecs:UpdateService")
    dashboards = where.arn("cloudwatch", "dashboard/*", region="")
    return (
        *alarm_grants(where, f"{PREFIX}*", region="*"),
        Grant("Machines", machines, (where.arn("ec2", "*/*", region="*"),), tagged),
        Grant("FindQueues", look, queues),
        Grant("Queues", ("sqs:DeleteQueue",), queues, tagged),
        Grant("Services", in_ecs, tuple(services), tagged),
        Grant("Definitions", ("ecs:DeregisterTaskDefinition",), ("*",), why_all=NO_NARROWER),
        Grant("Dashboards", ("cloudwatch:DeleteDashboards",), (dashboards,)),
    )


def alarm_grants(where: Where, names: str, *, region: str | None = None) -> tuple[Grant, ...]:
    """To make and remove alarms of these names, and to have them end machines.

    CloudWatch ends them with a role of its own, which the maker of an alarm must be allowed to create.
    """
    actions = ("cloudwatch:DeleteAlarms", "cloudwatch:PutMetricAlarm", "cloudwatch:TagResource")
    own = where.arn("iam", f"role/aws-service-role/{ALARM_SERVICE}/*", region="")
    for_alarms = {"StringEquals": {"iam:AWSServiceName": ALARM_SERVICE}}
    return (
        Grant("Alarms", actions, (where.arn("cloudwatch", f"alarm:{names}", region=region),)),
        Grant("AlarmsEnd", ("iam:CreateServiceLinkedRole",), (own,), for_alarms),
    )


def _schedule(where: Where) -> dict[str, tuple[Grant, ...]]:
    """For schedules: to call the auto-monitor, and no other function."""
    return {"call": (Grant("Call", ("lambda:InvokeFunction",), (where.function(region="*"),)),)}


def pass_role(where: Where, sid: str, roles: Sequence[Role], *services: str) -> Grant:
    """To pass these roles to these services, and no other."""
    to = {"StringEquals": {"iam:PassedToService": [f"{each}.amazonaws.com" for each in services]}}
    return Grant(sid, ("iam:PassRole",), tuple(map(where.role, roles)), to)
