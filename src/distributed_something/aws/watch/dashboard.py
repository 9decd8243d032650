"""Makes and removes the CloudWatch dashboard of an app, by its exact name.

CloudWatch's dashboards have no tags. A line of text on ours names its app, so that another's dashboard of the
same name is neither replaced nor removed. Called by the engine and by teardown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ...errors import DsError
from ...inputs.config import Config
from ...s3.session import AwsSession, aws_errors, or_none
from ..names import instance_log_group
from ..sqs.queues import QueueNames

PERIOD = 300
_WIDTH, _HEIGHT = 24, 6
_ABSENT = ("ResourceNotFound", "DashboardNotFoundError")

Widget = dict[str, Any]


def body(config: Config, fleets: Sequence[str], run: str, names: QueueNames | None = None) -> str:
    """The dashboard of a run on these fleets, as PutDashboard takes it."""
    names = names or QueueNames.of(config)
    service = ("ClusterName", config.ecs_cluster, "ServiceName", config.app_name + "Service")
    fleet_metrics = [
        ["AWS/EC2Spot", metric, "FleetRequestId", fleet]
        for fleet in fleets
        for metric in ("FulfilledCapacity", "TargetCapacity")
    ]
    waiting, leased = "ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible"
    jobs = [["AWS/SQS", metric, "QueueName", names.jobs] for metric in (waiting, leased)]
    dead = [["AWS/SQS", waiting, "QueueName", names.dead, {"label": "dead"}]]
    use = [["AWS/ECS", metric, *service] for metric in ("CPUUtilization", "MemoryUtilization")]
    started = "filter @message like 'start run'"
    groups = (config.log_group_name, instance_log_group(config))
    charts = [
        _metrics(config, "Machines", fleet_metrics),
        _metrics(config, "Use of processors and memory by the tasks", use),
        _metrics(config, "Jobs", [*jobs, *dead], stacked=True),
    ]
    tables = [
        _logs(config, "All Logs", groups[:1], f"{started} | stats count(@message)"),
        _logs(config, "Distinct Logs", groups[:1], f"{started} | stats count_distinct(@message)"),
        _logs(config, "Errors", groups, 'filter @message like "Error" | display @timestamp, @message'),
    ]
    rows = [[_text(_mark(config), run)], charts, tables[:2], tables[2:]]
    return json.dumps({"widgets": [each for number, row in enumerate(rows) for each in _row(number, row)]})


def _mark(config: Config) -> str:
    return f"distributed-something: the app {config.app_name}"


def _row(number: int, widgets: Sequence[Widget]) -> list[Widget]:
    """Widgets side by side, as wide as the dashboard together."""
    width = _WIDTH // len(widgets)
    return [
        {**each, "x": place * width, "y": number * _HEIGHT, "width": width, "height": _HEIGHT}
        for place, each in enumerate(widgets)
    ]


def _text(mark: str, run: str) -> Widget:
    lines = f"{mark}, run {run}\n\nCounts lag by some minutes here: `ds status` has them as they are."
    return {"type": "text", "properties": {"markdown": lines}}


def _metrics(config: Config, title: str, metrics: list[Any], *, stacked: bool = False) -> Widget:
    properties = {
        "title": title,
        "metrics": metrics,
        "view": "timeSeries",
        "stacked": stacked,
        "region": config.aws_region,
        "period": PERIOD,
        "stat": "Average",
    }
    return {"type": "metric", "properties": properties}


def _logs(config: Config, title: str, groups: Sequence[str], query: str) -> Widget:
    sources = " | ".join(f"SOURCE '{group}'" for group in groups)
    properties = {
        "title": title,
        "query": f"{sources} | fields @timestamp, @message | {query}",
        "region": config.aws_region,
        "view": "table",
    }
    return {"type": "log", "properties": properties}


def put_dashboard(
    session: AwsSession, config: Config, fleets: Sequence[str], run: str, names: QueueNames | None = None
) -> str:
    """Makes or updates the app's dashboard. Returns its name. After a DsError the old one stands."""
    name = config.app_name
    found = _find(session, name)
    if found is not None and _mark(config) not in found:
        what = f"the dashboard {name} is there, and was not made by this program"
        raise DsError(what, "rename it, or CREATE_DASHBOARD = False")
    with aws_errors(f"making the dashboard {name}"):
        answer = session.client("cloudwatch").put_dashboard(
            DashboardName=name, DashboardBody=body(config, fleets, run, names)
        )
    problems = answer.get("DashboardValidationMessages", [])
    if problems:
        raise DsError(f"the dashboard {name} is not as it should be: {problems[0].get('Message')}")
    return name


def delete_dashboard(session: AwsSession, config: Config) -> bool:
    """Removes the app's dashboard, and no other. Returns whether it existed. Raises DsError."""
    name = config.app_name
    if _mark(config) not in (_find(session, name) or ""):
        return False
    with aws_errors(f"removing the dashboard {name}"):
        or_none(session.client("cloudwatch").delete_dashboards, *_ABSENT, DashboardNames=[name])
    return True


def _find(session: AwsSession, name: str) -> str | None:
    """The body of a dashboard, as text; None: it does not exist."""
    with aws_errors(f"looking for the dashboard {name}"):
        answer = or_none(session.client("cloudwatch").get_dashboard, *_ABSENT, DashboardName=name)
    if answer is None:
        return None
    # JSON says which strings there are, whatever AWS does with spaces and escapes
    return json.dumps(json.loads(answer["DashboardBody"]), ensure_ascii=False)
