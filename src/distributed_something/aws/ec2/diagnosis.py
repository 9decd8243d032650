"""Translates AWS's reasons for missing machines or tasks to a diagnosis with a fix. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ...engine import Diagnosis


class _Rule(NamedTuple):
    """A pattern in AWS's text, and its diagnosis; `{type}`, `{zone}` and `{said}` are filled in."""

    pattern: str
    what: str
    fix: str
    final: bool = False


_ASK_ANEW = "`ds fleet new` writes a fleet file for this account and region"
# fmt: off
_RULES = (
    _Rule(r"service.linked.?role", "the account lacks the role by which EC2 starts spot machines",
          "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com (and "
          "spotfleet.amazonaws.com for fleet files), once an account", True),
    _Rule(r"(UnauthorizedOperation|AccessDenied|explicit deny).*RequestSpotFleet",
          "the account's policies deny RequestSpotFleet, as AWS advises against it",
          "start without a fleet file: `ds start` then uses EC2 Fleet", True),
    _Rule(r"iam:PassRole", "you may not give their role to the machines (iam:PassRole)",
          "ask the account's administrator for iam:PassRole on the roles of `ds account setup`", True),
    _Rule(r"iamFleetRoleInvalid|IamFleetRole|fleet role", "the fleet's role (IamFleetRole) cannot be used",
          f"ds account setup makes one; {_ASK_ANEW}", True),
    _Rule(r"iam.?instance.?profile", "the instance profile of the machines is not there, or cannot be used",
          f"ds account setup makes it; {_ASK_ANEW}", True),
    _Rule(r"UnauthorizedOperation|AccessDenied|not authorized", "you may not start machines: {said}",
          "ask the account's administrator for the right that the message names", True),
    _Rule(r"InvalidAMIID|InvalidAMI|image id .* (not exist|not found)|AMI .* not exist",
          "the image of the machines (ImageId) is not in this region, or not there any more",
          f"{_ASK_ANEW}; or start without a fleet file", True),
    _Rule(r"InvalidKeyPair|key pair .* (not exist|not found)", "the key pair is not in this region",
          "remove SSH_KEY_NAME from the config (machines need no key), or name one of "
          "`aws ec2 describe-key-pairs`", True),
    _Rule(r"InsufficientFreeAddresses", "the subnet has no free addresses",
          "add subnets of other zones to the fleet file"),
    _Rule(r"InvalidSubnet|subnet .* (not exist|not found)", "a subnet of the fleet file is not there",
          _ASK_ANEW, True),
    _Rule(r"InvalidGroup|InvalidSecurityGroup|security group .* (not exist|not found)",
          "a security group of the fleet file is not there", _ASK_ANEW, True),
    _Rule(r"InvalidSnapshot|snapshot .* (not exist|not found)|smaller than snapshot|VolumeSize"
          r"|InvalidBlockDevice|snapshotId",
          "the disks of the machines do not fit the image: {said}",
          f"remove SnapshotId from the fleet file, or raise EBS_VOL_SIZE; {_ASK_ANEW}", True),
    _Rule(r"architecture", "a type of machine does not fit the image: {said}",
          "name types of one architecture in MACHINE_TYPE (arm64: those with a g, such as m7g)", True),
    _Rule(r"InvalidInstanceType|invalid instance type", "MACHINE_TYPE: AWS does not know a type: {said}",
          "name types of `aws ec2 describe-instance-type-offerings`", True),
    _Rule(r"not supported in your requested Availability Zone|is not supported in .*[Zz]one",
          "{type} is not offered in {zone}", "add types to MACHINE_TYPE, or subnets of other zones"),
    _Rule(r"vCPU|[Vv]cpuLimit|MaxSpotInstanceCount|spotInstanceCountLimit|InstanceLimitExceeded|spot.*quota",
          "the account's limit of spot processors is reached",
          "ask for more in Service Quotas (EC2, L-34B43A08; L-3819A6DF for G and VT types), or lower "
          "CLUSTER_MACHINES"),
    _Rule(r"SpotMaxPriceTooLow|[Pp]rice.*(too low|lower than|below)|bid.*low",
          "the bid is below the price of {type} in {zone}",
          "raise MACHINE_PRICE, or remove it: the on-demand price is then the most that is paid"),
    _Rule(r"InsufficientInstanceCapacity|UnfulfillableCapacity|no ([Ss]pot )?capacity|insufficient capacity"
          r"|capacity-not-available|capacity.?not.?available|SpotCapacity",
          "AWS has no spare capacity for {type} in {zone}",
          "machines come when there are some; more types in MACHINE_TYPE, or more zones, help"),
    _Rule(r"RequestLimitExceeded|Throttl", "AWS limits how fast machines are started", "wait"),
    _Rule(r"PendingVerification", "AWS is still verifying the account for this region",
          "wait: it takes up to 4 hours"),
    _Rule(r"OptInRequired", "the image is from the Marketplace, and not subscribed to",
          "subscribe to it in the AWS Marketplace, or use another ImageId", True),
    _Rule(r"VolumeLimitExceeded|MaxIOPSLimit", "the account's limit of disks is reached",
          "lower EBS_VOL_SIZE or CLUSTER_MACHINES, or ask for more in Service Quotas (EBS)"),
    _Rule(r"InternalError.*(EBS|volume|KMS)|KMSKey|kms:", "the machines cannot use the key of their disks",
          "give the fleet's service-linked role the right to use the KMS key of EBS encryption", True),
    _Rule(r"spotFleetRequestConfigurationInvalid|InvalidFleetConfig|InvalidSpotFleetRequestConfig",
          "the fleet's request is not valid: {said}", _ASK_ANEW, True),
)
_TASK_RULES = (
    _Rule(r"no container instances were found|No Container Instances",
          "none has joined the cluster yet",
          "a machine takes about 3 minutes; after that, see whether it can reach the internet, and whether "
          "its instance profile is that of `ds account setup`"),
    _Rule(r"insufficient memory", "a task does not fit on a machine: too little memory",
          "lower MEMORY or TASKS_PER_MACHINE, or name a larger MACHINE_TYPE; then ds setup"),
    _Rule(r"insufficient CPU", "a task does not fit on a machine: too few processors",
          "lower CPU_SHARES or TASKS_PER_MACHINE, or name a larger MACHINE_TYPE; then ds setup"),
    _Rule(r"MemberOf placement constraint|missing an attribute|attribute",
          "the machines in the cluster are not this app's, or their image lacks what the task needs: {said}",
          "use an ECS-optimised image of Amazon Linux 2023, and start the machines with ds start"),
    _Rule(r"CannotPullContainer|pull access denied|manifest unknown|ImageNotFound|pull image",
          "the image of the task cannot be pulled: {said}",
          "check DOCKERHUB_TAG, that the image is public or in ECR, and that machines reach the internet"),
    _Rule(r"OutOfMemory|OOM", "tasks are killed for lack of memory", "raise MEMORY; then ds setup"),
    _Rule(r"ResourceInitializationError|unable to assume|AccessDenied|not authorized",
          "tasks may not start: {said}", "ds account setup"),
    _Rule(r"CannotStartContainer|exec format error|CannotCreateContainer", "tasks cannot start: {said}",
          "check the image: its architecture, its entry point and its disk space"),
)
# fmt: on
_TYPE = re.compile(
    r"\b[a-z][a-z0-9-]*\d[a-z0-9-]*\.(?:nano|micro|small|medium|large|metal[a-z0-9-]*|\d*xlarge)\b"
)
_ZONE = re.compile(r"\b[a-z]{2}(?:-[a-z]+)+-\d[a-z]\b")
_ERRORS = ("error", "fleet-error", "launch-error", "service-error")
_NEWS = frozenset({"launchSpecUnusable", "launchSpecTemporarilyBlacklisted", "fleetProgressHalted"})


def known(said: str) -> Diagnosis | None:
    """Translates EC2's text; None: no rule matches."""
    return _match(_RULES, said)


def translate(said: str) -> Diagnosis:
    """Translates EC2's text, or quotes it."""
    return known(said) or Diagnosis(f"AWS says: {_short(said)}")


def of_history(records: Iterable[Mapping[str, Any]]) -> Diagnosis | None:
    """The newest error in a fleet's history since it last started a machine; None: there is none.

    A final error has priority over one that may pass: fleets go on trying, and repeat the others.
    """
    found: list[Diagnosis] = []
    for record in records:
        facts = record.get("EventInformation", {})
        if facts.get("EventSubType") == "launched":
            found = []
        elif record.get("EventType") in _ERRORS or facts.get("EventSubType") in _NEWS:
            found.append(translate(f"{facts.get('EventSubType', '')}: {facts.get('EventDescription', '')}"))
    return next((each for each in reversed(found) if each.final), found[-1] if found else None)


def of_tasks(said: Iterable[str]) -> Diagnosis | None:
    """Why no task runs, from texts of the service (newest first) and of stopped tasks."""
    for each in said:
        if found := _match(_TASK_RULES, each):
            return found
    return None


def _match(rules: Iterable[_Rule], said: str) -> Diagnosis | None:
    for rule in rules:
        if re.search(rule.pattern, said, re.IGNORECASE):
            words = {"type": _first(_TYPE, said, "that type"), "zone": _first(_ZONE, said, "its zone")}
            return Diagnosis(rule.what.format(**words, said=_short(said)), rule.fix, rule.final)
    return None


def _first(pattern: re.Pattern[str], text: str, otherwise: str) -> str:
    found = pattern.search(text)
    return found[0] if found else otherwise


def _short(said: str) -> str:
    """Shortens to one line, without ids of requests."""
    line = " ".join(said.split()).strip(": ")
    line = re.sub(r" ?\(Service: [^)]*\)", "", line)
    return line if len(line) <= 200 else line[:199] + "…"
