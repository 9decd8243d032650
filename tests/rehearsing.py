"""A rehearsed run, looked at from outside: the store's files, the emulator's own answers, the processes."""

from __future__ import annotations

import json
import os
import urllib.request
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from conftest import DsProject
from distributed_something.rehearsal.auth import signed
from distributed_something.rehearsal.emulator.server import CREDENTIALS
from distributed_something.rehearsal.faults import Faults, fate
from distributed_something.rehearsal.place import Place

REGION = "us-east-1"

TWO_MACHINES: dict[str, Any] = {
    "ENGINE": "rehearsal",
    "DOCKERHUB_TAG": "user/image",
    "CLUSTER_MACHINES": 2,
    "TASKS_PER_MACHINE": 1,
    "MACHINE_TYPE": ["m5.large"],
    "MACHINE_PRICE": 0.1,
}
"""The keys of a run that rents two machines, one task each."""


def processes(project: DsProject) -> list[int]:
    """Those of tasks, and the emulator's own."""
    found = project.processes()
    mark = str(project.folder).encode()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
        if b"rehearsal.cloud.daemon" in command and mark in command:
            found.append(int(entry))
    return found


def unlucky(faults: Faults) -> Faults:
    """With a seed by which the first machine is killed at work, and the second gets its notice at work."""

    def fits(seed: int) -> bool:
        first, second = (fate(faults._replace(seed=seed), number) for number in (1, 2))
        early, late = 6 * faults.speed, 9 * faults.speed
        killed = early < first.kill < late < first.notice
        noticed = early < second.notice < late and second.kill > 200
        return killed and noticed

    return faults._replace(seed=next(seed for seed in range(100_000) if fits(seed)))


class Job(NamedTuple):
    """What the files of a run tell of one job, in the order of the events' time."""

    group: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def state(self) -> str:
        """`succeeded` once its outputs are there; else what its last event but starts says."""
        names = [each["event"] for each in self.events if each["event"] != "started"]
        if {"succeeded", "skipped"} & {*names}:
            return "succeeded"
        return names[-1] if names else "waiting"

    @property
    def charged(self) -> int:
        """How many attempts failed. One of which the queue did not hear is made again."""
        return len({each["attempt"] for each in self.events if each["event"] in ("failed", "dead")})

    @property
    def attempt(self) -> int:
        """The highest number that an attempt had; the first one's is 1."""
        return max(each["attempt"] for each in self.events)


def jobs_in_files(data: Path) -> dict[str, Job]:
    """Every job of the only run, by its id: read without the product's own readers."""
    (run,) = (data / "runs").glob("*/*")
    jobs: dict[str, Job] = {}
    for line in _lines(run / "jobs"):
        jobs[line["id"]] = Job(line["job"]["group"], [])
    for event in sorted(_lines(run / "events"), key=lambda each: each["t"]):
        jobs[event["id"]].events.append(event)
    return jobs


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in folder.iterdir() for line in file.read_bytes().splitlines()]


def check_files(data: Path, outputs: str, key: str, count: int, dead: dict[str, str]) -> None:
    """What must hold after any run of `count` jobs, each with an output folder of its own below `outputs`.

    `dead`: the cause of each group that fails twice, by its value of `key`.
    """
    jobs = jobs_in_files(data)
    assert len(jobs) == count
    assert {str(job.group[key]) for job in jobs.values() if job.state == "dead"} == dead.keys()
    manifests = {path.stem: path for path in (data / outputs).glob("*/.ds/*.json")}
    for job_id, job in jobs.items():
        if cause := dead.get(str(job.group[key])):
            assert (job.state, job.events[-1]["cause"]) == ("dead", cause), job
            assert (job.charged, job.attempt) == (2, 2), f"an interruption was charged: {job}"
        else:
            assert job.state == "succeeded", job
            assert (job.charged, job.attempt) == (0, 1), f"an interruption was charged: {job}"
            made = json.loads(manifests[job_id].read_bytes())["files"]
            folder = manifests[job_id].parents[1]
            assert made and all((folder / each["name"]).stat().st_size == each["size"] for each in made)
    assert manifests.keys() == {job_id for job_id, job in jobs.items() if job.state == "succeeded"}
    folders = {path.parents[1] for path in manifests.values()}
    assert {path for path in (data / outputs).iterdir() if path.is_dir()} == folders, "no manifest"


def check_counts(project: DsProject, count: int, dead: int) -> None:
    """The product's own counts are those of the files."""
    status = project.status()["jobs"]
    done = status["succeeded"] + status["skipped"]
    assert (status["total"], done, status["dead"]) == (count, count - dead, dead)
    assert (status["waiting"], status["running"]) == (0, 0)
    assert len(project.job_lines("--state", "dead")) == dead


def queues(app: str, dead: int = 0) -> dict[str, int]:
    """What an app's queues hold once no job is left but the dead."""
    return {f"{app}Queue": 0, f"{app}Queue-carried": 0, f"{app}DeadMessages": dead}


class Emulator:
    """An emulator, asked behind the product's back."""

    def __init__(self, endpoint: str, credentials: dict[str, str] = CREDENTIALS) -> None:
        self.endpoint = endpoint
        self._credentials = credentials
        self._clients: dict[str, Any] = {}

    @classmethod
    def of(cls, project: DsProject) -> Emulator:
        """That of a project's rehearsal."""
        (folder,) = (project.folder / ".ds").glob("*.rehearsal")
        place = Place(folder)
        endpoint = place.endpoint()
        assert endpoint is not None
        return cls(endpoint, dict.fromkeys(CREDENTIALS, place.key()))

    @cached_property
    def account(self) -> dict[str, Any]:
        """What that of a rehearsal has seen so far."""
        own = signed(self._credentials["AWS_ACCESS_KEY_ID"])
        request = urllib.request.Request(f"{self.endpoint}/ds/account", headers=own)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    @property
    def environment(self) -> dict[str, str]:
        """What has the engine `aws` itself talk to it."""
        files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
        more = {"AWS_ENDPOINT_URL": self.endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
        return {**self._credentials, **files, **more}

    def client(self, service: str) -> Any:
        """A client of boto3."""
        import boto3
        from botocore.config import Config

        if service not in self._clients:  # what a rehearsal has go wrong meets this client too
            self._clients[service] = boto3.client(
                service,
                config=Config(retries={"total_max_attempts": 10, "mode": "standard"}),
                endpoint_url=self.endpoint,
                region_name=REGION,
                aws_access_key_id=self._credentials["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=self._credentials["AWS_SECRET_ACCESS_KEY"],
            )
        return self._clients[service]

    def machines(self) -> list[str]:
        """What costs money by the hour: machines, requests for them, tasks."""
        ec2, ecs = self.client("ec2"), self.client("ecs")
        reservations = ec2.describe_instances()["Reservations"]
        machines = [machine for each in reservations for machine in each["Instances"]]
        fleets = [each for each in ec2.describe_fleets()["Fleets"] if "delete" not in each["FleetState"]]
        requests = ec2.describe_spot_fleet_requests()["SpotFleetRequestConfigs"]
        clusters = ecs.list_clusters()["clusterArns"]
        return [
            *(m["InstanceId"] for m in machines if m["State"]["Name"] not in ("terminated", "shutting-down")),
            *(each["FleetId"] for each in fleets),
            *(r["SpotFleetRequestId"] for r in requests if "cancelled" not in r["SpotFleetRequestState"]),
            *(arn for name in clusters for arn in ecs.list_tasks(cluster=name)["taskArns"]),
        ]

    def things(self) -> list[str]:
        """Whatever else a run makes, but for log groups: those stay for as long as their retention says."""
        sqs, ecs, watch = self.client("sqs"), self.client("ecs"), self.client("cloudwatch")
        clusters = ecs.list_clusters()["clusterArns"]
        templates = self.client("ec2").describe_launch_templates()["LaunchTemplates"]
        return [
            *sqs.list_queues().get("QueueUrls", ()),
            *(arn for name in clusters for arn in ecs.list_services(cluster=name)["serviceArns"]),
            *(arn for arn in clusters if not arn.endswith("/default")),
            *ecs.list_task_definitions(status="ACTIVE")["taskDefinitionArns"],
            *(each["LaunchTemplateName"] for each in templates),
            *(each["DashboardName"] for each in watch.list_dashboards()["DashboardEntries"]),
            *(each["AlarmName"] for each in watch.describe_alarms()["MetricAlarms"]),
        ]

    def messages(self) -> dict[str, int]:
        """How many messages each queue holds, those under way included; by the queue's name."""
        sqs = self.client("sqs")
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        names.append("ApproximateNumberOfMessagesDelayed")
        found = {}
        for url in sqs.list_queues().get("QueueUrls", ()):
            counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
            found[url.rpartition("/")[2]] = sum(map(int, counts.values()))
        return found
