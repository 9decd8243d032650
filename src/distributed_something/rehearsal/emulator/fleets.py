"""EC2's fleets, of both kinds, in place of moto's: those fill at once, keep no history and replace nothing.

Spot prices are what the project says, and not moto's thousandth of a cent.

The answers to the calls are here; what fleets do meanwhile is `cloud`'s.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.fleets import Fleets
from moto.ec2.responses.spot_fleets import SpotFleets
from moto.ec2.responses.spot_instances import SpotInstances

from .fleet_plan import State, Terms, Way

SPOT_WORDS = {
    State.ACTIVE: "active",
    State.ENDING: "cancelled_terminating",
    State.LEFT: "cancelled_running",
    State.OVER: "cancelled",
}
EC2_WORDS = {
    State.ACTIVE: "active",
    State.ENDING: "deleted_terminating",
    State.LEFT: "deleted_running",
    State.OVER: "deleted",
}
EC2_KINDS = {
    "fleetRequestChange": "fleet-change",
    "instanceChange": "instance-change",
    "error": "service-error",
    "information": "service-error",
}
_TOKEN_LIMIT = 64
PLACEMENT_SCORE = 9
"""Of 10: a rehearsal has the machines unless its faults say otherwise."""


@dataclass
class Fleet:
    """A fleet: what was asked for, and how it stands. `spot` tells the two kinds apart."""

    id: str
    spot: bool
    request: dict[str, Any]
    ways: tuple[Way, ...]
    terms: Terms
    made: float
    state: State = State.ACTIVE
    fulfilled: float = 0.0
    started: int = 0
    short: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def word(self) -> str:
        """The state, as AWS has it."""
        return (SPOT_WORDS if self.spot else EC2_WORDS)[self.state]

    @property
    def activity(self) -> str:
        """How far it is from what was asked for."""
        if self.state is State.ENDING:
            return "pending_termination"
        if self.fulfilled >= self.terms.target:
            return "fulfilled"
        return "error" if self.short else "pending_fulfillment"

    def tell(self, kind: str, what: str, text: str = "", instance: str = "") -> None:
        """Add to the history, of a kind in the words of spot fleets; what repeats the latest is left out."""
        facts = {"EventSubType": what, "EventDescription": text}
        facts |= {"InstanceId": instance} if instance else {}
        if not any(each["EventInformation"] == facts for each in self.history[-3:]):
            now = datetime.now(UTC)
            kind = kind if self.spot else EC2_KINDS[kind]
            self.history.append({"EventType": kind, "Timestamp": now, "EventInformation": facts})


class Registry:
    """The fleets of the account, by id. Calls must come one at a time.

    `price` is that of each spot machine, in dollars an hour; None: no price is known.
    """

    def __init__(self, now: Callable[[], float], price: float | None = None) -> None:
        self.fleets: dict[str, Fleet] = {}
        self.now = now
        self.price = price
        self._tokens: dict[tuple[bool, str], str] = {}

    def add(self, spot: bool, request: dict[str, Any], ways: tuple[Way, ...], terms: Terms) -> Fleet:
        """Returns a new fleet, or the one that the same token has made before."""
        token = str(request.get("ClientToken") or uuid.uuid4())
        if len(token) > _TOKEN_LIMIT:
            raise EC2ClientError("InvalidParameterValue", f"ClientToken is longer than {_TOKEN_LIMIT}")
        if (spot, token) in self._tokens:
            return self.fleets[self._tokens[spot, token]]
        mark = str(uuid.uuid4())
        fleet = Fleet(("sfr-" if spot else "fleet-") + mark, spot, request, ways, terms, self.now())
        fleet.tell("fleetRequestChange", "submitted")
        fleet.tell("fleetRequestChange", "active")
        self.fleets[fleet.id] = fleet
        self._tokens[spot, token] = fleet.id
        return fleet

    def find(self, fleet_id: str, *, spot: bool) -> Fleet:
        """Raises EC2's own error where there is none of this kind with the id."""
        fleet = self.fleets.get(fleet_id)
        if fleet is None or fleet.spot is not spot:
            code = "InvalidSpotFleetRequestId.NotFound" if spot else "InvalidFleetId.NotFound"
            raise EC2ClientError(code, f"The fleet ID '{fleet_id}' does not exist")
        return fleet

    def of_kind(self, ids: list[str], *, spot: bool) -> list[Fleet]:
        """Returns these, or all of the kind."""
        if ids:
            return [self.find(each, spot=spot) for each in ids]
        return [each for each in self.fleets.values() if each.spot is spot]


def install(registry: Registry, active: Callable[[Fleet], list[Any]]) -> None:
    """Answer the calls about fleets from `registry`; `active` tells a fleet's machines (moto's instances)."""
    _Calls.registry, _Calls.active = registry, staticmethod(active)
    for owner, calls in ((SpotFleets, _SpotCalls), (Fleets, _Ec2Calls), (SpotInstances, _PriceCalls)):
        for name, call in vars(calls).items():
            if not name.startswith("_"):
                setattr(owner, name, call)


class _Calls:
    """What both kinds share. The methods below are given to moto's classes: `self` is one of those."""

    registry: Registry
    active: Callable[[Fleet], list[Any]]


def _machines(fleet: Fleet, **more: str) -> list[dict[str, Any]]:
    return [
        {"InstanceId": each.id, "InstanceType": each.instance_type, "InstanceHealth": "healthy", **more}
        for each in _Calls.active(fleet)
    ]


class _PriceCalls:
    def describe_spot_price_history(self: Any) -> ActionResult:
        price = _Calls.registry.price
        types, filters = self._get_param("InstanceTypes", []), self._filters_from_querystring()
        offered = self.ec2_backend.describe_spot_price_history(types, filters) if price is not None else ()
        facts = {"SpotPrice": str(price), "ProductDescription": "Linux/UNIX", "Timestamp": datetime.now(UTC)}
        history = [
            {"InstanceType": each["InstanceType"], "AvailabilityZone": each["Location"], **facts}
            for each in offered
        ]
        return ActionResult({"SpotPriceHistory": history})

    def get_spot_placement_scores(self: Any) -> ActionResult:
        return ActionResult({"SpotPlacementScores": [{"Region": self.region, "Score": PLACEMENT_SCORE}]})


class _SpotCalls:
    def request_spot_fleet(self: Any) -> ActionResult:
        request = dict(self._get_param("SpotFleetRequestConfig", {}))
        _needed(request, "TargetCapacity", "IamFleetRole")
        ways = tuple(
            Way(each, float(each.get("WeightedCapacity") or 1)) for each in request["LaunchSpecifications"]
        )
        terms = Terms(
            float(request["TargetCapacity"]),
            replaces=request.get("Type", "maintain") == "maintain",
            shrinks=str(request.get("ExcessCapacityTerminationPolicy", "default")).lower() == "default",
            ends=_true(request.get("TerminateInstancesWithExpiration", False)),
            valid_until=_time(request.get("ValidUntil")),
        )
        _check_valid(terms, _Calls.registry.now())
        fleet = _Calls.registry.add(True, request, ways, terms)
        _tag(self, fleet, request.get("TagSpecifications"), "spot-fleet-request")
        return ActionResult({"SpotFleetRequestId": fleet.id})

    def describe_spot_fleet_requests(self: Any) -> ActionResult:
        found = _Calls.registry.of_kind(self._get_param("SpotFleetRequestIds", []), spot=True)
        return ActionResult({"SpotFleetRequestConfigs": [_spot_facts(self, each) for each in found]})

    def describe_spot_fleet_instances(self: Any) -> ActionResult:
        fleet = _Calls.registry.find(self._get_param("SpotFleetRequestId"), spot=True)
        return ActionResult({"SpotFleetRequestId": fleet.id, "ActiveInstances": _machines(fleet)})

    def describe_spot_fleet_request_history(self: Any) -> ActionResult:
        fleet = _Calls.registry.find(self._get_param("SpotFleetRequestId"), spot=True)
        return _history(self, fleet, "SpotFleetRequestId")

    def modify_spot_fleet_request(self: Any) -> ActionResult:
        fleet = _Calls.registry.find(self._get_param("SpotFleetRequestId"), spot=True)
        _retarget(
            fleet, self._get_param("TargetCapacity"), self._get_param("ExcessCapacityTerminationPolicy")
        )
        return ActionResult({"Return": True})

    def cancel_spot_fleet_requests(self: Any) -> ActionResult:
        ids, ends = self._get_param("SpotFleetRequestIds", []), self._get_bool_param("TerminateInstances")
        good, bad = _end_all(ids, ends, spot=True)
        done = [
            {
                "SpotFleetRequestId": fleet.id,
                "CurrentSpotFleetRequestState": fleet.word,
                "PreviousSpotFleetRequestState": before,
            }
            for fleet, before in good
        ]
        wrong = [
            {
                "SpotFleetRequestId": fleet_id,
                "Error": {"Code": "fleetRequestIdDoesNotExist", "Message": "does not exist"},
            }
            for fleet_id in bad
        ]
        return ActionResult({"SuccessfulFleetRequests": done, "UnsuccessfulFleetRequests": wrong})


class _Ec2Calls:
    def create_fleet(self: Any) -> ActionResult:
        request = {key: self._get_param(key) for key in _CREATE if self._get_param(key) is not None}
        kind = request.get("Type", "maintain")
        if kind == "instant":
            raise EC2ClientError("UnsupportedOperation", "The rehearsal has no fleets of type instant.")
        capacity = request["TargetCapacitySpecification"]
        terms = Terms(
            float(capacity["TotalTargetCapacity"]),
            replaces=kind == "maintain",
            shrinks=request.get("ExcessCapacityTerminationPolicy", "termination") == "termination",
            ends=_true(request.get("TerminateInstancesWithExpiration", False)),
            valid_until=_time(request.get("ValidUntil")),
            on_demand=float(capacity.get("OnDemandTargetCapacity") or 0),
        )
        _check_valid(terms, _Calls.registry.now())
        ways = tuple(_ways(self, request))
        fleet = _Calls.registry.add(False, request, ways, terms)
        _tag(self, fleet, request.get("TagSpecifications"), "fleet")
        return ActionResult({"FleetId": fleet.id})

    def describe_fleets(self: Any) -> ActionResult:
        found = _Calls.registry.of_kind(self._get_param("FleetIds", []), spot=False)
        wanted = {each["Name"]: each.get("Values", ()) for each in self._get_param("Filters", [])}
        facts = [
            _ec2_facts(self, each)
            for each in found
            if each.word in wanted.get("fleet-state", [each.word])
            and each.activity in wanted.get("activity-status", [each.activity])
        ]
        return ActionResult({"Fleets": facts})

    def describe_fleet_instances(self: Any) -> ActionResult:
        fleet = _Calls.registry.find(self._get_param("FleetId"), spot=False)
        return ActionResult({"FleetId": fleet.id, "ActiveInstances": _machines(fleet)})

    def describe_fleet_history(self: Any) -> ActionResult:
        return _history(self, _Calls.registry.find(self._get_param("FleetId"), spot=False), "FleetId")

    def modify_fleet(self: Any) -> ActionResult:
        fleet = _Calls.registry.find(self._get_param("FleetId"), spot=False)
        capacity = self._get_param("TargetCapacitySpecification", {})
        policy = self._get_param("ExcessCapacityTerminationPolicy")
        _retarget(fleet, capacity.get("TotalTargetCapacity"), policy)
        if (on_demand := capacity.get("OnDemandTargetCapacity")) is not None:
            fleet.terms = fleet.terms._replace(on_demand=float(on_demand))
        return ActionResult({"Return": True})

    def delete_fleets(self: Any) -> ActionResult:
        ids, ends = self._get_param("FleetIds", []), self._get_bool_param("TerminateInstances")
        good, bad = _end_all(ids, ends, spot=False)
        done = [
            {"FleetId": fleet.id, "CurrentFleetState": fleet.word, "PreviousFleetState": before}
            for fleet, before in good
        ]
        wrong = [
            {"FleetId": fleet_id, "Error": {"Code": "fleetIdDoesNotExist", "Message": "does not exist"}}
            for fleet_id in bad
        ]
        return ActionResult({"SuccessfulFleetDeletions": done, "UnsuccessfulFleetDeletions": wrong})


_CREATE = (
    "ClientToken", "ExcessCapacityTerminationPolicy", "LaunchTemplateConfigs", "ReplaceUnhealthyInstances",
    "SpotOptions", "OnDemandOptions", "TagSpecifications", "TargetCapacitySpecification",
    "TerminateInstancesWithExpiration", "Type", "ValidFrom", "ValidUntil",
)  # fmt: skip


def _ways(call: Any, request: Mapping[str, Any]) -> list[Way]:
    """Returns each override over its launch template's data, of the version that is named."""
    found: list[Way] = []
    for config in request["LaunchTemplateConfigs"]:
        specification = config["LaunchTemplateSpecification"]
        data = call.ec2_backend._get_template_from_args(specification).data
        found += [
            Way({**data, **override}, float(override.get("WeightedCapacity") or 1))
            for override in config.get("Overrides") or [{}]
        ]
    return found


def _end_all(ids: list[str], ends: bool, *, spot: bool) -> tuple[list[tuple[Fleet, str]], list[str]]:
    good, bad = [], []
    for fleet_id in ids:
        try:
            fleet = _Calls.registry.find(fleet_id, spot=spot)
        except EC2ClientError:
            bad.append(fleet_id)
            continue
        before = fleet.word
        if fleet.state is State.ACTIVE or (ends and fleet.state is State.LEFT):
            fleet.state = State.ENDING if ends else State.LEFT
            fleet.tell("fleetRequestChange", fleet.word)
        good.append((fleet, before))
    return good, bad


def _retarget(fleet: Fleet, target: Any, policy: str | None) -> None:
    if fleet.state is not State.ACTIVE:
        code = "InvalidSpotFleetRequestConfig" if fleet.spot else "InvalidParameterValue"
        raise EC2ClientError(code, f"The fleet {fleet.id} is in state {fleet.word}, and cannot be modified")
    if policy is not None:
        fleet.terms = fleet.terms._replace(shrinks=policy.lower() in ("default", "termination"))
    if target is not None:
        fleet.terms = fleet.terms._replace(target=float(target))
        fleet.tell(
            "fleetRequestChange", "modify_in_progress", f"Target capacity is {int(fleet.terms.target)}"
        )


def _spot_facts(call: Any, fleet: Fleet) -> dict[str, Any]:
    config = {**fleet.request, **_times(fleet)}
    config |= {"TargetCapacity": int(fleet.terms.target), "FulfilledCapacity": fleet.fulfilled}
    return {
        "SpotFleetRequestId": fleet.id,
        "SpotFleetRequestState": fleet.word,
        "ActivityStatus": fleet.activity,
        "CreateTime": datetime.fromtimestamp(fleet.made, UTC),
        "SpotFleetRequestConfig": config,
        "Tags": _tags_of(call, fleet),
    }


def _ec2_facts(call: Any, fleet: Fleet) -> dict[str, Any]:
    capacity = {
        **fleet.request["TargetCapacitySpecification"],
        "TotalTargetCapacity": int(fleet.terms.target),
        "OnDemandTargetCapacity": int(fleet.terms.on_demand),
    }
    policy = "termination" if fleet.terms.shrinks else "no-termination"
    return {
        **{name: value for name, value in fleet.request.items() if name != "TagSpecifications"},
        **_times(fleet),
        "FleetId": fleet.id,
        "FleetState": fleet.word,
        "ActivityStatus": fleet.activity,
        "CreateTime": datetime.fromtimestamp(fleet.made, UTC),
        "ExcessCapacityTerminationPolicy": policy,
        "FulfilledCapacity": fleet.fulfilled,
        "FulfilledOnDemandCapacity": 0.0,
        "TargetCapacitySpecification": capacity,
        "Tags": _tags_of(call, fleet),
    }


def _times(fleet: Fleet) -> dict[str, Any]:
    until = fleet.terms.valid_until
    return {} if math.isinf(until) else {"ValidUntil": datetime.fromtimestamp(until, UTC)}


def _history(call: Any, fleet: Fleet, name: str) -> ActionResult:
    wanted = call._get_param("EventType")
    since = _time(call._get_param("StartTime"), -math.inf)
    records = [
        each
        for each in fleet.history
        if wanted in (None, each["EventType"]) and each["Timestamp"].timestamp() >= since
    ]
    now = datetime.now(UTC)
    return ActionResult(
        {name: fleet.id, "HistoryRecords": records, "StartTime": now, "LastEvaluatedTime": now}
    )


def _tag(call: Any, fleet: Fleet, specifications: Any, resource: str) -> None:
    for each in specifications or ():
        if each.get("ResourceType") == resource:
            tags = {tag["Key"]: tag.get("Value", "") for tag in each.get("Tags", ())}
            call.ec2_backend.create_tags([fleet.id], tags)


def _tags_of(call: Any, fleet: Fleet) -> list[dict[str, str]]:
    tags = call.ec2_backend.tags[fleet.id]
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _needed(request: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if request.get(name) in (None, ""):
            message = f"The request must contain the parameter SpotFleetRequestConfig.{name}"
            raise EC2ClientError("MissingParameter", message)


def _check_valid(terms: Terms, now: float) -> None:
    if terms.valid_until <= now:
        raise EC2ClientError("InvalidParameterValue", "The ValidUntil must be in the future.")


def _true(value: Any) -> bool:
    return str(value).lower() == "true"


def _time(value: Any, missing: float = math.inf) -> float:
    """Unix seconds of a time as a call has it."""
    if value is None:
        return missing
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return datetime.fromisoformat(str(value)).timestamp()
