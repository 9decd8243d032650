"""Asks AWS what `ds check` needs to know, with read-only calls; `findings.py` decides on the answers.

The checks run several at a time. Called by the command `check` through `engines.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from ..engine import Store
from ..errors import DsError, UsageError
from ..inputs.checks.findings import Check, Finding, Room, error, job_file_findings, ok, work_findings, wrong
from ..inputs.checks.findings import image_findings as container_findings
from ..inputs.checks.program import runnable_findings
from ..inputs.checks.sizing import need_findings
from ..inputs.config import Config
from ..inputs.fleetfile import Fleet, FleetFile, parse_fleet, read_fleet
from ..inputs.jobs.jobfile import JobFile
from ..s3.archived import archived_findings
from ..s3.session import NO_SUCH, AwsSession, aws_errors, or_none
from ..worker.files.shared import stored_findings
from ..worker.forecast import forecast_findings
from .checks import findings, limits
from .ec2.prices import ask, ask_on_demand
from .ec2.requests.region import NO_IMAGE, Region
from .ec2.requests.request import key_pair
from .iam import account
from .iam.policies import Used
from .iam.roles import Where
from .names import instance_log_group
from .shape import MachineShape, capacity_of, smallest, task_size
from .sqs.queues import NO_QUEUE


def checks(folder: Path, config: Config, job_file: JobFile | None, fleet_file: Path | None) -> list[Check]:
    """The checks of a project that runs on AWS. Raises UsageError where the fleet file cannot be read."""
    file = read_fleet(fleet_file) if fleet_file else None
    fleet = _without_mistakes(file, config)
    found = [*unasked(config, file), *project_checks(folder, config, job_file)]
    session = AwsSession(config.aws_region, config.aws_profile or None)
    try:
        number, arn = account.who(session)
    except DsError as unknown:  # without an identity no other call can succeed
        said = error(unknown.what, unknown.fix)
        return [*found, Check("who you are", lambda: [said])]
    who = ok(f"you are {arn}, in {config.aws_region}")
    asker = Asker(session, config, Where(number, config.aws_region), fleet)
    inputs = _store_checks(folder, config, job_file, session, asker)
    return [*found, Check("who you are", lambda: [who]), *asker.all(), *inputs]


def unasked(config: Config, file: FleetFile | None) -> list[Check]:
    """The checks that make no call, and read no job file."""
    found = [
        Check("the work", lambda: work_findings(config)),
        Check("the image's name", lambda: container_findings(config)),
        Check("the secrets", lambda: findings.secret_findings(config)),
        Check("the queues' names", lambda: findings.name_findings(config)),
        Check("the size", lambda: limits.size_findings(config)),
        Check("the leases", lambda: findings.lease_findings(config)),
        Check("the image's own worker", lambda: findings.image_worker_findings(config)),
    ]
    if file is None:
        return found
    return [*found, Check("the fleet file", lambda: findings.fleet_findings(file.text, file.name, config))]


def _without_mistakes(file: FleetFile | None, config: Config) -> Fleet | None:
    try:
        return file and parse_fleet(file.text, file.name, key_name=config.ssh_key_name)
    except UsageError:
        return None


def project_checks(folder: Path, config: Config, job_file: JobFile | None) -> list[Check]:
    """Whether the command or function can be started, as far as this machine can tell; and the job file."""
    found = [Check("the program", lambda: runnable_findings(config, folder))]
    if job_file is not None:
        found.append(Check("the job file", lambda: job_file_findings(config, job_file, folder)))
    return found


def _store_checks(
    folder: Path, config: Config, job_file: JobFile | None, session: AwsSession, asker: Asker
) -> list[Check]:
    from ..s3.access import Access
    from ..s3.rights import rights_findings

    access = Access(config, session)
    tried = Check("the buckets", lambda: rights_findings(config, access, "you (tasks ask by their role)"))
    if job_file is None or not config.aws_bucket:
        return [tried]
    store = access.joined()
    place = f"s3://{config.aws_bucket}"
    slots = config.tasks_per_machine * (config.docker_cores or 1)
    room = Room(
        config.ebs_vol_size * 10**9, slots, "EBS_VOL_SIZE", "raise EBS_VOL_SIZE, or lower DOCKER_CORES"
    )
    return [
        tried,
        Check("the inputs", lambda: stored_findings(config, job_file, store, place, room)),
        Check("what jobs need", lambda: asker.needs(job_file, store)),
        Check("archived inputs", lambda: archived_findings(config, job_file, session)),
        Check("what is done", lambda: forecast_findings(config, job_file, store, folder)),
    ]


class Asker:
    """Makes the calls. Each error is a DsError, and becomes a finding. Threads may share it."""

    def __init__(self, session: AwsSession, config: Config, where: Where, fleet: Fleet | None) -> None:
        self._session, self._where, self._fleet = session, where, fleet
        self._config = findings.with_fleet(config, fleet) if fleet else config
        self._types: list[dict[str, Any]] | None = None
        self._lock = Lock()

    def all(self) -> list[Check]:
        """Every check of the account. The slowest come first."""
        made: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
            ("the account's roles", self.roles),
            ("the machine types", self.machines),
            ("the machine image", self.images),
            ("the quotas", self.quotas),
            ("the service limits", self.limits),
            ("the bucket's versions", self.versions),
            ("the way to S3", self.way_to_s3),
            ("spot prices", self.prices),
            ("placement scores", self.scores),
            ("on-demand prices", self.on_demand),
            ("the subnets", self.subnets),
            ("the region", self.region),
            ("the bucket", self.bucket),
            ("the queue", self.queue),
            ("the cluster", self.cluster),
            ("the log groups", self.logs),
        ]
        if self._fleet:
            made.append(("the fleet file's roles", self.fleet_roles))
        if self._config.ssh_key_name:
            made.append(("the key pair", self.key))
        return [Check(about, make) for about, make in made]

    def region(self) -> Iterator[Finding]:
        """Checks that the region is enabled: AWS refuses calls to others."""
        name = self._config.aws_region
        found = {
            each["RegionName"]: each.get("OptInStatus")
            for each in self._ask("ec2", "describe_regions", AllRegions=True)["Regions"]
        }
        if found.get(name) in (None, "not-opted-in"):
            yield error(
                f"AWS_REGION: {name} is not enabled in this account",
                "enable it (Account, AWS Regions), or take another",
            )

    def roles(self) -> Iterator[Finding]:
        """The account's set-up."""
        used = Used.of(self._config, self._where)
        return findings.role_findings(self._where, used, account.find(self._session))

    def fleet_roles(self) -> Iterator[Finding]:
        """The role and the instance profiles of the fleet file."""
        for arn, place in findings.arns_of(self._fleet).items() if self._fleet else ():
            mine = arn.split(":")[4] == self._where.number
            there = mine and self._has(place, arn.rpartition("/")[2])
            yield from findings.arn_findings(self._where, place, arn, there=there)

    def _has(self, place: str, name: str) -> bool:
        if place == "IamFleetRole":
            return self._ask_or("iam", "get_role", NO_SUCH, RoleName=name) is not None
        return self._ask_or("iam", "get_instance_profile", NO_SUCH, InstanceProfileName=name) is not None

    def machines(self) -> Iterator[Finding]:
        """The machine types, and whether a zone offers them."""
        offered = self._pages(
            "ec2",
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            LocationType="region",
            Filters=[{"Name": "instance-type", "Values": list(self._config.machine_type)}],
        )
        return findings.machine_findings(
            self._config, self.described(), [each["InstanceType"] for each in offered]
        )

    def described(self) -> list[dict[str, Any]]:
        """The machine types as EC2 describes them, read once. Unknown names are left out."""
        with self._lock:
            if self._types is None:
                wanted = [{"Name": "instance-type", "Values": list(self._config.machine_type)}]
                self._types = self._pages("ec2", "describe_instance_types", "InstanceTypes", Filters=wanted)
            return self._types

    def images(self) -> Iterator[Finding]:
        """The images of the fleet file, or else the newest for these machines."""
        own = [] if self._fleet else [Region(self._session, self._config).image_id()]
        for name in findings.images_of(self._fleet) if self._fleet else own:
            yield from findings.image_findings(name, self._image(name), self.described())

    def _image(self, name: str) -> dict[str, Any] | None:
        found = self._ask_or("ec2", "describe_images", *NO_IMAGE, ImageIds=[name])
        images: list[dict[str, Any]] = found["Images"] if found else []
        return images[0] if images else None

    def quotas(self) -> Iterator[Finding]:
        """The quotas that these machine types count for."""
        kinds = {findings.family(each["InstanceType"]) for each in self.described()} - {None}
        known = {
            kind: self._ask(
                "service-quotas", "get_service_quota", ServiceCode="ec2", QuotaCode=findings.QUOTAS[kind][0]
            )
            for kind in sorted(filter(None, kinds))
        }
        values = {kind: answer["Quota"]["Value"] for kind, answer in known.items()}
        return findings.quota_findings(self._config, self.described(), values)

    def needs(self, job_file: JobFile, store: Store) -> Iterator[Finding]:
        """Whether a task on the smallest of these machines has what the jobs need."""
        shapes = [MachineShape.of(each) for each in self.described()]
        if shapes:
            yield from need_findings(
                self._config, job_file, store, capacity_of(self._config, smallest(shapes))
            )

    def limits(self) -> Iterator[Finding]:
        """At which size this run meets the limits of the services."""
        shapes = [MachineShape.of(each) for each in self.described()]
        slots = task_size(self._config, smallest(shapes)).slots if shapes else self._config.docker_cores or 1
        return limits.limit_findings(self._config, slots)

    def versions(self) -> Iterator[Finding]:
        """Whether the bucket keeps old versions."""
        name = self._config.aws_bucket
        if not name:
            return iter(())
        found = self._ask_or("s3", "get_bucket_versioning", "NoSuchBucket", Bucket=name)
        return limits.versioning_findings(self._config, (found or {}).get("Status"))

    def way_to_s3(self) -> Iterator[Finding]:
        """Whether what machines read and write goes through a NAT gateway."""
        subnets = self._subnets()
        for vpc in sorted({each["VpcId"] for each in subnets}):
            tables = self._pages(
                "ec2", "describe_route_tables", "RouteTables", Filters=[{"Name": "vpc-id", "Values": [vpc]}]
            )
            here = [each for each in subnets if each["VpcId"] == vpc]
            yield from limits.nat_findings(tables, here, vpc)

    def prices(self) -> Iterator[Finding]:
        """What machines cost now."""
        prices = ask(self._session, self._config.machine_type, time.time())
        return findings.price_findings(self._config, [points[-1][1] for points in prices.values()])

    def scores(self) -> Iterator[Finding]:
        """How likely AWS has that many spot machines of these types, here and elsewhere."""
        config = self._config
        found = self._pages(
            "ec2",
            "get_spot_placement_scores",
            "SpotPlacementScores",
            InstanceTypes=list(config.machine_type),
            TargetCapacity=config.cluster_machines,
            TargetCapacityUnitType="units",
        )
        return findings.score_findings(config, {each["Region"]: int(each["Score"]) for each in found})

    def on_demand(self) -> Iterator[Finding]:
        """What machines cost on demand, if the config wants some."""
        if self._config.on_demand_percent or self._config.on_demand_after:
            prices = ask_on_demand(self._session, self._config.machine_type)
            yield from findings.on_demand_findings(
                self._config, {kind: p[-1][1] for (kind, _), p in prices.items()}
            )

    def subnets(self) -> Iterator[Finding]:
        """The subnets of the fleet file, or else those of the default VPC."""
        named = findings.subnets_of(self._fleet) if self._fleet else []
        found = self._subnets()
        yield from findings.subnet_findings(self._config, found, named)
        if found and not self._config.assign_ip:
            networks = [{"Name": "vpc-id", "Values": sorted({each["VpcId"] for each in found})}]
            tables = self._pages("ec2", "describe_route_tables", "RouteTables", Filters=networks)
            endpoints = self._pages("ec2", "describe_vpc_endpoints", "VpcEndpoints", Filters=networks)
            yield from findings.way_out_findings(self._config.aws_region, found, tables, endpoints)

    def _subnets(self) -> list[dict[str, Any]]:
        named = findings.subnets_of(self._fleet) if self._fleet else []
        name, values = ("subnet-id", named) if named else ("default-for-az", ["true"])
        return self._pages("ec2", "describe_subnets", "Subnets", Filters=[{"Name": name, "Values": values}])

    def key(self) -> Iterator[Finding]:
        """The key pair."""
        name = key_pair(self._config)
        found = self._ask_or("ec2", "describe_key_pairs", "InvalidKeyPair.NotFound", KeyNames=[name])
        return findings.key_findings(name, found is not None)

    def bucket(self) -> Iterator[Finding]:
        """The bucket. S3 names its region even in a refusal."""
        import botocore.exceptions

        if not self._config.aws_bucket:
            yield wrong(
                "AWS_BUCKET: missing: nowhere for inputs, outputs and logs", "AWS_BUCKET = 'my-bucket'"
            )
            return
        with aws_errors(f"looking for the bucket {self._config.aws_bucket}"):
            try:
                answer = self._session.client("s3").head_bucket(Bucket=self._config.aws_bucket)
            except botocore.exceptions.ClientError as refused:
                answer = refused.response
        meta = answer["ResponseMetadata"]
        region = meta["HTTPHeaders"].get("x-amz-bucket-region")
        yield from findings.bucket_findings(self._config, meta["HTTPStatusCode"], region)

    def queue(self) -> Iterator[Finding]:
        """The owner of the queue."""
        found = self._ask_or("sqs", "get_queue_url", *NO_QUEUE, QueueName=self._config.sqs_queue_name)
        tags = (
            self._ask("sqs", "list_queue_tags", QueueUrl=found["QueueUrl"]).get("Tags", {}) if found else None
        )
        return findings.queue_findings(self._config, tags)

    def cluster(self) -> Iterator[Finding]:
        """Other services in the cluster."""
        try:
            services = self._pages("ecs", "list_services", "serviceArns", cluster=self._config.ecs_cluster)
        except DsError as failed:
            if "ClusterNotFoundException" not in failed.what:
                raise
            services = []  # it is made by `ds setup`
        return findings.cluster_findings(self._config, services)

    def logs(self) -> Iterator[Finding]:
        """Retention of the app's log groups."""
        names = {self._config.log_group_name, instance_log_group(self._config)}
        found = self._pages(
            "logs", "describe_log_groups", "logGroups", logGroupNamePrefix=self._config.log_group_name
        )
        days = {each["logGroupName"]: each.get("retentionInDays") for each in found}
        return findings.log_findings({name: days[name] for name in sorted(names & days.keys())})

    def _ask(self, service: str, call: str, **request: Any) -> Any:
        with aws_errors(f"{service} {call}"):
            return getattr(self._session.client(service), call)(**request)

    def _ask_or(self, service: str, call: str, *absent: str, **request: Any) -> Any:
        """The answer; None: an error with one of the codes `absent`."""
        with aws_errors(f"{service} {call}"):
            return or_none(getattr(self._session.client(service), call), *absent, **request)

    def _pages(self, service: str, call: str, field: str, **request: Any) -> list[Any]:
        with aws_errors(f"{service} {call}"):
            pages = self._session.client(service).get_paginator(call).paginate(**request)
            return [item for page in pages for item in page[field]]
