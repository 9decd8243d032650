"""Names, tags and ARNs that several parts of AWS share. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from ..inputs.config import Config


def alarm_prefix(app: str) -> str:
    """What the names of the app's alarms begin with. No app's name has a dot: none begins like another's."""
    return f"{PREFIX}{app}."


class Account(NamedTuple):
    """What a run uses of the account: its number, and ARNs of roles that `ds account setup` has made."""

    number: str
    task_role: str
    execution_role: str
    instance_profile: str


def partition(region: str) -> str:
    """The part of AWS that a region is in, as in ARNs."""
    parts = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b"}
    return next((name for start, name in parts.items() if region.startswith(start)), "aws")


def instance_log_group(config: Config) -> str:
    """The log group of what containers print."""
    return config.log_group_name + "_perInstance"


PREFIX = "distributed-something-"


def run_tags(config: Config, run: str) -> dict[str, str]:
    """The tags by which everything of a run is found."""
    return {"ds:app": config.app_name, "ds:run": run}


def machine_tags(config: Config, run: str) -> dict[str, str]:
    """Those of a machine: it has the name that the reference gives it."""
    return {"Name": f"{config.app_name}Worker", **run_tags(config, run)}


def price_text(price: float | str) -> str:
    """A price in dollars as EC2 wants it: all of its digits, and no exponent."""
    return price if isinstance(price, str) else format(Decimal(str(price)), "f")


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags in the form of EC2."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
