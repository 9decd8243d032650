"""Computes from the config the resources that a run needs in the account. Pure.

`resources.compare` plans the steps from the existing resources to these. Called by `provision.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ...errors import UsageError
from ...inputs.config import Config
from ...inputs.secrets import check_for_aws
from ...system.containers.docker import BUCKET_FOLDER, IMAGE_FOLDER, WORKER_FOLDER
from ..ec2.requests.userdata import MOUNT_FOLDER, STOP_SECONDS, placement
from ..iam.policies import secret_arns
from ..iam.roles import Where
from ..message import MAX_BYTES
from ..names import Account, instance_log_group, partition, price_text, run_tags
from ..shape import INJECTOR_RESERVED, MachineShape, TaskSize, task_size
from ..sqs.queues import RETENTION_SECONDS, QueueNames, max_receipts
from .resources import Kind, Resource

LOG_DAYS = 60  # retention of a new log group, in days

WORKER_VOLUME = "ds-worker"
_WORKER: dict[str, Any] = {"name": WORKER_VOLUME, "host": {}}
_BUCKET = {"name": "ds-bucket", "host": {"sourcePath": MOUNT_FOLDER}}
_SEES_BUCKET = {
    "mountPoints": [{"sourceVolume": "ds-bucket", "containerPath": BUCKET_FOLDER, "readOnly": True}]
}
_DEAD_VISIBILITY = 30
_INJECTOR_MEMORY = 128
_KEYS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})


class InjectedWorker(NamedTuple):
    """Our worker, injected into a user's image.

    `image` holds it; `copy` is the command that copies it to WORKER_FOLDER; `start` runs it from there. An
    empty `image` means that the user's image has it already.
    """

    image: str
    copy: tuple[str, ...] = (
        *(f"{IMAGE_FOLDER}/lib/ld.so", "--library-path", f"{IMAGE_FOLDER}/lib"),
        *(f"{IMAGE_FOLDER}/bin/python3", "-I", f"{IMAGE_FOLDER}/copy.py", WORKER_FOLDER),
    )
    start: tuple[str, ...] = (f"{WORKER_FOLDER}/ds", "worker")


# -- What there should be -----------------------------------------------------------------------------------


def desired(
    config: Config,
    account: Account,
    shape: MachineShape,
    *,
    run: str,
    names: QueueNames | None = None,
    queue_url: str | None = None,
    injected: InjectedWorker | None = None,
) -> tuple[Resource, ...]:
    """The resources of a run, in the order to make them. Raises UsageError where the config cannot be run.

    `queue_url` is known once the queue is there; until then it is as AWS would have it. `injected` is needed
    unless the image has its own worker.
    """
    names = names or QueueNames.of(config)
    url = queue_url or predicted_queue_url(config, account)
    variables = task_environment(config, task_size(config, shape), url, run, names)
    return (
        *queues(config, account, run, names),
        *log_groups(config, run),
        Resource(Kind.CLUSTER, config.ecs_cluster, tags=run_tags(config, run), shared=True),
        task_definition(config, account, shape, run=run, injected=injected, environment=variables),
        service(config, run),
    )


def predicted_queue_url(config: Config, account: Account) -> str:
    """The address that the queue of jobs will have."""
    suffix = ".cn" if config.aws_region.startswith("cn-") else ""
    return f"https://sqs.{config.aws_region}.amazonaws.com{suffix}/{account.number}/{config.sqs_queue_name}"


def queues(config: Config, account: Account, run: str, names: QueueNames) -> Iterator[Resource]:
    """The three queues. SQS's own limit of receipts is the backstop: our workers give a job up before."""
    tags = run_tags(config, run)
    visibility = config.sqs_message_visibility
    arn = f"arn:{partition(config.aws_region)}:sqs:{config.aws_region}:{account.number}:{names.dead}"
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": str(max_receipts(config))})
    jobs = {**_queue(visibility), "RedrivePolicy": redrive}
    yield Resource(Kind.QUEUE, names.dead, _queue(_DEAD_VISIBILITY), tags=tags)
    yield Resource(Kind.QUEUE, names.jobs, jobs, tags=tags)
    yield Resource(Kind.QUEUE, names.carried, _queue(visibility), tags=tags)


def _queue(visibility: int) -> dict[str, str]:
    return {
        "DelaySeconds": "0",
        "MaximumMessageSize": str(MAX_BYTES),
        "MessageRetentionPeriod": str(RETENTION_SECONDS),
        "ReceiveMessageWaitTimeSeconds": "20",
        "VisibilityTimeout": str(visibility),
    }


def log_groups(config: Config, run: str) -> Iterator[Resource]:
    """Both log groups. An existing one keeps its retention: its lines may be needed longer."""
    for name in (config.log_group_name, instance_log_group(config)):
        initial = {"retentionInDays": LOG_DAYS}
        yield Resource(Kind.LOG_GROUP, name, initial=initial, tags=run_tags(config, run), shared=True)


def task_definition(
    config: Config,
    account: Account,
    shape: MachineShape,
    *,
    run: str,
    injected: InjectedWorker | None,
    environment: Mapping[str, str],
) -> Resource:
    """The task: the user's image, after a container that injects our worker if the image has none."""
    own = config.image_starts_worker
    if not config.dockerhub_tag:
        raise UsageError(
            "DOCKERHUB_TAG: missing: no image to run on machines", "DOCKERHUB_TAG = 'user/image'"
        )
    if injected is None and not own:
        raise UsageError("no worker is given to inject into the image", "use an image that has a worker")
    main = _main_container(config, task_size(config, shape), environment)
    if config.secrets:
        check_for_aws(config)
        arns = secret_arns(config, Where(account.number, config.aws_region))
        main["secrets"] = [{"name": name, "valueFrom": arns[name]} for name in sorted(arns)]
    containers, volumes = [main | _SEES_BUCKET], [_BUCKET]
    if injected is not None and not own:
        injectors = [_injector(config, injected)] if injected.image else []
        containers = [*injectors, main | _uses_injected(injected)]
        volumes = [_WORKER] if injectors else []
    settings = {
        "family": config.app_name + "Task",
        "networkMode": "bridge",
        "requiresCompatibilities": ["EC2"],
        "taskRoleArn": account.task_role,
        "executionRoleArn": account.execution_role,
        "containerDefinitions": containers,
    }
    settings |= {"volumes": volumes} if volumes else {}
    return Resource(Kind.TASK_DEFINITION, config.app_name + "Task", settings, tags=run_tags(config, run))


def _main_container(config: Config, size: TaskSize, environment: Mapping[str, str]) -> dict[str, Any]:
    # without this a container sees none of the GPUs that its machine has
    gpus = {"resourceRequirements": [{"type": "GPU", "value": str(size.gpus)}]} if size.gpus else {}
    return gpus | {
        "name": config.app_name,
        "image": config.dockerhub_tag,
        "cpu": size.cpu,
        "memory": size.memory,
        "essential": True,
        "privileged": False,
        "stopTimeout": STOP_SECONDS,
        "environment": _pairs(environment),
        "linuxParameters": _linux(config),
        "logConfiguration": _awslogs(config),
    }


def _linux(config: Config) -> dict[str, Any]:
    """A first process that passes signals on and clears up; what mounting needs, and no more, if wanted."""
    fuse = {"hostPath": "/dev/fuse", "containerPath": "/dev/fuse", "permissions": ["read", "write"]}
    mounting = {"capabilities": {"add": ["SYS_ADMIN"]}, "devices": [fuse]}
    return {"initProcessEnabled": True, **(mounting if config.mount_bucket else {})}


def _injector(config: Config, injected: InjectedWorker) -> dict[str, Any]:
    """The container that copies our worker. It ends before the task's own container starts."""
    return {
        "name": WORKER_VOLUME,
        "image": injected.image,
        "cpu": 0,
        "memory": _INJECTOR_MEMORY,
        "memoryReservation": INJECTOR_RESERVED,
        "essential": False,
        "privileged": False,
        "entryPoint": list(injected.copy[:1]),
        "command": list(injected.copy[1:]),
        "mountPoints": [_mount(read_only=False)],
        "logConfiguration": _awslogs(config),
    }


def _uses_injected(injected: InjectedWorker) -> dict[str, Any]:
    """Settings of the task's own container: start our worker, from the volume if it is injected."""
    start = {"entryPoint": list(injected.start[:1]), "command": list(injected.start[1:])}
    if not injected.image:
        return start
    return start | {
        "dependsOn": [{"containerName": WORKER_VOLUME, "condition": "SUCCESS"}],
        "mountPoints": [_mount(read_only=True)],
    }


def _mount(*, read_only: bool) -> dict[str, Any]:
    return {"sourceVolume": WORKER_VOLUME, "containerPath": WORKER_FOLDER, "readOnly": read_only}


def _awslogs(config: Config) -> dict[str, Any]:
    """Sends logs to CloudWatch; the container never waits for it."""
    return {
        "logDriver": "awslogs",
        "options": {
            "awslogs-group": instance_log_group(config),
            "awslogs-region": config.aws_region,
            "awslogs-stream-prefix": config.app_name,
            "mode": "non-blocking",
            "max-buffer-size": "4m",
        },
    }


def _pairs(variables: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": variables[name]} for name in sorted(variables)]


def task_environment(
    config: Config, size: TaskSize, queue_url: str, run: str, names: QueueNames
) -> dict[str, str]:
    """A container's environment: the user's keys, the reference's names, and ours.

    Raises UsageError for access keys: everyone could read them in the task definition.
    """
    own = config.worker_environment()
    if keys := sorted(_KEYS & {name.upper() for name in own}):
        fix = "remove it from the config: tasks have the rights of their role"
        raise UsageError(f"{keys[0]}: a key would be stored in the task definition for anyone to read", fix)
    return own | {
        "APP_NAME": config.app_name,
        "AWS_BUCKET": config.aws_bucket,
        "AWS_DEFAULT_REGION": config.aws_region,
        "AWS_REGION": config.aws_region,
        "CHECK_IF_DONE_BOOL": str(config.check_if_done_bool),
        "DOCKER_CORES": str(size.slots),
        "DS_DEAD_QUEUE": names.dead,
        "DS_RUN": run,
        "DS_TASK_MEMORY": str(size.memory),
        "ECS_CLUSTER": config.ecs_cluster,
        "EXPECTED_NUMBER_FILES": str(config.expected_number_files),
        "LOG_GROUP_NAME": config.log_group_name,
        "MIN_FILE_SIZE_BYTES": str(config.min_file_size_bytes),
        "NECESSARY_STRING": config.necessary_string,
        "SECONDS_TO_START": price_text(config.seconds_to_start),
        "SQS_QUEUE_URL": queue_url,
    }


def service(config: Config, run: str) -> Resource:
    """The service, with no task yet: machines come first.

    Tasks fill one machine after another, so that idle machines can end. AWS must not rebalance zones: that
    would end running jobs.
    """
    settings = {
        "taskDefinition": config.app_name + "Task",
        "availabilityZoneRebalancing": "DISABLED",
        "deploymentConfiguration": {"maximumPercent": 100, "minimumHealthyPercent": 0},
        "placementConstraints": placement(config.app_name),
        "placementStrategy": [{"type": "binpack", "field": "memory"}],
        "propagateTags": "SERVICE",
    }
    initial = {"desiredCount": 0, "launchType": "EC2", "schedulingStrategy": "REPLICA"}
    name = config.app_name + "Service"
    return Resource(Kind.SERVICE, name, settings, initial, run_tags(config, run))


# -- The difference -----------------------------------------------------------------------------------------
