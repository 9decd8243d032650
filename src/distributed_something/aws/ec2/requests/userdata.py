"""Writes the start script of machines: settings of the ECS agent, for ECS images of Amazon Linux 2023. Pure.

It has no keys: the agent uses the instance profile, tasks their own role. Values are quoted for the shell.
"""

from __future__ import annotations

import json
import re
from shlex import quote

from ....errors import UsageError
from ....inputs.config import Config

APP_ATTRIBUTE = "ds.app"  # attribute of a machine in the cluster: the app that it was started for

STOP_SECONDS = 120
"""Seconds between stop request and kill of a container: as long as the notice of a spot machine."""

_END = "END_OF_ECS_CONFIG"


def user_data(app: str, cluster: str) -> str:
    """The start script of an app's machines. Raises UsageError for a name with a special character.

    It appends to the agent's settings, as images for GPUs have some of their own.
    """
    lines = [f"{name}={value}" for name, value in agent_settings(app, cluster).items()]
    return "\n".join(["#!/bin/sh", f"cat >> /etc/ecs/ecs.config <<'{_END}'", *lines, _END, ""])


def start_script(config: Config) -> str:
    """The start script of the config's machines. Raises UsageError.

    A worker that the image starts itself expects the bucket as a folder, and instance metadata without a
    token. Both are made ready before the ECS agent starts: it waits until this script has ended.
    """
    script = user_data(config.app_name, config.ecs_cluster)
    if not config.image_starts_worker:
        return script
    names = {"@region@": config.aws_region, "@bucket@": config.aws_bucket, "@folder@": MOUNT_FOLDER}
    return script + re.sub("@[a-z]+@", lambda match: quote(names[match[0]]), _FOR_IMAGES)


MOUNT_FOLDER = "/mnt/ds-bucket"  # where a machine mounts the bucket, if the image starts its own worker

# A spot fleet request cannot turn the token off, so its machines do it themselves. mount-s3 is AWS's own
# program for this: it reads large files fast, and uses the machine's role. Older images lack its package.
_FOR_IMAGES = """\
imds=http://169.254.169.254/latest
if ! curl -sf -o /dev/null $imds/meta-data/instance-id; then
    yum install -y -q awscli-2
    token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' $imds/api/token)
    machine=$(curl -sf -H "X-aws-ec2-metadata-token: $token" $imds/meta-data/instance-id)
    aws ec2 modify-instance-metadata-options --region @region@ --instance-id "$machine" \\
        --http-tokens optional --http-put-response-hop-limit 2
fi
package=https://s3.amazonaws.com/mountpoint-s3-release/latest/$(uname -m | sed s/aarch64/arm64/)/mount-s3.rpm
mkdir -p @folder@
for try in 1 2 3 4 5; do
    command -v mount-s3 || yum install -y -q mount-s3 || yum install -y -q "$package"
    mount-s3 --read-only --allow-other --region @region@ @bucket@ @folder@ && break
    echo "ds: the bucket could not be mounted (try $try)" | tee /dev/console
    sleep 10
done
"""


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
