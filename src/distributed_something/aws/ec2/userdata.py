"""What a machine runs when it starts: the settings of the ECS agent, for ECS images of Amazon Linux 2023.

No keys: the agent has the instance profile, tasks have their own role. Values are written between quoted
marks, so the shell takes them as they are. Pure.
"""

from __future__ import annotations

import json
import re

from ...errors import UsageError

APP_ATTRIBUTE = "ds.app"
"""Of a machine in the cluster: the app that it was started for."""

STOP_SECONDS = 120
"""Between asking a container to stop and killing it: as long as the notice before a spot machine goes."""

_END = "END_OF_ECS_CONFIG"


def user_data(app: str, cluster: str) -> str:
    """The start script of an app's machines, as text. Raises UsageError for a name with a strange character.

    It adds to the agent's settings, as the images for GPUs have some of their own.
    """
    lines = [f"{name}={value}" for name, value in agent_settings(app, cluster).items()]
    return "\n".join(["#!/bin/sh", f"cat >> /etc/ecs/ecs.config <<'{_END}'", *lines, _END, ""])


def agent_settings(app: str, cluster: str) -> dict[str, str]:
    """The ECS agent's settings, as its file has them. Raises UsageError."""
    return {
        "ECS_CLUSTER": _plain("ECS_CLUSTER", cluster),
        "ECS_INSTANCE_ATTRIBUTES": json.dumps({APP_ATTRIBUTE: _plain("APP_NAME", app)}),
        "ECS_ENABLE_SPOT_INSTANCE_DRAINING": "true",
        "ECS_CONTAINER_STOP_TIMEOUT": f"{STOP_SECONDS}s",
        "ECS_DISABLE_PRIVILEGED": "true",
        "ECS_AVAILABLE_LOGGING_DRIVERS": '["json-file","awslogs","none"]',
        "ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE": "true",
        # the disk is small and the images of scientists are not: forget early what has ended
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
    """The name, where it means nothing to a shell, an environment file or a query. Raises UsageError."""
    if not re.fullmatch("[A-Za-z0-9_-]{1,255}", name, re.ASCII):
        raise UsageError(f"{what}: {json.dumps(name)} cannot be given to a machine", "use letters and digits")
    return name
