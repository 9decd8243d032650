"""Packages, makes, updates and removes the auto-monitor's function in an account and region.

Its code is this program's own, as installed: pure Python, with the boto3 of AWS's Python and no other
library. The same files make the same package, byte for byte, on every machine. Called by `ds account`.
"""

from __future__ import annotations

import io
import zipfile
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from ...clock import Clock
from ...errors import DsError
from ...s3.session import AwsSession, aws_errors, error_code, error_words, or_none
from ..iam.account import PROPAGATION_SECONDS, Step
from ..iam.roles import FUNCTION, SCHEDULES, TAGS, Role, Where, is_ours
from ..names import tag_list
from .schedule import ABSENT

TIMEOUT_SECONDS = 900
"""Time limit of a call in seconds, AWS's longest: at a run's end, tasks need minutes to end."""

MEMORY_MB = 2048  # memory in MiB: enough for the ledger of a million jobs
DISK_MB = 8192  # size of its /tmp in MiB, where the index for the report is made

LOG_DAYS = 60
LOG_GROUP = f"/aws/lambda/{FUNCTION}"

_LEFT_OUT = frozenset({"cli", "dashboard", "examples", "local", "rehearsal"})
"""Parts of the program that the auto-monitor does not need."""

_TRY_SECONDS = 3.0
_SETTINGS: Mapping[str, Any] = {
    "Handler": "distributed_something.automonitor.handler",
    "Runtime": "python3.13",
    "Timeout": TIMEOUT_SECONDS,
    "MemorySize": MEMORY_MB,
    "EphemeralStorage": {"Size": DISK_MB},
}
_ONE_TRY: Mapping[str, Any] = {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60}


class FoundFunction(NamedTuple):
    """The auto-monitor's resources in a region; None or empty: missing."""

    function: Mapping[str, Any] | None = None
    tags: Mapping[str, str] = {}
    tries: Mapping[str, Any] = {}
    schedules: bool = False
    log_days: int | None = None
    log_group: bool = False


def package() -> bytes:
    """The function's code as a zip archive."""
    import distributed_something

    root = Path(distributed_something.__file__).parent
    found = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    files = {path.relative_to(root.parent).as_posix(): path for path in found}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as writer:  # compressed, it depends on the zlib
        for name in sorted(files):
            if name.split("/")[1] not in _LEFT_OUT:
                entry = zipfile.ZipInfo(name)  # of 1980
                entry.create_system, entry.external_attr = 3, 0o644 << 16
                writer.writestr(entry, files[name].read_bytes())
    return archive.getvalue()


# -- Deciding -----------------------------------------------------------------------------------------------


def plan_function(where: Where, found: FoundFunction, code: bytes) -> list[Step]:
    """Plans the calls that give a region its auto-monitor; none if it is complete.

    Raises DsError if a function of that name belongs to others.
    """
    if found.function is not None and not is_ours(found.tags):
        what = f"the function {FUNCTION} is there, and was not made by this program"
        raise DsError(
            what, "rename or remove it, if nothing needs it: its name is one that this program gives"
        )
    steps = [*_log_steps(found)]
    if not found.schedules:
        request: dict[str, Any] = {"Name": SCHEDULES, "Tags": tag_list(TAGS)}
        text = f"create schedule group {SCHEDULES}"
        steps.append(Step(text, "create_schedule_group", request, "scheduler"))
    steps += _function_steps(where, found.function, code)
    if any(found.tries.get(name) != value for name, value in _ONE_TRY.items()):
        request = {"FunctionName": FUNCTION, **_ONE_TRY}
        text = f"have failed calls of {FUNCTION} not repeated"
        steps.append(Step(text, "put_function_event_invoke_config", request, "lambda"))
    return steps


def _log_steps(found: FoundFunction) -> Iterator[Step]:
    name = {"logGroupName": LOG_GROUP}
    if not found.log_group:
        yield Step(f"create log group {LOG_GROUP}", "create_log_group", {**name, "tags": dict(TAGS)}, "logs")
    if found.log_days is None:  # another time is the user's own
        request = {**name, "retentionInDays": LOG_DAYS}
        yield Step(f"keep {LOG_GROUP} for {LOG_DAYS} days", "put_retention_policy", request, "logs")


def _function_steps(where: Where, found: Mapping[str, Any] | None, code: bytes) -> Iterator[Step]:
    name, settings = {"FunctionName": FUNCTION}, {**_SETTINGS, "Role": where.role(Role.MONITOR)}
    if found is None:
        request = {**name, **settings, "Code": {"ZipFile": code}, "Tags": dict(TAGS)}
        yield Step(f"create function {FUNCTION}: looks at runs", "create_function", request, "lambda")
        return
    if found.get("CodeSha256") != digest(code):
        request = {**name, "ZipFile": code}
        yield Step(f"update the code of {FUNCTION}", "update_function_code", request, "lambda")
    if any(found.get(key) != value for key, value in settings.items()):
        request = {**name, **settings}
        yield Step(f"correct function {FUNCTION}", "update_function_configuration", request, "lambda")


def digest(code: bytes) -> str:
    """A package's digest, in Lambda's form."""
    return b64encode(sha256(code).digest()).decode()


def plan_removal(found: FoundFunction) -> list[Step]:
    """Plans the calls that remove what `plan_function` made."""
    if found.function is not None and not is_ours(found.tags):
        return []
    steps = []
    if found.schedules:
        request = {"Name": SCHEDULES}
        text = f"delete schedule group {SCHEDULES}"
        steps.append(Step(text, "delete_schedule_group", request, "scheduler"))
    if found.function is not None:
        request = {"FunctionName": FUNCTION}
        steps.append(Step(f"delete function {FUNCTION}", "delete_function", request, "lambda"))
    if found.log_group:
        request = {"logGroupName": LOG_GROUP}
        steps.append(Step(f"delete log group {LOG_GROUP}", "delete_log_group", request, "logs"))
    return steps


# -- Asking and acting --------------------------------------------------------------------------------------


def find_function(session: AwsSession) -> FoundFunction:
    """Reads the auto-monitor's resources in the session's region. Raises DsError."""
    client, logs = session.client("lambda"), session.client("logs")
    with aws_errors("looking for the auto-monitor"):
        function = or_none(client.get_function, *ABSENT, FunctionName=FUNCTION)
        invoked = client.get_function_event_invoke_config
        tries = or_none(invoked, *ABSENT, FunctionName=FUNCTION) if function else None
        group = or_none(session.client("scheduler").get_schedule_group, *ABSENT, Name=SCHEDULES)
        pages = logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=LOG_GROUP)
        named = [each for page in pages for each in page["logGroups"] if each["logGroupName"] == LOG_GROUP]
    return FoundFunction(
        function["Configuration"] if function else None,
        function.get("Tags", {}) if function else {},
        tries or {},
        group is not None,
        named[0].get("retentionInDays") if named else None,
        bool(named),
    )


def apply_function(session: AwsSession, steps: Iterable[Step], clock: Clock) -> None:
    """Makes the calls, and repeats them until Lambda is ready: it knows a new role some seconds after IAM.

    After a DsError a new plan continues.
    """
    for step in steps:
        with aws_errors(step.text):
            _patiently(session, step, clock)
            if step.service == "lambda":
                session.client("lambda").get_waiter("function_active_v2").wait(FunctionName=FUNCTION)


def _patiently(session: AwsSession, step: Step, clock: Clock) -> None:
    import botocore.exceptions

    deadline = clock.monotonic() + PROPAGATION_SECONDS
    while True:
        try:
            getattr(session.client(step.service), step.call)(**step.request)
            return
        except botocore.exceptions.ClientError as error:
            code, said = error_code(error), error_words(error)
            unknown_role = code == "InvalidParameterValueException" and "role" in said.lower()
            busy = (
                code == "ResourceConflictException" and step.call != "create_function"
            )  # there: it was made
            if not (unknown_role or busy) or clock.monotonic() >= deadline:
                raise
        clock.wait(_TRY_SECONDS)


def everywhere(session: AwsSession, regions: Iterable[str]) -> list[tuple[AwsSession, list[Step]]]:
    """Plans the removal in each region that has something of the auto-monitor. Raises DsError."""
    sessions = [session.elsewhere(region) for region in regions]
    with ThreadPoolExecutor(8) as pool:
        plans = list(pool.map(lambda each: plan_removal(find_function(each)), sessions))
    return [(each, steps) for each, steps in zip(sessions, plans, strict=True) if steps]
