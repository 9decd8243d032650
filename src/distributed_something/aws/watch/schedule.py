"""The auto-monitor's schedule of an app: what it hands to the function every minute, made and removed.

The schedule bears the app's name, in a group of our own. It ends by itself at the time it was made with, so
that one that is forgotten stops.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ...errors import DsError
from ...ledger import RunPaths
from ..iam.roles import FUNCTION, SCHEDULES, Role, Where
from ..session import AwsSession, aws_errors, error_code, or_none

GRACE_SECONDS = 3600.0
"""How long a schedule outlives the time that machines have: to remove what they leave."""

EVERY = "rate(1 minute)"

ABSENT = ("ResourceNotFoundException", "404")
"""How Lambda and the scheduler say that there is no such thing."""


class Order(NamedTuple):
    """Which run the auto-monitor is to look at."""

    app: str
    run: str
    region: str
    bucket: str

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Order:
        """The order in an event. Raises DsError where it is none."""
        try:
            found = [event[name] for name in cls._fields]
        except (KeyError, TypeError) as error:
            raise DsError(f"the event is no order to look at a run: {error} is missing") from error
        if not all(isinstance(each, str) for each in found):
            raise DsError("the event is no order to look at a run: its values are not texts")
        return cls(*found)

    def to_json(self) -> str:
        """As the schedule holds it."""
        return json.dumps(self._asdict())


def memory_key(paths: RunPaths) -> str:
    """Where the auto-monitor keeps what it saw."""
    return paths.root + "looks.json"


def check_function(session: AwsSession) -> None:
    """Raise DsError where the account has no auto-monitor in this region."""
    with aws_errors("looking for the auto-monitor"):
        look = session.client("lambda").get_function_configuration
        found = or_none(look, *ABSENT, FunctionName=FUNCTION)
    if found is None:
        raise DsError(
            f"AUTO_MONITOR: the account has no auto-monitor in {session.region}",
            "ds account setup makes it; or AUTO_MONITOR = False, and ds monitor",
        )


def put_schedule(session: AwsSession, where: Where, order: Order, until: float) -> bool:
    """Have the function look at the run every minute, until that time; whether there was no schedule yet.

    A failed call of the function is not repeated: the next minute's takes its place.
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
    """Remove the app's schedule, where it is of that run (None: of any); whether it was there."""
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
