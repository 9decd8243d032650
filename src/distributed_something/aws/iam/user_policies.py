"""Writes the policies of users: for the commands of one app, and for the set-up of an account. Pure."""

from __future__ import annotations

from ...inputs.config import Config
from ..names import alarm_prefix, instance_log_group
from ..sqs.queues import QueueNames
from .boundary import CONDITION, boundary_arn
from .policies import (
    APP_TAG,
    NO_NARROWER,
    USE_QUEUES,
    Document,
    Grant,
    Used,
    alarm_grants,
    document,
    pass_role,
    shortened,
    store_grants,
)
from .roles import FUNCTION, LINKED, PATH, PROFILES, SCHEDULES, TAGGING_ROLE, Role, Where

NEW_TAG = "aws:RequestTag/ds:app"


# -- The user of the commands --------------------------------------------------------------------------------


def user_grants(config: Config, where: Where) -> tuple[Grant, ...]:
    """The rights that all commands need, for one app."""
    return (
        *_user_queues(config, where),
        *_user_store(config, where),
        *_user_cluster(config, where),
        *_user_machines(config, where),
        *_user_watch(config, where),
        *(_user_auto_monitor(config, where) if config.auto_monitor else ()),
        *((Grant("Topics", ("sns:Publish",), config.topics),) if config.topics else ()),
        *_user_check(config, where),
    )


def _of_app(config: Config) -> dict[str, dict[str, str]]:
    return {"StringEquals": {APP_TAG: config.app_name}}


def _for_app(config: Config) -> dict[str, dict[str, str]]:
    return {"StringEquals": {NEW_TAG: config.app_name}}


def _user_queues(config: Config, where: Where) -> tuple[Grant, ...]:
    """All of the app's queues, by their names."""
    names = QueueNames.of(config)
    actions = (
        "sqs:CreateQueue",
        "sqs:DeleteQueue",
        "sqs:GetQueueUrl",
        "sqs:ListQueueTags",
        "sqs:PurgeQueue",
        "sqs:SetQueueAttributes",
        "sqs:TagQueue",
        *USE_QUEUES,
    )
    queues = (names.jobs, f"{names.jobs}-*", names.dead)
    return (Grant("Queues", actions, tuple(where.arn("sqs", each) for each in queues)),)


_OF_BUCKETS = ("s3:GetBucketVersioning", "s3:ListBucketMultipartUploads")


def _user_store(config: Config, where: Where) -> tuple[Grant, ...]:
    return tuple(
        each._replace(actions=(*_OF_BUCKETS, *each.actions)) if each.sid == "List" else each
        for each in store_grants(where, Used.of(config, where)).get("store", ())
    )


def _user_cluster(config: Config, where: Where) -> tuple[Grant, ...]:
    """The cluster and the app's service by name; tasks and machines by the cluster that they are in."""
    cluster = where.arn("ecs", f"cluster/{config.ecs_cluster}")
    service = where.arn("ecs", f"service/{config.ecs_cluster}/{config.app_name}Service")
    family = where.arn("ecs", f"task-definition/{config.app_name}Task:*")
    inside = {"ArnEquals": {"ecs:cluster": cluster}}
    task = Role.IMAGE_TASK if config.image_starts_worker else Role.TASK
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
        Grant("Register", register, ("*",), _for_app(config), NO_NARROWER),
        Grant("Definitions", every, ("*",), why_all=NO_NARROWER),
        Grant(
            "Tasks",
            ("ecs:DescribeContainerInstances", "ecs:DescribeTasks", "ecs:ListTasks"),
            ("*",),
            inside,
            "tasks and machines have random names; the condition names the cluster",
        ),
        Grant(
            "PassToTasks",
            ("iam:PassRole",),
            (where.role(task), where.role(Role.EXECUTION)),
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
    machine = Role.IMAGE_MACHINE if config.image_starts_worker else Role.MACHINE
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
        pass_role(where, "PassToMachines", (machine,), "ec2"),
        Grant("PassToFleets", ("iam:PassRole",), fleets, to_fleets),
    )


def _user_watch(config: Config, where: Where) -> tuple[Grant, ...]:
    """Logs, dashboard and alarms, by the app's names."""
    names = (config.log_group_name, instance_log_group(config))
    groups = tuple(where.arn("logs", f"log-group:{name}{end}") for name in names for end in ("", ":*"))
    make = ("logs:CreateLogGroup", "logs:PutRetentionPolicy", "logs:TagResource")
    dashboard = where.arn("cloudwatch", f"dashboard/{config.app_name}", region="")
    show = ("cloudwatch:DeleteDashboards", "cloudwatch:GetDashboard", "cloudwatch:PutDashboard")
    return (
        Grant("Logs", make, groups),
        Grant("Dashboard", show, (dashboard,)),
        *alarm_grants(where, f"{alarm_prefix(config.app_name)}*"),
    )


def _user_auto_monitor(config: Config, where: Where) -> tuple[Grant, ...]:
    """The app's schedule by its name, and to have it call the auto-monitor."""
    schedule = where.arn("scheduler", f"schedule/{SCHEDULES}/{config.app_name}")
    change = ("CreateSchedule", "DeleteSchedule", "GetSchedule", "UpdateSchedule")
    return (
        Grant("Schedule", tuple(f"scheduler:{each}" for each in change), (schedule,)),
        Grant("AutoMonitor", ("lambda:GetFunctionConfiguration",), (where.function(),)),
        pass_role(where, "PassToSchedule", (Role.SCHEDULE,), "scheduler"),
    )


def _user_check(config: Config, where: Where) -> tuple[Grant, ...]:
    """The read-only calls of `ds check` and the monitor."""
    describe = (
        "cloudwatch:DescribeAlarms",
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
        "ec2:DescribeRouteTables",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSpotFleetInstances",
        "ec2:DescribeSpotFleetRequestHistory",
        "ec2:DescribeSpotFleetRequests",
        "ec2:DescribeSpotPriceHistory",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcEndpoints",
        "ec2:DescribeVpcs",
        "ec2:GetSpotPlacementScores",
        "iam:ListRoles",
        "logs:DescribeLogGroups",
        "pricing:GetProducts",
        "servicequotas:GetServiceQuota",
        "sts:GetCallerIdentity",
        "tag:GetResources",
    )
    roles = (
        where.arn("iam", f"role{PATH}*", region=""),
        where.profile_of("*"),
        where.arn("iam", f"role/{TAGGING_ROLE}", region=""),
    )
    look = ("iam:GetInstanceProfile", "iam:GetRole", "iam:GetRolePolicy", "iam:ListRolePolicies")
    images = f"arn:{where.part}:ssm:{where.region}::parameter/aws/service/ecs/optimized-ami/*"
    services = where.arn("ecs", f"cluster/{config.ecs_cluster}")
    return (
        Grant("Look", describe, ("*",), why_all=NO_NARROWER),
        Grant("Roles", look, roles),
        Grant("Image", ("ssm:GetParameter",), (images,)),
        Grant(
            "Others",
            ("ecs:ListServices",),
            ("*",),
            {"ArnEquals": {"ecs:cluster": services}},
            "a list of services has no resource; the condition names the cluster",
        ),
    )


def user_policy(config: Config, where: Where) -> Document:
    """The policy of a user of the commands, for one app."""
    return shortened(document(user_grants(config, where)))


# -- The administrator ---------------------------------------------------------------------------------------


def administrator_grants(where: Where, *, bounded: bool = False) -> tuple[Grant, ...]:
    """The rights that `ds account` needs: roles at our own path, and to see whether a run uses them.

    `bounded`: roles are made, and changed, with the permissions boundary only.
    """
    within = {"StringEquals": {CONDITION: boundary_arn(where)}} if bounded else {}
    roles = where.arn("iam", f"role{PATH}*", region="")
    linked = where.arn("iam", "role/aws-service-role/*", region="")
    return (
        Grant(
            "MakeRoles",
            ("iam:CreateRole", "iam:DeleteRolePolicy", "iam:PutRolePolicy"),
            (roles,),
            within,
        ),
        Grant("Boundary", ("iam:GetPolicy",), (boundary_arn(where),)),
        Grant(
            "Roles",
            (
                "iam:DeleteRole",
                "iam:GetRole",
                "iam:GetRolePolicy",
                "iam:ListRolePolicies",
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
            (where.profile_of("*"),),
        ),
        *_administrator_auto_monitor(where),
        Grant("PutIntoProfile", ("iam:PassRole",), tuple(map(where.role, PROFILES.values()))),
        Grant(
            "Linked",
            ("iam:CreateServiceLinkedRole",),
            (linked,),
            {"StringEquals": {"iam:AWSServiceName": list(LINKED.values())}},
        ),
        Grant(
            "Look",
            (
                "ec2:DescribeRegions",
                "iam:ListRoles",
                "logs:DescribeLogGroups",
                "sts:GetCallerIdentity",
                "tag:GetResources",
            ),
            ("*",),
            why_all=NO_NARROWER,
        ),
    )


def _administrator_auto_monitor(where: Where) -> tuple[Grant, ...]:
    """The function in any region, its log group, and the group of its schedules."""
    logs = f"log-group:/aws/lambda/{FUNCTION}"
    return (
        Grant(
            "Function",
            (
                "lambda:CreateFunction",
                "lambda:DeleteFunction",
                "lambda:GetFunction",
                "lambda:GetFunctionEventInvokeConfig",
                "lambda:PutFunctionEventInvokeConfig",
                "lambda:TagResource",
                "lambda:UpdateFunctionCode",
                "lambda:UpdateFunctionConfiguration",
            ),
            (where.function(region="*"),),
        ),
        pass_role(where, "PassToFunction", (Role.MONITOR,), "lambda"),
        Grant(
            "FunctionLogs",
            ("logs:CreateLogGroup", "logs:DeleteLogGroup", "logs:PutRetentionPolicy", "logs:TagResource"),
            tuple(where.arn("logs", f"{logs}{end}", region="*") for end in ("", ":*")),
        ),
        Grant(
            "Schedules",
            (
                "scheduler:CreateScheduleGroup",
                "scheduler:DeleteScheduleGroup",
                "scheduler:GetScheduleGroup",
                "scheduler:TagResource",
            ),
            (where.arn("scheduler", f"schedule-group/{SCHEDULES}", region="*"),),
        ),
    )


def administrator_policy(where: Where, *, bounded: bool = False) -> Document:
    """The policy of the person who sets up an account."""
    return shortened(document(administrator_grants(where, bounded=bounded)))
