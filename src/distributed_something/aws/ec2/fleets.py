"""Calls EC2 for fleets and their machines: requests, lists, shrinks and ends them. Decides nothing.

There are two kinds: spot fleet requests (of fleet files; ids begin with "sfr-"), and EC2 Fleets ("fleet-").
Their differences are hidden here. Every list is read to its last page.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from ...errors import DsError
from ...s3.session import AwsSession, aws_errors, error_code, error_words, whole_code
from ..names import tags_of
from . import diagnosis

MACHINES_A_CALL = 500
"""Machines that one call terminates. AWS may fail to end fleets of more than a thousand at once."""

MACHINES_A_PAGE = 1000  # largest page of EC2's list of machines

IDS_A_CALL = 100

_ALIVE = frozenset({"submitted", "active", "modifying"})
_GONE = frozenset(
    {
        "InvalidSpotFleetRequestId.NotFound",
        "InvalidSpotFleetRequestId.Malformed",
        "InvalidFleetId.NotFound",
        "NotFound",
        "InvalidFleetId",
        "fleetIdDoesNotExist",
        "fleetRequestIdDoesNotExist",
        "fleetNotInCancellableState",
        "fleetNotInDeletableState",
    }
)


class FleetKind(StrEnum):
    """A kind of fleet; the value is the prefix of its ids."""

    SPOT = "sfr-"
    EC2 = "fleet-"


class Fleet(NamedTuple):
    """A fleet as EC2 describes it. `alive`: it may start machines. Times in Unix seconds."""

    id: str
    alive: bool
    target: int
    state: str = "active"
    made: float | None = None
    valid_until: float | None = None
    tags: Mapping[str, str] = {}
    on_demand: int = 0
    """Machines of the target that are no spot machines."""

    @property
    def run(self) -> str:
        """The run it was made for."""
        return self.tags.get("ds:run", "")


class Machine(NamedTuple):
    """An EC2 instance of a run; `since` and `ended` are its start and end in Unix seconds; None: unknown."""

    id: str
    state: str
    reason: str = ""
    since: float | None = None
    ended: float | None = None
    kind: str = ""
    zone: str = ""
    spot: bool = True

    @property
    def running(self) -> bool:
        """Whether it runs or is starting."""
        return self.state in ("pending", "running")

    @property
    def interrupted(self) -> bool:
        """Whether AWS ended it."""
        return not self.running and self.reason.startswith("Server.")


class Fleets:
    """Verbs on fleets and machines. All may be repeated; missing ones are no error. They raise DsError."""

    def __init__(self, session: AwsSession) -> None:
        self._session = session

    @property
    def _ec2(self) -> Any:
        return self._session.client("ec2")

    # -- Asking

    def ask_spot(self, request: Mapping[str, Any]) -> str:
        """Sends a spot fleet request. Returns its id; the same token again gives the same fleet."""
        with _refusals("RequestSpotFleet"):
            answer = self._ec2.request_spot_fleet(SpotFleetRequestConfig=request)
        return str(answer["SpotFleetRequestId"])

    def ask_fleet(self, request: Mapping[str, Any]) -> str:
        """Makes an EC2 Fleet. Returns its id; the same token again gives the same fleet."""
        with _refusals("CreateFleet"):
            answer = self._ec2.create_fleet(**request)
        if not answer.get("FleetId"):
            raise DsError("asking for machines (CreateFleet): AWS gave no fleet", "try again in a minute")
        return str(answer["FleetId"])

    # -- Looking

    def look(self, ids: Collection[str]) -> list[Fleet]:
        """Describes these fleets, with one call for each kind. Fleets unknown to AWS are left out."""
        spot = [each for each in ids if each.startswith(FleetKind.SPOT)]
        others = [each for each in ids if not each.startswith(FleetKind.SPOT)]
        found = [*self._spot(spot)] if spot else []
        return found + ([*self._others(others)] if others else [])

    def recorded(self, ids: Collection[str], app: str) -> list[Fleet]:
        """Fleets of an app's run record, also untagged ones of the reference; never another app's."""
        return [fleet for fleet in self.look(ids) if fleet.tags.get("ds:app", app) == app]

    def of_app(self, app: str, kinds: Collection[FleetKind] = tuple(FleetKind)) -> list[Fleet]:
        """Every fleet with the app's tag. EC2 has no filter for it, so all fleets are read."""
        looks = {FleetKind.SPOT: self._spot, FleetKind.EC2: self._others}
        every = (fleet for kind in kinds for fleet in looks[kind](()))
        return [fleet for fleet in every if fleet.tags.get("ds:app") == app]

    def _spot(self, ids: Sequence[str]) -> Iterator[Fleet]:
        for page in self._pages("describe_spot_fleet_requests", "SpotFleetRequestIds", ids):
            for each in page["SpotFleetRequestConfigs"]:
                config = each["SpotFleetRequestConfig"]
                state = each.get("SpotFleetRequestState", "active")
                yield Fleet(
                    each["SpotFleetRequestId"],
                    state in _ALIVE,
                    int(config["TargetCapacity"]),
                    state,
                    _seconds(each.get("CreateTime")),
                    _seconds(config.get("ValidUntil")),
                    tags_of(each),
                )

    def _others(self, ids: Sequence[str]) -> Iterator[Fleet]:
        for page in self._pages("describe_fleets", "FleetIds", ids):
            for each in page["Fleets"]:
                state = each.get("FleetState", "active")
                yield Fleet(
                    each["FleetId"],
                    state in _ALIVE,
                    int(each["TargetCapacitySpecification"]["TotalTargetCapacity"]),
                    state,
                    _seconds(each.get("CreateTime")),
                    _seconds(each.get("ValidUntil")),
                    tags_of(each),
                    int(each["TargetCapacitySpecification"].get("OnDemandTargetCapacity") or 0),
                )

    def _pages(self, call: str, name: str, ids: Sequence[str]) -> Iterator[Any]:
        import botocore.exceptions

        with aws_errors("looking at the fleets"):
            try:
                yield from self._ec2.get_paginator(call).paginate(**({name: list(ids)} if ids else {}))
            except botocore.exceptions.ClientError as error:
                if error_code(error) not in _GONE and whole_code(error) not in _GONE:
                    raise
                if len(ids) > 1:  # one of them is unknown to AWS: the others are read one by one
                    for each in ids:
                        yield from self._pages(call, name, [each])

    def machines(self, app: str, run: str = "") -> list[Machine]:
        """Machines with the app's tag (and the run's), including those that ended within the hour."""
        wanted = [{"Name": "tag:ds:app", "Values": [app]}]
        wanted += [{"Name": "tag:ds:run", "Values": [run]}] if run else []
        with aws_errors("looking at the machines"):
            pages = self._ec2.get_paginator("describe_instances").paginate(
                Filters=wanted, PaginationConfig={"PageSize": MACHINES_A_PAGE}
            )
            return [
                Machine(
                    each["InstanceId"],
                    each["State"]["Name"],
                    each.get("StateReason", {}).get("Code", ""),
                    _seconds(each.get("LaunchTime")),
                    _ended(each.get("StateTransitionReason", "")),
                    each.get("InstanceType", ""),
                    each.get("Placement", {}).get("AvailabilityZone", ""),
                    each.get("InstanceLifecycle") == "spot",
                )
                for page in pages
                for reservation in page["Reservations"]
                for each in reservation["Instances"]
            ]

    def history(self, fleet: Fleet, since: str) -> list[dict[str, Any]]:
        """A fleet's history since then (UTC, ISO 8601), oldest first."""
        with aws_errors(f"reading the history of {fleet.id}"):
            if fleet.id.startswith(FleetKind.SPOT):
                answer = self._ec2.describe_spot_fleet_request_history(
                    SpotFleetRequestId=fleet.id, StartTime=since
                )
            else:
                answer = self._ec2.describe_fleet_history(FleetId=fleet.id, StartTime=since)
        return list(answer.get("HistoryRecords", ()))

    # -- Making smaller, and ending

    def set_target(self, fleet: Fleet, target: int, on_demand: int | None = None) -> None:
        """Changes the target of a fleet, in machines. It terminates none.

        `on_demand` of them are no spot machines; None: as many as before.
        """
        on_demand = min(fleet.on_demand if on_demand is None else on_demand, target)
        with aws_errors(f"changing the target of {fleet.id}"):
            if fleet.id.startswith(FleetKind.SPOT):
                self._ec2.modify_spot_fleet_request(
                    SpotFleetRequestId=fleet.id,
                    TargetCapacity=target,
                    ExcessCapacityTerminationPolicy="noTermination",
                )
            else:
                self._ec2.modify_fleet(
                    FleetId=fleet.id,
                    ExcessCapacityTerminationPolicy="no-termination",
                    TargetCapacitySpecification=capacity(target, on_demand, before=fleet.on_demand),
                )

    def terminate(self, ids: Iterable[str]) -> None:
        """Terminates machines, MACHINES_A_CALL at a time."""
        every = list(ids)
        for start in range(0, len(every), MACHINES_A_CALL):
            with aws_errors("ending machines"):
                self._ec2.terminate_instances(InstanceIds=every[start : start + MACHINES_A_CALL])

    def cancel(self, fleets: Collection[Fleet]) -> None:
        """Ends fleets and their machines. A fleet too large for one call is first emptied in steps.

        Both kinds are tried; then the first error is raised.
        """
        for fleet in fleets:
            if fleet.target > MACHINES_A_CALL:
                with suppress(DsError):  # the fleet is ended below in any case
                    self.set_target(fleet, 0)
                    self.terminate(self._members(fleet))
        wrong: DsError | None = None
        for kind, cancel in ((FleetKind.SPOT, self._cancel_spot), (FleetKind.EC2, self._delete)):
            for ids in _cut([fleet.id for fleet in fleets if fleet.id.startswith(kind)], IDS_A_CALL):
                try:
                    cancel(ids)
                except DsError as error:
                    wrong = wrong or error
        if wrong is not None:
            raise wrong

    def _cancel_spot(self, ids: Sequence[str]) -> None:
        with aws_errors("ending the fleet"):
            answer = self._ec2.cancel_spot_fleet_requests(SpotFleetRequestIds=ids, TerminateInstances=True)
        _check(answer.get("UnsuccessfulFleetRequests", ()), "SpotFleetRequestId")

    def _delete(self, ids: Sequence[str]) -> None:
        with aws_errors("ending the fleet"):
            answer = self._ec2.delete_fleets(FleetIds=ids, TerminateInstances=True)
        _check(answer.get("UnsuccessfulFleetDeletions", ()), "FleetId")

    def _members(self, fleet: Fleet) -> list[str]:
        spot = fleet.id.startswith(FleetKind.SPOT)
        name = "SpotFleetRequestId" if spot else "FleetId"
        call = self._ec2.describe_spot_fleet_instances if spot else self._ec2.describe_fleet_instances
        found: list[str] = []
        more: dict[str, str] = {}
        with aws_errors(f"looking at the machines of {fleet.id}"):
            while True:
                answer = call(**{name: fleet.id}, **more)
                found += [each["InstanceId"] for each in answer["ActiveInstances"]]
                if not answer.get("NextToken"):
                    return found
                more = {"NextToken": answer["NextToken"]}

    # -- Launch templates

    def make_template(self, request: Mapping[str, Any]) -> tuple[str, str]:
        """Makes a launch template, or a version of the existing one. Returns (id, version)."""
        import botocore.exceptions

        name = request["LaunchTemplateName"]
        with aws_errors(f"making the launch template {name}"):
            try:
                made = self._ec2.create_launch_template(**request)["LaunchTemplate"]
            except botocore.exceptions.ClientError as error:
                if not _exists_already(error):
                    raise
                made = self._ec2.create_launch_template_version(
                    LaunchTemplateName=name, LaunchTemplateData=request["LaunchTemplateData"]
                )["LaunchTemplateVersion"]
        version = made.get("VersionNumber", made.get("LatestVersionNumber", 1))
        return str(made["LaunchTemplateId"]), str(version)

    def templates(self, app: str) -> list[str]:
        """The names of the app's launch templates."""
        wanted = [{"Name": "tag:ds:app", "Values": [app]}]
        with aws_errors("looking for launch templates"):
            pages = self._ec2.get_paginator("describe_launch_templates").paginate(Filters=wanted)
            return [each["LaunchTemplateName"] for page in pages for each in page["LaunchTemplates"]]

    def delete_template(self, name: str) -> None:
        """Delete a launch template."""
        with aws_errors(f"deleting the launch template {name}"):
            self._ec2.delete_launch_template(LaunchTemplateName=name)


@contextmanager
def _refusals(call: str) -> Iterator[None]:
    """Within: translates EC2's immediate refusals by `diagnosis`."""
    import botocore.exceptions

    with aws_errors(f"asking for machines ({call})"):
        try:
            yield
        except botocore.exceptions.ClientError as error:
            known = diagnosis.known(f"{whole_code(error)}: {error_words(error)} ({call})")
            if known is None:
                raise
            raise DsError(f"asking for machines: {known.what}", known.fix) from error


def capacity(target: int, on_demand: int = 0, *, before: int = 0) -> dict[str, Any]:
    """Returns the size of a fleet: so many machines in all, and so many on demand (`before`: until now)."""
    found: dict[str, Any] = {"TotalTargetCapacity": target}
    if on_demand or before:
        found |= {"OnDemandTargetCapacity": on_demand, "SpotTargetCapacity": target - on_demand}
    return found


def _exists_already(error: Any) -> bool:
    codes = ("InvalidLaunchTemplateName.AlreadyExistsException", "IdempotentParameterMismatch")
    return whole_code(error) in codes


def _seconds(when: Any) -> float | None:
    return None if when is None else float(when.timestamp())


def _ended(reason: str) -> float | None:
    """Reads the end of a machine in a text such as "User initiated (2026-11-22 22:00:00 GMT)"."""
    _, _, when = reason.rpartition("(")
    try:
        return datetime.strptime(when.rstrip(")"), "%Y-%m-%d %H:%M:%S %Z").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _cut(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    return (list(ids[start : start + size]) for start in range(0, len(ids), size))


def _check(refused: Iterable[Mapping[str, Any]], name: str) -> None:
    """Raises DsError for a fleet that could not be ended; one that has ended is no error."""
    for each in refused:
        error = each.get("Error", {})
        code = str(error.get("Code", ""))
        if code not in _GONE:
            raise DsError(f"ending the fleet {each.get(name)}: {error.get('Message', code)}", "try again")
