"""What a run wants to find in the account, computed from the config, and how that differs from what is there.

Everything here is a value: nothing is asked of AWS, made or changed. `desired` says what there should be;
whoever applies it describes what there is as resources of the same form; `compare` plans the steps. Where
all is there as wanted, no step of the plan does anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from ..errors import UsageError
from ..fleetrequest import price_text, run_tags
from ..inputs.config import Config
from ..system.docker import IMAGE_FOLDER, WORKER_FOLDER
from .message import MAX_BYTES
from .queues import MAX_RECEIPTS, RETENTION_SECONDS, QueueNames
from .userdata import STOP_SECONDS, placement

LOG_DAYS = 60
"""How long a new log group keeps its lines."""

WORKER_VOLUME = "ds-worker"
_DEAD_VISIBILITY = 30
_CARRIER_MEMORY = 128
_CARRIER_RESERVED = 16
_KEYS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})


class Kind(StrEnum):
    """A kind of resource; the value is the word for it on the screen."""

    QUEUE = "queue"
    CLUSTER = "cluster"
    LOG_GROUP = "log group"
    TASK_DEFINITION = "task definition"
    SERVICE = "service"


class Resource(NamedTuple):
    """One resource, as wanted or as found.

    `settings` are the fields of AWS's own request and description; a wanted resource has those that matter,
    a found one may have more. `initial` matters only when it is made. A `shared` one may serve others too: it
    is made where it is missing, and left as it is where it is there, its tags included.
    """

    kind: Kind
    name: str
    settings: Mapping[str, Any] = {}
    initial: Mapping[str, Any] = {}
    tags: Mapping[str, str] = {}
    shared: bool = False


class Account(NamedTuple):
    """What a run uses of the account: its number, and ARNs of roles that `ds account setup` has made."""

    number: str
    task_role: str
    execution_role: str
    instance_profile: str


class MachineShape(NamedTuple):
    """A machine's processors, memory (MiB) and GPUs of NVIDIA's, as EC2 describes its type."""

    vcpus: int
    memory_mib: int
    gpus: int = 0

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> MachineShape:
        """That of a type, as DescribeInstanceTypes has it."""
        gpus = described.get("GpuInfo", {}).get("Gpus", ())
        return cls(
            described["VCpuInfo"]["DefaultVCpus"],
            described["MemoryInfo"]["SizeInMiB"],
            sum(each.get("Count", 0) for each in gpus if each.get("Manufacturer") == "NVIDIA"),
        )

    @property
    def usable_mib(self) -> int:
        """Memory that tasks can have: the kernel, the ECS agent and Docker keep the rest."""
        return max(self.memory_mib - 256 - self.memory_mib // 25, 64)


class TaskSize(NamedTuple):
    """What a task gets: `cpu` in 1/1024 of a core, `memory` in MiB, `slots` for jobs at a time, `gpus`.

    ECS gives a GPU to one task only; the jobs of a task share it.
    """

    cpu: int
    memory: int
    slots: int
    gpus: int = 0


class Carried(NamedTuple):
    """The worker that is brought into a user's image.

    `image` holds it; `copy` is the command that puts it into WORKER_FOLDER; `start` runs it from there.
    Without an image it is in the user's own already, and `start` runs it.
    """

    image: str
    copy: tuple[str, ...] = (
        *(f"{IMAGE_FOLDER}/lib/ld.so", "--library-path", f"{IMAGE_FOLDER}/lib"),
        *(f"{IMAGE_FOLDER}/bin/python3", "-I", f"{IMAGE_FOLDER}/copy.py", WORKER_FOLDER),
    )
    start: tuple[str, ...] = (f"{WORKER_FOLDER}/ds", "worker")


def smallest(shapes: Iterable[MachineShape]) -> MachineShape:
    """What every one of these machines has at least: a task must fit on any of them."""
    every = list(shapes)
    return MachineShape(*map(min, zip(*every, strict=True)))


def task_size(config: Config, shape: MachineShape) -> TaskSize:
    """A task's share of a machine, where the config does not say it itself."""
    tasks = config.tasks_per_machine
    cpu = config.cpu_shares or max(shape.vcpus * 1024 // tasks, 128)
    memory = config.memory or max((shape.usable_mib - tasks * _CARRIER_RESERVED) // tasks, 64)
    return TaskSize(cpu, memory, config.docker_cores or max(cpu // 1024, 1), shape.gpus // tasks)


def misfit(config: Config, shape: MachineShape) -> str | None:
    """Why ECS would not place TASKS_PER_MACHINE tasks on such a machine; None where they fit."""
    size, tasks = task_size(config, shape), config.tasks_per_machine
    if size.cpu * tasks > shape.vcpus * 1024:
        return (
            f"TASKS_PER_MACHINE x CPU_SHARES is {tasks} x {size.cpu}, and a machine has {shape.vcpus * 1024}"
        )
    wanted = tasks * (size.memory + _CARRIER_RESERVED)
    if wanted > shape.usable_mib:
        return f"TASKS_PER_MACHINE x MEMORY is {tasks} x {size.memory}, and a machine has {shape.usable_mib}"
    return None


# -- What there should be -----------------------------------------------------------------------------------


def desired(
    config: Config,
    account: Account,
    shape: MachineShape,
    *,
    run: str,
    queue_url: str | None = None,
    carried: Carried | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[Resource, ...]:
    """The resources of a run, in the order to make them. Raises UsageError where the config cannot be run.

    `queue_url` is known once the queue is there; until then it is as AWS would have it. `carried` is needed
    unless the image has its own worker. `environment` is what our worker needs beside the reference's names.
    """
    url = queue_url or predicted_queue_url(config, account)
    variables = {**task_environment(config, task_size(config, shape), url, run), **(environment or {})}
    return (
        *queues(config, account, run),
        *log_groups(config, run),
        Resource(Kind.CLUSTER, config.ecs_cluster, tags=run_tags(config, run), shared=True),
        task_definition(config, account, shape, run=run, carried=carried, environment=variables),
        service(config, run),
    )


def partition(region: str) -> str:
    """The part of AWS that a region is in, as in ARNs."""
    parts = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b"}
    return next((name for start, name in parts.items() if region.startswith(start)), "aws")


def predicted_queue_url(config: Config, account: Account) -> str:
    """Where the queue of the jobs will be."""
    suffix = ".cn" if config.aws_region.startswith("cn-") else ""
    return f"https://sqs.{config.aws_region}.amazonaws.com{suffix}/{account.number}/{config.sqs_queue_name}"


def queues(config: Config, account: Account, run: str) -> Iterator[Resource]:
    """The three queues. SQS's own limit of receipts is the backstop: workers give a job up long before."""
    names = QueueNames(config.sqs_queue_name, config.sqs_dead_letter_queue)
    tags = run_tags(config, run)
    visibility = config.sqs_message_visibility
    arn = f"arn:{partition(config.aws_region)}:sqs:{config.aws_region}:{account.number}:{names.dead}"
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": str(MAX_RECEIPTS)})
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


def instance_log_group(config: Config) -> str:
    """The log group of what containers print."""
    return config.log_group_name + "_perInstance"


def log_groups(config: Config, run: str) -> Iterator[Resource]:
    """Both log groups. One that is there keeps its own retention: somebody may need the lines longer."""
    for name in (config.log_group_name, instance_log_group(config)):
        initial = {"retentionInDays": LOG_DAYS}
        yield Resource(Kind.LOG_GROUP, name, initial=initial, tags=run_tags(config, run), shared=True)


def task_definition(
    config: Config,
    account: Account,
    shape: MachineShape,
    *,
    run: str,
    carried: Carried | None,
    environment: Mapping[str, str],
) -> Resource:
    """The task: the user's image, and before it, where the image has no worker, one that brings ours."""
    own = config.image_starts_worker
    if not config.dockerhub_tag:
        raise UsageError(
            "DOCKERHUB_TAG: missing: no image to run on machines", "DOCKERHUB_TAG = 'user/image'"
        )
    if carried is None and not own:
        raise UsageError("no worker is given to bring into the image", "use an image that has a worker")
    main = _main_container(config, task_size(config, shape), environment)
    containers = [main]
    if not own and carried is not None:
        brought = [_carrier(config, carried)] if carried.image else []
        containers = [*brought, main | _carries(carried)]
    settings = {
        "family": config.app_name + "Task",
        "networkMode": "bridge",
        "requiresCompatibilities": ["EC2"],
        "taskRoleArn": account.task_role,
        "executionRoleArn": account.execution_role,
        "containerDefinitions": containers,
    }
    settings |= {} if len(containers) == 1 else {"volumes": [{"name": WORKER_VOLUME, "host": {}}]}
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


def _carrier(config: Config, carried: Carried) -> dict[str, Any]:
    """It ends before the task's own container starts: it takes no processor, and hardly any memory."""
    return {
        "name": WORKER_VOLUME,
        "image": carried.image,
        "cpu": 0,
        "memory": _CARRIER_MEMORY,
        "memoryReservation": _CARRIER_RESERVED,
        "essential": False,
        "privileged": False,
        "entryPoint": list(carried.copy[:1]),
        "command": list(carried.copy[1:]),
        "mountPoints": [_mount(read_only=False)],
        "logConfiguration": _awslogs(config),
    }


def _carries(carried: Carried) -> dict[str, Any]:
    """What the task's own container gets: our worker's start, and the volume where it is brought to it."""
    start = {"entryPoint": list(carried.start[:1]), "command": list(carried.start[1:])}
    if not carried.image:
        return start
    return start | {
        "dependsOn": [{"containerName": WORKER_VOLUME, "condition": "SUCCESS"}],
        "mountPoints": [_mount(read_only=True)],
    }


def _mount(*, read_only: bool) -> dict[str, Any]:
    return {"sourceVolume": WORKER_VOLUME, "containerPath": WORKER_FOLDER, "readOnly": read_only}


def _awslogs(config: Config) -> dict[str, Any]:
    """Logs go to CloudWatch without making the container wait for it."""
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


def task_environment(config: Config, size: TaskSize, queue_url: str, run: str) -> dict[str, str]:
    """What a container finds in its environment: the user's keys, the reference's names, and ours.

    Raises UsageError for access keys: a task definition keeps them for everyone to read.
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
        "DS_DEAD_QUEUE": QueueNames(config.sqs_queue_name, config.sqs_dead_letter_queue).dead,
        "DS_RUN": run,
        "ECS_CLUSTER": config.ecs_cluster,
        "EXPECTED_NUMBER_FILES": str(config.expected_number_files),
        "LOG_GROUP_NAME": config.log_group_name,
        "MIN_FILE_SIZE_BYTES": str(config.min_file_size_bytes),
        "NECESSARY_STRING": config.necessary_string,
        "SECONDS_TO_START": price_text(config.seconds_to_start),
        "SQS_QUEUE_URL": queue_url,
    }


def service(config: Config, run: str) -> Resource:
    """The service, without a task yet: machines come first.

    Tasks fill one machine after another, so that few of them leave machines free to end. AWS moves none of
    them to even out its zones, which it does by itself otherwise, and would end the jobs in them.
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


class Action(StrEnum):
    """What a step does; the value is the word for it on the screen."""

    CREATE = "create"
    UPDATE = "update"
    NOTHING = "keep"


class Change(NamedTuple):
    """A setting of what is there, as it is and as it shall be, where both can be told in a word."""

    name: str
    before: object = None
    after: object = None

    @property
    def text(self) -> str:
        """For a person."""
        words = [str(each) if each or each == 0 else "none" for each in (self.before, self.after)]
        plain = not any(isinstance(each, Mapping | list | tuple) for each in (self.before, self.after))
        told = plain and words[0] != words[1] and max(map(len, words)) <= _LONGEST_WORD
        return f"{self.name} {words[0]} → {words[1]}" if told else self.name


_LONGEST_WORD = 60


class Step(NamedTuple):
    """One step of a plan: the wanted resource, and the settings in which the one that is there differs."""

    action: Action
    resource: Resource
    changes: tuple[Change, ...] = ()

    @property
    def text(self) -> str:
        """The step on one line."""
        return f"{self.action} {self.subject}"

    @property
    def subject(self) -> str:
        """What is changed, and how."""
        changes = f": {', '.join(each.text for each in self.changes)}" if self.changes else ""
        return f"{self.resource.kind} {self.resource.name}{changes}"


def compare(wanted: Iterable[Resource], found: Iterable[Resource]) -> list[Step]:
    """The plan that turns what is found into what is wanted: a step for each resource, in the given order.

    Names match exactly. What is found beside the wanted is left alone. A service that is found has the bare
    family as its `taskDefinition` where it runs the newest revision; where there is to be a newer one, it is
    updated too.
    """
    there = {(each.kind, each.name): each for each in found}
    steps = [_step(each, there.get((each.kind, each.name))) for each in wanted]
    renewed = any(
        each.resource.kind is Kind.TASK_DEFINITION and each.action is not Action.NOTHING for each in steps
    )
    return [_with_revision(each) if renewed else each for each in steps]


def _with_revision(step: Step) -> Step:
    """A step that brings a service to the new revision of its task."""
    if step.resource.kind is not Kind.SERVICE or step.action is Action.CREATE:
        return step
    others = (each for each in step.changes if each.name != "taskDefinition")
    return step._replace(action=Action.UPDATE, changes=(*others, Change("taskDefinition")))


def _step(wanted: Resource, found: Resource | None) -> Step:
    if found is None:
        return Step(Action.CREATE, wanted)
    changes = () if wanted.shared else tuple(_changes(wanted, found))
    return Step(Action.UPDATE if changes else Action.NOTHING, wanted, changes)


def _changes(wanted: Resource, found: Resource) -> Iterator[Change]:
    for name in sorted(wanted.settings.keys() | (found.settings.keys() & _OURS)):
        yield from _differences(name, wanted.settings.get(name), found.settings.get(name))
    for key, value in wanted.tags.items():
        if found.tags.get(key) != value:
            yield Change(f"tag {key}", found.tags.get(key), value)


def _differences(name: str, wanted: Any, found: Any) -> Iterator[Change]:
    """Where two settings differ, as deep as both have names. Of a task's variables no values are told."""
    if _same(wanted, found):
        return
    deeper: list[Change] = []
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key in sorted(wanted.keys() | (found.keys() & _OURS)):
            deeper += _differences(f"{name}.{key}", wanted.get(key), found.get(key))
    elif _named(wanted) and _named(found) and "value" not in wanted[0]:
        ours, theirs = ({each["name"]: each for each in one} for one in (wanted, found))
        for key in sorted(ours.keys() | theirs.keys()):
            deeper += _differences(f"{name}.{key}", ours.get(key), theirs.get(key))
    yield from deeper or [Change(name, found, wanted)]


_OURS = frozenset(
    {"capabilities", "command", "dependsOn", "devices", "entryPoint", "mountPoints", "privileged"}
    | {"resourceRequirements", "volumes"}
)
"""Settings that we give to some tasks only: where one is found and not wanted, it must go."""


def _same(wanted: Any, found: Any) -> bool:
    """Whether a setting is as wanted. What AWS adds by itself does not count; nothing and empty are one."""
    if _is_empty(wanted):
        return _is_empty(found)
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            _same(wanted.get(name), found.get(name)) for name in wanted.keys() | (found.keys() & _OURS)
        )
    if isinstance(wanted, (list, tuple)):
        return _as_long(wanted, found) and all(map(_same, _ordered(wanted), _ordered(found)))
    return bool(_comparable(wanted) == _comparable(found))


def _is_empty(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_empty, value.values()))
    return not value


def _as_long(wanted: Sequence[Any], found: Any) -> bool:
    return isinstance(found, (list, tuple)) and len(found) == len(wanted)


def _ordered(items: Sequence[Any]) -> Sequence[Any]:
    """Things with names in the order of their names: AWS gives them back in any."""
    return sorted(items, key=lambda each: str(each["name"])) if _named(items) else items


def _named(items: Any) -> bool:
    """Whether these are things that each have a name."""
    listed = isinstance(items, (list, tuple)) and bool(items)
    return listed and all(isinstance(each, Mapping) and "name" in each for each in items)


def _comparable(value: Any) -> Any:
    """A text or number for comparing: SQS has numbers as texts, and JSON in whatever order."""
    text = str(value)
    if not text.startswith("{"):
        return text
    try:
        return {key: str(item) for key, item in json.loads(text).items()}
    except ValueError:
        return text
