"""Each policy against the calls that the code makes: none is missing, and none is allowed that nobody makes.

Calls are found by reading the code: every name or text in it that is an operation of a service of AWS.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("botocore")

from botocore import xform_name
from botocore.session import Session

import distributed_something.aws
from distributed_something.aws.iam.roles import Role
from distributed_something.aws.iam.user_policies import administrator_grants
from rights import NOT_GRANTED, OTHER_ACTIONS, PREFIXES, WHERE, actions, granted, in_role, of_people

AWS = Path(distributed_something.aws.__file__).parent

OF_THE_REFERENCE = {"logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"}
"""What the worker in an image that was made for the reference does, and none of our code."""

BY_THE_AGENT = {
    Role.EXECUTION: {
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    },
    Role.MACHINE: {
        "ecs:DeregisterContainerInstance",
        "ecs:DiscoverPollEndpoint",
        "ecs:Poll",
        "ecs:RegisterContainerInstance",
        "ecs:StartTelemetrySession",
        "ecs:SubmitAttachmentStateChanges",
        "ecs:SubmitContainerStateChange",
        "ecs:SubmitTaskStateChange",
        "ecs:UpdateContainerInstancesState",
    },
    Role.FLEET: {
        "ec2:CreateTags",
        "ec2:DescribeImages",
        "ec2:DescribeInstanceStatus",
        "ec2:DescribeSubnets",
        "ec2:RequestSpotInstances",
        "ec2:RunInstances",
        "ec2:TerminateInstances",
        "iam:PassRole",
    },
    Role.SCHEDULE: {"lambda:InvokeFunction"},
}
"""What AWS's own programs do in these roles, as its guides say."""

IN_TASKS = {
    "watch/heartbeat",
    "sqs/channel",
    "watch/cloudwatch",
    "sqs/queue",
    "watch/reporting",
    "../s3/store",
    "worker",
    "sqs/worker_queue",
}
ONLY_IN_TASKS = IN_TASKS - {"watch/heartbeat", "sqs/channel", "sqs/queue", "../s3/store"}
NOT_OF_A_WORKER = {"purge", "last_heartbeats"}
OF_THE_ACCOUNT = {"iam/account", "iam/boundary", "../cli/account", "watch/function"}
NOT_MEANT = {"servicequotas:ListServices"}
"""Other services' operations that have the name of one that is called."""

BY_THE_MONITOR: dict[str, dict[str, Collection[str]]] = {
    "earlier": {},
    "teardown": {},
    "look": {},
    "../s3/uploads": {},
    "../s3/plain_store": {"without": ("delete", "publish")},
    "../s3/store": {"only": ("_list",)},
    "ec2/fleets": {"without": ("ask_spot", "ask_fleet", "make_template")},
    "ecs/current_state": {"without": ("_log_group",)},
    "sqs/queues": {"only": ("queue_url",)},
    "sqs/channel": {"only": ("depths", "send", "receive", "delete", "hide")},
    "watch/dashboard": {"without": ("put_dashboard",)},
    "watch/alarms": {},
    "watch/heartbeat": {"only": ("last_heartbeats",)},
    "ec2/requests/region": {"only": ("_described",)},
    "ec2/prices": {},
    "watch/schedule": {"only": ("delete_schedule",)},
    "engine": {"only": ("_want_tasks",)},
}
"""What the auto-monitor runs: modules, with the functions that it calls or without those that it does not."""

BY_LAMBDA = {"logs:CreateLogStream", "logs:PutLogEvents"}
BY_NOTIFY = {"sns:Publish"}

LOOKING_AT_THE_ACCOUNT = {"who", "find", "_find_role", "_find_profile"}


def modules() -> set[str]:
    own = {path.relative_to(AWS).with_suffix("").as_posix() for path in AWS.rglob("*.py")}
    return own | {f"../s3/{path.stem}" for path in (AWS.parent / "s3").glob("*.py")}


@cache
def operations() -> dict[str, set[str]]:
    """Names of methods, each with the actions (by service) that it may be."""
    found: dict[str, set[str]] = {}
    for service, prefix in PREFIXES.items():
        for name in Session().get_service_model(service).operation_names:
            found.setdefault(xform_name(name), set()).add(f"{prefix}:{name}")
    return found


def words(tree: ast.AST) -> Iterator[str]:
    """Every attribute and text; `obstore.put` as `obstore:put`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            of_obstore = isinstance(node.value, ast.Name) and node.value.id == "obstore"
            yield f"obstore:{node.attr}" if of_obstore else node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def calls(module: str, *, only: Collection[str] = (), without: Collection[str] = ()) -> set[str]:
    """The calls in a module: in its functions `only`, or in all but those `without`."""
    tree = ast.parse((AWS / f"{module}.py").read_text())
    used = {PREFIXES[word] for word in words(tree) if word in PREFIXES}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    if only:
        assert set(only) <= {each.name for each in functions}
        tree = ast.Module([each for each in functions if each.name in only], [])
    hidden = {word for each in functions if each.name in without for word in words(each)}
    found: set[str] = set()
    for word in set(words(tree)) - hidden:
        possible = operations().get(word, set())
        named = {each for each in possible if each.split(":")[0] in used}
        found |= named or possible
        found |= {word} & OTHER_ACTIONS.keys()
    return found - NOT_MEANT


def test_the_reader_of_the_code_finds_calls_pages_and_transfers() -> None:
    assert {"sqs:ReceiveMessage", "sqs:DeleteMessageBatch"} <= calls("sqs/channel")
    assert {"s3:ListObjectsV2", "obstore:put"} <= calls("../s3/store")
    assert "sqs:PurgeQueue" in calls("sqs/channel") - calls("sqs/channel", without={"purge"})
    assert "iam:ListRoles" in calls("iam/account", only=LOOKING_AT_THE_ACCOUNT)
    assert "iam:CreateRole" in calls("iam/account") - calls("iam/account", only=LOOKING_AT_THE_ACCOUNT)


@pytest.mark.fault(30)
def test_people_may_do_what_the_code_does_for_them_and_nothing_else() -> None:
    theirs = modules() - OF_THE_ACCOUNT - ONLY_IN_TASKS
    used = {call for module in theirs for call in calls(module)}
    used |= calls("iam/account", only=LOOKING_AT_THE_ACCOUNT)
    assert of_people() == actions(used)


@pytest.mark.fault(30)
def test_whoever_sets_up_an_account_may_do_just_that() -> None:
    used = actions(call for module in OF_THE_ACCOUNT for call in calls(module))
    assert granted(administrator_grants(WHERE)) == used - NOT_GRANTED


@pytest.mark.fault(30, 33)
def test_tasks_may_do_what_workers_do_and_nothing_else() -> None:
    used = actions(call for module in IN_TASKS & modules() for call in calls(module, without=NOT_OF_A_WORKER))
    assert in_role(Role.TASK) == used | OF_THE_REFERENCE


@pytest.mark.fault(30)
def test_the_auto_monitor_may_do_what_a_look_and_an_end_do_and_nothing_else() -> None:
    used = actions(call for module, part in BY_THE_MONITOR.items() for call in calls(module, **part))
    assert in_role(Role.MONITOR) == used | BY_LAMBDA | BY_NOTIFY


@pytest.mark.fault(30)
@pytest.mark.parametrize("role", BY_THE_AGENT)
def test_the_other_roles_may_do_what_awss_programs_do(role: Role) -> None:
    assert in_role(role) == BY_THE_AGENT[role]
