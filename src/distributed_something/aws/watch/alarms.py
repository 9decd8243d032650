"""Makes alarms that terminate a machine whose worker is silent. CloudWatch acts on them without us.

Low CPU use alone is no sign of a fault: a machine that downloads is as idle. So a machine gets an alarm only
if its worker has sent no heartbeat for long, and loses it with the next heartbeat. The alarm itself needs the
second sign: almost no CPU use for a quarter of an hour. Called by the engine (`guard`) and by teardown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import DsError
from ...inputs.config import Config
from ...ledger import RunPaths
from ...s3.session import AwsSession, aws_errors, error_code
from ..ec2.fleets import Machine
from ..names import alarm_prefix, partition, run_tags, tag_list
from .heartbeat import last_heartbeats

SILENT_SECONDS = 1800.0
"""Silence in seconds after which a machine gets an alarm: pulling an image may take long."""

BATCH = 100  # CloudWatch's limit of alarms in one call, and on one page

NEW_A_LOOK = 1
"""Limit of alarms that one look makes (none if it deletes some), so that calls a minute stay few."""

MOST = BATCH  # limit of alarms at a time. If more machines are silent, the cause is not each machine.

_IDLE_PERCENT = 1.0
_PERIOD = 300
_PERIODS = 3


class AlarmPlan(NamedTuple):
    """Machines that get an alarm, and names of alarms to delete."""

    put: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()


def machine_of(app: str, name: str) -> str | None:
    """The machine of an alarm; None: it is no alarm of the app."""
    found = re.fullmatch(re.escape(alarm_prefix(app)) + r"(i-[0-9a-f]+)", name)
    return found[1] if found else None


def old_enough(machines: Iterable[Machine], now: float) -> dict[str, float]:
    """Running machines older than SILENT_SECONDS, each with its start."""
    return {
        each.id: each.since
        for each in machines
        if each.running and each.since is not None and now - each.since >= SILENT_SECONDS
    }


def plan(
    app: str, began: Mapping[str, float], beats: Mapping[str, float], alarms: Collection[str], now: float
) -> AlarmPlan:
    """Decides which alarms to make and to delete.

    `began` is the start of each running machine, `beats` its last heartbeat, both in Unix seconds; `alarms`
    are the names of the alarms that exist. A machine without a heartbeat is silent since it began. The
    longest silent get their alarm first. Alarms of machines that are gone are deleted.
    """
    last = {machine: max(since, beats.get(machine, since)) for machine, since in began.items()}
    silent = sorted((each for each in last if now - last[each] >= SILENT_SECONDS), key=last.__getitem__)
    own = {name: machine for name in alarms if (machine := machine_of(app, name))}
    delete = sorted(name for name, machine in own.items() if machine not in silent)
    room = 0 if delete else max(min(NEW_A_LOOK, MOST - len(own)), 0)
    return AlarmPlan(tuple(each for each in silent if each not in own.values())[:room], tuple(delete))


def idle_alarm(config: Config, run: str, machine: str) -> dict[str, Any]:
    """PutMetricAlarm's request for a silent machine: terminate it after 15 minutes without work."""
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


def guard_machines(
    session: AwsSession, config: Config, run: str, bucket: str, machines: Iterable[Machine], now: float
) -> Sequence[str]:
    """Brings the alarms in line with the heartbeats. Returns the machines that got one. Raises DsError."""
    began = old_enough(machines, now)
    if not began:
        return ()  # none can be silent yet
    app = config.app_name
    beats = last_heartbeats(session, bucket, RunPaths(app, run))
    wanted = plan(app, began, beats, find_alarms(session, app), now)
    delete_alarms(session, wanted.delete)
    put_alarms(session, config, run, wanted.put)
    return wanted.put


def find_alarms(session: AwsSession, app: str) -> list[str]:
    """The names of the app's alarms, matched exactly. Raises DsError."""
    with aws_errors(f"listing the alarms of {app}"):
        pages = (
            session.client("cloudwatch")
            .get_paginator("describe_alarms")
            .paginate(AlarmNamePrefix=alarm_prefix(app), AlarmTypes=["MetricAlarm"])
        )
        names = [each["AlarmName"] for page in pages for each in page["MetricAlarms"]]
    return [name for name in names if machine_of(app, name)]


def put_alarms(session: AwsSession, config: Config, run: str, machines: Iterable[str]) -> None:
    """Gives an alarm to each machine. After a DsError some may have theirs."""
    for machine in machines:
        with aws_errors(f"making an alarm for {machine}"):
            session.client("cloudwatch").put_metric_alarm(**idle_alarm(config, run, machine))


def delete_alarms(session: AwsSession, names: Sequence[str]) -> None:
    """Deletes alarms, BATCH in a call. A missing alarm is no error.

    Every batch is tried; then the first DsError is raised.
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
    """Deletes a batch. If one alarm is missing CloudWatch deletes none: then only existing ones are named."""
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
