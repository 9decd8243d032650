"""Reads and checks fleet files: the JSON of EC2's RequestSpotFleet. Pure.

A fleet file is honoured as it stands, with its fields that are not known here. `aws/ec2/requests/request.py`
makes it into the request of a run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UsageError
from ..system.files import read_regular
from ..words import json_kind, many

ROOT_DEVICE = "/dev/xvda"  # root disk of Amazon Linux; on 2 and 2023 it holds the containers too

DEFAULT_STRATEGY = "priceCapacityOptimized"

IMAGE_PARAMETER = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"
"""SSM parameter with the newest ECS-optimised image of a region."""

_TAGGING_ROLE = "aws-ec2-spot-fleet-tagging-role"
_OWN_ROLE = "/distributed-something-fleet"
_DEAD_IMAGES = frozenset({"ami-03562b14", "ami-c9c87cb1", "ami-fad25980"})
"""Images in the reference's example files: of the first Amazon Linux."""

_ANEW = "or write a fleet file for this account with `ds fleet new`"


class FleetFile(NamedTuple):
    """The text of a fleet file, and the file's name for messages."""

    name: str
    text: str


def read_fleet(path: Path) -> FleetFile:
    """Reads a fleet file. Raises UsageError."""
    try:
        return FleetFile(path.name, read_regular(path).decode())
    except (OSError, UnicodeDecodeError) as failed:
        reason = failed.strerror if isinstance(failed, OSError) else "not UTF-8 text"
        raise UsageError(f"{path}: cannot be read: {reason}", "name a fleet file, or none") from failed


class Fleet(NamedTuple):
    """A fleet file without mistakes: its `name`, and its content as JSON text, comments left out."""

    name: str
    text: str

    def request(self) -> dict[str, Any]:
        """Returns the content, a new object at every call."""
        found: dict[str, Any] = json.loads(self.text)
        return found


def parse_fleet(text: str, name: str, *, key_name: str = "") -> Fleet:
    """Parses a fleet file; `name` is in messages.

    Raises UsageError for the first mistake, with the number of others. `key_name` is a key pair that
    overrides the file's own, which is not checked then.
    """
    problems = [*fleet_problems(text, name, key_name=key_name)]
    if len(problems) > 1:
        what = f"{problems[0].what} ({many(len(problems) - 1, 'more thing', 'is', 'are')} wrong)"
        raise UsageError(what, f"{problems[0].fix}; ds check --fleet FILE tells all")
    for problem in problems:
        raise problem
    return Fleet(name, json.dumps(_read(text, name)))


def fleet_problems(text: str, name: str, *, key_name: str = "") -> Iterator[UsageError]:
    """Yields every mistake in a fleet file, with its place and its fix."""
    try:
        content = _read(text, name)
    except UsageError as error:
        yield error
        return
    for place, why, fix in _check(content, _FLEET, ""):
        if not (key_name and place.endswith(".KeyName")):
            yield UsageError(f"{name}: {place + ': ' if place else ''}{why}", fix)


def _read(text: str, name: str) -> Any:
    """Returns the content without comments, known to be valid JSON. Raises UsageError."""
    fix = "mend the JSON there, " + _ANEW
    try:
        content = _without_comments(json.loads(text.removeprefix("\ufeff"), parse_constant=_no_constant))
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UsageError(f"{name}:{error.lineno}: not JSON: {error.msg}", fix) from error
    except RecursionError as error:
        raise UsageError(f"{name}: its lists and objects are nested too deeply", fix) from error
    except UnicodeEncodeError as error:
        raise UsageError(f"{name}: has a character that no text can have", fix) from error
    except ValueError as error:
        raise UsageError(f"{name}: not JSON: {error}", fix) from error
    return content


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a number")


def _without_comments(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_comments(item) for name, item in value.items() if "_comment" not in name}
    return [_without_comments(item) for item in value] if isinstance(value, list) else value


class _Text(NamedTuple):
    """A text of some shape: what it is in words, and where to find the right one."""

    what: str = "a text"
    shape: str = ".*"
    find: str = ""
    separator: str = ""
    """Between several of them in one text."""


class _Need(NamedTuple):
    """A field that must be there, and what to do where it is not."""

    rule: Any
    fix: str


_Problem = tuple[str, str, str]
_ACCOUNT = "the account's number is what `aws sts get-caller-identity` prints"
_ROLE = _Text(
    "the ARN of a role",
    r"arn:[a-z-]+:iam::[0-9]{12}:role/\S+",
    f"IAM console, Roles, {_TAGGING_ROLE}, or `aws iam get-role --role-name {_TAGGING_ROLE}`; {_ACCOUNT}",
)
_PROFILE = _Text(
    "the ARN of an instance profile",
    r"arn:[a-z-]+:iam::[0-9]{12}:instance-profile/\S+",
    "`aws iam get-instance-profile --instance-profile-name ecsInstanceRole` prints it; " + _ACCOUNT,
)
_IMAGE = _Text(
    "the id of an image",
    "ami-[0-9a-z]{8,17}",
    f"`aws ssm get-parameter --name {IMAGE_PARAMETER}` prints the newest of this region",
)
_SNAPSHOT = _Text(
    "the id of a snapshot",
    "snap-[0-9a-z]{8,17}",
    "remove it (the image has its own), or take the image's from `aws ec2 describe-images --image-ids AMI`",
)
_SUBNETS = _Text(
    "the id of a subnet",
    "subnet-[0-9a-z]{8,17}",
    "VPC console, Subnets, or `aws ec2 describe-subnets`",
    separator=",",
)
_GROUP = _Text(
    "the id of a security group",
    "sg-[0-9a-z]{8,17}",
    "EC2 console, Security Groups, or `aws ec2 describe-security-groups`",
)
_KEY = _Text(
    "the name of a key pair",
    ".+",
    "EC2 console, Key Pairs, or `aws ec2 describe-key-pairs`; without KeyName machines have no key",
)
_PLAIN = _Text()
_TAGS = [{"ResourceType": _PLAIN, "Tags": [{"Key": _PLAIN, "Value": _PLAIN}]}]
_DISK = {
    "DeviceName": _Need(_PLAIN, f"name the device, such as {ROOT_DEVICE}"),
    "NoDevice": _PLAIN,
    "VirtualName": _PLAIN,
    "Ebs": {
        "DeleteOnTermination": bool,
        "Encrypted": bool,
        "Iops": int,
        "SnapshotId": _SNAPSHOT,
        "Throughput": int,
        "VolumeSize": int,
        "VolumeType": _PLAIN,
    },
}
_INTERFACE = {
    "AssociatePublicIpAddress": bool,
    "DeleteOnTermination": bool,
    "DeviceIndex": int,
    "Groups": [_GROUP],
    "SubnetId": _SUBNETS,
}
_SPECIFICATION = {
    "ImageId": _Need(_IMAGE, f"add ImageId: {_IMAGE.find}"),
    "InstanceType": _PLAIN,
    "InstanceRequirements": {},
    "KeyName": _KEY,
    "IamInstanceProfile": _Need(
        {"Arn": _PROFILE, "Name": _PLAIN},
        f"add it: without one a machine cannot join the cluster; {_PROFILE.find}",
    ),
    "BlockDeviceMappings": [_DISK],
    "NetworkInterfaces": [_INTERFACE],
    "SubnetId": _SUBNETS,
    "SecurityGroups": [{"GroupId": _GROUP, "GroupName": _PLAIN}],
    "EbsOptimized": bool,
    "Monitoring": {"Enabled": bool},
    "Placement": {},
    "SpotPrice": (str, int, float),
    "WeightedCapacity": (int, float),
    "TagSpecifications": _TAGS,
}
_FLEET = {
    "IamFleetRole": _Need(_ROLE, f"add IamFleetRole: {_ROLE.find}"),
    "AllocationStrategy": _PLAIN,
    "LaunchSpecifications": _Need(
        [_SPECIFICATION], "add one; or start without a fleet file: one is made from the config"
    ),
    "SpotPrice": (str, int, float),
    "TagSpecifications": _TAGS,
}
"""Rules of the fields. Fields that the config decides are not checked: they are replaced."""

_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    (int, float): "a number",
    (str, int, float): "a price",
}
_PLACEHOLDER = re.compile(r"([G-Zg-z])\1{3}|your[-_ ]|example|[<>]|\.\.\.|…")
_KEY_PLACEHOLDER = re.compile(r"your[-_ ]?key|[<>]|…")


def _check(value: Any, rule: Any, place: str) -> Iterator[_Problem]:
    if isinstance(rule, _Need):
        rule = rule.rule
    if isinstance(rule, dict):
        yield from _check_object(value, rule, place)
    elif isinstance(rule, list):
        yield from _check_list(value, rule[0], place)
    elif isinstance(rule, _Text):
        yield from _check_text(value, rule, place)
    elif not isinstance(value, rule) or (isinstance(value, bool) and rule is not bool):
        yield place, f"is {json_kind(value)}, not {_KINDS[rule]}", f"write {_KINDS[rule]}, without quotes"


def _check_object(value: Any, rules: dict[str, Any], place: str) -> Iterator[_Problem]:
    if not isinstance(value, dict):
        yield place, f"is {json_kind(value)}, not an object", 'write {"name": value, …} there, ' + _ANEW
        return
    for name, rule in rules.items():
        inner = f"{place}.{name}" if place else name
        if name in value:
            yield from _check(value[name], rule, inner)
        if isinstance(rule, _Need) and value.get(name) in (None, "", [], {}):
            yield inner, "missing", f"{rule.fix}; {_ANEW}"


def _check_list(value: Any, rule: Any, place: str) -> Iterator[_Problem]:
    if not isinstance(value, list):
        yield place, f"is {json_kind(value)}, not a list", "put it into [ ]"
        return
    for number, item in enumerate(value):
        yield from _check(item, rule, f"{place}[{number}]")


def _check_text(value: Any, rule: _Text, place: str) -> Iterator[_Problem]:
    fix = "; ".join(filter(None, [rule.find, _ANEW]))
    if not isinstance(value, str):
        yield place, f"is {json_kind(value)}, not {rule.what}", fix
        return
    for part in value.split(rule.separator) if rule.separator else [value]:
        if why := _wrong(part.strip(), rule):
            yield place, why, fix
            return


def _wrong(text: str, rule: _Text) -> str:
    """Returns why a text cannot be right; empty: it can."""
    if rule is _PLAIN:
        return ""
    look = _KEY_PLACEHOLDER if rule is _KEY else _PLACEHOLDER
    if look.search(text):
        return f"still the placeholder {shown(text)}"
    return "" if re.fullmatch(rule.shape, text) else f"{shown(text)} is not {rule.what}"


def shown(text: str) -> str:
    """Formats a text as JSON, on one line, cut to 80 characters."""
    shown = json.dumps(text)
    return shown if len(shown) <= 80 else f'{shown[:76]}…"'


def advice(fleet: Fleet) -> tuple[str, ...]:
    """Returns what is allowed in a fleet file but does harm: a line each, "what; fix"."""
    request = fleet.request()
    found = []
    if request.get("AllocationStrategy") == "lowestPrice":
        found.append(f"AllocationStrategy: lowestPrice is interrupted most; take {DEFAULT_STRATEGY}")
    if not request["IamFleetRole"].endswith((_TAGGING_ROLE, _OWN_ROLE)):
        found.append(f"IamFleetRole: it must be allowed to tag machines; take {_TAGGING_ROLE}")
    for number, each in enumerate(request["LaunchSpecifications"]):
        found += [f"LaunchSpecifications[{number}].{line}" for line in _advice_on(each)]
    return tuple(found)


def _advice_on(specification: Mapping[str, Any]) -> Iterator[str]:
    if specification["ImageId"] in _DEAD_IMAGES:
        yield f"ImageId: an Amazon Linux that has ended, too old for our tasks; {_IMAGE.find}"
    if "WeightedCapacity" in specification:
        yield "WeightedCapacity: CLUSTER_MACHINES then counts units, not machines; remove it"
    if "SpotPrice" in specification:
        yield "SpotPrice: goes over MACHINE_PRICE; remove it, unless it is meant to"
    if any(ebs_of(each).get("DeleteOnTermination") is False for each in disks_of(specification)):
        yield "BlockDeviceMappings: disks outlive their machines, and are paid for; DeleteOnTermination: true"


def ebs_of(disk: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the EBS settings of a disk in a fleet file; empty: none."""
    found: dict[str, Any] = disk.get("Ebs", {})
    return found


def disks_of(specification: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the disks of a launch specification."""
    found: list[dict[str, Any]] = specification.get("BlockDeviceMappings", [])
    return found


def is_key_placeholder(name: str) -> bool:
    """Whether a key pair's name is still that of a template."""
    return _KEY_PLACEHOLDER.search(name) is not None
