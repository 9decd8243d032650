"""`ds account` against an emulator of its own: made, made again, brought in line, refused, removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from conftest import DsProject
from distributed_something.aws.iam import account
from distributed_something.aws.iam.boundary import BOUNDARY, CONDITION, boundary_arn
from distributed_something.aws.iam.policies import Used
from distributed_something.aws.iam.roles import PATH, PROFILE, Role, Where
from distributed_something.errors import DsError
from distributed_something.rehearsal.emulator.server import CREDENTIALS
from distributed_something.s3.session import AwsSession
from distributed_something.testing import FakeClock
from emulating import emulator
from emulating import session as shared_session
from rights import ADMINISTRATOR, SEEN, beyond, overheard

WHERE = Where("123456789012", "us-east-1")


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsSession]:
    """Roles are the account's: tests that make and remove them share no emulator with others."""
    shared_session()  # skips where the emulator is not installed, and clears the developer's settings
    with emulator() as endpoint:
        yield AwsSession("us-east-1", endpoint=endpoint)


@pytest.fixture
def ds(project: DsProject, aws: AwsSession) -> Iterator[DsProject]:
    project.config(APP_NAME="AccountApp", ENGINE="aws", AWS_BUCKET="results", COMMAND="x")
    assert aws.endpoint
    with overheard(aws.endpoint, ADMINISTRATOR) as way:
        own = {"AWS_ENDPOINT_URL": way, "AWS_EC2_METADATA_DISABLED": "true"}
        project.environment |= CREDENTIALS | own
        yield project


@contextmanager
def role_is_used(aws: AwsSession) -> Iterator[str]:
    sqs = aws.elsewhere("eu-west-1").client("sqs")
    url = sqs.create_queue(QueueName="in-use", tags={"ds:app": "Other"})["QueueUrl"]
    yield "arn:aws:sqs:eu-west-1:123456789012:in-use"
    sqs.delete_queue(QueueUrl=url)


@pytest.mark.fault(34, 30)
def test_an_account_is_set_up_once_and_removed_whole(ds: DsProject, aws: AwsSession) -> None:
    made = ds.ds("account", "setup", "--yes")
    assert "is set up" in made.stderr
    profile = aws.client("iam").get_instance_profile(InstanceProfileName=PROFILE)["InstanceProfile"]
    assert (profile["Path"], [role["RoleName"] for role in profile["Roles"]]) == (PATH, [str(Role.MACHINE)])
    attached = aws.client("iam").list_attached_role_policies(RoleName=str(Role.TASK))["AttachedPolicies"]
    assert attached == []  # no policy of AWS's own, which allow more

    assert "nothing to do" in ds.ds("account", "setup", "--yes").stderr

    ds.config(APP_NAME="AccountApp", ENGINE="aws", AWS_BUCKET="more", COMMAND="x")
    plan = json.loads(ds.ds("account", "setup", "--json", "--dry-run").stdout)["plan"]
    assert plan == [
        "correct policy store of distributed-something-task",
        "correct policy store of distributed-something-monitor",
    ]

    ds.config(APP_NAME="ImageApp", ENGINE="aws", AWS_BUCKET="more")
    assert "create role distributed-something-image-task" in ds.ds("account", "setup", "--yes").stderr

    with role_is_used(aws) as arn:
        refused = ds.ds("account", "destroy", "--yes", code=1)
    assert arn in refused.stderr
    assert account.find(aws).roles.keys() == set(Role)

    assert "clean" in ds.ds("account", "destroy", "--yes").stderr
    found = account.find(aws)
    assert (found.roles, found.profiles) == ({}, {})
    assert found.linked  # AWS's own roles stay
    assert "nothing to do" in ds.ds("account", "destroy", "--yes").stderr


@pytest.mark.fault(30)
def test_the_administrator_s_calls_of_lambda_and_the_scheduler_are_compared_with_its_rights(
    project: DsProject, aws: AwsSession
) -> None:
    assert aws.endpoint
    project.config(APP_NAME="AccountApp", ENGINE="aws", AWS_BUCKET="results", COMMAND="x")
    with overheard(aws.endpoint, ADMINISTRATOR) as way:
        project.environment |= CREDENTIALS | {"AWS_ENDPOINT_URL": way, "AWS_EC2_METADATA_DISABLED": "true"}
        project.ds("account", "setup", "--yes")
        project.ds("account", "destroy", "--yes")
    made = {"lambda:CreateFunction", "lambda:DeleteFunction", "scheduler:CreateScheduleGroup"}
    assert made <= SEEN[ADMINISTRATOR].keys()
    assert beyond(ADMINISTRATOR) == {}


def test_a_dry_run_and_an_unconfirmed_one_change_nothing(ds: DsProject, aws: AwsSession) -> None:
    shown = ds.ds("account", "setup", "--dry-run")
    assert "create role distributed-something-task" in shown.stderr
    assert "add --yes" in ds.ds("account", "setup", code=2).stderr
    assert account.find(aws).roles == {}


def test_what_cannot_be_removed_is_told_and_the_rest_goes(ds: DsProject, aws: AwsSession) -> None:
    ds.ds("account", "setup", "--yes")
    iam = aws.client("iam")
    allowed = {"Effect": "Allow", "Action": "sqs:ListQueues", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    policy = iam.create_policy(PolicyName="strange", PolicyDocument=document)
    strange = {"RoleName": str(Role.FLEET), "PolicyArn": policy["Policy"]["Arn"]}
    iam.attach_role_policy(**strange)
    left = ds.ds("account", "destroy", "--yes", code=4)
    assert "still to do: delete role distributed-something-fleet" in left.stderr
    assert account.find(aws).roles.keys() == {str(Role.FLEET)}
    iam.detach_role_policy(**strange)
    ds.ds("account", "destroy", "--yes")


@pytest.mark.fault(34)
def test_five_set_ups_at_once_end_well(ds: DsProject, aws: AwsSession) -> None:
    for _ in range(2):
        running = [ds.start("account", "setup", "--yes") for _ in range(5)]
        said = [each.communicate(timeout=120) for each in running]
        assert [each.returncode for each in running] == [0] * 5, said
        assert account.plan_setup(WHERE, Used(("results",)), account.find(aws)) == []
        assert "nothing to do" in ds.ds("account", "setup", "--yes").stderr
        ds.ds("account", "destroy", "--yes")


@pytest.mark.fault(34)
def test_a_profile_that_ec2_does_not_know_is_waited_for_with_a_limit(aws: AwsSession) -> None:
    account.apply(aws, account.plan_setup(WHERE, Used(), account.find(aws)))
    clock = FakeClock(0.0)
    began = clock.now()
    elsewhere = WHERE._replace(number="999999999999")
    with pytest.raises(DsError, match="EC2 does not know distributed-something-machine"):
        account.wait_for_roles(aws, elsewhere, clock)
    assert account.PROPAGATION_SECONDS <= clock.now() - began < 2 * account.PROPAGATION_SECONDS
    assert account.wait_for_roles(aws, WHERE, clock) is None
    assert account.remove(aws, account.plan_removal(account.find(aws))) == []


def test_the_policy_of_a_user_is_printed_and_of_an_administrator(ds: DsProject) -> None:
    user = json.loads(ds.ds("account", "policy").stdout)
    assert "arn:aws:sqs:us-east-1:123456789012:AccountAppQueue" in str(user)
    administrator = json.loads(ds.ds("account", "policy", "--administrator", "--json").stdout)
    assert "iam:CreateRole" in str(administrator) and "iam:CreateRole" not in str(user)


@pytest.mark.fault(30)
def test_where_the_owner_has_made_a_boundary_every_role_gets_it(ds: DsProject, aws: AwsSession) -> None:
    iam = aws.client("iam")
    ds.ds("account", "setup", "--yes")
    printed = ds.ds("account", "policy", "--boundary")
    iam.create_policy(Path=PATH, PolicyName=BOUNDARY, PolicyDocument=printed.stdout)
    administrator = ds.ds("account", "policy", "--administrator").stdout
    assert CONDITION in administrator and boundary_arn(WHERE) in administrator
    assert "set the permissions boundary of" in ds.ds("account", "setup", "--yes").stderr
    assert {each.boundary for each in account.find(aws).roles.values()} == {boundary_arn(WHERE)}
    assert "nothing to do" in ds.ds("account", "setup", "--yes").stderr
    ds.ds("account", "destroy", "--yes")
    ds.ds("account", "setup", "--yes")
    assert {each.boundary for each in account.find(aws).roles.values()} == {boundary_arn(WHERE)}
    ds.ds("account", "destroy", "--yes")
    iam.delete_policy(PolicyArn=boundary_arn(WHERE))
    assert CONDITION not in ds.ds("account", "policy", "--administrator").stdout
