"""The auto-monitor's function where functions and schedules really run: packaged, made, called."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import services
from distributed_something.aws.iam.account import remove
from distributed_something.aws.iam.roles import FUNCTION, SCHEDULES, TAGS, Role, Where
from distributed_something.aws.watch.function import (
    FoundFunction,
    apply_function,
    digest,
    everywhere,
    find_function,
    package,
    plan_function,
    plan_removal,
)
from distributed_something.aws.watch.schedule import Order, check_function, delete_schedule, put_schedule
from distributed_something.errors import DsError
from distributed_something.inputs.config import parse_config
from distributed_something.runs.runfile import write_run_file
from distributed_something.s3.plain_store import PlainStore
from distributed_something.s3.session import AwsSession
from distributed_something.testing import FakeClock
from pretending import until

WHERE = Where("000000000000", "us-east-1")


def test_the_same_files_make_the_same_package_with_nothing_compiled_in_it() -> None:
    assert package() == package()
    names = zipfile.ZipFile(io.BytesIO(package())).namelist()
    assert "distributed_something/automonitor.py" in names
    assert not [name for name in names if name.endswith((".pyc", ".so"))]
    assert len(package()) < 2_000_000


def test_the_package_needs_nothing_that_awss_python_lacks(tmp_path: Path) -> None:
    """Loaded from the archive, where no library but boto3 can be imported."""
    archive = tmp_path / "function.zip"
    archive.write_bytes(package())
    missing = ["msgspec", "obstore", "rich", "moto"]
    code = (
        f"import sys\nsys.path.insert(0, {str(archive)!r})\nsys.modules.update(dict.fromkeys({missing}))\n"
        "from distributed_something import automonitor\nprint(automonitor.__file__)\n"
        "from distributed_something.ledger import event_lines\n"
        "print(event_lines([{'event': 'dead', 't': 1.5}]).decode())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(str(archive))
    assert json.loads(ran.stdout.splitlines()[1]) == {"event": "dead", "t": 1.5}


def found(**settings: object) -> FoundFunction:
    """All as it is wanted, with another code or setting."""
    steps = plan_function(WHERE, FoundFunction(), b"PK")
    (create,) = [step for step in steps if step.call == "create_function"]
    function = {**create.request, "CodeSha256": digest(b"PK"), **settings}
    tries = {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60}
    return FoundFunction(function, TAGS, tries, True, 60, True)


@pytest.mark.parametrize(
    ("there", "calls"),
    [
        (found(), []),
        (found(CodeSha256="other"), ["update_function_code"]),
        (found(MemorySize=128), ["update_function_configuration"]),
        (found()._replace(tries={}), ["put_function_event_invoke_config"]),
        (found()._replace(log_days=7), []),
        (found()._replace(log_days=None), ["put_retention_policy"]),
    ],
)
def test_only_what_differs_is_changed(there: FoundFunction, calls: list[str]) -> None:
    assert [step.call for step in plan_function(WHERE, there, b"PK")] == calls


def test_a_function_of_somebody_else_is_neither_changed_nor_removed() -> None:
    theirs = found()._replace(tags={})
    with pytest.raises(DsError, match="not made by this program"):
        plan_function(WHERE, theirs, b"PK")
    assert plan_removal(theirs) == []


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsSession]:
    """A second emulator, which executes functions, with the auto-monitor in it."""
    folder = tmp_path_factory.mktemp("servers")
    with services.Servers(folder) as servers, pytest.MonkeyPatch.context() as patch:
        server = servers.get("ministack")
        for name, value in {**server.environment, "AWS_ACCESS_KEY_ID": "test"}.items():
            patch.setenv(name, value)
        session = AwsSession("us-east-1", endpoint=server.endpoint)
        for role in (Role.MONITOR, Role.SCHEDULE):
            session.client("iam").create_role(RoleName=str(role), AssumeRolePolicyDocument="{}")
        apply_function(session, plan_function(WHERE, find_function(session), package()), FakeClock())
        yield session


def order(session: AwsSession) -> Order:
    """Of a run that another one has followed, with its schedule still there."""
    app = f"App{uuid.uuid4().hex[:8]}"
    mine = Order(app, "20260101T000000Z-0000", "us-east-1", app.lower())
    session.client("s3").create_bucket(Bucket=mine.bucket)
    config = parse_config(f"APP_NAME = {app!r}\nAWS_BUCKET = {mine.bucket!r}\n")
    write_run_file(PlainStore(mine.bucket, session=session), config, "aws", mine.run)
    later = {"ds:app": app, "ds:run": "20270101T000000Z-0000"}
    session.client("sqs").create_queue(QueueName=f"{app}Queue", tags=later)
    return mine


def there(session: AwsSession, app: str) -> bool:
    client: Any = session.client("scheduler")
    try:
        client.get_schedule(Name=app, GroupName=SCHEDULES)
    except client.exceptions.ResourceNotFoundException:
        return False
    return True


def test_made_once_it_is_as_wanted(cloud: AwsSession) -> None:
    check_function(cloud)
    assert plan_function(WHERE, find_function(cloud), package()) == []


@pytest.mark.fault(8)
def test_the_function_runs_as_packaged_and_removes_the_schedule_of_a_run_that_is_over(
    cloud: AwsSession,
) -> None:
    mine = order(cloud)
    assert put_schedule(cloud, WHERE, mine, 4e9)
    assert not put_schedule(cloud, WHERE, mine, 4e9), "a second start changes it"
    answer = cloud.client("lambda").invoke(FunctionName=FUNCTION, Payload=mine.to_json())
    said = answer["Payload"].read().decode()
    assert "FunctionError" not in answer, said
    assert said.strip('"') == "over"
    assert not there(cloud, mine.app)
    assert not delete_schedule(cloud, mine.app)


@pytest.mark.fault(8)
def test_the_schedule_calls_the_function_with_its_order(cloud: AwsSession) -> None:
    mine, scheduler = order(cloud), cloud.client("scheduler")
    put_schedule(cloud, WHERE, mine, 4e9)
    made = scheduler.get_schedule(Name=mine.app, GroupName=SCHEDULES)
    same = {name: made[name] for name in ("Name", "GroupName", "FlexibleTimeWindow", "Target")}
    scheduler.update_schedule(**same, ScheduleExpression="at(2026-01-01T00:00:00)")  # now, not in a minute
    until(lambda: not there(cloud, mine.app), "the function to remove the schedule that called it", 30.0)


def test_an_error_is_counted_as_one(cloud: AwsSession) -> None:
    answer = cloud.client("lambda").invoke(FunctionName=FUNCTION, Payload=b"{}")
    assert "FunctionError" in answer
    assert "no order" in answer["Payload"].read().decode()


@pytest.mark.fault(34)
def test_what_was_made_is_found_in_every_region_and_can_be_removed(cloud: AwsSession) -> None:
    other = cloud.elsewhere("eu-west-1")
    apply_function(other, plan_function(WHERE, find_function(other), package()), FakeClock())
    plans = everywhere(cloud, ["us-west-2", "eu-west-1"])
    assert [session.region for session, _ in plans] == ["eu-west-1"]
    for session, removal in plans:
        assert remove(session, removal) == []
    assert everywhere(cloud, ["us-west-2", "eu-west-1"]) == []
