"""The first run on a real account: 20 jobs on one small spot machine, and what no emulator could show.

    make aws-smoke ARGS='--bucket my-bucket'

Costs at most `LIMIT_USD`. Writes `aws-smoke.txt`, without account numbers, keys and the bucket's name.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from distributed_something import __version__
from distributed_something.s3.session import AwsSession

from .tools import DS

JOBS = 20
MACHINE_TYPE = "t2.small"  # burstable types after t2 may bill for credits beyond their own
LIMIT_USD = 0.05
MACHINE_HOURS = 1  # AWS itself ends the fleet and its machine then, whatever becomes of this program
MACHINE_PRICE = 0.023  # most that is bid for an hour
BESIDES = 0.02  # at most, for that hour: a disk of 30 GB, a public address, requests, log lines
HISTORY = "the fleet's history tells what happened"
PRICE = f"a spot price of {MACHINE_TYPE} is known, and at most ${MACHINE_PRICE}"
PATIENCE = 75 * 60
"""Seconds after which a step is given up, and everything is removed."""


class Fact(NamedTuple):
    """Something that no emulator can show, and what was seen of it."""

    name: str
    seen: bool
    evidence: str

    def __str__(self) -> str:
        return f"[{'x' if self.seen else ' '}] {self.name}: {self.evidence}"


class Smoke:
    """A project in a temporary folder, and what its commands said."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.app = f"DsSmoke{uuid.uuid4().hex[:6]}"
        self.folder = Path(tempfile.mkdtemp(prefix="ds-aws-smoke-"))
        self.text: list[str] = []
        given = {
            "APP_NAME": self.app,
            "ENGINE": options.engine,
            "AWS_REGION": options.region,
            "AWS_BUCKET": options.bucket,
            "AWS_PROFILE": os.environ.get("AWS_PROFILE", ""),
            "ECS_CLUSTER": self.app,
            "DOCKERHUB_TAG": options.image,
            "WORKER_IMAGE": options.worker_image,
            "COMMAND": "sh -c 'sleep {seconds}; echo {n} > {output_dir}/n.txt'",
            "OUTPUT": f"{self.app}/{{n}}",
            "MACHINE_TYPE": [MACHINE_TYPE],
            "MACHINE_PRICE": MACHINE_PRICE,
            "MAX_RUN_HOURS": MACHINE_HOURS,
            "BUDGET_HOURS": MACHINE_HOURS,
            "CREATE_DASHBOARD": False,
        }
        lines = (f"{name} = {value!r}\n" for name, value in given.items() if value != "")
        (self.folder / "config.py").write_text("".join(lines))
        jobs = [{"n": number, "seconds": options.seconds} for number in range(JOBS)]
        (self.folder / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))

    def ds(self, *args: str) -> tuple[int, str]:
        """Run a command: its exit code, and what it printed, which is kept."""
        print(f"ds {' '.join(args)}", flush=True)
        words = [*DS, "-C", str(self.folder), "--yes", *args]
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL
            )
            code, printed = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            code, printed = 1, f"given up after {PATIENCE // 60} minutes\n"
        self.text.append(f"$ ds {' '.join(args)}\n{printed}exit code {code}\n")
        return code, printed

    def status(self) -> dict[str, Any]:
        """What `ds status --json` says; empty: nothing."""
        lines = self.ds("status", "--json")[1].splitlines()
        found: dict[str, Any] = json.loads(next((line for line in lines if line.startswith('{"app"')), "{}"))
        return found

    def run(self) -> list[Fact]:
        """Take the steps, remove everything whatever happens, and return what was seen."""
        real = self.options.engine == "aws"
        session = AwsSession(self.options.region, os.environ.get("AWS_PROFILE")) if real else None
        names = (HISTORY, PRICE)
        facts = [Fact(name, seen=False, evidence="not looked at in a dry run") for name in names]
        ended: dict[str, Any] = {}
        before = ""
        try:
            if real:
                before = self.ds("account", "setup")[1]
            steps = (("setup",), ("submit", str(self.folder / "jobs.jsonl")), ("start",))
            if all(self.ds(*step)[0] == 0 for step in steps):
                self.ds("monitor")
                ended = self.status()
            if session:
                record = self.folder / "files" / f"{self.app}SpotFleetRequestId.json"
                facts = [fleet_history(session, record), spot_price(session)]
        finally:
            clean = self.ds("cleanup")[0] == 0
            if not clean:
                print(f"error: something may be left\nfix: ds -C {self.folder} cleanup", file=sys.stderr)
        done = ended.get("jobs", {}).get("succeeded", 0)
        ran = f"{done} of {JOBS} jobs succeeded"
        made = "create role" in before
        new = "made just now" if made else "none was made just now, so nothing is proven"
        interrupted = ended.get("interruptions", 0)
        lost = f"{interrupted} interrupted; no interruption was asked for"
        facts = [
            Fact("new roles reach machines and tasks", made and done > 0, f"{new}; {ran}"),
            Fact("user data has a machine join the cluster", real and done > 0, ran),
            Fact(f"ECS places a task on {MACHINE_TYPE}", real and done > 0, ran),
            *facts,
            Fact("jobs that AWS interrupts run again", real and done == JOBS and interrupted > 0, lost),
            Fact("all jobs succeeded", done == JOBS, ran),
            nothing_left(session, self.app, clean=clean),
        ]
        if facts[-1].seen:
            shutil.rmtree(self.folder)
        return facts

    def harmless(self, text: str) -> str:
        """Take out account numbers, keys, the bucket's name and folders of this computer."""
        own = {str(self.folder): "<project>", str(Path.home()): "<home>", self.options.bucket: "<bucket>"}
        if (profile := os.environ.get("AWS_PROFILE", "default")) != "default":
            own[profile] = "<profile>"
        for word, instead in own.items():
            text = text.replace(word, instead) if word else text
        text = re.sub(r"\b[A-Z0-9]{4}[A-Z2-7]{16}\b", "<key>", text)
        return re.sub(r"(?<!\d)\d{12}(?!\d)", "<account>", text)


def fact(name: str, look: Callable[[], tuple[bool, str]]) -> Fact:
    """Look at AWS; an error of it is a fact that was not seen."""
    try:
        return Fact(name, *look())
    except Exception as error:  # noqa: BLE001  whatever it is, clean-up and the list go on
        return Fact(name, seen=False, evidence=f"could not be looked at: {type(error).__name__}: {error}")


def fleet_history(session: AwsSession, record: Path) -> Fact:
    """AWS's own history of the fleet that the run record names."""

    def look() -> tuple[bool, str]:
        since = datetime.fromtimestamp(record.stat().st_mtime - 2 * PATIENCE, UTC)
        fleet = json.loads(record.read_text())["MONITOR_FLEET_ID"]
        answer = session.client("ec2").describe_fleet_history(FleetId=fleet, StartTime=since)
        events = [
            each.get("EventInformation", {}).get("EventSubType", "?") for each in answer["HistoryRecords"]
        ]
        return bool(events), ", ".join(events) or "no event"

    return fact(HISTORY, look)


def spot_price(session: AwsSession) -> Fact:
    """A price below what is bid."""

    def look() -> tuple[bool, str]:
        wanted = {"InstanceTypes": [MACHINE_TYPE], "ProductDescriptions": ["Linux/UNIX"], "MaxResults": 20}
        answer = session.client("ec2").describe_spot_price_history(StartTime=datetime.now(UTC), **wanted)
        prices = sorted(float(each["SpotPrice"]) for each in answer["SpotPriceHistory"])
        return bool(prices) and 0 < prices[
            0
        ] <= MACHINE_PRICE, f"${prices[0]:.4f} an hour" if prices else "none"

    return fact(PRICE, look)


def nothing_left(session: AwsSession | None, app: str, *, clean: bool) -> Fact:
    """Whether nothing that costs money is left, by `ds cleanup` and by a look beside it."""

    def look() -> tuple[bool, str]:
        found: list[str] = []
        if session:
            ec2, ecs = session.client("ec2"), session.client("ecs")
            tag = [{"Name": "tag:ds:app", "Values": [app]}]
            machines = [
                m for r in ec2.describe_instances(Filters=tag)["Reservations"] for m in r["Instances"]
            ]
            ended = ("terminated", "shutting-down")
            found += [m["InstanceId"] for m in machines if m["State"]["Name"] not in ended]
            for page in ec2.get_paginator("describe_fleets").paginate():
                fleets = [f for f in page["Fleets"] if not f["FleetState"].startswith("deleted")]
                found += [
                    f["FleetId"] for f in fleets if {"Key": "ds:app", "Value": app} in f.get("Tags", ())
                ]
            found += [v["VolumeId"] for v in ec2.describe_volumes(Filters=tag)["Volumes"]]
            found += session.client("sqs").list_queues(QueueNamePrefix=app).get("QueueUrls", ())
            clusters = ecs.describe_clusters(clusters=[app])["clusters"]
            found += [c["clusterName"] for c in clusters if c["status"] == "ACTIVE"]
        beside = f"; a look beside it found {', '.join(found) or 'nothing'}" if session else ""
        return clean and not found, f"ds cleanup {'found nothing left' if clean else 'failed'}{beside}"

    return fact("clean-up leaves nothing that costs money", look)


def main(words: list[str] | None = None) -> int:
    """Ask, run, print the list and write the file. Returns 0 if all jobs succeeded and nothing is left."""
    parser = argparse.ArgumentParser(prog="make aws-smoke", description=__doc__, allow_abbrev=False)
    parser.add_argument("--bucket", required=True, help="bucket of yours in that region")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--image", default="public.ecr.aws/docker/library/busybox:stable")
    parser.add_argument("--worker-image", default="", help="where none is released yet: ds image worker")
    parser.add_argument("--seconds", type=float, default=10, help="how long a job takes")
    parser.add_argument("--engine", choices=("aws", "rehearsal"), default="aws", help="rehearsal: dry run")
    parser.add_argument("--output", type=Path, default=Path("aws-smoke.txt"), help="the file for us")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(words)
    most = MACHINE_HOURS * MACHINE_PRICE + BESIDES
    assert most <= LIMIT_USD
    if options.engine == "aws" and not options.yes:
        if not sys.stdin.isatty():
            print("error: not run: there is no terminal to confirm it on\nfix: --yes", file=sys.stderr)
            return 2
        print(f"This makes the roles of ds account setup where they are missing, and runs {JOBS} jobs on one")
        print(f"{MACHINE_TYPE} in {options.region}, at most {MACHINE_HOURS} hour: ${most:.3f} at most.")
        if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            return 2
    smoke = Smoke(options)
    facts = smoke.run()
    listed = "".join(f"{each}\n" for each in facts)
    head = f"distributed-something {__version__}, engine {options.engine}, {options.region}\n"
    options.output.write_text(smoke.harmless(f"{head}\n{listed}\n" + "\n".join(smoke.text)))
    print(smoke.harmless(f"{listed}written: {options.output}"))
    return 0 if facts[-1].seen and facts[-2].seen else 1


if __name__ == "__main__":
    sys.exit(main())
