"""Writes the requests of a run without a fleet file: launch template and EC2 Fleet, from the config. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ....errors import UsageError
from ....inputs.config import Config
from ...names import Account, machine_tags, price_text, run_tags, tag_list
from ..fleets import capacity
from .request import Image, encoded, key_pair, valid_until

MAX_OVERRIDES = 300  # EC2's limit of (type, subnet) pairs in a fleet


class Subnet(NamedTuple):
    """A subnet's id and its availability zone."""

    id: str
    zone: str


def launch_template(
    config: Config,
    account: Account,
    image_id: str,
    *,
    run: str,
    token: str,
    user_data: str,
    image: Image = Image(),  # noqa: B008  a value
    security_groups: Sequence[str] = (),
) -> dict[str, Any]:
    """CreateLaunchTemplate's request for a run's machines. Raises UsageError.

    The image is given by id: a fleet of type `maintain` cannot use a parameter's name.
    """
    tags = tag_list(machine_tags(config, run))
    disk = {
        "VolumeSize": max(config.ebs_vol_size, image.smallest),
        "VolumeType": "gp3",
        "DeleteOnTermination": True,
    }
    data: dict[str, Any] = {
        "ImageId": image_id,
        "IamInstanceProfile": {"Arn": account.instance_profile},
        "UserData": encoded(user_data),
        "BlockDeviceMappings": [{"DeviceName": image.data, "Ebs": disk}],
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "optional" if config.image_starts_worker else "required",
            "HttpPutResponseHopLimit": 2,  # a container is one further away than its machine
        },
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
    }
    key = key_pair(config)
    return {
        "ClientToken": token,
        "LaunchTemplateName": launch_template_name(config, run),
        "LaunchTemplateData": data | _network(config, security_groups) | ({"KeyName": key} if key else {}),
        "TagSpecifications": [{"ResourceType": "launch-template", "Tags": tag_list(run_tags(config, run))}],
    }


def launch_template_name(config: Config, run: str) -> str:
    """Name of the launch template. Each run has its own, so leftovers cannot change its machines."""
    return f"ds-{config.app_name}-{run}"


def _network(config: Config, security_groups: Sequence[str]) -> dict[str, Any]:
    """Security groups and address; only an interface can turn the public address off."""
    groups = list(dict.fromkeys(security_groups))
    if config.assign_ip:
        return {"SecurityGroupIds": groups} if groups else {}
    face: dict[str, Any] = {"DeviceIndex": 0, "AssociatePublicIpAddress": False, "DeleteOnTermination": True}
    return {"NetworkInterfaces": [face | ({"Groups": groups} if groups else {})]}


def ec2_fleet_request(
    config: Config,
    subnets: Iterable[Subnet],
    *,
    template_id: str,
    template_version: str,
    run: str,
    now: float,
    token: str,
) -> dict[str, Any]:
    """CreateFleet's request for a run that begins `now` (Unix seconds): every type in every zone.

    Each zone is used once, as a fleet refuses a type twice in a zone. A lower target terminates no machine:
    the engine terminates idle ones. Raises UsageError.
    """
    zones: dict[str, Subnet] = {}
    for subnet in subnets:
        zones.setdefault(subnet.zone, subnet)
    return {
        "ClientToken": token,
        "ExcessCapacityTerminationPolicy": "no-termination",
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {"LaunchTemplateId": template_id, "Version": template_version},
                "Overrides": _overrides(config, list(zones.values())),
            }
        ],
        "ReplaceUnhealthyInstances": True,
        "OnDemandOptions": {"AllocationStrategy": "lowest-price"},
        "SpotOptions": {
            "AllocationStrategy": "price-capacity-optimized",
            "InstanceInterruptionBehavior": "terminate",
        },
        "TagSpecifications": [{"ResourceType": "fleet", "Tags": tag_list(run_tags(config, run))}],
        "TargetCapacitySpecification": {
            "DefaultTargetCapacityType": "spot",
            **capacity(config.cluster_machines, on_demand_of(config)),
        },
        "TerminateInstancesWithExpiration": True,
        "Type": "maintain",
        "ValidUntil": valid_until(config, now),
    }


def on_demand_of(config: Config) -> int:
    """How many of the machines are asked for on demand."""
    return round(config.cluster_machines * config.on_demand_percent / 100)


def _overrides(config: Config, subnets: Sequence[Subnet]) -> list[dict[str, Any]]:
    types = list(dict.fromkeys(config.machine_type))
    if not subnets:
        fix = "make a default VPC with `aws ec2 create-default-vpc`, or start with a fleet file"
        raise UsageError("no subnet for the machines: the region has no default VPC", fix)
    if len(types) * len(subnets) > MAX_OVERRIDES:
        most = MAX_OVERRIDES // len(subnets)
        what = f"MACHINE_TYPE: {len(types)} types in {len(subnets)} zones are more than a fleet takes"
        raise UsageError(what, f"name at most {most}")
    price = {} if config.machine_price is None else {"MaxPrice": price_text(config.machine_price)}
    return [{"InstanceType": each, "SubnetId": subnet.id, **price} for each in types for subnet in subnets]
