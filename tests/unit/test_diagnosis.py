"""What AWS says when machines or tasks do not come, in words that tell what to do."""

from __future__ import annotations

import pytest

from distributed_something.aws.ec2.diagnosis import of_history, of_tasks, translate
from distributed_something.engine import Diagnosis

BEGINS = "Repeated errors have occurred processing the launch specification"


def error(said: str, sub: str = "launchSpecUnusable", kind: str = "error") -> dict[str, object]:
    return {"EventType": kind, "EventInformation": {"EventSubType": sub, "EventDescription": said}}


LAUNCHED = {"EventType": "instanceChange", "EventInformation": {"EventSubType": "launched"}}
NO_IMAGE = error(f"{BEGINS}. Error message: The image id '[ami-0abc]' does not exist (InvalidAMIID.NotFound)")
NO_ROOM = error(
    'm5.xlarge, ami-0abc, Linux/UNIX, us-east-1d: "There is no Spot capacity available that matches your '
    'request. (Service: AmazonEC2; Status Code: 500; Error Code: InsufficientInstanceCapacity)"'
)


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    ("said", "what", "fix", "final"),
    [
        ("You have requested more vCPU capacity than your current vCPU limit (VcpuLimitExceeded)",
         "limit of spot processors", "L-34B43A08", False),
        ("MaxSpotInstanceCountExceeded: Max spot instance count exceeded", "limit of spot", "Quotas", False),
        ("InvalidAMIID.NotFound: The image id '[ami-1]' does not exist", "not in this region", "ds fleet",
         True),
        ("m5.xlarge in us-east-1d: capacity-not-available. There is no Spot capacity available",
         "no spare capacity for m5.xlarge in us-east-1d", "MACHINE_TYPE", False),
        ("SpotMaxPriceTooLow: Your Spot request price of 0.01 is lower than the minimum required Spot "
         "request fulfillment price of 0.07 for c5.2xlarge in eu-west-1a",
         "below the price of c5.2xlarge in eu-west-1a", "MACHINE_PRICE", False),
        ("InvalidKeyPair.NotFound: The key pair 'k' does not exist", "key pair", "SSH_KEY_NAME", True),
        ("Value (x) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
         "instance profile", "ds account setup", True),
        ("AuthFailure.ServiceLinkedRoleCreationNotPermitted: The provided credentials do not have permission "
         "to create the service-linked role for EC2 Spot Instances",
         "lacks the role", "create-service-linked-role", True),
        ("UnauthorizedOperation: You are not authorized to perform this operation with an explicit deny in a "
         "service control policy (RequestSpotFleet)", "deny RequestSpotFleet", "without a fleet file", True),
        ("UnauthorizedOperation: You are not authorized to perform: ec2:CreateFleet (CreateFleet)",
         "may not start machines", "administrator", True),
        ("UnauthorizedOperation: not authorized to perform: iam:PassRole on resource x", "iam:PassRole",
         "administrator", True),
        ("iamFleetRoleInvalid: The IAM fleet role does not have the required permissions", "IamFleetRole",
         "ds account setup", True),
        ("InvalidSubnetID.NotFound: The subnet ID 'subnet-1' does not exist", "subnet", "ds fleet", True),
        ("InvalidGroup.NotFound: The security group 'sg-1' does not exist", "security group", "ds fleet",
         True),
        ("InsufficientFreeAddresses: not enough free addresses", "no free addresses", "subnets",
         False),
        ("The architecture 'x86_64' of the specified instance type does not match the architecture 'arm64' "
         "of the specified AMI", "does not fit the image", "MACHINE_TYPE", True),
        ("InvalidBlockDeviceMapping: snapshotId cannot be modified on root device", "disks",
         "remove SnapshotId", True),
        ("InvalidBlockDeviceMapping: Volume of size 22GB is smaller than snapshot 'snap-1', expect 30GB",
         "disks", "EBS_VOL_SIZE", True),
        ("p3.2xlarge is not supported in your requested Availability Zone (us-east-1e)",
         "p3.2xlarge is not offered in us-east-1e", "subnets", False),
    ],
)  # fmt: skip
def test_errors_of_a_fleet_have_a_fix(said: str, what: str, fix: str, final: bool) -> None:
    found = translate(said)
    assert what in found.what
    assert fix in found.fix
    assert found.final is final
    assert "\n" not in found.what


@pytest.mark.fault(46)
def test_what_no_rule_knows_is_shown_as_it_is() -> None:
    assert translate("Strange.\n Things (Service: AmazonEC2; Request ID: 1)") == Diagnosis(
        "AWS says: Strange. Things"
    )


@pytest.mark.fault(46)
def test_a_record_without_a_description_is_no_error_of_ours() -> None:
    assert of_history([{"EventType": "error"}]) is not None
    assert of_history([{"EventType": "error", "EventInformation": {}}, {}]) is not None
    assert of_history([]) is None


@pytest.mark.fault(46)
def test_the_newest_trouble_counts_and_none_before_a_machine_came() -> None:
    room = of_history([NO_ROOM])
    assert room is not None and "no spare capacity for m5.xlarge in us-east-1d" in room.what
    assert of_history([NO_ROOM, LAUNCHED]) is None
    image = of_history([NO_ROOM, NO_IMAGE, NO_ROOM])
    assert image is not None and image.final
    assert of_history([error("all is well", sub="active", kind="fleetRequestChange")]) is None
    assert of_history([error("the service failed", sub="", kind="service-error")]) is not None


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("(service S) was unable to place a task because no container instance met all of its requirements. "
         "The closest matching container-instance abc has insufficient memory available.",
         "too little memory"),
        ("(service S) was unable to place a task because no container instances were found in your cluster.",
         "none has joined the cluster"),
        ("closest container-instance encountered error 'insufficient CPU'", "too few processors"),
        ("CannotPullContainerError: pull access denied for lab/image, repository does not exist",
         "cannot be pulled"),
        ("closest matching container-instance a doesn't satisfy: MemberOf placement constraint unsatisfied.",
         "not this app's"),
        ("OutOfMemoryError: Container killed due to memory usage", "lack of memory"),
    ],
)  # fmt: skip
def test_why_no_task_runs(said: str, what: str) -> None:
    found = of_tasks(["(service S) has reached a steady state.", said])
    assert found is not None and what in found.what and found.fix
    assert of_tasks(["(service S) has reached a steady state."]) is None
