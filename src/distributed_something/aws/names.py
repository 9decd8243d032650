"""Names, tags and ARNs that several parts of this package share. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from ..errors import UsageError
from ..inputs.config import Config


def alarm_prefix(app: str) -> str:
    """Prefix of the names of an app's alarms. App names have no dot, so no prefix begins another."""
    return f"{PREFIX}{app}."


class Account(NamedTuple):
    """The account's number, and ARNs of the roles that `ds account setup` has made."""

    number: str
    task_role: str
    execution_role: str
    instance_profile: str


def partition(region: str) -> str:
    """The partition of a region, as in ARNs."""
    parts = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b"}
    return next((name for start, name in parts.items() if region.startswith(start)), "aws")


def bucket_of(config: Config) -> str:
    """The bucket that the config names. Raises UsageError if it names none."""
    if not config.aws_bucket:
        what = "AWS_BUCKET: missing: nowhere to keep inputs, outputs, logs and ledger"
        raise UsageError(what, "AWS_BUCKET = 'your-bucket' in the config")
    return config.aws_bucket


def instance_log_group(config: Config) -> str:
    """The log group of the containers' own output."""
    return config.log_group_name + "_perInstance"


PREFIX = "distributed-something-"


def run_tags(config: Config, run: str) -> dict[str, str]:
    """The tags of every resource of a run."""
    return {"ds:app": config.app_name, "ds:run": run}


def machine_tags(config: Config, run: str) -> dict[str, str]:
    """The tags of a machine; its name is the one that the reference gives."""
    return {"Name": f"{config.app_name}Worker", **run_tags(config, run)}


def price_text(price: float | str) -> str:
    """Formats a price in dollars for EC2: all digits, no exponent."""
    return price if isinstance(price, str) else format(Decimal(str(price)), "f")


def tags_of(described: Mapping[str, Any]) -> dict[str, str]:
    """The tags of something that EC2 or IAM describes."""
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", ())}


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Converts tags to the form of EC2 and IAM."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
