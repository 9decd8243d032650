"""Decides how tasks fit on a machine: each task's share of its memory, vCPUs and GPUs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..inputs.config import Config
from ..job import Needs
from ..packing import Capacity
from ..system.hardware import slots_with_gpus

INJECTOR_RESERVED = 16  # memory that ECS reserves for the container that injects our worker, in MiB


class MachineShape(NamedTuple):
    """A machine's vCPUs, memory (MiB) and NVIDIA GPUs, as EC2 describes its type."""

    vcpus: int
    memory_mib: int
    gpus: int = 0

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> MachineShape:
        """Reads a type from the answer of DescribeInstanceTypes."""
        gpus = described.get("GpuInfo", {}).get("Gpus", ())
        return cls(
            described["VCpuInfo"]["DefaultVCpus"],
            described["MemoryInfo"]["SizeInMiB"],
            sum(each.get("Count", 0) for each in gpus if each.get("Manufacturer") == "NVIDIA"),
        )

    @property
    def usable_mib(self) -> int:
        """Memory for tasks in MiB: the kernel, the ECS agent and Docker keep the rest."""
        return max(self.memory_mib - 256 - self.memory_mib // 25, 64)


class TaskSize(NamedTuple):
    """What a task gets: `cpu` in 1/1024 of a core, `memory` in MiB, `slots` for jobs at a time, `gpus`.

    ECS gives a GPU to one task only; the jobs of a task share them, unless GPUS gives each job its own.
    """

    cpu: int
    memory: int
    slots: int
    gpus: int = 0


def smallest(shapes: Iterable[MachineShape]) -> MachineShape:
    """The least of each resource: a task must fit on any of these machines."""
    every = list(shapes)
    return MachineShape(*map(min, zip(*every, strict=True)))


def task_size(config: Config, shape: MachineShape) -> TaskSize:
    """A task's share of a machine; the config's own values have priority."""
    tasks = config.tasks_per_machine
    cpu = config.cpu_shares or max(shape.vcpus * 1024 // tasks, 128)
    memory = config.memory or max((shape.usable_mib - tasks * INJECTOR_RESERVED) // tasks, 64)
    gpus, slots = shape.gpus // tasks, config.docker_cores or max(cpu // 1024, 1)
    slots = slots_with_gpus(slots, config.gpus, gpus, shared=config.gpus_shared)
    return TaskSize(cpu, memory, slots, gpus)


def capacity_of(config: Config, shape: MachineShape) -> Capacity:
    """What a task has for jobs: its slots, its memory and its GPUs."""
    size = task_size(config, shape)
    fix = "lower what the job needs or TASKS_PER_MACHINE, or name a larger MACHINE_TYPE"
    whole, default = Needs(size.slots, size.memory, size.gpus), Needs(gpus=config.gpus)
    return Capacity(whole, default, "a task", fix, config.gpus_shared)


def misfit(config: Config, shape: MachineShape) -> str | None:
    """Why ECS would not place TASKS_PER_MACHINE tasks on such a machine; None: they fit."""
    size, tasks = task_size(config, shape), config.tasks_per_machine
    if not size.slots:
        return f"a task has {size.gpus} GPUs, and a job needs GPUS = {config.gpus}"
    if size.cpu * tasks > shape.vcpus * 1024:
        return (
            f"TASKS_PER_MACHINE x CPU_SHARES is {tasks} x {size.cpu}, and a machine has {shape.vcpus * 1024}"
        )
    wanted = tasks * (size.memory + INJECTOR_RESERVED)
    if wanted > shape.usable_mib:
        return f"TASKS_PER_MACHINE x MEMORY is {tasks} x {size.memory}, and a machine has {shape.usable_mib}"
    return None
