"""Slurm's words in ours: why sbatch refuses, why a pilot waits, and what to do about it. Pure."""

from __future__ import annotations

import re

from ..explain import Waiting
from ..pilots import ENDED

_REFUSALS: tuple[tuple[str, str, str], ...] = (
    ("invalid partition", "there is no such partition", "SLURM_PARTITION: choose one that `sinfo` lists"),
    (
        "invalid account",
        "the account, or the partition for it, is not yours",
        "SLURM_ACCOUNT: choose one that `sacctmgr show assoc user=$USER` lists",
    ),
    (
        "invalid qos",
        "there is no such QOS for your account",
        "SLURM_QOS: choose one that `sacctmgr show assoc user=$USER format=qos` lists",
    ),
    (
        "invalid feature|invalid constraint",
        "no node has that feature",
        "SLURM_CONSTRAINT: choose from those that `sinfo -o '%f'` lists",
    ),
    (
        "memory specification|memory required",
        "no node of the partition has so much memory",
        "lower MEMORY, or choose another SLURM_PARTITION (`sinfo -o '%P %m'`)",
    ),
    (
        "generic resource",
        "no node has that kind of resource",
        "SLURM_GRES: choose from those that `sinfo -o '%G'` lists",
    ),
    (
        "node configuration is not available|more processors requested|cpu count",
        "no node of the partition can hold such a pilot",
        "lower DOCKER_CORES or MEMORY, or change SLURM_GRES or SLURM_PARTITION (`sinfo -o '%P %c %m %G'`)",
    ),
    (
        "invalid job array",
        "the cluster allows smaller arrays only",
        "lower CLUSTER_MACHINES below MaxArraySize (`scontrol show config`)",
    ),
    (
        "MaxSubmitJob|job submit limit|submit limit",
        "it would be more jobs than a limit of your account or QOS allows",
        "lower CLUSTER_MACHINES, or choose another SLURM_QOS (`sacctmgr show qos`)",
    ),
    ("time limit|--time spec", "the time limit is not allowed", "SLURM_TIME: see `sinfo -o '%P %l'`"),
    ("unrecognized option|invalid option", "an option is not known", "correct SLURM_EXTRA (`man sbatch`)"),
    (
        "job violates accounting|accounting/qos policy",
        "a limit of your account or QOS forbids it",
        "ask for less, or choose another SLURM_ACCOUNT or SLURM_QOS (`sacctmgr show qos`)",
    ),
    (
        "maximum number of jobs|resource temporarily unavailable",
        "the controller holds as many jobs as it can",
        "try again later",
    ),
    ("no space left|disk quota", "a disk is full", "make room in the project folder"),
    ("requested operation is presently disabled", "the cluster does not requeue jobs", "ds start goes on"),
)


def refusal(said: str) -> tuple[str, str]:
    """Why a command of Slurm failed, and what to do about it."""
    line = (
        next((line for line in said.splitlines() if "error" in line.lower()), said.splitlines()[0])
        if said
        else ""
    )
    words = re.sub(r"^(\w+: )?(error: )?(Batch job submission failed: )?", "", line.strip())
    for pattern, why, fix in _REFUSALS:
        if re.search(pattern, said, re.IGNORECASE):
            return f"{why} ({words})", fix
    return words or "it said nothing", "see `man sbatch`, or ask the cluster's administrators"


_REASONS: tuple[tuple[str, Waiting], ...] = (
    (
        "PartitionTimeLimit",
        Waiting(
            "SLURM_TIME is above the partition's limit",
            "lower SLURM_TIME (`sinfo -o '%P %l'`), then ds start",
            for_ever=True,
        ),
    ),
    (
        "BadConstraints",
        Waiting(
            "no node is as SLURM_CONSTRAINT wants it",
            "correct SLURM_CONSTRAINT, then ds start",
            for_ever=True,
        ),
    ),
    (
        "MaxWallDuration|MaxWallDurationPerJob|MaxWall",
        Waiting(
            "SLURM_TIME is above the limit of your account or QOS",
            "lower SLURM_TIME, then ds start",
            for_ever=True,
        ),
    ),
    (
        "MaxCpuPerJob|MaxCPUsPerJob|MaxMemoryPerJob|MaxTRESPerJob|MaxNodePerJob",
        Waiting(
            "a pilot is larger than a job of your account or QOS may be",
            "lower DOCKER_CORES or MEMORY, then ds start",
            for_ever=True,
        ),
    ),
    (
        "PartitionConfig|PartitionNodeLimit",
        Waiting(
            "the partition has no node for such a pilot, or not for so much time",
            "lower DOCKER_CORES, MEMORY or SLURM_TIME, then ds start (`sinfo -o '%P %l %c %m'`)",
        ),
    ),
    ("launch failed|JobHoldMaxRequeue", Waiting("a node could not start it", "scontrol release {id}")),
    ("JobHeld", Waiting("held", "scontrol release {id}")),
    (ENDED, Waiting("ended, or coming again")),
    ("BeginTime", Waiting("requeued")),
    ("JobArrayTaskLimit", Waiting("its array has a limit of elements that run at a time")),
    ("QOS|Assoc|Group|MaxJobs", Waiting("a limit of your account or QOS holds it back")),
    (
        "ReqNodeNotAvail|Nodes required for job are DOWN|Reserved for",
        Waiting("nodes that it may use are down, drained or reserved"),
    ),
    ("PartitionDown|PartitionInactive", Waiting("its partition is closed")),
    ("Dependency", Waiting("waiting for another job")),
    ("Licenses", Waiting("waiting for a licence")),
    ("Resources|Priority|None|^$", Waiting("waiting for a turn")),
)


def waiting(reason: str) -> Waiting:
    """What a reason of squeue means."""
    for pattern, found in _REASONS:
        if re.search(pattern, reason):
            return found
    return Waiting(f"Slurm says {reason}")
