"""Alarms that end a machine which does nothing: only where its worker has not been heard of for long.

A processor that does little is no sign of that: a machine that downloads is as idle. So a machine gets an
alarm when its worker is silent, and loses it when the worker is heard of again. The alarm acts without us:
a forgotten laptop changes nothing. `plan` is pure; names are the app's, a dot, and the machine's id.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..clock import Clock
from ..config import Config
from ..errors import DsError
from .desired import partition
from .session import SLOW_DOWN, AwsSession, aws_errors, error_code

SILENT_SECONDS = 1800.0
"""How long a worker may say nothing before its machine gets an alarm. Workers tell of jobs that they begin
and end: with jobs that take longer, pass a longer time."""

BATCH = 100
"""Alarms that CloudWatch deletes in one call."""

_IDLE_PERCENT = 1.0
_PERIOD = 300
_PERIODS = 3
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)


class AlarmPlan(NamedTuple):
    """Machines that are to get an alarm, and alarms that are to go, by name."""

    put: tuple[str, ...]
    delete: tuple[str, ...]


def alarm_name(app: str, machine: str) -> str:
    """The name of a machine's alarm. No app's name has a dot: none begins like another's."""
    return f"{app}.{machine}"


def machine_of(app: str, name: str) -> str | None:
    """The machine that an alarm of the app is for; None where it is no alarm of the app."""
    found = re.fullmatch(re.escape(app) + r"\.(i-[0-9a-f]+)", name)
    return found[1] if found else None


def plan(
    app: str,
    launched: Mapping[str, float],
    heard: Mapping[str, float],
    alarms: Collection[str],
    now: float,
    silent_after: float = SILENT_SECONDS,
) -> AlarmPlan:
    """What to change.

    `launched`: when each running machine began; `heard`: when the worker of a machine last told of anything
    (Unix seconds); `alarms`: the names of those that are there. A machine counts as heard when it begins.
    """
    silent = {
        machine
        for machine, began in launched.items()
        if now - max(began, heard.get(machine, began)) >= silent_after
    }
    own = {name: machine for name in alarms if (machine := machine_of(app, name))}
    put = sorted(silent - set(own.values()))
    return AlarmPlan(
        tuple(put), tuple(sorted(name for name, machine in own.items() if machine not in silent))
    )


def idle_alarm(config: Config, machine: str) -> dict[str, Any]:
    """PutMetricAlarm's request for a silent machine: it is ended after a quarter of an hour without work."""
    region = config.aws_region
    return {
        "AlarmName": alarm_name(config.app_name, machine),
        "AlarmDescription": f"ends a machine of {config.app_name} whose worker is silent and does nothing",
        "AlarmActions": [f"arn:{partition(region)}:automate:{region}:ec2:terminate"],
        "Namespace": "AWS/EC2",
        "MetricName": "CPUUtilization",
        "Dimensions": [{"Name": "InstanceId", "Value": machine}],
        "Statistic": "Maximum",
        "Period": _PERIOD,
        "EvaluationPeriods": _PERIODS,
        "DatapointsToAlarm": _PERIODS,
        "Threshold": _IDLE_PERCENT,
        "ComparisonOperator": "LessThanThreshold",
        "TreatMissingData": "notBreaching",
    }


def find_alarms(session: AwsSession, app: str) -> list[str]:
    """The names of the app's alarms: all pages, names matched exactly. Raises DsError."""
    with aws_errors(f"listing the alarms of {app}"):
        pages = (
            session.client("cloudwatch")
            .get_paginator("describe_alarms")
            .paginate(AlarmNamePrefix=f"{app}.", AlarmTypes=["MetricAlarm"])
        )
        names = [each["AlarmName"] for page in pages for each in page["MetricAlarms"]]
    return [name for name in names if machine_of(app, name)]


def put_alarms(session: AwsSession, config: Config, machines: Iterable[str], clock: Clock) -> list[str]:
    """Give these machines an alarm each; the alarms' names. Raises DsError; some may be there then."""
    client, made = session.client("cloudwatch"), []
    for machine in machines:
        request = idle_alarm(config, machine)
        _patiently(clock, "making an alarm", client.put_metric_alarm, request)
        made.append(str(request["AlarmName"]))
    return made


def delete_alarms(session: AwsSession, names: Sequence[str], clock: Clock) -> None:
    """Delete alarms, a hundred a call, more slowly where CloudWatch asks for it. One that is gone is fine.

    Every batch is tried. Raises DsError for the first that failed; the others are deleted then.
    """
    client, failed = session.client("cloudwatch"), list[DsError]()
    for start in range(0, len(names), BATCH):
        batch = list(names[start : start + BATCH])
        try:
            _delete(client, batch, clock)
        except DsError as error:
            failed.append(error)
    if failed:
        raise failed[0]


def _delete(client: Any, batch: list[str], clock: Clock) -> None:
    """Where one of a batch is gone, CloudWatch deletes none of it: then those that are there are named."""
    doing = f"deleting {len(batch)} alarms"
    if _patiently(clock, doing, client.delete_alarms, {"AlarmNames": batch}):
        return
    with aws_errors(doing):
        found = client.describe_alarms(AlarmNames=batch, AlarmTypes=["MetricAlarm"], MaxRecords=BATCH)
    there = [each["AlarmName"] for each in found["MetricAlarms"]]
    if there and not _patiently(clock, doing, client.delete_alarms, {"AlarmNames": there}):
        raise DsError(f"{doing}: somebody else deletes them too", "ds cleanup again")


def _patiently(clock: Clock, doing: str, call: Any, request: Mapping[str, Any]) -> bool:
    """Make a call, again after longer and longer pauses while CloudWatch is asked too often.

    False where it does not know what the request names.
    """
    import botocore.exceptions

    for pause in (*_PAUSES, None):
        with aws_errors(doing):
            try:
                call(**request)
            except botocore.exceptions.ClientError as error:
                code = error_code(error)
                if code == "ResourceNotFound":
                    return False
                if pause is None or code not in SLOW_DOWN:
                    raise
            else:
                return True
        clock.wait(pause)
    raise AssertionError("not reached")
