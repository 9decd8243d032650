"""What watching a fleet of thousands asks of AWS: few calls a minute, whatever the fleet's size."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aws_project import Cloud, fleet_file, work
from distributed_something.automonitor import AutoMonitor
from distributed_something.aws.watch.schedule import Order
from distributed_something.console import Console
from distributed_something.ledger import RunPaths
from distributed_something.runs.record import record_key
from distributed_something.steps.setup import setup
from distributed_something.steps.start import start
from distributed_something.steps.watch.monitor import Watch
from distributed_something.testing import FakeClock
from emulating import REGION

A_MINUTE = 10
LOOKS = 7  # one that lists 5,000 machines in five pages, the four that it serves, and two more


class LargeFleet:
    """What EC2 says of a fleet of thousands, a page at a time; and every call to any service, counted."""

    def __init__(self, cloud: Cloud, running: int, target: int) -> None:
        from botocore.awsrequest import AWSResponse

        self._target = target
        self._machines = [
            {
                "InstanceId": f"i-{number:017x}",
                "State": {"Name": "running"},
                "LaunchTime": datetime.fromtimestamp(cloud.clock.now() - 7200, UTC),
                "InstanceType": "m5.xlarge",
                "InstanceLifecycle": "spot",
                "Placement": {"AvailabilityZone": "us-east-1a"},
            }
            for number in range(running)
        ]
        self._http = AWSResponse("", 200, {}, None)  # type: ignore[arg-type,no-untyped-call]
        self.calls: Counter[str] = Counter()
        session = cloud.engine.session
        for service in ("ec2", "ecs", "cloudwatch", "logs", "iam", "sts", "ssm"):
            session.client(service)
        for client in session._clients.values():
            if client.meta.service_model.service_name != "s3":
                client.meta.events.register("before-call.*.*", self._count)
        ec2 = session.client("ec2").meta.events
        ec2.register("before-call.ec2.DescribeInstances", self._page)
        ec2.register("before-call.ec2.DescribeSpotFleetRequests", self._fleet)
        ec2.register("before-call.ec2.DescribeSpotFleetRequestHistory", self._history)
        session.client("ecs").meta.events.register("before-call.ecs.DescribeServices", self._service)
        for client in session._clients.values():
            client.meta.events.register("before-call.sqs.GetQueueAttributes", self._depth)

    def _count(self, model: Any, **_: object) -> None:
        self.calls[model.name] += 1

    def _page(self, params: dict[str, Any], **_: object) -> Any:
        asked = params["body"]
        start, size = int(asked.get("NextToken", 0)), int(asked["MaxResults"])
        page = self._machines[start : start + size]
        more = {"NextToken": str(start + size)} if start + size < len(self._machines) else {}
        return self._http, {"Reservations": [{"Instances": page}], **more}

    def _fleet(self, params: dict[str, Any], **_: object) -> Any:
        fleet = {
            "SpotFleetRequestId": params["body"]["SpotFleetRequestId.1"],
            "SpotFleetRequestState": "active",
            "SpotFleetRequestConfig": {"TargetCapacity": self._target},
        }
        return self._http, {"SpotFleetRequestConfigs": [fleet]}

    def _depth(self, **_: object) -> Any:
        names = ("", "NotVisible", "Delayed")
        return self._http, {"Attributes": {f"ApproximateNumberOfMessages{name}": "1000000" for name in names}}

    def _history(self, **_: object) -> Any:
        return self._http, {"HistoryRecords": []}

    def _service(self, **_: object) -> Any:
        counts = {"desiredCount": self._target, "runningCount": len(self._machines), "pendingCount": 0}
        return self._http, {"services": [{"serviceName": "s", "status": "ACTIVE", "events": [], **counts}]}


def by_hand(cloud: Cloud) -> Callable[[], object]:
    """A look of `ds monitor`, whose first look asked names and prices."""
    cloud.project.snapshot()
    watch = Watch(cloud.project)

    def look() -> object:
        with Console(yes=True, out=cloud.out, err=cloud.err).watch() as watcher:
            return watch.look(watcher)

    return look


def by_itself(cloud: Cloud) -> Callable[[], object]:
    """A call of the auto-monitor, in a process that has had one before."""
    record = cloud.record()
    paths = RunPaths(cloud.app, record.run)
    cloud.engine.store.write(record_key(paths), record.to_json().encode())
    order = Order(cloud.app, record.run, REGION, cloud.bucket)
    monitor = AutoMonitor(cloud.engine.session, cloud.clock, cloud.folder / "monitor")
    console = Console(yes=True, out=cloud.out, err=cloud.err)
    assert monitor.look(order, console) == "watching"
    cloud.clock.advance(60)
    return lambda: monitor.look(order, console)


@pytest.mark.fault(36)
@pytest.mark.parametrize("running", [900, 5000])
@pytest.mark.parametrize("watching", [by_hand, by_itself])
def test_a_minute_of_watching_thousands_of_machines_takes_few_calls(
    tmp_path: Path, running: int, watching: Callable[[Cloud], Callable[[], object]]
) -> None:
    """Machines are missing, all are silent, and there is work for all: what is ever asked is asked.

    The bucket's own requests are not counted: the ledger is read as it grows.
    """
    cloud = Cloud(tmp_path / "project")
    cloud.clock = FakeClock(time.time())
    cloud.open()
    setup(cloud.project)
    cloud.submit(cloud.jobs(5))
    start(cloud.project, fleet_file(cloud))
    work(cloud, 1, hold=True)
    look = watching(cloud)
    fleet = LargeFleet(cloud, running, target=running + 100)
    minutes = []
    for _ in range(LOOKS):
        fleet.calls.clear()
        look()
        minutes.append(dict(fleet.calls))
        cloud.clock.advance(60)
    seen = set().union(*minutes)
    assert {"GetQueueAttributes", "DescribeInstances", "DescribeServices", "PutMetricAlarm"} <= seen
    assert [minute for minute in minutes if sum(minute.values()) >= A_MINUTE] == []
