"""Turns a fleet file into the spot fleet request of a run; has the common parts of all requests. Pure.

The config overrides the file for number, price and types of machines, their disk, key pair, addresses and
end of life.

Launch specifications have no metadata options, so they cannot require a token (IMDSv2). Images of Amazon
Linux 2023 require one themselves, with a hop limit of 2, unless the account's default differs. Our launch
template, used without a fleet file, requires it.
"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ....errors import UsageError
from ....inputs.config import Config
from ....inputs.fleetfile import (
    DEFAULT_STRATEGY,
    ROOT_DEVICE,
    Fleet,
    disks_of,
    ebs_of,
    is_key_placeholder,
    shown,
)
from ...names import price_text, run_tags, tag_list

DATA_DEVICE = "/dev/xvdcz"  # device of the containers in the first Amazon Linux, which has ended
USER_DATA_LIMIT = 16_384  # EC2's limit of user data in bytes, before encoding
_BY_TYPE = ("ImageId", "WeightedCapacity", "SpotPrice")  # fields that fit one type of machine only


class Image(NamedTuple):
    """Devices of a machine image: its root, and the one that holds the containers.

    `smallest` is the least size of the containers' device in GB: that of the image's snapshot.
    """

    root: str = ROOT_DEVICE
    data: str = ROOT_DEVICE
    smallest: int = 0


def image_of(described: Mapping[str, Any]) -> Image:
    """Reads an image from DescribeImages. A second disk, if there is one, holds the containers."""
    root = str(described.get("RootDeviceName") or ROOT_DEVICE)
    sizes = {
        str(each["DeviceName"]): int(each["Ebs"].get("VolumeSize") or 0)
        for each in described.get("BlockDeviceMappings", ())
        if "DeviceName" in each and "Ebs" in each
    }
    data = next((name for name in reversed(sizes) if name != root), root)
    return Image(root, data, sizes.get(data, 0))


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


def valid_until(config: Config, now: float) -> str:
    """When a fleet started `now` ends by itself. AWS enforces it without us."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + config.max_run_hours * 3600))


def key_pair(config: Config) -> str:
    """The key pair's name, without .pem; empty: the config gives none. Raises UsageError."""
    name = config.ssh_key_name.removesuffix(".pem")
    if is_key_placeholder(name):
        what = f"SSH_KEY_NAME: still the placeholder {shown(config.ssh_key_name)}"
        raise UsageError(what, "remove it (machines need no key), or see `aws ec2 describe-key-pairs`")
    return name


def encoded(user_data: str) -> str:
    """Encodes user data for EC2 (base64). Raises UsageError if it is too long."""
    data = user_data.encode()
    if len(data) > USER_DATA_LIMIT:
        what = f"the machines' user data: {len(data):,} bytes, and EC2 takes {USER_DATA_LIMIT:,}"
        raise UsageError(what, "give APP_NAME and ECS_CLUSTER shorter names")
    return b64encode(data).decode()


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
        "BlockDeviceMappings": _disks(disks_of(specification), config.ebs_vol_size, image),
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
    """The disks, with room for the containers where they are kept; without disks that have no use."""
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
    return {**disk, "Ebs": {"DeleteOnTermination": True, **ebs_of(disk), **sized}}


def _unsized(disk: Mapping[str, Any]) -> bool:
    """A new disk to which the file gives no size: EC2 takes none such."""
    return "Ebs" in disk and "NoDevice" not in disk and not {"VolumeSize", "SnapshotId"} & ebs_of(disk).keys()


def _device(disk: Mapping[str, Any]) -> str:
    return str(disk["DeviceName"])


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
