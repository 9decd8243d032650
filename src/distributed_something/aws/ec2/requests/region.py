"""Reads facts about account and region, each once: roles, bucket, types, images, subnets. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from ....errors import DsError, UsageError
from ....inputs.config import Config
from ....s3.session import NO_SUCH, AwsSession, aws_errors, error_code, error_words, or_none
from ...iam.roles import TAGGING_ROLE, Role, account_of
from ...names import Account
from ...shape import MachineShape, smallest
from .ownfleet import Subnet
from .request import Image, image_of

IMAGE_PARAMETERS = "/aws/service/ecs/optimized-ami/amazon-linux-2023/"
"""Prefix of the SSM parameters of the newest ECS-optimised images of Amazon Linux 2023."""

NO_IMAGE = ("InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable")
"""EC2's codes for an image that does not exist, or not for this account."""

_NOT_ALLOWED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})


class Region:
    """Facts about the account and region of a config. Each is read once, when it is needed."""

    def __init__(self, session: AwsSession, config: Config) -> None:
        self._session = session
        self._config = config
        self._types: dict[str, Mapping[str, Any]] = {}

    @cached_property
    def account(self) -> Account:
        """The account and its roles. Raises DsError if there are no credentials."""
        with aws_errors("asking AWS who we are"):
            number = self._session.client("sts").get_caller_identity()["Account"]
        return account_of(self._config, number)

    def check_roles(self) -> None:
        """Raises DsError if a role is missing. Without the right to look, roles are assumed to exist."""
        iam, account = self._session.client("iam"), self.account
        for arn in (account.task_role, account.execution_role):
            self._check_there("role", iam.get_role, RoleName=_name_in(arn))
        profile = _name_in(account.instance_profile)
        self._check_there("instance profile", iam.get_instance_profile, InstanceProfileName=profile)

    def _check_there(self, what: str, look: Callable[..., Any], **name: str) -> None:
        import botocore.exceptions

        (named,) = name.values()
        with aws_errors(f"looking for the {what} {named}"):
            try:
                found = or_none(look, NO_SUCH, **name)
            except botocore.exceptions.ClientError as error:
                if error_code(error) not in _NOT_ALLOWED:
                    raise
                return
        if found is None:
            said = f"the account has no {what} {named}: tasks and machines need it"
            raise DsError(said, "ds account setup, once an account")

    def check_bucket(self, name: str) -> None:
        """Raises DsError if the bucket does not exist, or may not be used."""
        import botocore.exceptions

        with aws_errors(f"looking for the bucket {name}"):
            try:
                found = or_none(self._session.client("s3").head_bucket, "404", "NoSuchBucket", Bucket=name)
            except botocore.exceptions.ClientError as error:
                if error_code(error) != "403":  # an answer to HEAD has no text
                    raise
                raise DsError(
                    f"AWS_BUCKET: no access to the bucket {name}: not ours, or a right is missing",
                    "name a bucket of this account, or ask its administrator for s3:ListBucket on it",
                ) from error
        if found is None:
            fix = f"aws s3 mb s3://{name}, or name another"
            raise UsageError(f"AWS_BUCKET: there is no bucket {name}", fix)

    def shape(self, types: Iterable[str]) -> MachineShape:
        """The least of each resource of these types. Raises UsageError for an unknown type."""
        return smallest(MachineShape.of(each) for each in self._described(types))

    def image_id(self) -> str:
        """The newest image for the config's machine types, by architecture and GPU."""
        parameter = IMAGE_PARAMETERS + image_variant(self._described(self._config.machine_type))
        parameter += "recommended/image_id"
        with aws_errors(f"looking for the newest image ({parameter})"):
            return str(self._session.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"])

    def images(self, ids: Iterable[str]) -> dict[str, Image]:
        """The disks of images; none if one does not exist: the fleet request reports that."""
        return {each["ImageId"]: image_of(each) for each in self.describe_images(ids)}

    def describe_images(self, ids: Iterable[str]) -> list[Mapping[str, Any]]:
        """Images as EC2 describes them; none if one does not exist."""
        with aws_errors("looking at the machines' image"):
            look = self._session.client("ec2").describe_images
            found = or_none(look, *NO_IMAGE, ImageIds=sorted(set(ids)))
        return [] if found is None else list(found["Images"])

    def fleet_role(self) -> str:
        """The role for spot fleet requests: the one that EC2's console makes, or ours. Raises DsError."""
        for name in (TAGGING_ROLE, Role.FLEET):
            if arn := self._role(name):
                return arn
        raise DsError(f"the account has no role {Role.FLEET} for fleets", "ds account setup, once an account")

    def _role(self, name: str) -> str | None:
        with aws_errors(f"looking for the role {name}"):
            found = or_none(self._session.client("iam").get_role, NO_SUCH, RoleName=name)
        return None if found is None else str(found["Role"]["Arn"])

    def subnets(self) -> list[Subnet]:
        """The subnets of the default VPC, one a zone."""
        wanted = [{"Name": "default-for-az", "Values": ["true"]}]
        with aws_errors("looking for subnets"):
            pages = self._session.client("ec2").get_paginator("describe_subnets").paginate(Filters=wanted)
            found = [each for page in pages for each in page["Subnets"]]
        return [Subnet(each["SubnetId"], each["AvailabilityZone"]) for each in found]

    def security_groups(self) -> list[str]:
        """The default security group of the default VPC."""
        ec2 = self._session.client("ec2")
        with aws_errors("looking for the default security group"):
            vpcs = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
            if not vpcs:
                return []
            wanted = [
                {"Name": "vpc-id", "Values": [vpcs[0]["VpcId"]]},
                {"Name": "group-name", "Values": ["default"]},
            ]
            groups = ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
        return [each["GroupId"] for each in groups]

    def key_pairs(self) -> list[str]:
        """The names of the region's key pairs."""
        with aws_errors("looking for key pairs"):
            found = self._session.client("ec2").describe_key_pairs()["KeyPairs"]
        return sorted(each["KeyName"] for each in found)

    def _described(self, types: Iterable[str]) -> list[Mapping[str, Any]]:
        import botocore.exceptions

        wanted = list(dict.fromkeys(types))
        if missing := [each for each in wanted if each not in self._types]:
            with aws_errors("looking at the types of machine"):
                try:
                    pages = self._session.client("ec2").get_paginator("describe_instance_types")
                    for page in pages.paginate(InstanceTypes=missing):
                        self._types |= {each["InstanceType"]: each for each in page["InstanceTypes"]}
                except botocore.exceptions.ClientError as error:
                    if error_code(error) != "InvalidInstanceType":
                        raise
                    raise UsageError(
                        f"MACHINE_TYPE: {error_words(error).rstrip('.')} (in {self._config.aws_region})",
                        "name types of `aws ec2 describe-instance-type-offerings`",
                    ) from error
        return [self._types[each] for each in wanted if each in self._types]


def _name_in(arn: str) -> str:
    return arn.rpartition("/")[2]


def image_variant(types: Iterable[Mapping[str, Any]]) -> str:
    """The kind of image in its parameter: "", "arm64/" or "gpu/". Raises UsageError.

    Types are as DescribeInstanceTypes shows them. A fleet has one image, which all types must fit.
    """
    kinds = {_variant(each): each["InstanceType"] for each in types}
    if len(kinds) > 1:
        raise UsageError(
            f"MACHINE_TYPE: {' and '.join(sorted(kinds.values()))} need different images",
            "name types of one architecture, and either all or none with a GPU",
        )
    return next(iter(kinds), "")


def _variant(described: Mapping[str, Any]) -> str:
    makers = {gpu.get("Manufacturer") for gpu in described.get("GpuInfo", {}).get("Gpus", ())}
    if "NVIDIA" in makers:
        return "gpu/"
    return "arm64/" if "arm64" in described["ProcessorInfo"]["SupportedArchitectures"] else ""
