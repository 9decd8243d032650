"""Names what `ds account setup` makes in an account. Pure, so a run can name roles without a call.

Every name begins with `distributed-something-` and every path is `/distributed-something/`: nothing is shared
with other tools, and everything of ours can be listed and removed. IAM's names are per account, not per
region.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from ...inputs.config import Config
from ..names import PREFIX, Account, partition

PATH = "/distributed-something/"

TAGS = {"ds:account": "distributed-something"}
"""Tags of everything that the set-up of an account makes. A resource without them is not ours."""

PROFILE = PREFIX + "machine"  # the instance profile; it holds the role of the same name

IMAGE_PROFILE = PREFIX + "image-machine"
"""The instance profile of apps whose image starts its own worker; it holds the role of the same name."""


class Role(StrEnum):
    """A role; the value is its name."""

    TASK = PREFIX + "task"
    EXECUTION = PREFIX + "execution"
    MACHINE = PREFIX + "machine"
    FLEET = PREFIX + "fleet"
    MONITOR = PREFIX + "monitor"
    SCHEDULE = PREFIX + "schedule"
    IMAGE_TASK = PREFIX + "image-task"
    IMAGE_MACHINE = PREFIX + "image-machine"


IMAGE_ROLES = frozenset({Role.IMAGE_TASK, Role.IMAGE_MACHINE})
"""Roles of apps whose image starts its own worker: made only for accounts with such an app."""

PROFILES = {PROFILE: Role.MACHINE, IMAGE_PROFILE: Role.IMAGE_MACHINE}
"""The instance profiles, each with its role."""


FUNCTION = PREFIX + "monitor"  # the function that watches runs whose config has AUTO_MONITOR

SCHEDULES = "distributed-something"
"""The group of the schedules that call it: one for each app under way, with the app's name."""

TAGGING_ROLE = "aws-ec2-spot-fleet-tagging-role"  # the role that EC2's console makes for spot fleet requests


class Where(NamedTuple):
    """An account, by its number, and a region of it."""

    number: str
    region: str

    @property
    def part(self) -> str:
        """Its partition, as in ARNs."""
        return partition(self.region)

    def arn(self, service: str, rest: str, *, region: str | None = None) -> str:
        """An ARN in this account; `region` may be empty; None: this region."""
        return f"arn:{self.part}:{service}:{self.region if region is None else region}:{self.number}:{rest}"

    def role(self, role: Role) -> str:
        """The ARN of a role."""
        return self.arn("iam", f"role{PATH}{role}", region="")

    def function(self, *, region: str | None = None) -> str:
        """The ARN of the auto-monitor's function."""
        return self.arn("lambda", f"function:{FUNCTION}", region=region)

    @property
    def profile(self) -> str:
        """The ARN of the instance profile."""
        return self.profile_of(PROFILE)

    def profile_of(self, name: str) -> str:
        """The ARN of an instance profile of ours."""
        return self.arn("iam", f"instance-profile{PATH}{name}", region="")


def is_ours(tags: Mapping[str, str]) -> bool:
    """Whether something with these tags was made by the set-up of an account."""
    return all(tags.get(key) == value for key, value in TAGS.items())


def account_of(config: Config, number: str) -> Account:
    """What a run uses of the account with that number, where it is set up."""
    where = Where(number, config.aws_region)
    own = config.image_starts_worker
    return Account(
        number,
        where.role(Role.IMAGE_TASK if own else Role.TASK),
        where.role(Role.EXECUTION),
        where.profile_of(IMAGE_PROFILE if own else PROFILE),
    )


ALARM_SERVICE = "events.amazonaws.com"
"""The service whose role CloudWatch assumes if an alarm terminates a machine."""

LINKED = {
    "AWSServiceRoleForCloudWatchEvents": ALARM_SERVICE,
    "AWSServiceRoleForEC2Fleet": "ec2fleet.amazonaws.com",
    "AWSServiceRoleForEC2Spot": "spot.amazonaws.com",
    "AWSServiceRoleForEC2SpotFleet": "spotfleet.amazonaws.com",
    "AWSServiceRoleForECS": "ecs.amazonaws.com",
}
"""AWS's own roles for fleets, clusters and alarms that terminate machines, each with its service.

They belong to AWS and serve all users of the account: made if missing, never removed.
"""
