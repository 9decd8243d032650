"""Says what a job needs of its machine: by its keys `_cpus`, `_memory`, `_gpus` and `_timeout`, or RESOURCES.

RESOURCES computes each from the job's keys and the size of its inputs; a key of the job goes before it. Pure.
`keys` checks the config by it, `fit` each job; `ds submit` and workers ask for the values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import UsageError
from ..job import Needs
from ..words import nearest, none_of
from .literal import Formula, number_of, short

NAMES: Mapping[str, int] = {"cpus": 1, "memory": 0, "gpus": 0, "timeout": 0}
"""What a job may need, and the least of it: processors, MB, GPUs, seconds (0: no limit)."""

PACKED = frozenset({"cpus", "memory", "gpus"})
"""Of these a machine has so much: they say how many jobs run at a time."""

KEYS = frozenset(f"_{name}" for name in NAMES)  # the keys of a job that say what it needs
SIZE = "size_mb"  # in RESOURCES: the size of a job's inputs, in MB (of 1,048,576 bytes, as MEMORY)


def check_resources(given: Mapping[str, str]) -> None:
    """Raises ValueError if RESOURCES has another name, or no formula."""
    for name, text in given.items():
        if name not in NAMES:
            raise ValueError(none_of(name, list(NAMES)))
        try:
            Formula(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


class Resources:
    """What jobs need, by their keys and the formulas of RESOURCES."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._formulas = {name: Formula(text) for name, text in given.items()}
        self.names = frozenset(each for formula in self._formulas.values() for each in formula.names)
        """The names in braces."""

    def said(self, keys: Mapping[str, Any], size: int) -> dict[str, float]:
        """Returns what a job says of its needs, with inputs of `size` bytes. Raises UsageError."""
        values = ((name, self.value(name, keys, size)) for name in NAMES)
        return {name: value for name, value in values if value is not None}

    def may_say(self, body: bytes) -> bool:
        """Whether a job with this body may say what it needs; quick."""
        return b'"_' in body or (bool(self._formulas) and bool(body))

    def needs(self, keys: Mapping[str, Any], size: int, default: Needs) -> Needs | None:
        """Returns the room that a job needs; None: it says nothing. Raises UsageError."""
        said = {name: int(value) for name, value in self.said(keys, size).items() if name in PACKED}
        return default._replace(**said) if said else None

    @property
    def sized(self) -> bool:
        """Whether the size of inputs says how much room a job needs."""
        return any(SIZE in self._names_of(name) for name in PACKED)

    @property
    def packs(self) -> bool:
        """Whether a formula says how much room a job needs."""
        return not PACKED.isdisjoint(self._formulas)

    def value(self, name: str, keys: Mapping[str, Any], size: int) -> float | None:
        """Returns how much a job needs with inputs of `size` bytes; None: not said. Raises UsageError."""
        key = f"_{name}"
        if key in keys:
            return _checked(key, keys[key], NAMES[name], "write a number")
        if name not in self._formulas:
            return None
        formula, where = self._formulas[name], f"RESOURCES: {name}"
        try:
            found = formula({**keys, SIZE: size / 2**20})
        except ValueError as error:
            raise UsageError(f"{where}: {error}", "correct the formula, or give the job that key") from error
        return _checked(where, found, NAMES[name], "min and max keep a formula in its bounds")

    def check_names(self, names: Iterable[str]) -> None:
        """Raises UsageError if a formula names no key of the job, or a key is a slip of one of ours."""
        known = {*names, SIZE}
        for name in sorted(self.names - known):
            raise UsageError(f"RESOURCES: {none_of(f'{{{name}}}', sorted(known))}", "name a key of the job")
        for name in sorted(known - KEYS):
            if name.startswith("_") and (near := nearest(name, KEYS, 0.75)):
                fix = f"write {near}, or begin another key's name with a letter"
                raise UsageError(f"{name} is no key of ours: did you mean {near}?", fix)

    def check(self, keys: Mapping[str, Any]) -> None:
        """Raises UsageError for a job whose needs are no numbers, or too small, as far as no size counts."""
        for name in NAMES:
            if f"_{name}" in keys or SIZE not in self._names_of(name):
                self.value(name, keys, 0)

    def _names_of(self, name: str) -> Iterable[str]:
        return self._formulas[name].names if name in self._formulas else ()


def _checked(where: str, value: Any, least: int, fix: str) -> float:
    number = number_of(value)
    if not isinstance(number, (int, float)) or isinstance(number, bool) or not math.isfinite(number):
        raise UsageError(f"{where}: {short(value)} is not a number", fix)
    if not least <= number <= 10**12:
        raise UsageError(f"{where}: {number:g} is not between {least} and 10^12", fix)
    return number if where.endswith("timeout") else math.ceil(number)
