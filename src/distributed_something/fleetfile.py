"""Fleet files: the JSON of EC2's RequestSpotFleet, checked, and made into the request of a run. Pure.

A fleet file is honoured as it stands, fields that are not known here included. The config goes over it in
what the config is for: number, price and types of the machines, their disk, key pair, addresses, end of life.

Launch specifications cannot say that instance metadata need a token (IMDSv2). Nothing has to be said for
images of Amazon Linux 2023: machines started from them ask for one, with a hop limit of 2, unless the
account's own default says otherwise. Where no fleet file is given, our launch template says it.
"""

from __future__ import annotations

import json
import re
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from .config import Config
from .errors import UsageError

ROOT_DEVICE = "/dev/xvda"
"""The root disk of Amazon Linux; on 2 and 2023 it holds the containers too."""

DATA_DEVICE = "/dev/xvdcz"
"""Where the first Amazon Linux, which has ended, kept the containers."""

USER_DATA_LIMIT = 16_384
"""Bytes of user data that EC2 takes, before they are encoded."""

DEFAULT_STRATEGY = "priceCapacityOptimized"

_TAGGING_ROLE = "aws-ec2-spot-fleet-tagging-role"
_OWN_ROLE = "/distributed-something-fleet"
IMAGE_PARAMETER = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"
"""Where AWS tells the newest ECS-optimised image of a region."""

_DEAD_IMAGES = frozenset({"ami-03562b14", "ami-c9c87cb1", "ami-fad25980"})
"""The images in the reference's example files: of the first Amazon Linux."""

_BY_TYPE = ("ImageId", "WeightedCapacity", "SpotPrice")
"""What a specification may hold for one type of machine only."""

_ANEW = "or write a fleet file for this account with `ds fleet new`"


class Fleet(NamedTuple):
    """A fleet file without mistakes: its `name`, and its content as JSON text, comments left out."""

    name: str
    text: str

    def request(self) -> dict[str, Any]:
        """The content: a new object at every call."""
        found: dict[str, Any] = json.loads(self.text)
        return found


class Image(NamedTuple):
    """What matters of a machine image: its root device, the one that holds the containers, and its size.

    `smallest` (GB) is the least that the containers' device can have: the size of the image's snapshot.
    """

    root: str = ROOT_DEVICE
    data: str = ROOT_DEVICE
    smallest: int = 0


def image_of(described: Mapping[str, Any]) -> Image:
    """An image, as DescribeImages shows it. Where it has a disk beside the root, containers are there."""
    root = str(described.get("RootDeviceName") or ROOT_DEVICE)
    sizes = {
        str(each["DeviceName"]): int(each["Ebs"].get("VolumeSize") or 0)
        for each in described.get("BlockDeviceMappings", ())
        if "DeviceName" in each and "Ebs" in each
    }
    data = next((name for name in reversed(sizes) if name != root), root)
    return Image(root, data, sizes.get(data, 0))


# -- Reading ------------------------------------------------------------------------------------------------


def parse_fleet(text: str, name: str, *, key_name: str = "") -> Fleet:
    """The fleet file that a text holds; `name` is in messages. Raises UsageError for the first thing wrong.

    `key_name` is the key pair that goes over the file's own, which may then be anything.
    """
    for problem in fleet_problems(text, name, key_name=key_name):
        raise problem
    return Fleet(name, json.dumps(_read(text, name)))


def fleet_problems(text: str, name: str, *, key_name: str = "") -> Iterator[UsageError]:
    """Everything wrong in a fleet file, each with its place in the file and its fix."""
    try:
        content = _read(text, name)
    except UsageError as error:
        yield error
        return
    for place, why, fix in _check(content, _FLEET, ""):
        if not (key_name and place.endswith(".KeyName")):
            yield UsageError(f"{name}: {place + ': ' if place else ''}{why}", fix)


def _read(text: str, name: str) -> Any:
    """The content, comments left out: something that can be sent. Raises UsageError."""
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
    """A text of some shape: what it is in words, and where one finds the right one."""

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
"""What is checked. Fields that the config decides are not: they are replaced whatever they are."""

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
        yield place, f"is {_kind(value)}, not {_KINDS[rule]}", f"write {_KINDS[rule]}, without quotes"


def _check_object(value: Any, rules: dict[str, Any], place: str) -> Iterator[_Problem]:
    if not isinstance(value, dict):
        yield place, f"is {_kind(value)}, not an object", 'write {"name": value, …} there, ' + _ANEW
        return
    for name, rule in rules.items():
        inner = f"{place}.{name}" if place else name
        if name in value:
            yield from _check(value[name], rule, inner)
        if isinstance(rule, _Need) and value.get(name) in (None, "", [], {}):
            yield inner, "missing", f"{rule.fix}; {_ANEW}"


def _check_list(value: Any, rule: Any, place: str) -> Iterator[_Problem]:
    if not isinstance(value, list):
        yield place, f"is {_kind(value)}, not a list", "put it into [ ]"
        return
    for number, item in enumerate(value):
        yield from _check(item, rule, f"{place}[{number}]")


def _check_text(value: Any, rule: _Text, place: str) -> Iterator[_Problem]:
    fix = "; ".join(filter(None, [rule.find, _ANEW]))
    if not isinstance(value, str):
        yield place, f"is {_kind(value)}, not {rule.what}", fix
        return
    for part in value.split(rule.separator) if rule.separator else [value]:
        if why := _wrong(part.strip(), rule):
            yield place, why, fix
            return


def _wrong(text: str, rule: _Text) -> str:
    """Why a text cannot be right; nothing where it can."""
    if rule is _PLAIN:
        return ""
    look = _KEY_PLACEHOLDER if rule is _KEY else _PLACEHOLDER
    if look.search(text):
        return f"still the placeholder {_shown(text)}"
    return "" if re.fullmatch(rule.shape, text) else f"{_shown(text)} is not {rule.what}"


def _shown(text: str) -> str:
    """A text as JSON has it: always one line, and cut where it is long."""
    shown = json.dumps(text)
    return shown if len(shown) <= 80 else f'{shown[:76]}…"'


def _kind(value: Any) -> str:
    kinds = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return kinds.get(type(value), "null" if value is None else "an object")


def advice(fleet: Fleet) -> tuple[str, ...]:
    """What is allowed in a fleet file, and will be regretted: a line each, "what; fix"."""
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
    if any(_ebs(each).get("DeleteOnTermination") is False for each in _disks_of(specification)):
        yield "BlockDeviceMappings: disks outlive their machines, and are paid for; DeleteOnTermination: true"


# -- The request of a run -----------------------------------------------------------------------------------


def spot_fleet_request(
    fleet: Fleet,
    config: Config,
    *,
    run: str,
    now: float,
    token: str,
    user_data: str,
    images: Mapping[str, Image] | None = None,
) -> dict[str, Any]:
    """The SpotFleetRequestConfig for a run that begins `now` (Unix seconds).

    `token` makes sending it twice harmless; `user_data` is text, not yet encoded. `images` tells, for the
    image ids of the file, which disk holds the containers: EBS_VOL_SIZE is for that one. Without it, that is
    the disk to which the file gives no size, and else the root. Raises UsageError.
    """
    request = fleet.request()
    for name in ("ValidFrom", "FulfilledCapacity", "OnDemandFulfilledCapacity"):
        request.pop(name, None)
    own = run_tags(config, run)
    request |= {
        "AllocationStrategy": request.get("AllocationStrategy") or DEFAULT_STRATEGY,
        "ClientToken": token,
        "LaunchSpecifications": [
            _launch(each, config, own, user_data, (images or {}).get(each["ImageId"]))
            for each in _with_types(request["LaunchSpecifications"], config)
        ],
        "TagSpecifications": _tagged(request.get("TagSpecifications"), "spot-fleet-request", own),
        "TargetCapacity": config.cluster_machines,
        "TerminateInstancesWithExpiration": True,
        "Type": "maintain",
        "ValidUntil": valid_until(config, now),
    }
    price = config.machine_price if config.machine_price is not None else request.get("SpotPrice")
    return request if price is None else request | {"SpotPrice": price_text(price)}


def run_tags(config: Config, run: str) -> dict[str, str]:
    """The tags by which everything of a run is found."""
    return {"ds:app": config.app_name, "ds:run": run}


def machine_tags(config: Config, run: str) -> dict[str, str]:
    """Those of a machine: it has the name that the reference gives it."""
    return {"Name": f"{config.app_name}Worker", **run_tags(config, run)}


def valid_until(config: Config, now: float) -> str:
    """When a fleet started `now` ends by itself: AWS holds to it, whoever else is gone."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + config.max_run_hours * 3600))


def price_text(price: float | str) -> str:
    """A price in dollars as EC2 wants it: all of its digits, and no exponent."""
    return price if isinstance(price, str) else format(Decimal(str(price)), "f")


def is_key_placeholder(name: str) -> bool:
    """Whether a key pair's name is still that of a template."""
    return _KEY_PLACEHOLDER.search(name) is not None


def key_pair(config: Config) -> str:
    """The key pair's name, without .pem; empty where the config gives none. Raises UsageError."""
    name = config.ssh_key_name.removesuffix(".pem")
    if is_key_placeholder(name):
        what = f"SSH_KEY_NAME: still the placeholder {_shown(config.ssh_key_name)}"
        raise UsageError(what, "remove it (machines need no key), or see `aws ec2 describe-key-pairs`")
    return name


def encoded(user_data: str) -> str:
    """User data as EC2 takes it: base64. Raises UsageError where it is too long."""
    data = user_data.encode()
    if len(data) > USER_DATA_LIMIT:
        what = f"the machines' user data: {len(data):,} bytes, and EC2 takes {USER_DATA_LIMIT:,}"
        raise UsageError(what, "give APP_NAME and ECS_CLUSTER shorter names")
    return b64encode(data).decode()


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags in the form of EC2."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _with_types(specifications: Sequence[dict[str, Any]], config: Config) -> list[dict[str, Any]]:
    """A specification for each type of machine: every specification with every type, none twice.

    Where there are as many of both, and a specification has what fits one type only, the first type is for
    the first of them, and so on: as the reference has it.
    """
    types = config.machine_type
    paired = len(types) == len(specifications) and any(
        specifications[0].get(name) != each.get(name) for each in specifications for name in _BY_TYPE
    )
    found: dict[str, dict[str, Any]] = {}
    for number, each in enumerate(specifications):
        for machine_type in types[number : number + 1] if paired else types:
            typed = _with_type(each, machine_type, config)
            found[json.dumps(typed, sort_keys=True)] = typed
    return list(found.values())


def _with_type(specification: dict[str, Any], machine_type: str, config: Config) -> dict[str, Any]:
    """The type is the config's where it gives one; else the file's own."""
    own = "InstanceType" in specification and "MACHINE_TYPE" not in config.given
    if own or "InstanceRequirements" in specification:
        return specification
    return {**specification, "InstanceType": machine_type}


def _launch(
    specification: Mapping[str, Any],
    config: Config,
    own: Mapping[str, str],
    user_data: str,
    image: Image | None,
) -> dict[str, Any]:
    """A launch specification as it is sent."""
    tags = {"Name": f"{config.app_name}Worker", **_tags_of(specification, "instance"), **own}
    launch = dict(specification) | {
        "BlockDeviceMappings": _disks(_disks_of(specification), config.ebs_vol_size, image),
        "TagSpecifications": _tagged(specification.get("TagSpecifications"), "instance", tags),
        "UserData": encoded(user_data),
    }
    key = key_pair(config) or str(launch.get("KeyName", "")).removesuffix(".pem")
    launch |= {"KeyName": key} if key else {}
    launch |= {"SpotPrice": price_text(launch["SpotPrice"])} if "SpotPrice" in launch else {}
    return launch if config.assign_ip else _without_address(launch)


def _without_address(launch: dict[str, Any]) -> dict[str, Any]:
    """The specification for machines without a public address: only a network interface can say so."""
    faces = [dict(each) for each in launch.get("NetworkInterfaces", ())] or [_interface(launch)]
    only = len(faces) == 1
    for face in faces:
        face.pop("AssociatePublicIpAddress", None)  # with several of them it may not be given, and is False
        if only:
            face["AssociatePublicIpAddress"] = False
    kept = {name: value for name, value in launch.items() if name not in ("SubnetId", "SecurityGroups")}
    return kept | {"NetworkInterfaces": faces}


def _interface(launch: Mapping[str, Any]) -> dict[str, Any]:
    """What a specification without network interfaces says of the network, as one."""
    groups = [each["GroupId"] for each in launch.get("SecurityGroups", ()) if "GroupId" in each]
    face: dict[str, Any] = {"DeviceIndex": 0, "DeleteOnTermination": True}
    face |= {"SubnetId": launch["SubnetId"]} if "SubnetId" in launch else {}
    return face | ({"Groups": groups} if groups else {})


def _disks(disks: Sequence[dict[str, Any]], size: int, image: Image | None) -> list[dict[str, Any]]:
    """The disks, with room for the containers where they are kept; none that nobody would use."""
    device = image.data if image else _data_device(disks)
    kept = [
        each
        for each in disks
        if not (image and _unsized(each) and _device(each) not in (image.root, image.data))
    ]
    if all(_device(each) != device or "NoDevice" in each for each in kept):
        kept = [*kept, {"DeviceName": device, "Ebs": {"VolumeType": "gp3"}}]
    room = max(size, image.smallest if image else 0)
    return [_sized(each, room if _device(each) == device or _unsized(each) else None) for each in kept]


def _data_device(disks: Sequence[dict[str, Any]]) -> str:
    """The disk of the containers as a file without facts about its image shows it."""
    data = [_device(each) for each in disks if _unsized(each) or _device(each) == DATA_DEVICE]
    roots = [_device(each) for each in disks if _device(each) in (ROOT_DEVICE, "/dev/sda1")]
    return [ROOT_DEVICE, *roots, *data][-1]


def _sized(disk: dict[str, Any], size: int | None) -> dict[str, Any]:
    if "NoDevice" in disk or ("Ebs" not in disk and size is None):
        return disk
    sized = {} if size is None else {"VolumeSize": size}
    return {**disk, "Ebs": {"DeleteOnTermination": True, **_ebs(disk), **sized}}


def _unsized(disk: Mapping[str, Any]) -> bool:
    """A new disk to which the file gives no size: EC2 takes none such."""
    return "Ebs" in disk and "NoDevice" not in disk and not {"VolumeSize", "SnapshotId"} & _ebs(disk).keys()


def _device(disk: Mapping[str, Any]) -> str:
    return str(disk["DeviceName"])


def _ebs(disk: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = disk.get("Ebs", {})
    return found


def _disks_of(specification: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = specification.get("BlockDeviceMappings", [])
    return found


def _tags_of(holder: Mapping[str, Any], resource: str) -> dict[str, str]:
    """The tags that a part of the file gives to a kind of resource."""
    return {
        tag["Key"]: tag.get("Value", "")
        for each in holder.get("TagSpecifications", ())
        if each.get("ResourceType") == resource
        for tag in each.get("Tags", ())
        if "Key" in tag
    }


def _tagged(found: list[dict[str, Any]] | None, resource: str, own: Mapping[str, str]) -> list[Any]:
    """The file's tags with ours, which go over those of the same name."""
    others = [each for each in found or () if each.get("ResourceType") != resource]
    tags = {**_tags_of({"TagSpecifications": found or ()}, resource), **own}
    return [*others, {"ResourceType": resource, "Tags": tag_list(tags)}]
