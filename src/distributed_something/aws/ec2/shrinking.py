"""Decides which fleets get a smaller target, and which machines may end. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from .fleets import Fleet, Machine

_INSTANCE = re.compile(r"i-[0-9a-f]{8,17}")


def spread(fleets: Sequence[Fleet], target: int) -> Iterator[tuple[Fleet, int]]:
    """Splits `target` among fleets; the newest gives up first. Yields (fleet, new target) of changes."""
    left = sum(fleet.target for fleet in fleets) - target
    for fleet in reversed(fleets):
        less = min(max(left, 0), fleet.target)
        if less:
            yield fleet, fleet.target - less
        left -= less


def instances(names: Collection[str]) -> set[str]:
    """The ids of instances in the names of machines and workers."""
    return {each for name in names for each in _INSTANCE.findall(name)}


def located(names: Collection[str], hosts: Mapping[str, str]) -> set[str]:
    """Adds its machine to each name, if `hosts` (name to instance) has it."""
    return {name if instances([name]) else f"{name} {_host(name, hosts)}" for name in names}


def _host(name: str, hosts: Mapping[str, str]) -> str:
    return next((machine for host, machine in hosts.items() if host in name), "")


def idle(machines: Sequence[Machine], busy: Collection[str]) -> list[str]:
    """Running machines without a busy worker.

    A worker whose machine is unknown may be on any of them: then the list is empty.
    """
    if any(not _INSTANCE.search(name) for name in busy):
        return []
    held = instances(busy)
    return [machine.id for machine in machines if machine.running and machine.id not in held]
