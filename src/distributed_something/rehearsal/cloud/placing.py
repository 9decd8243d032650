"""Which machine a task goes to, and why it goes to none, in the words of ECS. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

_GUIDE = "For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."


class Need(NamedTuple):
    """What a task needs of a machine: `cpu` in 1/1024 of a core, `memory` in MiB."""

    cpu: int
    memory: int


class Host(NamedTuple):
    """A machine in the cluster: what is free on it, and what is known of it."""

    id: str
    cpu: int
    memory: int
    attributes: Mapping[str, str] = {}
    active: bool = True


def need_of(containers: Iterable[Mapping[str, Any]]) -> Need:
    """Returns what a task definition's containers need together: of memory, what is reserved counts."""
    every = list(containers)
    memory = sum(int(each.get("memoryReservation") or each.get("memory") or 0) for each in every)
    return Need(sum(int(each.get("cpu") or 0) for each in every), memory)


def meets(constraints: Iterable[Mapping[str, Any]], host: Host) -> bool:
    """Returns whether a service's constraints allow a machine: `attribute:NAME == VALUE` is known."""
    for constraint in constraints:
        match = re.fullmatch(r"\s*attribute:(\S+)\s*==\s*(\S+)\s*", str(constraint.get("expression", "")))
        if match is None or host.attributes.get(match[1]) != match[2]:
            return False
    return True


def place(
    need: Need, hosts: Sequence[Host], constraints: Sequence[Mapping[str, Any]], strategy: str = "spread"
) -> Host | None:
    """Returns the machine for a task: with "binpack" the fullest that has room, else the emptiest."""
    able = [host for host in hosts if host.active and meets(constraints, host) and _has_room(need, host)]
    if not able:
        return None
    return (min if strategy == "binpack" else max)(able, key=lambda host: (host.memory, host.cpu))


def _has_room(need: Need, host: Host) -> bool:
    return host.cpu >= need.cpu and host.memory >= need.memory


def why_not(service: str, need: Need, hosts: Sequence[Host], constraints: Sequence[Mapping[str, Any]]) -> str:
    """ECS's event for a task that goes nowhere."""
    said = (
        f"(service {service}) was unable to place a task because "
        "no container instance met all of its requirements."
    )
    if not hosts:
        return f"{said} Reason: No Container Instances were found in your cluster. {_GUIDE}"
    allowed = [host for host in hosts if meets(constraints, host)]
    if not allowed:
        unmet = 'encountered error "MemberOf placement constraint unsatisfied."'
        return f"{said} The closest matching (container-instance {hosts[0].id}) {unmet}. {_GUIDE}"
    closest = max(allowed, key=lambda host: (host.active, host.cpu >= need.cpu, host.memory))
    lacks = f"has insufficient {'memory' if closest.cpu >= need.cpu else 'CPU units'} available"
    if not closest.active:
        lacks = "is not in the ACTIVE state"
    return f"{said} The closest matching (container-instance {closest.id}) {lacks}. {_GUIDE}"
