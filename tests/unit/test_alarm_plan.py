"""What a dashboard shows, and which machines get an alarm."""

from __future__ import annotations

import json

import pytest

from distributed_something.aws.alarms import AlarmPlan, alarm_name, idle_alarm, machine_of, plan
from distributed_something.aws.dashboard import body
from distributed_something.config import parse_config

CONFIG = parse_config(
    "APP_NAME = 'My_QueueApp'\nAWS_REGION = 'eu-west-1'\nECS_CLUSTER = 'lab'\n"
    "SQS_QUEUE_NAME = 'plates'\nSQS_DEAD_LETTER_QUEUE = 'arn:aws:sqs:eu-west-1:123456789012:lost'\n"
    "LOG_GROUP_NAME = '/lab/logs'\n"
)
ONE, TWO = "i-0123456789abcdef0", "i-0123456789abcdef1"


@pytest.mark.fault(42)
def test_the_dashboard_shows_the_queues_and_logs_that_the_config_names() -> None:
    widgets = json.loads(body(CONFIG, ["sfr-1", "fleet-2"], "run-1"))["widgets"]
    metrics = [metric for each in widgets for metric in each["properties"].get("metrics", ())]
    assert [metric[:4] for metric in metrics if metric[0] == "AWS/SQS"] == [
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "plates"],
        ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", "plates"],
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "lost"],
    ]
    assert {metric[3] for metric in metrics if metric[0] == "AWS/EC2Spot"} == {"sfr-1", "fleet-2"}
    assert [
        "AWS/ECS",
        "MemoryUtilization",
        "ClusterName",
        "lab",
        "ServiceName",
        "My_QueueAppService",
    ] in metrics
    queries = {each["properties"].get("title"): each["properties"].get("query", "") for each in widgets}
    assert queries["Errors"].startswith("SOURCE '/lab/logs' | SOURCE '/lab/logs_perInstance' | ")
    assert {"All Logs", "Distinct Logs"} <= queries.keys()
    assert {each["properties"].get("region", "eu-west-1") for each in widgets} == {"eu-west-1"}


def test_widgets_do_not_lie_over_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for each in json.loads(body(CONFIG, ["sfr-1"], "run-1"))["widgets"]:
        cells = {
            (x, y)
            for x in range(each["x"], each["x"] + each["width"])
            for y in range(each["y"], each["y"] + each["height"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.fault(27)
def test_only_a_machine_whose_worker_is_silent_gets_an_alarm() -> None:
    now = 10_000.0
    launched = {ONE: 0.0, TWO: 0.0}
    assert plan("App", launched, {ONE: now - 10, TWO: now - 1800}, (), now) == AlarmPlan((TWO,), ())


@pytest.mark.fault(27)
def test_a_new_machine_that_downloads_its_image_has_the_same_time_to_be_heard() -> None:
    assert plan("App", {ONE: 9_000.0}, {}, (), 10_000.0) == AlarmPlan((), ())
    assert plan("App", {ONE: 9_000.0}, {}, (), 10_800.0) == AlarmPlan((ONE,), ())


@pytest.mark.fault(9)
def test_alarms_of_machines_that_are_gone_or_heard_again_go() -> None:
    alarms = [alarm_name("App", ONE), alarm_name("App", TWO), "App2.i-0123456789abcdef0", "somebody-elses"]
    found = plan("App", {ONE: 0.0}, {ONE: 9_999.0}, alarms, 10_000.0)
    assert found == AlarmPlan((), (f"App.{ONE}", f"App.{TWO}"))


def test_an_alarm_that_is_there_is_not_made_again() -> None:
    assert plan("App", {ONE: 0.0}, {}, [alarm_name("App", ONE)], 10_000.0) == AlarmPlan((), ())


@pytest.mark.fault(5, 35)
def test_an_alarm_belongs_to_the_app_whose_whole_name_it_begins_with() -> None:
    assert machine_of("My_QueueApp", f"My_QueueApp.{ONE}") == ONE
    for other in (f"My.{ONE}", f"XMy_QueueApp.{ONE}", "My_QueueApp.i-", f"My_QueueApp.{ONE}.more", ONE):
        assert machine_of("My_QueueApp", other) is None


def test_the_alarm_ends_the_one_machine() -> None:
    request = idle_alarm(CONFIG, ONE)
    assert request["AlarmActions"] == ["arn:aws:automate:eu-west-1:ec2:terminate"]
    assert request["Dimensions"] == [{"Name": "InstanceId", "Value": ONE}]
    assert request["TreatMissingData"] == "notBreaching"
