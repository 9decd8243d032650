"""The limits of AWS's services: where a run meets each is said before it starts, with what to do."""

from __future__ import annotations

import pytest

from distributed_something.aws.checks import limits
from distributed_something.errors import UsageError
from distributed_something.inputs.checks.findings import Finding, Severity
from distributed_something.inputs.config import Config, parse_config


def config(**keys: object) -> Config:
    given = {"APP_NAME": "App", "AWS_BUCKET": "bucket", "OUTPUT": "out", **keys}
    return parse_config("".join(f"{name} = {value!r}\n" for name, value in given.items()))


def said(found: list[Finding], severity: Severity) -> str:
    return "\n".join(f"{each.what}: {each.fix}" for each in found if each.severity is severity)


def test_a_fleet_that_ecs_cannot_have_is_refused_with_the_largest_that_it_can() -> None:
    limits.check_size(5_000, 1)
    with pytest.raises(UsageError, match="5,001 machines of 1 tasks"):
        limits.check_size(5_001, 1)
    (found,) = limits.size_findings(config(CLUSTER_MACHINES=3_000, TASKS_PER_MACHINE=2))
    assert found.severity is Severity.ERROR and "CLUSTER_MACHINES = 2500" in found.fix


def test_short_jobs_on_many_machines_meet_the_queue_s_limit() -> None:
    few = list(limits.limit_findings(config(CLUSTER_MACHINES=100, JOB_SECONDS=10), 4))
    assert not said(few, Severity.ERROR) and not said(few, Severity.WARNING)
    assert "7,500 (SQS)" in said(few, Severity.OK)
    many = list(limits.limit_findings(config(CLUSTER_MACHINES=4_000, JOB_SECONDS=1), 16))
    assert "put several of these short jobs into one" in said(many, Severity.ERROR)


def test_writes_are_warned_of_only_where_jobs_have_outputs() -> None:
    short = {"CLUSTER_MACHINES": 4_000, "JOB_SECONDS": 10}
    assert "3,500 writes a second" in said(list(limits.limit_findings(config(**short), 4)), Severity.WARNING)
    silent = config(**short)._replace(output="")
    assert "3,500" not in said(list(limits.limit_findings(silent, 4)), Severity.WARNING)


def test_the_line_says_what_is_assumed_and_what_the_auto_monitor_can_watch() -> None:
    found = said(list(limits.limit_findings(config(AUTO_MONITOR=True), 4)), Severity.OK)
    assert "jobs of 60 s (no JOB_SECONDS: assumed)" in found and "million jobs" in found


@pytest.mark.parametrize(("status", "warned"), [("Enabled", True), ("Suspended", False), (None, False)])
def test_a_versioned_bucket_is_warned_of(status: str | None, warned: bool) -> None:
    assert bool([*limits.versioning_findings(config(), status)]) is warned


_NAT = {"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"}
_INTERNET = {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}
_ENDPOINT = {"DestinationPrefixListId": "pl-1", "GatewayId": "vpce-1"}


@pytest.mark.parametrize(
    ("routes", "warned"),
    [([_NAT], True), ([_INTERNET], False), ([_NAT, _ENDPOINT], False), ([], False)],
)
@pytest.mark.parametrize("main", [False, True])
def test_a_nat_gateway_on_the_way_to_s3_is_warned_of(
    routes: list[dict[str, str]],
    warned: bool,
    main: bool,
) -> None:
    association = {"Main": True} if main else {"SubnetId": "subnet-1", "Main": False}
    table = {"VpcId": "vpc-1", "Routes": routes, "Associations": [association]}
    found = [*limits.nat_findings([table], [{"SubnetId": "subnet-1", "VpcId": "vpc-1"}], "vpc-1")]
    assert bool(found) is warned
    assert not warned or "create-vpc-endpoint --vpc-id vpc-1" in found[0].fix
