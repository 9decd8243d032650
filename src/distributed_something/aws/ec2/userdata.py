"""Writes the start script of machines: settings of the ECS agent, for ECS images of Amazon Linux 2023. Pure.

It has no keys: the agent uses the instance profile, tasks their own role. Values are quoted for the shell.
"""

from __future__ import annotations

import json
import re

from ...errors import UsageError

APP_ATTRIBUTE = "ds.app"
"""Attribute of a machine in the cluster: the app that it was started for."""

STOP_SECONDS = 120
"""Seconds between stop request and kill of a container: as long as the notice of a spot machine."""

_END = "END_OF_ECS_CONFIG"


def user_data(app: str, cluster: str) -> str:
    """The start script of an app's machines. Raises UsageError for a name with a special character.

    It appends to the agent's settings, as images for GPUs have some of their own.
    """
    lines = [f"{name}={value}" for name, value in agent_settings(app, cluster).items()]
    return "\n".join(["#!/bin/sh", f"cat >> /etc/ecs/ecs.config <<'{_END}'", *lines, _END, ""])


def agent_settings(app: str, cluster: str) -> dict[str, str]:
    """The ECS agent's settings, in the form of its file. Raises UsageError."""
    return {
        "ECS_CLUSTER": _plain("ECS_CLUSTER", cluster),
        "ECS_INSTANCE_ATTRIBUTES": json.dumps({APP_ATTRIBUTE: _plain("APP_NAME", app)}),
        "ECS_ENABLE_SPOT_INSTANCE_DRAINING": "true",
        "ECS_CONTAINER_STOP_TIMEOUT": f"{STOP_SECONDS}s",
        "ECS_DISABLE_PRIVILEGED": "true",
        "ECS_AVAILABLE_LOGGING_DRIVERS": '["json-file","awslogs","none"]',
        "ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE": "true",
        # disks are small and images large: remove early what has ended
        "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION": "10m",
        "ECS_IMAGE_CLEANUP_INTERVAL": "30m",
        "ECS_IMAGE_MINIMUM_CLEANUP_AGE": "30m",
        # a machine lives for one run: asking the registry again at each task would only meet its limits
        "ECS_IMAGE_PULL_BEHAVIOR": "once",
    }


def placement(app: str) -> list[dict[str, str]]:
    """The constraint that keeps a service's tasks on its own app's machines. Raises UsageError."""
    return [{"type": "memberOf", "expression": f"attribute:{APP_ATTRIBUTE} == {_plain('APP_NAME', app)}"}]


def _plain(what: str, name: str) -> str:
    """The name. Raises UsageError if it could mean something to a shell, an environment file or a query."""
    if not re.fullmatch("[A-Za-z0-9_-]{1,255}", name, re.ASCII):
        raise UsageError(f"{what}: {json.dumps(name)} cannot be given to a machine", "use letters and digits")
    return name
