"""Decides how tasks fit on a machine: its memory and processors, and a task's share of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..inputs.config import Config

CARRIER_RESERVED = 16


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


def smallest(shapes: Iterable[MachineShape]) -> MachineShape:
    """What every one of these machines has at least: a task must fit on any of them."""
    every = list(shapes)
    return MachineShape(*map(min, zip(*every, strict=True)))


def task_size(config: Config, shape: MachineShape) -> TaskSize:
    """A task's share of a machine, where the config does not say it itself."""
    tasks = config.tasks_per_machine
    cpu = config.cpu_shares or max(shape.vcpus * 1024 // tasks, 128)
    memory = config.memory or max((shape.usable_mib - tasks * CARRIER_RESERVED) // tasks, 64)
    return TaskSize(cpu, memory, config.docker_cores or max(cpu // 1024, 1), shape.gpus // tasks)


def misfit(config: Config, shape: MachineShape) -> str | None:
    """Why ECS would not place TASKS_PER_MACHINE tasks on such a machine; None where they fit."""
    size, tasks = task_size(config, shape), config.tasks_per_machine
    if size.cpu * tasks > shape.vcpus * 1024:
        return (
            f"TASKS_PER_MACHINE x CPU_SHARES is {tasks} x {size.cpu}, and a machine has {shape.vcpus * 1024}"
        )
    wanted = tasks * (size.memory + CARRIER_RESERVED)
    if wanted > shape.usable_mib:
        return f"TASKS_PER_MACHINE x MEMORY is {tasks} x {size.memory}, and a machine has {shape.usable_mib}"
    return None
