"""Alarms that end a machine whose worker is silent: CloudWatch acts on them whether somebody watches or not.

A processor that does little is no sign by itself: a machine that downloads is as idle. So a machine gets an
alarm only when its worker has given no sign of life for long, and loses it when the worker is heard of again.
The alarm then wants the second sign too: a processor that has done next to nothing for a quarter of an hour.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import DsError
from ...inputs.config import Config
from ..ec2.fleets import Machine
from ..names import alarm_prefix, partition, run_tags, tag_list
from ..session import AwsSession, aws_errors, error_code

SILENT_SECONDS = 1800.0
"""How long a worker may give no sign before its machine gets an alarm: an image may take long to come."""

BATCH = 100
"""Alarms that CloudWatch deletes in one call, and that it lists on a page."""

NEW_A_LOOK = 1
"""Alarms that one look makes, and none where it removes some: a watch makes few calls a minute."""

MOST = BATCH
"""Alarms that stand at a time. Where more machines are silent, it is not for the fault of each."""

_IDLE_PERCENT = 1.0
_PERIOD = 300
_PERIODS = 3


class AlarmPlan(NamedTuple):
    """Machines that are to get an alarm, and alarms that are to go, by name."""

    put: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()


def machine_of(app: str, name: str) -> str | None:
    """The machine that an alarm of the app is for; None where it is no alarm of the app."""
    found = re.fullmatch(re.escape(alarm_prefix(app)) + r"(i-[0-9a-f]+)", name)
    return found[1] if found else None


def old_enough(machines: Iterable[Machine], now: float) -> dict[str, float]:
    """The running machines that could be silent for too long, and when each of them began."""
    return {
        each.id: each.since
        for each in machines
        if each.running and each.since is not None and now - each.since >= SILENT_SECONDS
    }


def plan(
    app: str, began: Mapping[str, float], heard: Mapping[str, float], alarms: Collection[str], now: float
) -> AlarmPlan:
    """What to change, where these machines run since they `began`, and were last `heard` of (Unix seconds).

    `alarms` are the names of those that there are. Alarms of machines that are gone go. A machine that was
    never heard of is silent since it began; the longest silent get their alarm first.
    """
    last = {machine: max(since, heard.get(machine, since)) for machine, since in began.items()}
    silent = sorted((each for each in last if now - last[each] >= SILENT_SECONDS), key=last.__getitem__)
    own = {name: machine for name in alarms if (machine := machine_of(app, name))}
    delete = sorted(name for name, machine in own.items() if machine not in silent)
    room = 0 if delete else max(min(NEW_A_LOOK, MOST - len(own)), 0)
    return AlarmPlan(tuple(each for each in silent if each not in own.values())[:room], tuple(delete))


def idle_alarm(config: Config, run: str, machine: str) -> dict[str, Any]:
    """PutMetricAlarm's request for a silent machine: it ends after a quarter of an hour without work."""
    region = config.aws_region
    return {
        "AlarmName": alarm_prefix(config.app_name) + machine,
        "AlarmDescription": f"ends a machine of {config.app_name}: its worker is silent, and it does nothing",
        "AlarmActions": [f"arn:{partition(region)}:automate:{region}:ec2:terminate"],
        "Namespace": "AWS/EC2",
        "MetricName": "CPUUtilization",
        "Dimensions": [{"Name": "InstanceId", "Value": machine}],
        "Statistic": "Average",
        "Period": _PERIOD,
        "EvaluationPeriods": _PERIODS,
        "DatapointsToAlarm": _PERIODS,
        "Threshold": _IDLE_PERCENT,
        "ComparisonOperator": "LessThanThreshold",
        "TreatMissingData": "notBreaching",
        "Tags": tag_list(run_tags(config, run)),
    }


def find_alarms(session: AwsSession, app: str) -> list[str]:
    """The names of the app's alarms: all pages, names matched exactly. Raises DsError."""
    with aws_errors(f"listing the alarms of {app}"):
        pages = (
            session.client("cloudwatch")
            .get_paginator("describe_alarms")
            .paginate(AlarmNamePrefix=alarm_prefix(app), AlarmTypes=["MetricAlarm"])
        )
        names = [each["AlarmName"] for page in pages for each in page["MetricAlarms"]]
    return [name for name in names if machine_of(app, name)]


def put_alarms(session: AwsSession, config: Config, run: str, machines: Iterable[str]) -> None:
    """Give these machines an alarm each. Raises DsError; some may have theirs then."""
    for machine in machines:
        with aws_errors(f"making an alarm for {machine}"):
            session.client("cloudwatch").put_metric_alarm(**idle_alarm(config, run, machine))


def delete_alarms(session: AwsSession, names: Sequence[str]) -> None:
    """Delete alarms, a hundred a call; where CloudWatch is asked too often, botocore asks more slowly.

    One that is gone is fine. Every batch is tried. Raises DsError for the first that failed.
    """
    failed: list[DsError] = []
    for start in range(0, len(names), BATCH):
        try:
            _delete(session.client("cloudwatch"), list(names[start : start + BATCH]))
        except DsError as error:
            failed.append(error)
    if failed:
        raise failed[0]


def _delete(client: Any, batch: list[str]) -> None:
    """Where one of a batch is gone, CloudWatch deletes none of it: then those that are there are named."""
    import botocore.exceptions

    with aws_errors(f"deleting {len(batch)} alarms"):
        try:
            client.delete_alarms(AlarmNames=batch)
        except botocore.exceptions.ClientError as error:
            if error_code(error) not in _ABSENT:
                raise
            found = client.describe_alarms(AlarmNames=batch, AlarmTypes=["MetricAlarm"], MaxRecords=BATCH)
            if there := [each["AlarmName"] for each in found["MetricAlarms"]]:
                client.delete_alarms(AlarmNames=there)


_ABSENT = frozenset({"ResourceNotFound", "ResourceNotFoundException"})
