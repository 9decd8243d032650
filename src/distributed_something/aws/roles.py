"""What `ds account setup` makes in an account, by name: pure, so that a run can name it without asking.

Every name begins with `distributed-something-` and every path is `/distributed-something/`: nothing is shared
with other tools, and what belongs here can be listed, and removed, without guessing. IAM's names are the
account's, whatever the region; the function is there once a region.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from .desired import Account, partition

PREFIX = "distributed-something-"
PATH = "/distributed-something/"

TAGS = {"ds:account": "distributed-something"}
"""On everything that the set-up of an account makes: what lacks it is not ours, whatever its name."""

PROFILE = PREFIX + "machine"
"""The instance profile; it holds the role of the same name."""

FUNCTION = PREFIX + "monitor"
"""The Lambda function of AUTO_MONITOR."""

RULE_PREFIX = PREFIX + "run-"
"""What the names of the schedules begin with that call the function: a run has its own."""


class Role(StrEnum):
    """A role; the value is its name."""

    TASK = PREFIX + "task"
    EXECUTION = PREFIX + "execution"
    MACHINE = PREFIX + "machine"
    MONITOR = PREFIX + "monitor"
    FLEET = PREFIX + "fleet"


class Where(NamedTuple):
    """An account, by its number, and a region of it."""

    number: str
    region: str

    @property
    def part(self) -> str:
        """The part of AWS that it is in, as in ARNs."""
        return partition(self.region)

    def arn(self, service: str, rest: str, *, region: str | None = None) -> str:
        """An ARN in this account; `region` is the account's own where it is not given, and may be empty."""
        return f"arn:{self.part}:{service}:{self.region if region is None else region}:{self.number}:{rest}"

    def role(self, role: Role) -> str:
        """The ARN of a role."""
        return self.arn("iam", f"role{PATH}{role}", region="")

    @property
    def profile(self) -> str:
        """The ARN of the instance profile."""
        return self.arn("iam", f"instance-profile{PATH}{PROFILE}", region="")

    @property
    def function(self) -> str:
        """The ARN of the function."""
        return self.arn("lambda", f"function:{FUNCTION}")


def account(number: str, region: str) -> Account:
    """What a run uses of an account that is set up."""
    where = Where(number, region)
    return Account(number, where.role(Role.TASK), where.role(Role.EXECUTION), where.profile)
