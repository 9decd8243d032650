"""What a dashboard shows."""

from __future__ import annotations

import json

import pytest

from distributed_something.aws.watch.dashboard import body
from distributed_something.inputs.config import parse_config

CONFIG = parse_config(
    "APP_NAME = 'My_QueueApp'\nAWS_REGION = 'eu-west-1'\nECS_CLUSTER = 'lab'\n"
    "SQS_QUEUE_NAME = 'plates'\nSQS_DEAD_LETTER_QUEUE = 'arn:aws:sqs:eu-west-1:123456789012:lost'\n"
    "LOG_GROUP_NAME = '/lab/logs'\n"
)


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
