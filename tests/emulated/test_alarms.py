"""Dashboards and alarms on the emulator, and where CloudWatch is in a bad mood, by its own words."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber

from aws_project import Cloud
from distributed_something import steps
from distributed_something.aws.alarms import BATCH, alarm_name, delete_alarms, find_alarms, put_alarms
from distributed_something.aws.dashboard import delete_dashboard, put_dashboard
from distributed_something.aws.session import AwsSession
from distributed_something.config import Config, parse_config
from distributed_something.errors import DsError
from distributed_something.testing import FakeClock
from emulating import REGION, session


@pytest.fixture
def config() -> Config:
    return parse_config(f"APP_NAME = 'D{uuid.uuid4().hex[:10]}'\nAWS_REGION = {REGION!r}\n")


def dashboards(start: str) -> list[str]:
    pages = (
        session().client("cloudwatch").get_paginator("list_dashboards").paginate(DashboardNamePrefix=start)
    )
    return [each["DashboardName"] for page in pages for each in page["DashboardEntries"]]


@pytest.mark.fault(37)
def test_a_dashboard_is_removed_by_its_exact_name(config: Config) -> None:
    longer = parse_config(f"APP_NAME = '{config.app_name}-2'\nAWS_REGION = {REGION!r}\n")
    put_dashboard(session(), longer, ["sfr-2"], "run-2")
    assert put_dashboard(session(), config, ["sfr-1"], "run-1") == config.app_name
    put_dashboard(session(), config, ["sfr-1", "sfr-3"], "run-1")
    assert delete_dashboard(session(), config)
    assert dashboards(config.app_name) == [longer.app_name]
    assert not delete_dashboard(session(), config)


@pytest.mark.fault(37)
def test_a_dashboard_of_somebody_else_is_neither_replaced_nor_removed(config: Config) -> None:
    theirs = '{"widgets": []}'
    session().client("cloudwatch").put_dashboard(DashboardName=config.app_name, DashboardBody=theirs)
    with pytest.raises(DsError, match="was not made by this program"):
        put_dashboard(session(), config, ["sfr-1"], "run-1")
    assert not delete_dashboard(session(), config)
    assert dashboards(config.app_name) == [config.app_name]


@pytest.mark.fault(36, 9, 4)
def test_more_alarms_than_a_page_and_a_call_hold_are_found_and_deleted(config: Config) -> None:
    machines = [f"i-{number:017x}" for number in range(2 * BATCH + 3)]
    clock = FakeClock()
    other = parse_config(f"APP_NAME = '{config.app_name}x'\nAWS_REGION = {REGION!r}\n")
    put_alarms(session(), other, machines[:1], clock)
    names = put_alarms(session(), config, machines, clock)
    assert (
        sorted(find_alarms(session(), config.app_name))
        == names
        == [alarm_name(config.app_name, m) for m in machines]
    )
    delete_alarms(session(), names, clock)
    assert find_alarms(session(), config.app_name) == []
    assert find_alarms(session(), other.app_name) == [alarm_name(other.app_name, machines[0])]


@pytest.fixture
def stubbed() -> Iterator[tuple[AwsSession, Stubber]]:
    """A session whose CloudWatch says what a test lets it say."""
    own = AwsSession(REGION, endpoint=session().endpoint)
    with Stubber(own.client("cloudwatch")) as stub:
        yield own, stub
        stub.assert_no_pending_responses()


@pytest.mark.fault(9, 5)
def test_throttled_deletions_are_tried_again_more_slowly(stubbed: tuple[AwsSession, Stubber]) -> None:
    aws, stub = stubbed
    expected: dict[str, Any] = {"AlarmNames": ["App.i-0"]}
    for _ in range(3):
        stub.add_client_error("delete_alarms", "Throttling", expected_params=expected)
    stub.add_response("delete_alarms", {}, expected)
    clock = FakeClock(0.0)
    delete_alarms(aws, ["App.i-0"], clock)
    assert clock.now() == 1 + 2 + 4


@pytest.mark.fault(9)
def test_a_batch_that_fails_is_told_of_and_the_others_are_deleted(
    stubbed: tuple[AwsSession, Stubber],
) -> None:
    aws, stub = stubbed
    names = [f"App.i-{number:x}" for number in range(BATCH + 1)]
    stub.add_client_error("delete_alarms", "AccessDenied", "you may not")
    stub.add_response("delete_alarms", {}, {"AlarmNames": names[BATCH:]})
    with pytest.raises(DsError, match="deleting 100 alarms: you may not"):
        delete_alarms(aws, names, FakeClock())


def test_alarms_that_are_gone_do_not_keep_the_others(stubbed: tuple[AwsSession, Stubber]) -> None:
    aws, stub = stubbed
    stub.add_client_error("delete_alarms", "ResourceNotFound")
    stub.add_response("describe_alarms", {"MetricAlarms": [{"AlarmName": "App.i-1"}]})
    stub.add_response("delete_alarms", {}, {"AlarmNames": ["App.i-1"]})
    delete_alarms(aws, ["App.i-0", "App.i-1"], FakeClock())


@pytest.mark.fault(37, 42)
def test_a_run_has_a_dashboard_where_the_config_wants_one_and_clean_up_removes_it(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, CREATE_DASHBOARD=True)
    steps.setup(cloud.project)
    cloud.submit()
    steps.start(cloud.project, None)
    shown = cloud.session.client("cloudwatch").get_dashboard(DashboardName=cloud.app)["DashboardBody"]
    assert cloud.record().fleets[0] in shown
    assert steps.cleanup(cloud.project) == []
    assert dashboards(cloud.app) == []
