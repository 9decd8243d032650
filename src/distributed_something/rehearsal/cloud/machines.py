"""A machine of the pretend account: what it learns from its user data, and how it joins its cluster."""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ecs.models import ContainerInstance

from ..emulator.ecs import Ecs
from ..emulator.fleets import Fleet
from ..faults import Fate
from .placing import Host, Need
from .task import Task

_SETTING = re.compile(r"^\s*([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)


class Agent(NamedTuple):
    """What user data tell the machine's ECS agent."""

    cluster: str = "default"
    attributes: Mapping[str, str] = {}
    drains: bool = False
    stop_seconds: float = 30.0


def read_user_data(encoded: object) -> Agent:
    """Returns the agent's settings, as the start script writes them. `encoded`: EC2's user data."""
    try:
        text = b64decode(str(encoded or "")).decode(errors="replace")
    except ValueError:
        return Agent()
    found = {name: value.strip().strip("'\"") for name, value in _SETTING.findall(text)}
    raw = dict(_SETTING.findall(text)).get("ECS_INSTANCE_ATTRIBUTES", "{}")
    try:
        attributes = json.loads(raw.strip().strip("'"))
    except ValueError:
        attributes = {}
    return Agent(
        found.get("ECS_CLUSTER") or "default",
        {str(name): str(value) for name, value in attributes.items()},
        found.get("ECS_ENABLE_SPOT_INSTANCE_DRAINING", "").lower() == "true",
        _seconds(found.get("ECS_CONTAINER_STOP_TIMEOUT", "")),
    )


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9.]+)(s|m)", text)
    return 30.0 if match is None else float(match[1]) * (60 if match[2] == "m" else 1)


def size_of(machine_type: str) -> Need:
    """Returns what a machine of this type has for tasks: the kernel and the agent keep some of the memory."""
    facts = INSTANCE_TYPES[machine_type]
    memory = int(facts["MemoryInfo"]["SizeInMiB"])
    return Need(int(facts["VCpuInfo"]["DefaultVCpus"]) * 1024, memory - 160 - memory // 24)


@dataclass
class Running:
    """A task on a machine: ECS's own record of it, its process, and what it needs."""

    record: Any
    service: str
    process: Task
    need: Need
    since: float
    stop_seconds: float


@dataclass
class Machine:
    """A machine, from its start to its end. Times are Unix seconds; math.inf is not planned.

    `ends` is when EC2 takes it back; `why` it ended is known from then on.
    """

    instance: Any
    fleet: Fleet
    weight: float
    number: int
    started: float
    boots: float
    fate: Fate
    agent: Agent
    spot: bool = True
    container: ContainerInstance | None = None
    noticed: float = math.inf
    ends: float = math.inf
    ended: float | None = None
    why: str = ""
    tasks: dict[str, Running] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The instance's id."""
        return str(self.instance.id)

    @property
    def alive(self) -> bool:
        """Whether EC2 has it."""
        return self.ended is None

    def boot(self) -> None:
        """It runs from now on."""
        self.instance._state.name, self.instance._state.code = "running", 16

    def join(self, ecs: Ecs) -> None:
        """Become a container instance, as soon as the cluster is there; a machine without a role cannot."""
        cluster = ecs.clusters.get(self.agent.cluster)
        if cluster is None or cluster.status != "ACTIVE" or not self.instance.iam_instance_profile:
            return
        self.container = ecs.register_container_instance(cluster.name, self.id)
        self.container.attributes |= self.agent.attributes
        self.container.version_info = {"agentVersion": "1.99.0", "dockerVersion": "DockerVersion: 25.0.8"}
        self.tell()

    def leave(self, ecs: Ecs) -> None:
        """Vanish from the cluster with the machine."""
        if self.container is not None:
            ecs.container_instances.get(self.agent.cluster, {}).pop(self.container.id, None)
            self.container = None

    def host(self) -> Host | None:
        """Returns what the scheduler sees of it."""
        if self.container is None or not self.alive:
            return None
        total = size_of(self.instance.instance_type)
        return Host(
            self.container.id,
            total.cpu - sum(each.need.cpu for each in self.tasks.values()),
            total.memory - sum(each.need.memory for each in self.tasks.values()),
            self.container.attributes,
            self.container.status == "ACTIVE",
        )

    def tell(self) -> None:
        """Have ECS show what is on the machine, and what is free."""
        host = self.host()
        if host is None or self.container is None:
            return
        total = size_of(self.instance.instance_type)
        self.container.registered_resources = _resources(total)
        self.container.remaining_resources = _resources(Need(host.cpu, host.memory))
        self.container.running_tasks_count = len(self.tasks)
        self.container.pending_tasks_count = 0
        vars(self.container).update(agent_connected=self.alive)


def _resources(need: Need) -> list[dict[str, Any]]:
    def number(name: str, value: int) -> dict[str, Any]:
        return {"name": name, "type": "INTEGER", "doubleValue": 0.0, "longValue": 0, "integerValue": value}

    def ports(name: str, taken: list[str]) -> dict[str, Any]:
        facts: dict[str, Any] = {"doubleValue": 0.0, "longValue": 0, "integerValue": 0}
        return facts | {"name": name, "type": "STRINGSET", "stringSetValue": taken}

    taken = ["22", "2375", "2376", "51678", "51679"]
    return [
        number("CPU", need.cpu),
        number("MEMORY", need.memory),
        ports("PORTS", taken),
        ports("PORTS_UDP", []),
    ]
