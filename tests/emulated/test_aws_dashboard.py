"""Dashboards on the emulator."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from aws_project import Cloud
from distributed_something.aws.watch.dashboard import delete_dashboard, put_dashboard
from distributed_something.errors import DsError
from distributed_something.inputs.config import Config, parse_config
from distributed_something.steps.cleanup import cleanup
from distributed_something.steps.setup import setup
from distributed_something.steps.start import start
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


@pytest.mark.fault(37, 42)
def test_a_run_has_a_dashboard_where_the_config_wants_one_and_clean_up_removes_it(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, CREATE_DASHBOARD=True)
    setup(cloud.project)
    cloud.submit()
    start(cloud.project, None)
    shown = cloud.session.client("cloudwatch").get_dashboard(DashboardName=cloud.app)["DashboardBody"]
    assert cloud.record().fleets[0] in shown
    assert cleanup(cloud.project) == []
    assert dashboards(cloud.app) == []
