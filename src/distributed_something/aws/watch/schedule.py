"""Makes and removes the auto-monitor's schedule of an app, which calls the function every minute.

The schedule has the app's name, in a group of our own, and an end of its own. Called by the engine, by
teardown and by the auto-monitor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ...errors import DsError
from ...ledger import RunPaths
from ...s3.session import AwsSession, aws_errors, error_code, or_none
from ..iam.roles import FUNCTION, SCHEDULES, Role, Where

GRACE_SECONDS = 3600.0  # seconds that a schedule outlives the machines' time, to remove what they leave

EVERY = "rate(1 minute)"

ABSENT = ("ResourceNotFoundException", "404")  # codes of Lambda and the scheduler for a missing resource


class Order(NamedTuple):
    """The run that the auto-monitor watches: the function's event."""

    app: str
    run: str
    region: str
    bucket: str

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Order:
        """Reads the order in an event. Raises DsError."""
        try:
            found = [event[name] for name in cls._fields]
        except (KeyError, TypeError) as error:
            raise DsError(f"the event is no order to look at a run: {error} is missing") from error
        if not all(isinstance(each, str) for each in found):
            raise DsError("the event is no order to look at a run: its values are not texts")
        return cls(*found)

    def to_json(self) -> str:
        """The order as the schedule's input."""
        return json.dumps(self._asdict())


def memory_key(paths: RunPaths) -> str:
    """The key of the auto-monitor's latest looks."""
    return paths.root + "looks.json"


def check_function(session: AwsSession) -> None:
    """Raises DsError if the account has no auto-monitor in this region."""
    with aws_errors("looking for the auto-monitor"):
        look = session.client("lambda").get_function_configuration
        found = or_none(look, *ABSENT, FunctionName=FUNCTION)
    if found is None:
        raise DsError(
            f"AUTO_MONITOR: the account has no auto-monitor in {session.region}",
            "ds account setup makes it; or AUTO_MONITOR = False, and ds monitor",
        )


def put_schedule(session: AwsSession, where: Where, order: Order, until: float) -> bool:
    """Schedules the function every minute, until that time. Returns whether the schedule is new.

    A failed call of the function is not repeated: the next one comes within a minute.
    """
    import botocore.exceptions

    client, request = session.client("scheduler"), _request(where, order, until)
    with aws_errors(f"making the schedule {order.app}"):
        try:
            client.create_schedule(**request)
        except botocore.exceptions.ClientError as error:
            if error_code(error) != "ConflictException":
                raise
            client.update_schedule(**request)
            return False
    return True


def _request(where: Where, order: Order, until: float) -> dict[str, Any]:
    return {
        "Name": order.app,
        "GroupName": SCHEDULES,
        "Description": f"looks at the runs of {order.app}",
        "ScheduleExpression": EVERY,
        "EndDate": datetime.fromtimestamp(int(until), UTC),
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "ActionAfterCompletion": "DELETE",
        "Target": {
            "Arn": where.function(),
            "RoleArn": where.role(Role.SCHEDULE),
            "Input": order.to_json(),
            "RetryPolicy": {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60},
        },
    }


def delete_schedule(session: AwsSession, app: str, run: str | None = None) -> bool:
    """Removes the app's schedule, if it is of that run (None: any). Returns whether it existed."""
    import botocore.exceptions

    client, which = session.client("scheduler"), {"Name": app, "GroupName": SCHEDULES}
    with aws_errors(f"removing the schedule {app}"):
        try:
            if run is not None:
                found = client.get_schedule(**which)["Target"].get("Input", "{}")
                if json.loads(found).get("run") != run:
                    return False
            client.delete_schedule(**which)
        except botocore.exceptions.ClientError as error:
            if error_code(error) not in ABSENT:
                raise
            return False
    return True
