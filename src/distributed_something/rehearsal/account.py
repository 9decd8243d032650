"""Gives the pretend account what accounts have before their first run: roles, instance profile, key pair.

A fleet file is written for a real account. `adapted` puts the pretend one's own roles, image, subnet and
groups into it, so that the rest of it can be rehearsed as it stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..aws.ec2.requests.region import Region
from ..aws.iam import account
from ..aws.iam.policies import Used
from ..aws.iam.roles import Where
from ..inputs.config import Config
from ..s3.session import AwsSession, aws_errors


def furnish(session: AwsSession, config: Config) -> None:
    """Set the account up as `ds account setup` does, and make the config's key pair. Raises DsError."""
    number, _ = account.who(session)
    where = Where(number, config.aws_region)
    account.apply(session, account.plan_setup(where, Used.of(config, where), account.find(session)))
    if name := config.ssh_key_name.removesuffix(".pem"):
        with aws_errors("furnishing the pretend account"):
            session.client("ec2").create_key_pair(KeyName=name)


class Own(NamedTuple):
    """What of the pretend account replaces a fleet file's own values."""

    fleet_role: str
    profile: str
    image: str
    subnet: str
    groups: tuple[str, ...]

    @classmethod
    def of(cls, region: Region) -> Own:
        """Read from the pretend account. Raises DsError."""
        return cls(
            region.fleet_role(),
            region.account.instance_profile,
            region.image_id(),
            region.subnets()[0].id,
            tuple(region.security_groups()),
        )


def adapted(text: str, own: Own) -> tuple[str, tuple[str, ...]]:
    """Returns a fleet file's text for the pretend account, and the fields that were replaced. Pure.

    What is no fleet file is left as it is: who reads it says what is wrong.
    """
    try:
        request = json.loads(text)
        specifications = request["LaunchSpecifications"]
        replaced = dict.fromkeys(_replace(request, {"IamFleetRole": own.fleet_role}))
        for each in specifications:
            replaced |= dict.fromkeys(_adapt(each, own))
    except (ValueError, KeyError, TypeError, AttributeError):
        return text, ()
    return json.dumps(request, indent=2), tuple(replaced)


def _adapt(specification: dict[str, Any], own: Own) -> list[str]:
    groups = [{"GroupId": each} for each in own.groups]
    done = _replace(
        specification,
        {
            "IamInstanceProfile": {"Arn": own.profile},
            "ImageId": own.image,
            "SubnetId": own.subnet,
            "SecurityGroups": groups,
        },
    )
    for face in specification.get("NetworkInterfaces", ()):
        done += _replace(face, {"SubnetId": own.subnet, "Groups": list(own.groups)})
    for disk in specification.get("BlockDeviceMappings", ()):
        if disk.get("Ebs", {}).pop("SnapshotId", None) is not None:
            done.append("SnapshotId")
    if specification.pop("KeyName", None) is not None:
        done.append("KeyName")
    return done


def _replace(holder: dict[str, Any], values: Mapping[str, Any]) -> list[str]:
    """Replaces the holder's values by these; returns the names of what was replaced."""
    names = [name for name, value in values.items() if name in holder and holder[name] != value]
    holder.update({name: values[name] for name in names})
    return names
