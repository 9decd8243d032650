"""Decides which fleets get a smaller target, which machines end, and how many are on demand. Pure."""

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
    """Running machines without a busy worker, those on demand first, as they cost more.

    A worker whose machine is unknown may be on any of them: then the list is empty.
    """
    if any(not _INSTANCE.search(name) for name in busy):
        return []
    held = instances(busy)
    by_cost = sorted(machines, key=lambda machine: machine.spot)
    return [machine.id for machine in by_cost if machine.running and machine.id not in held]


def instead_of_spot(
    fleets: Sequence[Fleet], machines: Sequence[Machine], now: float, seconds: float
) -> tuple[Fleet, int] | None:
    """Returns a fleet, and how many of its machines to have on demand: none has come for these seconds.

    None: no machine is missing, or all that are missing are asked for on demand already.
    """
    running = [machine for machine in machines if machine.running]
    missing = sum(fleet.target for fleet in fleets) - len(running)
    came = [each.since for each in machines if each.since is not None]
    latest = max([*came, *(now if fleet.made is None else fleet.made for fleet in fleets)], default=now)
    if not fleets or missing <= 0 or now - latest < seconds:
        return None
    fleet = fleets[-1]
    wanted = min(sum(not machine.spot for machine in running) + missing, fleet.target)
    return (fleet, wanted) if wanted > fleet.on_demand else None
