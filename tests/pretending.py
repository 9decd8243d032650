"""The pretend account of a test: an emulator with fleets, whose tasks run whatever the test gives them."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from distributed_something.aws.ec2.requests.userdata import placement, user_data
from distributed_something.aws.iam.roles import Role, Where
from distributed_something.rehearsal.auth import signed
from distributed_something.rehearsal.place import Place
from distributed_something.worker.attempt.process import marked_processes

APP = "App"
SLEEP = ("sleep", "1000")


def require() -> None:
    """Skip the test where the emulator is not installed; on a build server it fails."""
    try:
        import boto3  # noqa: F401
        import moto.server  # noqa: F401
    except ImportError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"{error}: pip install -e '.[rehearsal]'")


class Account:
    """An account and the calls that tests make."""

    def __init__(self, endpoint: str, place: Place, process: subprocess.Popen[str]) -> None:
        self.endpoint = endpoint
        self.place = place
        self.process = process
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """A client whose calls are not repeated, with credentials of its own."""
        import boto3
        from botocore.config import Config

        names = ("aws_access_key_id", "aws_secret_access_key")
        keys = dict.fromkeys(names, self.place.key())
        if service not in self._clients:
            self._clients[service] = boto3.Session(region_name="us-east-1", **keys).client(
                service, endpoint_url=self.endpoint, config=Config(retries={"total_max_attempts": 1})
            )
        return self._clients[service]

    @property
    def ec2(self) -> Any:
        return self.client("ec2")

    @property
    def ecs(self) -> Any:
        return self.client("ecs")

    def get(self, path: str, **headers: str) -> str:
        """One of the emulator's own addresses."""
        headers = signed(self.place.key()) | headers
        request = urllib.request.Request(f"{self.endpoint}/ds/{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def post(self, path: str, body: str = "", method: str = "POST") -> str:
        """Tell the emulator something."""
        url, own = f"{self.endpoint}/ds/{path}", signed(self.place.key())
        request = urllib.request.Request(url, body.encode(), own, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def facts(self) -> dict[str, Any]:
        """What the account has seen."""
        found: dict[str, Any] = json.loads(self.get("account"))
        return found

    def image(self) -> str:
        name = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"
        return str(self.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])

    def spot_fleet(self, machines: int, cluster: str = "default", **more: Any) -> str:
        """Ask for a spot fleet; its id."""
        profile = Where("123456789012", "us-east-1").profile
        launch = {
            "ImageId": self.image(),
            "InstanceType": "m5.large",
            "IamInstanceProfile": {"Arn": profile},
            "UserData": base64.b64encode(user_data(APP, cluster).encode()).decode(),
        }
        request = {
            "IamFleetRole": Where("123456789012", "us-east-1").role(Role.FLEET),
            "AllocationStrategy": "priceCapacityOptimized",
            "TargetCapacity": machines,
            "Type": "maintain",
            "LaunchSpecifications": [{**launch, **more.pop("launch", {})}],
            **more,
        }
        return str(self.ec2.request_spot_fleet(SpotFleetRequestConfig=request)["SpotFleetRequestId"])

    def service(
        self, tasks: int, cluster: str = "default", *, cpu: int = 1024, memory: int = 1000, stop: int = 5
    ) -> None:
        """A service with so many tasks, in a cluster and with a log group of its own."""
        self.ecs.create_cluster(clusterName=cluster)
        self.client("logs").create_log_group(logGroupName=f"logs-{cluster}")
        options = {"awslogs-group": f"logs-{cluster}", "awslogs-stream-prefix": APP}
        container = {
            "name": APP,
            "image": "any",
            "cpu": cpu,
            "memory": memory,
            "essential": True,
            "stopTimeout": stop,
            "environment": [{"name": "GREETING", "value": "hello"}],
            "logConfiguration": {"logDriver": "awslogs", "options": options},
        }
        self.ecs.register_task_definition(family="AppTask", containerDefinitions=[container])
        self.ecs.create_service(
            cluster=cluster,
            serviceName="AppService",
            taskDefinition="AppTask",
            desiredCount=tasks,
            placementConstraints=placement(APP),
            placementStrategy=[{"type": "binpack", "field": "memory"}],
        )

    def described(self, cluster: str = "default") -> dict[str, Any]:
        """The service as ECS shows it."""
        answer = self.ecs.describe_services(cluster=cluster, services=["AppService"])
        found: dict[str, Any] = answer["services"][0]
        return found

    def running(self, cluster: str = "default") -> int:
        return int(self.described(cluster)["runningCount"])

    def machines(self, fleet: str) -> list[str]:
        found = self.ec2.describe_spot_fleet_instances(SpotFleetRequestId=fleet)["ActiveInstances"]
        return [each["InstanceId"] for each in found]

    def history(self, fleet: str) -> list[str]:
        found = self.ec2.describe_spot_fleet_request_history(
            SpotFleetRequestId=fleet, StartTime="2020-01-01T00:00:00Z"
        )
        return [each["EventInformation"]["EventSubType"] for each in found["HistoryRecords"]]

    def processes(self) -> list[int]:
        """Every process of the account's tasks."""
        return marked_processes(self.place.mark)


@contextmanager
def pretend_account(folder: Path, *command: str, **config: object) -> Iterator[Account]:
    """An account whose tasks run `command`; nothing of it runs afterwards."""
    require()
    text = "".join(f"{name} = {value!r}\n" for name, value in {"APP_NAME": APP, **config}.items())
    (folder / "config.py").write_text(text)
    place = Place(folder / ".ds" / APP)
    place.folder.mkdir(parents=True)
    with place.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "distributed_something.rehearsal.cloud.daemon"),
                *(str(folder), str(place.folder), str(lock.fileno()), *command),
            ],
            stdout=subprocess.PIPE,
            pass_fds=[lock.fileno()],
            text=True,
        )
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.read().strip() == "ready", place.log.read_text()
        endpoint = place.endpoint()
        assert endpoint is not None
        account = Account(endpoint, place, process)
        try:
            yield account
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            finally:
                process.kill()
    assert not account.processes()


def until(holds: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Wait until something holds; the test fails where it does not."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
