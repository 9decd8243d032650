"""Policies as values: narrow, in AWS's limits, and the same plan twice is no plan."""

from __future__ import annotations

from typing import Any

import pytest

from distributed_something.aws.iam.account import Found, FoundProfile, FoundRole, plan_removal, plan_setup
from distributed_something.aws.iam.boundary import CONDITION, boundary_arn, boundary_grants, boundary_policy
from distributed_something.aws.iam.policies import (
    MANAGED_LIMIT,
    Grant,
    Trusted,
    Used,
    compact,
    parts,
    trust,
    trusted,
)
from distributed_something.aws.iam.roles import (
    IMAGE_PROFILE,
    IMAGE_ROLES,
    LINKED,
    PATH,
    PROFILE,
    TAGS,
    Role,
    Where,
    account_of,
)
from distributed_something.aws.iam.user_policies import (
    administrator_grants,
    administrator_policy,
    user_grants,
    user_policy,
)
from distributed_something.aws.names import PREFIX
from distributed_something.errors import DsError
from distributed_something.inputs.config import Config, parse_config

WHERE = Where("123456789012", "eu-west-1")
USED = Used(("results",), ("images",))


def config(**keys: object) -> Config:
    given = {"APP_NAME": "App", "AWS_REGION": "eu-west-1", "AWS_BUCKET": "results", **keys}
    return parse_config("".join(f"{name} = {value!r}\n" for name, value in given.items()))


def every_grant() -> list[Grant]:
    in_roles = [each for role in trusted(WHERE, USED) for grants in role.groups.values() for each in grants]
    more = [*administrator_grants(WHERE), *boundary_grants(WHERE)]
    return [*in_roles, *user_grants(config(), WHERE), *more]


def set_up() -> Found:
    """An account as the plan leaves it."""
    roles = {
        str(each.role): FoundRole(PATH, TAGS, trust(WHERE, each.service), each.policies())
        for each in trusted(WHERE, USED)
    }
    return Found(roles, {PROFILE: FoundProfile(PATH, TAGS, (str(Role.MACHINE),))}, frozenset(LINKED.values()))


@pytest.mark.fault(30)
@pytest.mark.parametrize("grant", every_grant(), ids=lambda each: each.sid)
def test_a_grant_names_its_actions_and_says_why_where_it_names_no_resource(grant: Grant) -> None:
    assert all("*" not in action for action in grant.actions)
    assert ("*" in grant.resources) == bool(grant.why_all)
    for resource in grant.resources:
        own = WHERE.number in resource or resource.startswith(("arn:aws:s3:::", "arn:aws:ssm:eu-west-1::"))
        assert resource == "*" or own


@pytest.mark.fault(30)
def test_names_begin_with_the_programs_own_and_stay_in_the_limit_of_iam() -> None:
    names = [*map(str, Role), PROFILE]
    assert all(name.startswith(PREFIX) and len(name) <= 64 for name in names)


@pytest.mark.fault(33)
def test_tasks_have_a_role_of_their_own_that_only_ecs_takes_on_for_this_account() -> None:
    account = account_of(config(COMMAND="x"), WHERE.number)
    assert account.task_role == f"arn:aws:iam::123456789012:role{PATH}distributed-something-task"
    assert len({account.task_role, account.execution_role, account.instance_profile}) == 3
    (statement,) = trust(WHERE, "ecs-tasks.amazonaws.com")["Statement"]
    assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_only_machines_and_functions_are_trusted_without_the_account() -> None:
    without = {
        each.role
        for each in trusted(WHERE, USED)
        if "Condition" not in trust(WHERE, each.service)["Statement"][0]
    }
    assert without == {Role.MACHINE, Role.MONITOR}


def test_the_auto_monitor_may_look_for_a_queue_that_has_gone_and_delete_only_ours() -> None:
    (monitor,) = [each for each in trusted(WHERE, USED) if each.role is Role.MONITOR]
    conditions = {
        action: grant.conditions
        for grants in monitor.groups.values()
        for grant in grants
        for action in grant.actions
    }
    assert not conditions["sqs:GetQueueUrl"], "what has gone has no tag"
    assert all(
        conditions[action] for action in ("sqs:DeleteQueue", "ec2:TerminateInstances", "ecs:DeleteService")
    )


def test_policies_fit_into_what_iam_takes() -> None:
    for each in trusted(WHERE, USED):
        assert sum(len(compact(policy)) for policy in each.policies().values()) < 10_240
    for policy in (
        administrator_policy(WHERE),
        administrator_policy(WHERE, bounded=True),
        boundary_policy(WHERE),
    ):
        assert len(compact(policy)) <= MANAGED_LIMIT


LONG = {
    "APP_NAME": "A" * 60,
    "ECS_CLUSTER": "c" * 100,
    "SQS_QUEUE_NAME": "q" * 60,
    "LOG_GROUP_NAME": "l" * 400,
}
SETTINGS: list[dict[str, object]] = [
    {"AUTO_MONITOR": True},
    {"COMMAND": "echo {x}"},
    {"SOURCE_BUCKET": "s" * 63, **{f"{letter}_BUCKET": letter.lower() * 63 for letter in "DEF"}},
    {"AWS_REGION": "us-gov-west-1"},
    {"SSH_KEY_NAME": "key", "ASSIGN_IP": True, "SUBNETS": ["subnet-0123456789abcdef0"]},
    LONG,
]


@pytest.mark.parametrize("chosen", range(1 << len(SETTINGS)))
def test_users_policies_fit_into_what_iam_takes_at_every_setting(chosen: int) -> None:
    given = {key: value for n, each in enumerate(SETTINGS) if chosen >> n & 1 for key, value in each.items()}
    policy = user_policy(config(**given), WHERE)
    policies = parts(policy)
    assert len(policies) <= 2
    assert all(len(compact(each)) <= MANAGED_LIMIT for each in policies)
    assert [each for one in policies for each in one["Statement"]] == policy["Statement"]
    if not given.keys() & {"AUTO_MONITOR", *LONG, "SOURCE_BUCKET"}:
        assert len(policies) == 1


def test_statements_of_a_policy_have_names_of_their_own() -> None:
    documents = [
        *(policy for each in trusted(WHERE, USED) for policy in each.policies().values()),
        user_policy(config(SOURCE_BUCKET="images"), WHERE),
        administrator_policy(WHERE),
    ]
    for each in documents:
        names = [statement["Sid"] for statement in each["Statement"]]
        assert len(names) == len(set(names))
        assert all(name.isalnum() for name in names)


def test_the_buckets_of_a_project_are_those_its_config_names() -> None:
    found = Used.of(
        config(SOURCE_BUCKET="images", WORKSPACE_BUCKET="pipelines", DESTINATION_BUCKET=""), WHERE
    )
    assert (found.written, found.read) == (("pipelines", "results"), ("images",))


def test_other_buckets_are_used_as_inputs_and_output_say_or_by_their_role() -> None:
    role = "arn:aws:iam::210987654321:role/lab"
    found = Used.of(
        config(
            COMMAND="true",
            INPUTS=["s3://theirs/in/{Plate}", "s3://by-role/{Plate}", "own/{Plate}"],
            OUTPUT="s3://drop/{Plate}",
            OUTPUT_ACL="bucket-owner-full-control",
            BUCKET_ROLES={"by-role": role},
        ),
        WHERE,
    )
    assert found == Used(("drop", "results"), ("theirs",), roles=(role,), shared=("drop",))
    task = trusted(WHERE, found)[0].policies()["store"]
    assert Used.by_policies(task, {}, "aws") == found
    rights = {each["Sid"]: each["Resource"] for each in task["Statement"]}
    assert rights["Roles"] == [role] and rights["Acl"] == ["arn:aws:s3:::drop/*"]


def test_policies_that_no_role_can_hold_are_refused_before_anything_is_made() -> None:
    many = tuple(f"arn:aws:iam::210987654321:role/lab-{number:04}" for number in range(250))
    with pytest.raises(DsError, match=r"inside the role .*-task would have .* IAM takes 10,240"):
        plan_setup(WHERE, USED._replace(roles=many), Found())


def test_a_bucket_that_is_written_is_not_only_read() -> None:
    assert Used.of(config(SOURCE_BUCKET="results"), WHERE)[:2] == (("results",), ())
    assert USED.joined(Used(("images",), ("other",))) == Used(("images", "results"), ("other",))


def test_buckets_are_read_back_from_the_policy_that_allows_them() -> None:
    task = trusted(WHERE, USED)[0]
    assert Used.by_policies(task.policies()["store"], {}, "aws") == USED
    assert Used.by_policies({}, {}, "aws") == Used()


def test_an_account_that_is_set_up_needs_nothing() -> None:
    assert plan_setup(WHERE, USED, set_up()) == []


def test_an_account_keeps_the_buckets_of_other_projects() -> None:
    steps = plan_setup(WHERE, Used(("mine",)), set_up())
    assert [step.text for step in steps] == [
        "correct policy store of distributed-something-task",
        "correct policy store of distributed-something-monitor",
    ]
    assert all(name in steps[0].request["PolicyDocument"] for name in ("mine/*", "results/*", "images/*"))


@pytest.mark.fault(34)
def test_an_empty_account_gets_the_profile_after_its_role() -> None:
    calls = [(step.call, step.request) for step in plan_setup(WHERE, USED, Found())]
    names = [call for call, _ in calls]
    assert names.count("create_role") == len(Role) - len(IMAGE_ROLES)
    made = next(
        n
        for n, (call, request) in enumerate(calls)
        if call == "create_role" and request["RoleName"] == PROFILE
    )
    assert made < names.index("create_instance_profile") < names.index("add_role_to_instance_profile")


def changed(role: Role, **fields: Any) -> Found:
    found = set_up()
    return found._replace(roles={**found.roles, str(role): found.roles[role]._replace(**fields)})


def test_a_changed_policy_or_trust_is_brought_in_line_and_a_strange_one_goes() -> None:
    policies = {**set_up().roles[Role.MACHINE].policies, "extra": {"Statement": []}}
    steps = plan_setup(WHERE, USED, changed(Role.MACHINE, policies=policies, trust={"Statement": []}))
    assert [step.call for step in steps] == ["update_assume_role_policy", "delete_role_policy"]


@pytest.mark.fault(27, 60)
def test_only_apps_whose_image_starts_its_worker_get_more_rights() -> None:
    account = account_of(config(), WHERE.number)
    assert account.task_role.endswith("/distributed-something-image-task")
    assert account.instance_profile.endswith(f"/{IMAGE_PROFILE}")
    plain = {each.role: actions_of(each) for each in trusted(WHERE, USED)}
    with_images = {each.role: actions_of(each) for each in trusted(WHERE, USED._replace(images=True))}
    assert with_images[Role.IMAGE_TASK] - plain[Role.TASK] == {
        "ec2:CreateTags",
        "ec2:DescribeInstanceAttribute",
        "s3:PutObjectAcl",
    }
    assert with_images[Role.IMAGE_MACHINE] - plain[Role.MACHINE] == {
        "ec2:ModifyInstanceMetadataOptions",
        "s3:GetObject",
        "s3:ListBucket",
    }
    assert {role: with_images[role] for role in plain} == plain
    assert not any("cloudwatch:PutMetricAlarm" in with_images[role] for role in IMAGE_ROLES), "fault 27"


@pytest.mark.fault(60)
def test_an_image_may_name_its_machine_and_change_no_tag_that_finds_what_must_end() -> None:
    (task,) = [each for each in trusted(WHERE, USED._replace(images=True)) if each.role is Role.IMAGE_TASK]
    (name,) = [each for each in task.groups["name"] if "ec2:CreateTags" in each.actions]
    assert name.conditions["ForAllValues:StringEquals"] == {"aws:TagKeys": ["Name"]}
    assert name.conditions["StringLike"] == {"aws:ResourceTag/ds:app": "*"}


def actions_of(role: Trusted) -> set[str]:
    return {action for grants in role.groups.values() for grant in grants for action in grant.actions}


def test_an_account_with_an_image_that_starts_its_worker_gets_its_roles_and_keeps_them() -> None:
    steps = plan_setup(WHERE, USED._replace(images=True), set_up())
    assert f"create instance profile {IMAGE_PROFILE}" in [step.text for step in steps]
    made = {step.request["RoleName"] for step in steps if step.call == "create_role"}
    assert made == set(IMAGE_ROLES)
    found = changed(Role.TASK)
    images = {
        str(each.role): FoundRole(PATH, TAGS, trust(WHERE, each.service), each.policies())
        for each in trusted(WHERE, USED._replace(images=True))
    }
    profiles = {**found.profiles, IMAGE_PROFILE: FoundProfile(PATH, TAGS, (str(Role.IMAGE_MACHINE),))}
    assert plan_setup(WHERE, USED, Found(images, profiles, found.linked)) == []


def test_a_role_of_somebody_else_is_neither_changed_nor_removed() -> None:
    for strange in (changed(Role.TASK, tags={}), changed(Role.TASK, path="/")):
        with pytest.raises(DsError, match="was not made by this program"):
            plan_setup(WHERE, USED, strange)
        assert not [step for step in plan_removal(strange) if step.request.get("RoleName") == Role.TASK]


def test_removal_empties_the_profile_first_and_leaves_awss_own_roles() -> None:
    calls = [step.call for step in plan_removal(set_up())]
    assert calls[:2] == ["remove_role_from_instance_profile", "delete_instance_profile"]
    assert calls.count("delete_role") == len(Role) - len(IMAGE_ROLES)
    assert plan_removal(Found(linked=frozenset(LINKED.values()))) == []


@pytest.mark.fault(30)
def test_the_boundary_allows_all_that_roles_do_and_no_change_of_rights() -> None:
    most, passing, *_ = boundary_grants(WHERE)
    every = {action for each in boundary_grants(WHERE) for action in each.actions}
    for role in trusted(WHERE, USED._replace(images=True)):
        for grants in role.groups.values():
            assert {action for each in grants for action in each.actions} <= every
    assert not [action for action in most.actions if action.startswith(("iam:", "sts:", "lambda:"))]
    assert passing.resources == (f"arn:aws:iam::123456789012:role{PATH}*",)


@pytest.mark.fault(30)
def test_with_a_boundary_every_role_gets_it_and_its_administrator_cannot_do_without() -> None:
    steps = plan_setup(WHERE, USED, Found(), bounded=True)
    made = [each.request for each in steps if each.call == "create_role"]
    assert {each["PermissionsBoundary"] for each in made} == {boundary_arn(WHERE)}
    later = plan_setup(WHERE, USED, set_up(), bounded=True)
    assert {each.call for each in later} == {"put_role_permissions_boundary"}
    assert len(later) == len(made)
    there = {name: each._replace(boundary=boundary_arn(WHERE)) for name, each in set_up().roles.items()}
    assert plan_setup(WHERE, USED, set_up()._replace(roles=there), bounded=True) == []

    rights = {
        action: each.conditions
        for each in administrator_grants(WHERE, bounded=True)
        for action in each.actions
        if action.startswith("iam:")
    }
    for action in ("iam:CreateRole", "iam:PutRolePolicy"):
        assert rights[action] == {"StringEquals": {CONDITION: boundary_arn(WHERE)}}
    changes = (
        "Boundary",
        "PolicyVersion",
        "CreatePolicy",
        "DeletePolicy",
        "AttachRole",
        "PutUser",
        "PutGroup",
    )
    assert not [action for action in rights if any(each in action for each in changes)]
