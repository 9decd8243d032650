"""Describes resources as values, and compares what is wanted with what is there. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple


class Kind(StrEnum):
    """A kind of resource; the value is the word for it on the screen."""

    QUEUE = "queue"
    CLUSTER = "cluster"
    LOG_GROUP = "log group"
    TASK_DEFINITION = "task definition"
    SERVICE = "service"


class Resource(NamedTuple):
    """One resource, as wanted or as found.

    `settings` are fields of AWS's request and description; a wanted resource has those that matter, a found
    one may have more. `initial` is used only to make it. A `shared` resource may serve others too: it is made
    if it is missing, and never changed, its tags included.
    """

    kind: Kind
    name: str
    settings: Mapping[str, Any] = {}
    initial: Mapping[str, Any] = {}
    tags: Mapping[str, str] = {}
    shared: bool = False


class Action(StrEnum):
    """What a step does; the value is the word for it on the screen."""

    CREATE = "create"
    UPDATE = "update"
    NOTHING = "keep"


class Change(NamedTuple):
    """A setting that differs, as it is and as it should be."""

    name: str
    before: object = None
    after: object = None

    @property
    def text(self) -> str:
        """For the user; values are shown if both are short."""
        words = [str(each) if each or each == 0 else "none" for each in (self.before, self.after)]
        plain = not any(isinstance(each, Mapping | list | tuple) for each in (self.before, self.after))
        told = plain and words[0] != words[1] and max(map(len, words)) <= _LONGEST_WORD
        return f"{self.name} {words[0]} → {words[1]}" if told else self.name


_LONGEST_WORD = 60


class Step(NamedTuple):
    """One step of a plan: the wanted resource, and the settings in which the existing one differs."""

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
    """Plans the steps from found to wanted resources: a step for each, in the given order.

    Names match exactly. Other found resources are left alone. A found service that runs the newest revision
    has the bare family as its `taskDefinition`; it is updated if a newer revision is to be made.
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
    """Finds the differences of two settings, as deep as both have names; never values of variables."""
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
"""Settings that only some tasks have: one that is found and not wanted must be removed."""


def _same(wanted: Any, found: Any) -> bool:
    """Whether a setting is as wanted. AWS's own additions are ignored; missing and empty are equal."""
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
    """Sorts things with names: AWS returns them in any order."""
    return sorted(items, key=lambda each: str(each["name"])) if _named(items) else items


def _named(items: Any) -> bool:
    """Whether these are things that each have a name."""
    listed = isinstance(items, (list, tuple)) and bool(items)
    return listed and all(isinstance(each, Mapping) and "name" in each for each in items)


def _comparable(value: Any) -> Any:
    """A value for comparing: SQS returns numbers as texts, and JSON in any order."""
    text = str(value)
    if not text.startswith("{"):
        return text
    try:
        return {key: str(item) for key, item in json.loads(text).items()}
    except ValueError:
        return text
