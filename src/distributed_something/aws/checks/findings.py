"""Decides the findings of `ds check` from the config and AWS's answers. Pure.

Answers are as boto3 gives them; `check.py` asks for them, and calls these functions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...errors import DsError, UsageError
from ...inputs.checks.findings import Finding, error, ok, refused, warning, wrong
from ...inputs.config import Config
from ...inputs.fleetfile import Fleet, advice, fleet_problems, parse_fleet
from ...inputs.secrets import check_for_aws
from ...words import many
from ..iam.account import LINK, Found, plan_setup
from ..iam.policies import Used
from ..iam.roles import Where
from ..shape import MachineShape, misfit, task_size
from ..sqs.queues import LONGEST_VISIBILITY, QueueNames, max_receipts, short_visibility

Answer = Mapping[str, Any]

QUOTAS = {
    "standard": ("L-34B43A08", frozenset({"a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"})),
    "G and VT": ("L-3819A6DF", frozenset({"g", "gr", "vt"})),
    "P": ("L-7212CCBC", frozenset({"p"})),
}
"""Quotas of spot vCPUs: AWS's name for the kind of machine, (quota code, first letters of its types)."""

_SHORT_VISIBILITY = 30
_GIB = 1024


def family(machine_type: str) -> str | None:
    """The quota that a machine type counts for; None: one that is not checked."""
    start = re.match("[a-z]*", machine_type)
    assert start is not None
    return next((name for name, (_, starts) in QUOTAS.items() if start[0] in starts), None)


def name_findings(config: Config) -> Iterator[Finding]:
    """Checks the queues' names."""
    try:
        names = QueueNames.of(config)
    except DsError as unfit:
        yield refused(unfit)
        return
    if names.dead in (names.jobs, names.carried):
        what = f"SQS_DEAD_LETTER_QUEUE: {names.dead} is a queue of the jobs themselves"
        yield wrong(what, f"SQS_DEAD_LETTER_QUEUE = '{config.app_name}DeadMessages'")


def lease_findings(config: Config) -> Iterator[Finding]:
    """Checks that leases last long enough. Our workers renew theirs; those of other images do not."""
    visibility = config.sqs_message_visibility
    if not config.image_starts_worker:
        if visibility < _SHORT_VISIBILITY:
            what = f"SQS_MESSAGE_VISIBILITY = {visibility} s: a short failure of the network runs jobs twice"
            yield warning(what, "SQS_MESSAGE_VISIBILITY = 120")
        return
    if short := short_visibility(config):
        yield refused(short)
    elif not config.job_timeout:
        what = f"SQS_MESSAGE_VISIBILITY = {visibility} s: jobs that take longer run twice"
        fix = "set it above the longest job: the worker in the image does not renew leases"
        if visibility >= LONGEST_VISIBILITY:
            fix = "SQS allows no more: give longer jobs a COMMAND, as our worker renews leases"
        yield warning(what, fix)


def image_worker_findings(config: Config) -> Iterator[Finding]:
    """Says what an image with a worker of its own gets, and the risk in it."""
    if config.image_starts_worker:
        what = "the image starts its own worker: its machines answer instance metadata without a token"
        risk = "a program that can be made to fetch addresses could read the machine's credentials"
        yield warning(f"{what}, and {risk}", "give a COMMAND: our worker in the image needs none of this")
        yield ok(f"attempts: SQS makes a job dead after {max_receipts(config)} receipts; lost machines count")


def fleet_findings(text: str, name: str, config: Config) -> Iterator[Finding]:
    """Checks a fleet file: errors, placeholders, and bad choices."""
    problems = list(fleet_problems(text, name, key_name=config.ssh_key_name))
    yield from map(refused, problems)
    if not problems:
        for line in advice(parse_fleet(text, name, key_name=config.ssh_key_name)):
            what, _, fix = line.partition("; ")
            yield warning(f"{name}: {what}", fix)
        yield ok(f"{name}: every field is filled in")


def secret_findings(config: Config) -> Iterator[Finding]:
    """Checks that ECS can read the secrets. It reads their values only when a task starts."""
    try:
        check_for_aws(config)
    except UsageError as unreadable:
        yield refused(unreadable)


def role_findings(where: Where, used: Used, found: Found) -> Iterator[Finding]:
    """Checks that roles and profile exist, with today's policies and what this project uses."""
    try:
        steps = plan_setup(where, used, found)
    except DsError as strange:
        yield refused(strange)
        return
    linked = [step.text for step in steps if step.call == LINK]
    own = [step.text for step in steps if step.call != LINK]
    if own:
        more = f" and {len(own) - 1} more" if len(own) > 1 else ""
        yield error(f"the account {where.number} is not set up: to do: {own[0]}{more}", "ds account setup")
    if linked:
        what = f"AWS makes what is missing when you may do so: {', '.join(linked)}"
        yield warning(what, "ds account setup")
    if not steps:
        yield ok(f"the account {where.number} is set up")


def machine_findings(
    config: Config, described: Sequence[Answer], offered: Iterable[str]
) -> Iterator[Finding]:
    """Checks that the machine types exist here, are of one kind, and hold the tasks."""
    types, here = {each["InstanceType"]: each for each in described}, set(offered)
    for name in config.machine_type:
        yield from _of_type(config, name, types.get(name), offered=name in here)
    if len(kinds := {kind for each in described for kind in architectures(each)[:1]}) > 1:
        yield wrong(
            f"MACHINE_TYPE: machines of different kinds: {', '.join(sorted(kinds))}: one image fits one",
            "name types of one kind",
        )


def _of_type(config: Config, name: str, described: Answer | None, *, offered: bool) -> Iterator[Finding]:
    if described is None:
        what = f"MACHINE_TYPE: there is no {name} in {config.aws_region}"
        yield wrong(what, "`aws ec2 describe-instance-types` lists what there is")
        return
    if not offered:
        what = f"MACHINE_TYPE: {name} is offered in no zone that has a subnet"
        yield warning(what, "name other types too")
        return
    if "spot" not in described.get("SupportedUsageClasses", ["spot"]):
        yield wrong(f"MACHINE_TYPE: {name} is never offered as spot", "name another type")
        return
    shape = MachineShape.of(described)
    if why := misfit(config, shape):
        fix = "lower TASKS_PER_MACHINE, CPU_SHARES or MEMORY, or take larger machines"
        yield error(f"no task would be placed on {name}: {why}", fix)
        return
    yield ok(f"{name}: {shape.vcpus} vCPUs, {shape.memory_mib // _GIB} GB; the tasks fit")
    if shape.gpus and not task_size(config, shape).gpus:
        yield warning(
            f"TASKS_PER_MACHINE = {config.tasks_per_machine}: {name} has {many(shape.gpus, 'GPU')},"
            " and no task gets one",
            f"TASKS_PER_MACHINE = {shape.gpus}; the jobs of a task (DOCKER_CORES) share its GPU",
        )


def architectures(described: Answer) -> list[str]:
    """The architectures of a machine type, the one in use first."""
    known = ("arm64", "x86_64")
    found = described.get("ProcessorInfo", {}).get("SupportedArchitectures", ())
    return [each for each in known if each in found]


def image_findings(name: str, image: Answer | None, described: Sequence[Answer]) -> Iterator[Finding]:
    """Checks that a machine image exists, fits the machines, and is of a supported system."""
    if image is None:
        yield error(
            f"the image {name} is not there, or not for this account",
            "take the newest: start without a fleet file, or `ds fleet new`",
        )
        return
    label, kind = str(image.get("Name", "")), image.get("Architecture")
    for each in described:
        if kind not in architectures(each):
            what = f"the image {name} is for {kind}, and {each['InstanceType']} is not"
            yield error(what, f"name machines for {kind} in MACHINE_TYPE, or another image")
    if label.startswith(("amzn2-", "amzn-ami")):
        yield warning(
            f"the image {name} is an Amazon Linux that has ended ({label})",
            "take one of Amazon Linux 2023, or start without a fleet file",
        )
    elif image.get("State", "available") != "available":
        yield error(f"the image {name} is {image['State']}", "take another")
    else:
        yield ok(f"the image {name} is there: {label or kind}")


def quota_findings(
    config: Config, described: Sequence[Answer], quotas: Mapping[str, float]
) -> Iterator[Finding]:
    """Checks the account's quotas of vCPUs; `quotas` by the names of QUOTAS.

    vCPUs that other machines of the account use are not subtracted.
    """
    asked: dict[str, int] = {}
    for each in described:
        if kind := family(each["InstanceType"]):
            asked[kind] = max(asked.get(kind, 0), MachineShape.of(each).vcpus)
    for kind, vcpus in asked.items():
        if kind not in quotas:
            continue
        wanted, most = config.cluster_machines * vcpus, int(quotas[kind])
        fix = f"ask for more: Service Quotas, EC2, {QUOTAS[kind][0]} (All {kind} Spot Instance Requests)"
        if most < vcpus:
            yield error(
                f"the account may have {most} vCPUs of {kind} spot machines: not one machine fits", fix
            )
        elif most < wanted:
            what = f"CLUSTER_MACHINES: {config.cluster_machines} machines are up to {wanted} vCPUs, and the "
            yield warning(f"{what}account may have {most}: {most // vcpus} machines", fix)
        else:
            yield ok(f"quota: {wanted} of {most} vCPUs of {kind} spot machines are asked for")


def price_findings(config: Config, prices: Collection[float]) -> Iterator[Finding]:
    """Compares the bid with the newest price of each type in each zone."""
    if not prices:
        yield warning("no spot price is known for these machine types", "name other types, or another region")
        return
    low, high, bid = min(prices), max(prices), config.machine_price
    span = f"${low:g}" if low == high else f"${low:g} to ${high:g}"
    if bid is None:
        yield ok(f"machines cost {span} an hour now, and at most their on-demand price")
    elif bid < low:
        what = f"MACHINE_PRICE = {bid:g}: machines cost {span} an hour now: none will come"
        yield error(what, "raise it, or remove it: then the on-demand price is the limit")
    elif bid < high:
        there = sum(price <= bid for price in prices)
        what = f"MACHINE_PRICE = {bid:g} reaches {there} of {len(prices)} pools; they cost {span} an hour now"
        yield warning(what, "raise or remove it: few pools mean more interruptions")
    else:
        yield ok(f"machines cost {span} an hour now, below MACHINE_PRICE")


GOOD_SCORE = 6  # placement score, of 10, from which on AWS most likely has the machines


def score_findings(config: Config, scores: Mapping[str, int]) -> Iterator[Finding]:
    """Says how likely that many spot machines of these types are to be had here, and where more so."""
    here, machines = scores.get(config.aws_region), many(config.cluster_machines, "spot machine")
    best = sorted(scores.items(), key=lambda each: -each[1])[:3]
    better = [f"{region} {score}" for region, score in best if score > (here or 0)]
    elsewhere = f"; better: {', '.join(better)}" if better else ""
    score = "not among the ten best regions" if here is None else f"{here} of 10"
    said = f"placement score of {machines} in {config.aws_region}: {score}{elsewhere}"
    if here is not None and here >= GOOD_SCORE:
        yield ok(said)
    elif scores:
        yield warning(said, "name more types in MACHINE_TYPE, or give ON_DEMAND_AFTER = 20")


def on_demand_findings(config: Config, prices: Mapping[str, float]) -> Iterator[Finding]:
    """Says what machines cost on demand."""
    if missing := [kind for kind in config.machine_type if kind not in prices]:
        what = f"the on-demand price of {', '.join(missing)} is not known: a budget in dollars cannot be held"
        yield warning(what, "BUDGET_HOURS, or other types")
    if prices:
        low, high = min(prices.values()), max(prices.values())
        span = f"${low:g}" if low == high else f"${low:g} to ${high:g}"
        yield ok(f"machines on demand cost {span} an hour")


def subnet_findings(
    config: Config, subnets: Sequence[Answer], named: Iterable[str] = ()
) -> Iterator[Finding]:
    """Checks that the subnets exist, with an address for every machine."""
    there = {each["SubnetId"]: each for each in subnets}
    for name in named:
        if name not in there:
            yield error(f"the subnet {name} is not there", "correct SubnetId in the fleet file")
    if not there:
        yield error(
            f"no subnet for the machines: {config.aws_region} has no default VPC",
            "`aws ec2 create-default-vpc`, or start with a fleet file",
        )
        return
    free = sum(int(each["AvailableIpAddressCount"]) for each in there.values())
    if free < config.cluster_machines:
        yield error(
            f"{config.cluster_machines} machines need an address each, and {free} are free",
            "add subnets, or lower CLUSTER_MACHINES",
        )
    else:
        yield ok(f"{len(there)} subnets with {free:,} free addresses")


NEEDED_ENDPOINTS = ("ecs", "ecs-agent", "ecs-telemetry", "sqs", "s3", "logs")
"""Services that machines without an address reach by endpoints of their VPC, if they have no other way."""


def way_out_findings(
    region: str, subnets: Sequence[Answer], tables: Sequence[Answer], endpoints: Sequence[Answer]
) -> Iterator[Finding]:
    """Checks that machines without a public address reach AWS: by a NAT or such, or by VPC endpoints."""
    for subnet in subnets:
        name, network = subnet["SubnetId"], subnet["VpcId"]
        if any(map(_leads_out, routes_of(subnet, tables))):
            continue
        ready = [each for each in endpoints if each["VpcId"] == network and each["State"] == "available"]
        there = {each["ServiceName"] for each in ready}
        lacking = [each for each in NEEDED_ENDPOINTS if f"com.amazonaws.{region}.{each}" not in there]
        if lacking:
            yield error(
                f"ASSIGN_IP = False: machines in the subnet {name} cannot reach AWS: no route leads to a"
                f" NAT gateway, and {network} has no endpoint for {', '.join(lacking)}",
                "ASSIGN_IP = True; or add a NAT gateway or endpoints; or name other subnets in a fleet file",
            )


def routes_of(subnet: Answer, tables: Sequence[Answer]) -> Sequence[Answer]:
    """Returns the routes of a subnet: those of its own table, or of the VPC's main one."""
    main: Sequence[Answer] = ()
    for table in tables:
        for link in table.get("Associations", ()):
            if link.get("SubnetId") == subnet["SubnetId"]:
                own: Sequence[Answer] = table["Routes"]
                return own
            if link.get("Main") and table["VpcId"] == subnet["VpcId"]:
                main = table["Routes"]
    return main


def _leads_out(route: Answer) -> bool:
    """Whether a route takes packets from a machine without a public address to everywhere.

    An internet gateway does not.
    """
    everywhere = route.get("DestinationCidrBlock") == "0.0.0.0/0" and route.get("State") != "blackhole"
    return everywhere and not str(route.get("GatewayId", "")).startswith("igw-")


def bucket_findings(config: Config, status: int, region: str | None) -> Iterator[Finding]:
    """Checks that the bucket exists and may be used, by the status of HeadBucket, and its region."""
    name = config.aws_bucket
    if status == 404:
        yield error(f"AWS_BUCKET: there is no bucket {name}", f"`aws s3 mb s3://{name}`")
    elif status == 403:
        yield error(
            f"AWS_BUCKET: you may not use {name}", "ds account policy prints the rights that you need"
        )
    elif region and region != config.aws_region:
        yield warning(
            f"AWS_BUCKET: {name} is in {region}, the machines in {config.aws_region}: traffic is paid for",
            f"AWS_REGION = '{region}'",
        )
    else:
        yield ok(f"AWS_BUCKET: {name} is there, in {region or config.aws_region}")


def queue_findings(config: Config, tags: Mapping[str, str] | None) -> Iterator[Finding]:
    """Checks that the queue is not another app's. `tags` None: there is no queue yet."""
    owner = (tags or {}).get("ds:app")
    if owner not in (None, config.app_name):
        yield wrong(
            f"SQS_QUEUE_NAME: {config.sqs_queue_name} belongs to the app {owner}",
            f"SQS_QUEUE_NAME = '{config.app_name}Queue'",
        )


def cluster_findings(config: Config, services: Iterable[str]) -> Iterator[Finding]:
    """Names the other services of the cluster. They are allowed: tasks stay on their own app's machines."""
    others = sorted({arn.rpartition("/")[2] for arn in services} - {f"{config.app_name}Service"})
    if others:
        yield ok(f"ECS_CLUSTER: {config.ecs_cluster} also has {', '.join(others[:5])}; tasks keep apart")


def log_findings(groups: Mapping[str, int | None]) -> Iterator[Finding]:
    """Checks that log groups have a retention. `groups`: days by name; None: for ever."""
    for name, days in groups.items():
        if days is None:
            yield warning(
                f"the log group {name} keeps its lines for ever, and they are paid for",
                f"`aws logs put-retention-policy --log-group-name {name} --retention-in-days 60`",
            )


def key_findings(name: str, found: bool) -> Iterator[Finding]:
    """Checks that the key pair exists."""
    if not found:
        yield wrong(
            f"SSH_KEY_NAME: there is no key pair {name} in this region",
            "remove it (machines need no key), or see `aws ec2 describe-key-pairs`",
        )
    else:
        yield ok(f"SSH_KEY_NAME: {name} is there")


def with_fleet(config: Config, fleet: Fleet) -> Config:
    """Fills machine types and key pair from the fleet file, if the config has none."""
    specifications = fleet.request()["LaunchSpecifications"]
    types = [each["InstanceType"] for each in specifications if "InstanceType" in each]
    keys = [each["KeyName"] for each in specifications if "KeyName" in each]
    if types and "MACHINE_TYPE" not in config.given:
        config = config._replace(machine_type=tuple(dict.fromkeys(types)))
    return config if config.ssh_key_name or not keys else config._replace(ssh_key_name=keys[0])


def arns_of(fleet: Fleet) -> dict[str, str]:
    """The ARNs of role and instance profiles in a fleet file, each with its field."""
    request = fleet.request()
    found = {request["IamFleetRole"]: "IamFleetRole"}
    for each in request["LaunchSpecifications"]:
        if arn := each["IamInstanceProfile"].get("Arn"):
            found.setdefault(arn, "IamInstanceProfile")
    return found


def arn_findings(where: Where, place: str, arn: str, *, there: bool) -> Iterator[Finding]:
    """Checks that a role or instance profile of a fleet file is this account's, and exists."""
    number, anew = arn.split(":")[4], "`ds fleet new` writes a fleet file for this account"
    if number != where.number:
        yield error(f"{place}: {arn} is of the account {number}, and you are in {where.number}", anew)
    elif not there:
        yield error(f"{place}: {arn} is not there", f"`ds account setup`, then {anew}")
    else:
        yield ok(f"{place}: {arn.rpartition('/')[2]} is there")


def images_of(fleet: Fleet) -> list[str]:
    """The images that a fleet file names, each once."""
    named = [each["ImageId"] for each in fleet.request()["LaunchSpecifications"]]
    return list(dict.fromkeys(named))


def subnets_of(fleet: Fleet) -> list[str]:
    """The subnets that a fleet file names, each once."""
    found: list[str] = []
    for each in fleet.request()["LaunchSpecifications"]:
        places = [each, *each.get("NetworkInterfaces", ())]
        found += [name.strip() for place in places for name in place.get("SubnetId", "").split(",")]
    return list(dict.fromkeys(filter(None, found)))
