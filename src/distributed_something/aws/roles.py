"""The roles that tasks and machines have, by name. `ds account setup` makes them, once an account. Pure."""

from __future__ import annotations

from ..config import Config
from .desired import Account, partition

TASK_ROLE = "ds-task"
EXECUTION_ROLE = "ds-execution"
MACHINE_PROFILE = "ds-machine"
FLEET_ROLE = "ds-fleet"


def account_of(config: Config, number: str) -> Account:
    """What a run uses of the account with that number."""
    return Account(
        number,
        _arn(config, number, f"role/{TASK_ROLE}"),
        _arn(config, number, f"role/{EXECUTION_ROLE}"),
        _arn(config, number, f"instance-profile/{MACHINE_PROFILE}"),
    )


def fleet_role(config: Config, number: str) -> str:
    """The role with which EC2 starts and tags the machines of a spot fleet request."""
    return _arn(config, number, f"role/{FLEET_ROLE}")


def _arn(config: Config, number: str, what: str) -> str:
    return f"arn:{partition(config.aws_region)}:iam::{number}:{what}"
