"""What is asked of EC2 about fleets and machines, where the emulator cannot answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("boto3")
from botocore.stub import Stubber

from distributed_something.aws.ec2.fleets import MACHINES_A_CALL, Fleet, Fleets
from distributed_something.errors import DsError
from distributed_something.s3.session import AwsSession

SPOT = Fleet("sfr-1", alive=True, target=3)
OTHER = Fleet("fleet-1", alive=True, target=3)


@contextmanager
def answering(*answers: tuple[str, dict[str, Any], Any]) -> Iterator[Fleets]:
    """Fleets whose EC2 expects these calls with these parameters, in order, and gives these answers."""
    session = AwsSession("us-east-1", endpoint="http://127.0.0.1:9")
    with Stubber(session.client("ec2")) as stub:
        for call, expected, answer in answers:
            if isinstance(answer, str):
                code, _, message = answer.partition(": ")
                stub.add_client_error(call, code, message, expected_params=expected)
            else:
                stub.add_response(call, answer, expected)
        yield Fleets(session)
        stub.assert_no_pending_responses()


@pytest.mark.fault(2)
def test_a_target_is_a_number_and_lowering_it_ends_no_machine() -> None:
    target = {"TargetCapacity": 2, "ExcessCapacityTerminationPolicy": "noTermination"}
    with answering(
        ("modify_spot_fleet_request", {"SpotFleetRequestId": "sfr-1", **target}, {"Return": True})
    ) as fleets:
        fleets.set_target(SPOT, 2)
    wanted = {
        "FleetId": "fleet-1",
        "ExcessCapacityTerminationPolicy": "no-termination",
        "TargetCapacitySpecification": {"TotalTargetCapacity": 2},
    }
    with answering(("modify_fleet", wanted, {"Return": True})) as fleets:
        fleets.set_target(OTHER, 2)


def test_a_share_on_demand_stays_and_never_exceeds_the_target() -> None:
    mixed = OTHER._replace(on_demand=2)
    for target, given, on_demand in [(4, None, 2), (1, None, 1), (3, 3, 3), (3, 0, 0)]:
        size = {"TotalTargetCapacity": target, "OnDemandTargetCapacity": on_demand}
        wanted = {
            "FleetId": "fleet-1",
            "ExcessCapacityTerminationPolicy": "no-termination",
            "TargetCapacitySpecification": {**size, "SpotTargetCapacity": target - on_demand},
        }
        with answering(("modify_fleet", wanted, {"Return": True})) as fleets:
            fleets.set_target(mixed, target, given)


@pytest.mark.fault(1)
def test_fleets_are_cancelled_with_their_machines() -> None:
    with answering(
        (
            "cancel_spot_fleet_requests",
            {"SpotFleetRequestIds": ["sfr-1"], "TerminateInstances": True},
            {"SuccessfulFleetRequests": []},
        ),
        ("delete_fleets", {"FleetIds": ["fleet-1"], "TerminateInstances": True}, {}),
    ) as fleets:
        fleets.cancel([SPOT, OTHER])


def test_a_large_fleet_is_emptied_in_steps_before_it_is_cancelled() -> None:
    ids = [f"i-{number:08x}" for number in range(MACHINES_A_CALL + 700)]
    first, second = ids[:1000], ids[1000:]
    pieces = [ids[start : start + MACHINES_A_CALL] for start in range(0, len(ids), MACHINES_A_CALL)]
    large = SPOT._replace(target=1200)
    with answering(
        (
            "modify_spot_fleet_request",
            {
                "SpotFleetRequestId": "sfr-1",
                "TargetCapacity": 0,
                "ExcessCapacityTerminationPolicy": "noTermination",
            },
            {"Return": True},
        ),
        (
            "describe_spot_fleet_instances",
            {"SpotFleetRequestId": "sfr-1"},
            {"ActiveInstances": [{"InstanceId": each} for each in first], "NextToken": "more"},
        ),
        (
            "describe_spot_fleet_instances",
            {"SpotFleetRequestId": "sfr-1", "NextToken": "more"},
            {"ActiveInstances": [{"InstanceId": each} for each in second]},
        ),
        *(("terminate_instances", {"InstanceIds": piece}, {}) for piece in pieces),
        ("cancel_spot_fleet_requests", {"SpotFleetRequestIds": ["sfr-1"], "TerminateInstances": True}, {}),
    ) as fleets:
        fleets.cancel([large])


@pytest.mark.fault(1)
def test_a_large_fleet_that_cannot_be_emptied_is_cancelled_all_the_same() -> None:
    wanted = {
        "SpotFleetRequestId": "sfr-1",
        "TargetCapacity": 0,
        "ExcessCapacityTerminationPolicy": "noTermination",
    }
    with answering(
        ("modify_spot_fleet_request", wanted, "UnauthorizedOperation: not you"),
        ("cancel_spot_fleet_requests", {"SpotFleetRequestIds": ["sfr-1"], "TerminateInstances": True}, {}),
    ) as fleets:
        fleets.cancel([SPOT._replace(target=1200)])


@pytest.mark.fault(1)
def test_a_kind_of_fleet_that_will_not_end_keeps_none_of_the_other() -> None:
    call = {"SpotFleetRequestIds": ["sfr-1"], "TerminateInstances": True}
    with (
        answering(
            ("cancel_spot_fleet_requests", call, "UnauthorizedOperation: not you"),
            ("delete_fleets", {"FleetIds": ["fleet-1"], "TerminateInstances": True}, {}),
        ) as fleets,
        pytest.raises(DsError, match="not you"),
    ):
        fleets.cancel([SPOT, OTHER])


@pytest.mark.parametrize(("code", "raises"), [("fleetRequestIdDoesNotExist", False), ("unexpected", True)])
def test_a_fleet_that_cannot_be_cancelled_is_told_and_one_that_is_gone_is_fine(
    code: str, raises: bool
) -> None:
    refused = {"SpotFleetRequestId": "sfr-1", "Error": {"Code": code, "Message": "no"}}
    call = {"SpotFleetRequestIds": ["sfr-1"], "TerminateInstances": True}
    with answering(("cancel_spot_fleet_requests", call, {"UnsuccessfulFleetRequests": [refused]})) as fleets:
        if raises:
            with pytest.raises(DsError, match="sfr-1: no"):
                fleets.cancel([SPOT])
        else:
            fleets.cancel([SPOT])


def test_fleets_are_described_by_one_call_a_kind() -> None:
    when = datetime(2026, 9, 21, tzinfo=UTC)
    tags = [{"Key": "ds:app", "Value": "A"}, {"Key": "ds:run", "Value": "r"}]
    config = {"IamFleetRole": "r", "TargetCapacity": 4, "ValidUntil": when}
    spot = {
        "SpotFleetRequestId": "sfr-1",
        "SpotFleetRequestState": "active",
        "SpotFleetRequestConfig": config,
        "CreateTime": when,
        "Tags": tags,
    }
    other = {
        "FleetId": "fleet-1",
        "FleetState": "deleted_running",
        "TargetCapacitySpecification": {"TotalTargetCapacity": 2},
    }
    with answering(
        (
            "describe_spot_fleet_requests",
            {"SpotFleetRequestIds": ["sfr-1", "sfr-2"]},
            {"SpotFleetRequestConfigs": [spot]},
        ),
        ("describe_fleets", {"FleetIds": ["fleet-1"]}, {"Fleets": [other]}),
    ) as fleets:
        found = fleets.look(["sfr-1", "fleet-1", "sfr-2"])
    assert [(each.id, each.alive, each.target, each.run) for each in found] == [
        ("sfr-1", True, 4, "r"),
        ("fleet-1", False, 2, ""),
    ]
    assert found[0].made == found[0].valid_until == when.timestamp()


@pytest.mark.fault(5)
def test_a_fleet_of_another_app_is_none_of_the_records() -> None:
    config = {"IamFleetRole": "r", "TargetCapacity": 4}
    owners = {"sfr-1": ["App"], "sfr-2": ["Another"], "sfr-3": []}
    described = [
        {
            "SpotFleetRequestId": name,
            "SpotFleetRequestConfig": config,
            "Tags": [{"Key": "ds:app", "Value": each} for each in owner],
        }
        for name, owner in owners.items()
    ]
    asked = {"SpotFleetRequestIds": [*owners]}
    answer = {"SpotFleetRequestConfigs": described}
    with answering(("describe_spot_fleet_requests", asked, answer)) as fleets:
        assert [each.id for each in fleets.recorded([*owners], "App")] == ["sfr-1", "sfr-3"]


def test_a_fleet_that_aws_no_longer_knows_does_not_hide_the_others() -> None:
    call = "describe_spot_fleet_requests"
    config = {"IamFleetRole": "r", "TargetCapacity": 4}
    known = {"SpotFleetRequestConfigs": [{"SpotFleetRequestId": "sfr-2", "SpotFleetRequestConfig": config}]}
    gone = "InvalidSpotFleetRequestId.NotFound: unknown"
    with answering(
        (call, {"SpotFleetRequestIds": ["sfr-1", "sfr-2"]}, gone),
        (call, {"SpotFleetRequestIds": ["sfr-1"]}, gone),
        (call, {"SpotFleetRequestIds": ["sfr-2"]}, known),
    ) as fleets:
        assert [each.id for each in fleets.look(["sfr-1", "sfr-2"])] == ["sfr-2"]


@pytest.mark.fault(36)
def test_every_page_of_machines_is_read() -> None:
    wanted = {"Filters": [{"Name": "tag:ds:app", "Values": ["A"]}], "MaxResults": 1000}
    lost = {"Code": "Server.SpotInstanceTermination"}
    one = {"InstanceId": "i-1", "State": {"Name": "running"}}
    two = {"InstanceId": "i-2", "State": {"Name": "terminated"}, "StateReason": lost}
    with answering(
        ("describe_instances", wanted, {"Reservations": [{"Instances": [one]}], "NextToken": "more"}),
        ("describe_instances", {**wanted, "NextToken": "more"}, {"Reservations": [{"Instances": [two]}]}),
    ) as fleets:
        found = fleets.machines("A")
    assert [(each.id, each.running, each.interrupted) for each in found] == [
        ("i-1", True, False),
        ("i-2", False, True),
    ]


@pytest.mark.fault(46)
def test_each_kind_of_fleet_has_a_history() -> None:
    record = {"EventType": "error", "EventInformation": {"EventSubType": "x", "EventDescription": "y"}}
    since = "2026-09-21T13:43:20Z"
    with answering(
        (
            "describe_spot_fleet_request_history",
            {"SpotFleetRequestId": "sfr-1", "StartTime": since},
            {"HistoryRecords": [record]},
        ),
        ("describe_fleet_history", {"FleetId": "fleet-1", "StartTime": since}, {"HistoryRecords": []}),
    ) as fleets:
        assert fleets.history(SPOT, since) == [record]
        assert fleets.history(OTHER, since) == []


@pytest.mark.fault(45, 46)
def test_an_organisation_that_denies_spot_fleets_gets_its_own_hint() -> None:
    request = {"IamFleetRole": "r", "TargetCapacity": 1}
    said = "UnauthorizedOperation: You are not authorized: an explicit deny in a service control policy"
    with (
        answering(("request_spot_fleet", {"SpotFleetRequestConfig": request}, said)) as fleets,
        pytest.raises(DsError, match="policies deny RequestSpotFleet") as error,
    ):
        fleets.ask_spot(request)
    assert "without a fleet file" in error.value.fix


def test_a_launch_template_that_is_there_gets_a_new_version() -> None:
    data = {"ImageId": "ami-1"}
    made = {"LaunchTemplateId": "lt-1", "VersionNumber": 2}
    with answering(
        (
            "create_launch_template",
            {"LaunchTemplateName": "ttt", "LaunchTemplateData": data},
            "InvalidLaunchTemplateName.AlreadyExistsException: it is there",
        ),
        (
            "create_launch_template_version",
            {"LaunchTemplateName": "ttt", "LaunchTemplateData": data},
            {"LaunchTemplateVersion": made},
        ),
    ) as fleets:
        assert fleets.make_template({"LaunchTemplateName": "ttt", "LaunchTemplateData": data}) == (
            "lt-1",
            "2",
        )
