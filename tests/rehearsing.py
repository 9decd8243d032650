"""A rehearsed run, looked at from outside: the store's files, the emulator's own answers, the processes."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import boto3

from conftest import DsProject
from distributed_something.rehearsal.emulator import CREDENTIALS

REGION = "us-east-1"


def processes(project: DsProject) -> list[int]:
    """Those of tasks, and the emulator's own."""
    found = project.processes()
    mark = str(project.folder).encode()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
        if b"rehearsal.daemon" in command and mark in command:
            found.append(int(entry))
    return found


class Job(NamedTuple):
    """What the files of a run tell of one job, in the order of the events' time."""

    group: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def state(self) -> str:
        """`succeeded` once its outputs are there; else what its last event but starts says."""
        names = [each["event"] for each in self.events if each["event"] != "started"]
        return "succeeded" if {"succeeded", "skipped"} & {*names} else names[-1]

    @property
    def charged(self) -> int:
        """How many attempts failed."""
        return sum(each["event"] in ("failed", "dead") for each in self.events)


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


def check_files(data: Path, outputs: str, dead: dict[str, str], key: str) -> Counter[str]:
    """What must hold after any run. `dead`: the cause of each group that fails, by its value of `key`.

    Returns how often each event happened.
    """
    jobs = jobs_in_files(data)
    manifests = {path.stem: path for path in (data / outputs).glob("*/.ds/*.json")}
    for job_id, job in jobs.items():
        if cause := dead.get(str(job.group[key])):
            assert (job.state, job.events[-1]["cause"]) == ("dead", cause), job
            assert job.charged == 2, f"an interruption was charged: {job}"
        else:
            assert job.state == "succeeded", job
            assert job.charged == 0, f"an interruption was charged: {job}"
            made = json.loads(manifests[job_id].read_bytes())["files"]
            folder = manifests[job_id].parents[1]
            assert made and all((folder / each["name"]).stat().st_size == each["size"] for each in made)
    succeeded = {job_id for job_id, job in jobs.items() if job.state == "succeeded"}
    assert manifests.keys() == succeeded
    folders = {path.parents[1] for path in manifests.values()}
    assert {path for path in (data / outputs).iterdir() if path.is_dir()} == folders, "no manifest"
    return Counter(event["event"] for job in jobs.values() for event in job.events)


def machines_left(project: DsProject) -> list[str]:
    """What the emulator itself says of what costs money: machines, requests for them, tasks."""
    (facts,) = (project.folder / ".ds").glob("*.rehearsal/rehearsal.json")
    options = {
        "endpoint_url": json.loads(facts.read_text())["endpoint"],
        "region_name": REGION,
        "aws_access_key_id": CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    }
    ec2, ecs = boto3.client("ec2", **options), boto3.client("ecs", **options)
    reservations = ec2.describe_instances()["Reservations"]
    machines = [machine for each in reservations for machine in each["Instances"]]
    fleets = [each for each in ec2.describe_fleets()["Fleets"] if "delete" not in each["FleetState"]]
    requests = ec2.describe_spot_fleet_requests()["SpotFleetRequestConfigs"]
    tasks = [
        arn for name in ecs.list_clusters()["clusterArns"] for arn in ecs.list_tasks(cluster=name)["taskArns"]
    ]
    return [
        *(m["InstanceId"] for m in machines if m["State"]["Name"] not in ("terminated", "shutting-down")),
        *(each["FleetId"] for each in fleets),
        *(r["SpotFleetRequestId"] for r in requests if "cancelled" not in r["SpotFleetRequestState"]),
        *tasks,
    ]
