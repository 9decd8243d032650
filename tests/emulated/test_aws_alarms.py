"""Alarms on silent machines, on the emulator: made by whoever watches, and gone at the end."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber

from aws_project import Cloud, answer, fleet_file, work
from distributed_something.aws.names import alarm_prefix
from distributed_something.aws.watch.alarms import (
    BATCH,
    SILENT_SECONDS,
    delete_alarms,
    find_alarms,
    put_alarms,
)
from distributed_something.aws.watch.heartbeat import heartbeat_prefix
from distributed_something.console import Console
from distributed_something.errors import OK, DsError
from distributed_something.inputs.config import Config, parse_config
from distributed_something.s3.session import AwsSession
from distributed_something.steps.setup import setup
from distributed_something.steps.start import start
from distributed_something.steps.watch.monitor import Watch, monitor
from distributed_something.testing import FakeClock
from emulating import REGION, session

ONE, TWO, THREE = (f"i-0123456789abcdef{number}" for number in range(3))


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """A run under way. Its clock begins now: signs of life have S3's own times."""
    found = Cloud(tmp_path / "project")
    found.clock = FakeClock(time.time())
    found.open()
    setup(found.project)
    found.submit()
    start(found.project, fleet_file(found))
    return found


class Machines:
    """What EC2 says of the machines from now on: they run since an hour before the clock began."""

    def __init__(self, cloud: Cloud, *ids: str) -> None:
        began = datetime.fromtimestamp(cloud.clock.now() - 3600, UTC)
        here = [{"InstanceId": each, "State": {"Name": "running"}, "LaunchTime": began} for each in ids]
        self._reservation: dict[str, Any] = {"Instances": here}
        answer(cloud, "DescribeInstances", {"Reservations": [self._reservation]})
        answer(cloud, "DescribeSpotFleetRequestHistory", {"HistoryRecords": []})

    def end(self, machine: str) -> None:
        """One of them is gone."""
        here = self._reservation["Instances"]
        here[:] = [each for each in here if each["InstanceId"] != machine]


def alarms(cloud: Cloud) -> list[str]:
    """The machines that have one."""
    return sorted(name.removeprefix(alarm_prefix(cloud.app)) for name in find_alarms(session(), cloud.app))


def speak(cloud: Cloud, *machines: str) -> None:
    for machine in machines:
        cloud.engine.store.write(heartbeat_prefix(cloud.project.paths()) + machine, b"")


def watched(cloud: Cloud) -> str:
    """One look; what it noted."""
    said = io.StringIO()
    with Console(yes=True, out=said, err=said).watch() as watcher:
        Watch(cloud.project).look(watcher)
    return said.getvalue()


@pytest.mark.fault(9, 27)
def test_a_silent_machine_gets_an_alarm_and_loses_it_when_it_speaks_again_or_is_gone(cloud: Cloud) -> None:
    machines = Machines(cloud, ONE, TWO, THREE)
    speak(cloud, ONE)
    assert "its worker is silent" in watched(cloud)
    assert len(alarms(cloud)) == 1, "a look makes one"
    watched(cloud)
    assert alarms(cloud) == [TWO, THREE]
    speak(cloud, TWO)
    watched(cloud)
    assert alarms(cloud) == [THREE]
    machines.end(THREE)
    watched(cloud)
    assert alarms(cloud) == []
    cloud.clock.advance(SILENT_SECONDS + 3600)  # S3's own clock has gone on since the test's began
    watched(cloud)
    watched(cloud)
    assert alarms(cloud) == [ONE, TWO], "they have said nothing since"


def test_machines_of_a_worker_that_gives_no_signs_are_left_alone(cloud: Cloud) -> None:
    cloud.config(COMMAND="")
    Machines(cloud, ONE)
    watched(cloud)
    assert alarms(cloud) == []


def test_where_alarms_are_refused_the_watch_goes_on(cloud: Cloud) -> None:
    Machines(cloud, ONE)

    def refuse(**_: object) -> None:
        raise DsError("you may not")

    events = cloud.engine.session.client("cloudwatch").meta.events
    events.register("provide-client-params.cloudwatch.PutMetricAlarm", refuse)
    assert "you may not; silent machines stay for now" in watched(cloud)


@pytest.mark.fault(4, 5, 9)
def test_the_end_of_a_run_removes_the_apps_alarms_and_nobody_elses(cloud: Cloud) -> None:
    config, run = cloud.project.config, cloud.project.record().run
    others = config._replace(app_name=f"{cloud.app}x")
    put_alarms(session(), config, run, [ONE, TWO])
    put_alarms(session(), others, run, [ONE])
    work(cloud, 5)
    assert monitor(cloud.project, None, None) == OK
    assert alarms(cloud) == []
    assert find_alarms(session(), others.app_name) == [alarm_prefix(others.app_name) + ONE]
    delete_alarms(session(), find_alarms(session(), others.app_name))


@pytest.fixture
def config() -> Config:
    return parse_config(f"APP_NAME = 'D{time.time_ns()}'\nAWS_REGION = {REGION!r}\n")


@pytest.mark.fault(9, 36)
def test_more_alarms_than_a_page_holds_are_found_on_all_pages_and_deleted_a_hundred_a_call(
    config: Config,
) -> None:
    machines = [f"i-{number:017x}" for number in range(3 * BATCH + 3)]
    put_alarms(session(), config, "run1", machines)
    names = find_alarms(session(), config.app_name)
    assert sorted(names) == [alarm_prefix(config.app_name) + each for each in machines]
    sizes: list[int] = []
    own = AwsSession(REGION, endpoint=session().endpoint)
    own.client("cloudwatch").meta.events.register(
        "provide-client-params.cloudwatch.DeleteAlarms",
        lambda params, **_: sizes.append(len(params["AlarmNames"])),
    )
    delete_alarms(own, names)
    assert sizes == [BATCH] * 3 + [3]
    assert find_alarms(session(), config.app_name) == []


@pytest.fixture
def stubbed() -> Iterator[tuple[AwsSession, Stubber]]:
    """A session whose CloudWatch says what a test lets it say."""
    own = AwsSession(REGION, endpoint=session().endpoint)
    with Stubber(own.client("cloudwatch")) as stub:
        yield own, stub
        stub.assert_no_pending_responses()


@pytest.mark.fault(9)
def test_a_batch_that_fails_is_told_of_and_the_others_are_deleted(
    stubbed: tuple[AwsSession, Stubber],
) -> None:
    aws, stub = stubbed
    names = [f"{alarm_prefix('App')}i-{number:x}" for number in range(BATCH + 1)]
    stub.add_client_error("delete_alarms", "AccessDenied", "you may not")
    stub.add_response("delete_alarms", {}, {"AlarmNames": names[BATCH:]})
    with pytest.raises(DsError, match="deleting 100 alarms: you may not"):
        delete_alarms(aws, names)


@pytest.mark.fault(9)
def test_alarms_that_are_gone_do_not_keep_the_others(stubbed: tuple[AwsSession, Stubber]) -> None:
    aws, stub = stubbed
    stub.add_client_error("delete_alarms", "ResourceNotFound")
    stub.add_response("describe_alarms", {"MetricAlarms": [{"AlarmName": "i-1"}]})
    stub.add_response("delete_alarms", {}, {"AlarmNames": ["i-1"]})
    delete_alarms(aws, ["i-0", "i-1"])
