"""Writes a fleet file in the reference's format for an account and region. Called by `ds fleet new`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....errors import UsageError
from ....inputs.config import Config
from ....inputs.fleetfile import DEFAULT_STRATEGY, parse_fleet
from ....s3.session import AwsSession
from ...names import price_text
from .ownfleet import Subnet
from .region import Region
from .request import image_of, key_pair


def file_name(config: Config, region: str) -> str:
    """The file's name; another region than the config's has its own file."""
    where = "" if region == config.aws_region else f"_{region}"
    return f"{config.app_name}Fleet{where}.json"


def write_fleet_file(config: Config, region: str, path: Path, endpoint: str | None = None) -> None:
    """Reads what a fleet file needs, and writes it. After a DsError nothing is written."""
    config = config._replace(aws_region=region)
    facts = Region(AwsSession(config.aws_region, config.aws_profile or None, endpoint), config)
    key = key_pair(config)
    if key and key not in (known := facts.key_pairs()):
        what = f"SSH_KEY_NAME: {config.aws_region} has no key pair {key}"
        others = f", or name one of: {', '.join(known)}" if known else ""
        raise UsageError(what, f"remove it (machines need no key){others}")
    facts.check_roles()
    image_id = facts.image_id()
    content = fleet_file(
        config,
        fleet_role=facts.fleet_role(),
        profile=facts.account.instance_profile,
        image_id=image_id,
        image=facts.describe_images([image_id])[0],
        subnets=facts.subnets(),
        groups=facts.security_groups(),
    )
    text = json.dumps(content, indent=4) + "\n"
    parse_fleet(text, path.name)  # what we write, we can read
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def fleet_file(
    config: Config,
    *,
    fleet_role: str,
    profile: str,
    image_id: str,
    image: Mapping[str, Any],
    subnets: Sequence[Subnet],
    groups: Sequence[str],
) -> dict[str, Any]:
    """The content of a fleet file: a specification for each subnet, and the first type of machine.

    `image` is as DescribeImages has it. Starting with the file brings in the other types. Raises UsageError.
    """
    if not subnets:
        fix = "make a default VPC with `aws ec2 create-default-vpc`"
        raise UsageError(f"no subnet for the machines: {config.aws_region} has no default VPC", fix)
    key = key_pair(config)
    content: dict[str, Any] = {
        "IamFleetRole": fleet_role,
        "AllocationStrategy": DEFAULT_STRATEGY,
        "TargetCapacity": config.cluster_machines,
        "TerminateInstancesWithExpiration": True,
        "Type": "maintain",
    }
    if config.machine_price is not None:
        content["SpotPrice"] = price_text(config.machine_price)
    content["LaunchSpecifications"] = [
        {
            "ImageId": image_id,
            **({"KeyName": key} if key else {}),
            "IamInstanceProfile": {"Arn": profile},
            "InstanceType": config.machine_type[0],
            "BlockDeviceMappings": _disks(config, image),
            "NetworkInterfaces": [
                {
                    "DeviceIndex": 0,
                    "SubnetId": subnet.id,
                    "DeleteOnTermination": True,
                    "AssociatePublicIpAddress": config.assign_ip,
                    "Groups": list(groups),
                }
            ],
        }
        for subnet in subnets
    ]
    return content


def _disks(config: Config, image: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The disk that holds the containers, from the image's own snapshot."""
    facts = image_of(image)
    snapshots = {
        each["DeviceName"]: each["Ebs"].get("SnapshotId")
        for each in image.get("BlockDeviceMappings", ())
        if "Ebs" in each
    }
    disk = {
        "VolumeSize": max(config.ebs_vol_size, facts.smallest),
        "VolumeType": "gp3",
        "DeleteOnTermination": True,
    }
    if snapshots.get(facts.data):
        disk["SnapshotId"] = snapshots[facts.data]
    return [{"DeviceName": facts.data, "Ebs": disk}]
