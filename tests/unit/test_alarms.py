"""Which machines get an alarm, which lose theirs, and what one does; when a worker gives a sign of life."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_something.aws.ec2.fleets import Machine
from distributed_something.aws.names import alarm_prefix
from distributed_something.aws.watch.alarms import (
    MOST,
    NEW_A_LOOK,
    SILENT_SECONDS,
    AlarmPlan,
    idle_alarm,
    machine_of,
    old_enough,
    plan,
)
from distributed_something.aws.watch.heartbeat import ANSWERED_SECONDS, Heartbeat
from distributed_something.errors import DsError
from distributed_something.inputs.config import parse_config
from distributed_something.local.store import FolderStore
from distributed_something.testing import FakeClock

CONFIG = parse_config("APP_NAME = 'My_QueueApp'\nAWS_REGION = 'eu-west-1'\n")
ONE, TWO, THREE = (f"i-0123456789abcdef{number}" for number in range(3))
NOW = 100_000.0
LONG_AGO = NOW - SILENT_SECONDS


def name(machine: str, app: str = "App") -> str:
    return alarm_prefix(app) + machine


@pytest.mark.fault(27)
def test_only_a_machine_whose_worker_is_silent_gets_an_alarm() -> None:
    began = {ONE: 0.0, TWO: 0.0}
    assert plan("App", began, {ONE: NOW - 10, TWO: LONG_AGO}, (), NOW) == AlarmPlan((TWO,), ())
    assert plan("App", began, {ONE: NOW - 10, TWO: LONG_AGO + 1}, (), NOW) == AlarmPlan()


@pytest.mark.fault(27)
def test_a_new_machine_that_downloads_its_image_has_the_same_time_to_be_heard() -> None:
    machines = [Machine(ONE, "running", since=LONG_AGO + 1), Machine(TWO, "running", since=LONG_AGO)]
    assert old_enough(machines, NOW) == {TWO: LONG_AGO}
    assert plan("App", {TWO: LONG_AGO}, {}, (), NOW) == AlarmPlan((TWO,), ())
    assert plan("App", {TWO: LONG_AGO + 1}, {}, (), NOW) == AlarmPlan()


def test_a_machine_that_ends_or_has_ended_needs_no_alarm() -> None:
    machines = [Machine(ONE, "shutting-down", since=0.0), Machine(TWO, "terminated", since=0.0)]
    assert old_enough(machines, NOW) == {}


@pytest.mark.fault(9)
def test_alarms_of_machines_that_are_gone_or_heard_again_go_and_no_others() -> None:
    alarms = [name(ONE), name(TWO), name(THREE), name(ONE, "App2"), "somebody-elses"]
    found = plan("App", {ONE: 0.0, THREE: 0.0}, {ONE: NOW - 1}, alarms, NOW)
    assert found == AlarmPlan((), (name(ONE), name(TWO)))


def test_an_alarm_that_is_there_is_not_made_again() -> None:
    assert plan("App", {ONE: 0.0}, {}, [name(ONE)], NOW) == AlarmPlan()


def test_a_look_makes_few_alarms_for_the_longest_silent_and_no_more_than_a_page_stand() -> None:
    began = {f"i-{number:017x}": LONG_AGO - number for number in range(3000)}
    found = plan("App", began, {}, (), NOW)
    assert found.put == tuple(f"i-{2999 - number:017x}" for number in range(NEW_A_LOOK))
    standing = [name(each) for each in list(began)[:MOST]]
    assert plan("App", began, {}, standing, NOW) == AlarmPlan()
    assert len(plan("App", began, {}, standing[1:], NOW).put) == 1


@pytest.mark.fault(5, 35)
def test_an_alarm_belongs_to_the_app_whose_whole_name_it_bears() -> None:
    assert machine_of("My_QueueApp", name(ONE, "My_QueueApp")) == ONE
    for other in (name(ONE, "My"), f"X{name(ONE, 'My_QueueApp')}", name("i-", "My_QueueApp"), ONE):
        assert machine_of("My_QueueApp", other) is None
    assert machine_of("My_QueueApp", f"{name(ONE, 'My_QueueApp')}.more") is None


@pytest.mark.fault(27)
def test_the_alarm_ends_the_one_machine_and_wants_a_processor_that_did_nothing_for_long() -> None:
    request = idle_alarm(CONFIG, "run1", ONE)
    assert request["AlarmActions"] == ["arn:aws:automate:eu-west-1:ec2:terminate"]
    assert request["Dimensions"] == [{"Name": "InstanceId", "Value": ONE}]
    assert (request["MetricName"], request["ComparisonOperator"]) == ("CPUUtilization", "LessThanThreshold")
    assert request["Period"] * request["EvaluationPeriods"] == 900
    assert request["TreatMissingData"] == "notBreaching"
    assert {"Key": "ds:app", "Value": "My_QueueApp"} in request["Tags"]


def test_a_worker_gives_signs_while_its_queue_answers(tmp_path: Path) -> None:
    clock, store = FakeClock(NOW), FolderStore(tmp_path)
    answered = clock.monotonic()
    pulse = Heartbeat(store, "alive/i-1", clock, lambda: answered)
    clock.advance(ANSWERED_SECONDS)
    assert pulse.beat()
    store.delete(["alive/i-1"])
    clock.advance(1)
    assert not pulse.beat()
    assert list(store.list("alive/")) == []
    clock.set(NOW - 3 * 3600)  # which changes nothing
    assert not pulse.beat()
    answered = clock.monotonic()
    assert pulse.beat()


def test_a_sign_that_cannot_be_given_ends_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Full(FolderStore):
        def write(self, key: str, data: bytes) -> None:
            raise DsError("the bucket says no")

    clock = FakeClock(NOW)
    assert not Heartbeat(Full(tmp_path), "alive/i-1", clock, clock.monotonic).beat()
    assert "the bucket says no" in capfd.readouterr().err
