"""Decides at which size a run meets a limit of AWS, and says what to do about it. Pure.

The figures are AWS's defaults for an account and region; requests are counted as the worker makes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...errors import UsageError
from ...inputs.checks.findings import Finding, error, ok, refused, warning
from ...inputs.config import Config
from ..watch.function import DISK_MB, TIMEOUT_SECONDS
from .findings import Answer, routes_of

CLUSTER_MACHINES = 5_000
SERVICE_TASKS = 5_000
"""ECS: machines in a cluster, and tasks in a service."""

IN_FLIGHT = 120_000  # SQS: messages of a queue that are leased at a time
PUTS_A_SECOND = 3_500  # S3: writes a second to one prefix, before it has split it

NEW_STREAMS_A_SECOND = 50
"""CloudWatch: new log streams a second. A worker makes two; its lines wait until it may."""

SETTLE_SECONDS, UNSETTLED = 30.0, 100
"""How long, and how many, ended jobs of a worker keep their leases: see `worker.settler`."""

WRITES_A_JOB = 3  # writes of a job with an output: a file, its manifest, and its share of log and ledger

LAST_LOOK = (40e-6, 280e-6)
"""The auto-monitor's last look, which makes the index for the report: seconds a job, and MiB of disk.

The others take 1.2e-6 s a job at most, and 100 MiB (docs/speed.md).
"""

ASSUMED_SECONDS = 60.0  # duration of a job where the config has no JOB_SECONDS

SLOW_START_SECONDS = 60.0


class Size(NamedTuple):
    """The size of a run: machines, tasks a machine, slots a task, and how long a job takes in seconds."""

    machines: int
    tasks: int
    slots: int
    seconds: float

    @classmethod
    def of(cls, config: Config, slots: int) -> Size:
        """Reads the config; `slots`: jobs at a time in a task."""
        seconds = config.job_seconds or ASSUMED_SECONDS
        return cls(config.cluster_machines, config.tasks_per_machine, slots, seconds)

    @property
    def leases(self) -> float:
        """Jobs of a machine that are leased at a time: those that run, and ended ones not settled yet."""
        unsettled = min(SETTLE_SECONDS * self.slots / self.seconds, UNSETTLED + self.slots)
        return self.tasks * (self.slots + unsettled)

    @property
    def writes(self) -> float:
        """Writes of a machine a second, if jobs have outputs."""
        return self.tasks * (self.slots / self.seconds * WRITES_A_JOB + 1 / SETTLE_SECONDS)


def check_size(machines: int, tasks: int) -> None:
    """Raises UsageError if ECS cannot have so many machines in a cluster, or tasks in a service."""
    most = min(CLUSTER_MACHINES, SERVICE_TASKS // tasks)
    if machines > most:
        what = f"{machines:,} machines of {tasks} tasks: ECS has {CLUSTER_MACHINES:,} machines in a cluster"
        raise UsageError(
            f"{what} and {SERVICE_TASKS:,} tasks in a service at most",
            f"CLUSTER_MACHINES = {most}, of larger machines; or split the jobs among apps, each with an"
            " ECS_CLUSTER of its own",
        )


def size_findings(config: Config) -> Iterator[Finding]:
    """Refuses a fleet that ECS cannot have."""
    try:
        check_size(config.cluster_machines, config.tasks_per_machine)
    except UsageError as unfit:
        yield refused(unfit)


def limit_findings(config: Config, slots: int) -> Iterator[Finding]:
    """Says at how many machines this run meets each limit; warns of those that it does meet."""
    size = Size.of(config, slots)
    ecs = min(CLUSTER_MACHINES, SERVICE_TASKS // size.tasks)
    leased, written = int(IN_FLIGHT / size.leases), int(PUTS_A_SECOND / size.writes)
    started = int(NEW_STREAMS_A_SECOND * SLOW_START_SECONDS / (2 * size.tasks))
    jobs = f"jobs of {size.seconds:g} s" + ("" if config.job_seconds else " (no JOB_SECONDS: assumed)")
    if size.machines > leased:
        yield error(
            f"SQS lets {IN_FLIGHT:,} jobs be leased at a time: {jobs} reach that at {leased:,} machines,"
            f" and {size.machines:,} are asked for",
            "put several of these short jobs into one, or lower CLUSTER_MACHINES",
        )
    if config.output and size.machines > written:
        yield warning(
            f"S3 takes {PUTS_A_SECOND:,} writes a second below one prefix at first: {jobs} reach that at"
            f" {written:,} machines, and {size.machines:,} are asked for: writes are slow until it is split",
            "begin OUTPUT with a key that differs from job to job, or start with fewer machines",
        )
    if size.machines > started:
        yield warning(
            f"CloudWatch makes {NEW_STREAMS_A_SECOND} log streams a second: the workers of {size.machines:,}"
            f" machines take {2 * size.machines * size.tasks / NEW_STREAMS_A_SECOND:.0f} s to have theirs",
            "nothing is lost: lines wait, and the bucket has all logs",
        )
    yield ok(
        f"limits are met at: {ecs:,} machines (ECS), {leased:,} (SQS), {written:,} (S3, with outputs),"
        f" {started:,} (CloudWatch, one minute), for {jobs}, {size.slots} at a time"
    )
    if config.auto_monitor:
        most = min(TIMEOUT_SECONDS / 2 / LAST_LOOK[0], DISK_MB / 2 / LAST_LOOK[1])
        yield ok(
            f"AUTO_MONITOR: half of its function's {TIMEOUT_SECONDS} s and {DISK_MB} MB of disk are enough"
            f" for {most / 1e6:.0f} million jobs, and the report at their end"
        )


def versioning_findings(config: Config, status: str | None) -> Iterator[Finding]:
    """Warns of a bucket that keeps each version: growing ledgers and logs are written up to three times."""
    if status == "Enabled":
        yield warning(
            f"AWS_BUCKET: {config.aws_bucket} keeps old versions, also of the parts of ledgers and logs,"
            " which are rewritten as they grow: up to two thirds of what is stored there",
            "add a lifecycle rule for the prefix runs/ that removes noncurrent versions after a day",
        )


def nat_findings(tables: Sequence[Answer], subnets: Sequence[Answer], vpc: str) -> Iterator[Finding]:
    """Warns where machines reach S3 by a NAT gateway: each GB is paid for. `tables` are route tables."""
    paid = [each["SubnetId"] for each in subnets if _by_nat(routes_of(each, tables))]
    if paid:
        yield warning(
            f"machines in {', '.join(sorted(paid)[:3])} reach S3 by a NAT gateway: about $0.045 a GB of"
            " inputs, outputs, logs and ledger",
            f"make a gateway endpoint for S3 (free): `aws ec2 create-vpc-endpoint --vpc-id {vpc}"
            " --service-name com.amazonaws.REGION.s3 --route-table-ids …`",
        )


def _by_nat(routes: Sequence[Answer]) -> bool:
    """Whether these routes lead to the internet by NAT, and have no endpoint for S3."""
    nat = any("NatGatewayId" in each for each in routes if each.get("DestinationCidrBlock") == "0.0.0.0/0")
    endpoint = any(str(each.get("GatewayId", "")).startswith("vpce-") for each in routes)
    return nat and not endpoint
