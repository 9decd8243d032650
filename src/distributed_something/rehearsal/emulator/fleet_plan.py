"""What a pretend fleet does next: how many machines it starts or ends, and which state it is in. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple


class State(StrEnum):
    """A fleet's state; `ENDING` ends its machines, `LEFT` leaves them running, and `OVER` has none."""

    ACTIVE = "active"
    ENDING = "ending"
    LEFT = "left"
    OVER = "over"


class Way(NamedTuple):
    """One way to start a machine: a launch specification as EC2 has it, and how much capacity it brings."""

    launch: Mapping[str, Any]
    weight: float = 1.0


class Terms(NamedTuple):
    """What a fleet was asked for. `target` is in units of capacity, `valid_until` Unix seconds.

    `replaces` lost machines, `shrinks` to a lower target, and `ends` its machines when its time is over.
    """

    target: float
    replaces: bool = True
    shrinks: bool = True
    ends: bool = True
    valid_until: float = math.inf
    on_demand: float = 0.0
    """Of the target, what is no spot capacity."""


class Held(NamedTuple):
    """A machine that a fleet has, and its capacity."""

    id: str
    weight: float = 1.0


class Plan(NamedTuple):
    """What a fleet does now: its state from here on, how many machines it starts, and which it ends."""

    state: State
    launch: int = 0
    end: tuple[str, ...] = ()


def plan(
    state: State, terms: Terms, held: Sequence[Held], *, now: float, started: int, weight: float
) -> Plan:
    """Returns what a fleet does `now` (Unix seconds).

    `held` are its machines, the oldest first; `started` is how many it ever started, and `weight` the
    capacity of the next one.
    """
    if state is State.ACTIVE and now >= terms.valid_until:
        state = State.ENDING if terms.ends else State.LEFT
    if state is State.ACTIVE:
        return _to_target(terms, held, started, weight)
    if not held:
        return Plan(State.OVER)
    return Plan(state, end=tuple(each.id for each in held) if state is State.ENDING else ())


def _to_target(terms: Terms, held: Sequence[Held], started: int, weight: float) -> Plan:
    have = sum(each.weight for each in held)
    if have < terms.target:
        launch = math.ceil((terms.target - have) / weight)
        if not terms.replaces:
            launch = min(launch, max(math.ceil(terms.target / weight) - started, 0))
        return Plan(State.ACTIVE, launch=launch)
    ended: list[str] = []
    for each in reversed(held) if terms.shrinks else ():
        if have - each.weight < terms.target:
            break
        have -= each.weight
        ended.append(each.id)
    return Plan(State.ACTIVE, end=tuple(ended))
