"""The fleet file: what is taken from it, what the config says instead, and what is refused."""

from __future__ import annotations

import json
from base64 import b64decode
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distributed_something.aws.ec2.requests.newfleet import file_name
from distributed_something.aws.ec2.requests.request import Image, image_of, key_pair, spot_fleet_request
from distributed_something.aws.names import price_text
from distributed_something.errors import UsageError
from distributed_something.inputs.config import Config, parse_config
from distributed_something.inputs.fleetfile import Fleet, advice, fleet_problems, parse_fleet

NAME = "files/exampleFleet.json"
NOW = 1_795_000_000.0
ROLE = "arn:aws:iam::123456789012:role/aws-ec2-spot-fleet-tagging-role"
PROFILE = "arn:aws:iam::123456789012:instance-profile/ecsInstanceRole"

FILE: dict[str, Any] = {
    "IamFleetRole": ROLE,
    "AllocationStrategy": "lowestPrice",
    "TargetCapacity": 3,
    "SpotPrice": "0.10",
    "ValidFrom": "2016-07-20T20:28:54Z",
    "ValidUntil": "2017-07-20T20:28:54Z",
    "TerminateInstancesWithExpiration": False,
    "LaunchSpecifications": [
        {
            "ImageId": "ami-0123456789abcdef0",
            "InstanceType": "m4.xlarge",
            "KeyName": "lab",
            "IamInstanceProfile": {"Arn": PROFILE},
            "BlockDeviceMappings": [
                {
                    "DeviceName": "/dev/xvda",
                    "Ebs": {
                        "DeleteOnTermination": True,
                        "VolumeType": "gp2",
                        "VolumeSize": 8,
                        "SnapshotId": "snap-02fc09c83e0fd39c1",
                    },
                },
                {"DeviceName": "/dev/xvdcz", "Ebs": {"DeleteOnTermination": True, "VolumeType": "gp2"}},
            ],
            "NetworkInterfaces": [
                {
                    "DeviceIndex": 0,
                    "SubnetId": "subnet-0123abcd, subnet-4567abcd",
                    "DeleteOnTermination": True,
                    "AssociatePublicIpAddress": True,
                    "Groups": ["sg-0123abcd"],
                }
            ],
        }
    ],
    "Type": "request",
}
MINIMAL = {
    "IamFleetRole": ROLE,
    "LaunchSpecifications": [{"ImageId": "ami-0123abcd", "IamInstanceProfile": {"Arn": PROFILE}}],
}


def config_of(*lines: str) -> Config:
    return parse_config("\n".join(["APP_NAME = 'Demo'", *lines]))


def changed(place: tuple[str | int, ...], value: Any, base: dict[str, Any] = FILE) -> dict[str, Any]:
    """The file with another value at a place."""
    content = deepcopy(base)
    holder: Any = content
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = value
    return content


def in_first(name: str, value: Any, base: dict[str, Any] = FILE) -> dict[str, Any]:
    return changed(("LaunchSpecifications", 0, name), value, base)


def refused(content: Any) -> UsageError:
    text = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(UsageError) as caught:
        parse_fleet(text, NAME)
    assert "\n" not in caught.value.what + caught.value.fix
    assert caught.value.fix
    return caught.value


def request(content: Any, *lines: str, images: dict[str, Image] | None = None) -> dict[str, Any]:
    fleet = parse_fleet(json.dumps(content), NAME)
    return spot_fleet_request(
        fleet, config_of(*lines), run="run1", now=NOW, token="t1", user_data="#!/bin/sh\n", images=images
    )


def first(content: Any, *lines: str, images: dict[str, Image] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = request(content, *lines, images=images)["LaunchSpecifications"][0]
    return found


def sizes(specification: dict[str, Any]) -> dict[str, int | None]:
    return {
        each["DeviceName"]: each["Ebs"].get("VolumeSize") for each in specification["BlockDeviceMappings"]
    }


# -- Reading ------------------------------------------------------------------------------------------------


def test_a_file_is_read_without_its_comments_and_with_what_is_not_known() -> None:
    content = FILE | {"_comment": "x", "Context": "later", "LoadBalancersConfig": {"my_comment": 1, "A": [2]}}
    found = parse_fleet("\ufeff" + json.dumps(content), NAME)
    assert found.request() == FILE | {"Context": "later", "LoadBalancersConfig": {"A": [2]}}
    assert found == Fleet(NAME, json.dumps(found.request()))
    assert not list(fleet_problems(json.dumps(content), NAME))


def test_what_is_done_to_a_request_leaves_the_fleet_as_it_was() -> None:
    fleet = parse_fleet(json.dumps(FILE), NAME)
    fleet.request()["LaunchSpecifications"].clear()
    assert fleet.request() == FILE


NETWORK = ("LaunchSpecifications", 0, "NetworkInterfaces", 0)
DISK = ("LaunchSpecifications", 0, "BlockDeviceMappings", 0)


@pytest.mark.parametrize(
    ("place", "value", "where", "find"),
    [
        (("IamFleetRole",), "arn:aws:iam::XXXXXXXXXXXXX:role/r", "IamFleetRole", "get-caller-identity"),
        (
            ("LaunchSpecifications", 0, "IamInstanceProfile", "Arn"),
            "arn:aws:iam::XXXXXXXXXXXX:instance-profile/ecsInstanceRole",
            "LaunchSpecifications[0].IamInstanceProfile.Arn",
            "get-instance-profile",
        ),
        (
            (*NETWORK, "SubnetId"),
            "subnet-WWWWWWWW",
            "LaunchSpecifications[0].NetworkInterfaces[0].SubnetId",
            "describe-subnets",
        ),
        (
            (*NETWORK, "Groups", 0),
            "sg-ZZZZZZZZZ",
            "LaunchSpecifications[0].NetworkInterfaces[0].Groups[0]",
            "describe-security-groups",
        ),
        (
            (*DISK, "Ebs", "SnapshotId"),
            "snap-XXXXXXXX",
            "LaunchSpecifications[0].BlockDeviceMappings[0].Ebs.SnapshotId",
            "describe-images",
        ),
        (("LaunchSpecifications", 0, "ImageId"), "ami-XXXXXXXX", "LaunchSpecifications[0].ImageId", "ssm"),
        (
            ("LaunchSpecifications", 0, "KeyName"),
            "your-key-file",
            "LaunchSpecifications[0].KeyName",
            "describe-key-pairs",
        ),
        (
            ("LaunchSpecifications", 0, "KeyName"),
            "your_key_file_name",
            "LaunchSpecifications[0].KeyName",
            "describe-key-pairs",
        ),
        (
            ("LaunchSpecifications", 0, "SubnetId"),
            "subnet-xxxxxxxx",
            "LaunchSpecifications[0].SubnetId",
            "describe-subnets",
        ),
        (
            ("LaunchSpecifications", 0, "SecurityGroups"),
            [{"GroupId": "<your group>"}],
            "LaunchSpecifications[0].SecurityGroups[0].GroupId",
            "describe-security-groups",
        ),
    ],
)
def test_a_placeholder_is_named_with_its_place_and_where_to_find_the_value(
    place: tuple[str | int, ...], value: Any, where: str, find: str
) -> None:
    error = refused(changed(place, value))
    shown = value[0]["GroupId"] if isinstance(value, list) else value
    assert error.what == f'{NAME}: {where}: still the placeholder "{shown}"'
    assert find in error.fix
    assert "ds fleet new" in error.fix


def test_each_of_several_subnets_is_looked_at() -> None:
    error = refused(changed((*NETWORK, "SubnetId"), "subnet-0123abcd, subnet-XXXXXXXX, subnet-YYYYYYYY"))
    assert error.what.endswith('SubnetId: still the placeholder "subnet-XXXXXXXX"')


def test_of_many_things_wrong_the_first_is_told_and_how_many_more() -> None:
    error = refused(in_first("ImageId", "ami-XXXXXXXX", in_first("SubnetId", "subnet-XXXXXXXX")))
    assert error.what.endswith(' still the placeholder "ami-XXXXXXXX" (1 more thing is wrong)')
    assert error.fix.endswith("ds check --fleet FILE tells all")


def test_every_problem_of_a_file_can_be_had_at_once() -> None:
    content = changed((*NETWORK, "SubnetId"), "subnet-WWWWWWWW")
    content["LaunchSpecifications"][0]["KeyName"] = "your-key-file"
    content["IamFleetRole"] = "arn:aws:iam::XXXXXXXXXXXXX:role/aws-ec2-spot-fleet-tagging-role"
    found = [error.what.split(": ")[1] for error in fleet_problems(json.dumps(content), NAME)]
    assert [place.rpartition(".")[2] for place in found] == ["IamFleetRole", "KeyName", "SubnetId"]
    assert parse_fleet(json.dumps(in_first("KeyName", "your-key-file")), NAME, key_name="lab")


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (("LaunchSpecifications",), {}, "LaunchSpecifications: is an object, not a list"),
        (("LaunchSpecifications",), [], "LaunchSpecifications: missing"),
        (("LaunchSpecifications",), [7], "LaunchSpecifications[0]: is a number, not an object"),
        (("IamFleetRole",), 7, "IamFleetRole: is a number, not the ARN of a role"),
        (("IamFleetRole",), "my-role", 'IamFleetRole: "my-role" is not the ARN of a role'),
        (
            ("LaunchSpecifications", 0, "EbsOptimized"),
            "true",
            "LaunchSpecifications[0].EbsOptimized: is a text",
        ),
        (("LaunchSpecifications", 0, "WeightedCapacity"), True, "is true or false, not a number"),
        (("LaunchSpecifications", 0, "ImageId"), "", '"" is not the id of an image'),
        (("LaunchSpecifications", 0, "ImageId"), "resolve:ssm:x", "is not the id of an image"),
        (("LaunchSpecifications", 0, "IamInstanceProfile"), {}, "IamInstanceProfile: missing"),
        ((*DISK, "Ebs", "VolumeSize"), "30", "Ebs.VolumeSize: is a text, not a whole number"),
        ((*DISK, "DeviceName"), None, "DeviceName: is null, not a text"),
        ((*NETWORK, "Groups"), "sg-0123abcd", "Groups: is a text, not a list"),
    ],
)
def test_what_cannot_be_right_is_refused(place: tuple[str | int, ...], value: Any, why: str) -> None:
    error = refused(changed(place, value))
    assert error.what.startswith(f"{NAME}: ")
    assert why in error.what


@pytest.mark.parametrize("name", ["IamFleetRole", "LaunchSpecifications"])
def test_what_is_missing_is_named(name: str) -> None:
    assert (
        refused({key: value for key, value in FILE.items() if key != name}).what == f"{NAME}: {name}: missing"
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", f"{NAME}:1: not JSON: Expecting value"),
        ('{\n"a": ,\n}', f"{NAME}:2: not JSON: "),
        ("[]", f"{NAME}: is a list, not an object"),
        ("NaN", f"{NAME}: not JSON: NaN is not a number"),
        ("1e999", f"{NAME}: not JSON: "),
        ("[" * 100_000, f"{NAME}: its lists and objects are nested too deeply"),
        ('"\\ud800"', f"{NAME}: has a character that no text can have"),
        ("9" * 5000, f"{NAME}: "),
    ],
)
def test_what_is_no_json_is_refused(text: str, what: str) -> None:
    assert refused(text).what.startswith(what)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([ROLE, "ami-0123abcd"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
PLACES = st.sampled_from(
    [
        ("IamFleetRole",), ("TagSpecifications",), ("SpotPrice",), ("AllocationStrategy",), NETWORK, DISK,
        ("LaunchSpecifications",), ("LaunchSpecifications", 0), ("LaunchSpecifications", 0, "ImageId"),
        (*NETWORK, "Groups"), (*NETWORK, "SubnetId"), (*DISK, "Ebs"), (*DISK, "DeviceName"),
        ("LaunchSpecifications", 0, "SecurityGroups"), ("LaunchSpecifications", 0, "TagSpecifications"),
        ("LaunchSpecifications", 0, "InstanceType"), ("LaunchSpecifications", 0, "SpotPrice"),
        ("LaunchSpecifications", 0, "BlockDeviceMappings"), ("LaunchSpecifications", 0, "IamInstanceProfile"),
    ]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(PLACES, JSON)
@example(("TagSpecifications",), [{"ResourceType": "spot-fleet-request", "Tags": [{"Key": "a"}]}])
@example(("LaunchSpecifications", 0, "SecurityGroups"), [{"GroupName": "g"}, {"GroupId": "sg-0123abcd"}])
@example((*DISK, "Ebs"), {})
def test_whatever_is_in_the_file_it_is_refused_in_one_line_or_makes_a_request(place: Any, value: Any) -> None:
    content = changed(place, value)
    try:
        fleet = parse_fleet(json.dumps(content), NAME)
        config = config_of("ASSIGN_IP = False", "MACHINE_TYPE = ['a.b', 'c.d']")
        spot_fleet_request(fleet, config, run="r", now=NOW, token="t", user_data="")
        advice(fleet)
    except UsageError as error:
        assert len(error.what.splitlines()) == 1
        assert error.fix


@settings(max_examples=100, deadline=None)
@given(st.text() | JSON.map(json.dumps))
def test_whatever_the_text_is_the_error_is_one_line(text: str) -> None:
    assert len(refused(text).what.splitlines()) == 1


# -- The request --------------------------------------------------------------------------------------------


def test_the_config_says_how_many_machines_at_what_price_and_for_how_long() -> None:
    found = request(FILE, "CLUSTER_MACHINES = 7", "MACHINE_PRICE = 0.2", "MAX_RUN_HOURS = 1.5")
    assert (found["TargetCapacity"], found["SpotPrice"], found["Type"]) == (7, "0.2", "maintain")
    assert found["AllocationStrategy"] == "lowestPrice"
    assert (found["ClientToken"], "ValidFrom" in found) == ("t1", False)


@pytest.mark.fault(12)
def test_a_fleet_ends_by_itself_and_is_tagged() -> None:
    found = request(FILE, "MAX_RUN_HOURS = 1.5")
    assert found["TerminateInstancesWithExpiration"] is True
    assert found["ValidUntil"] == "2026-11-18T12:36:40Z"  # 11:06:40 and an hour and a half
    own = [{"Key": "ds:app", "Value": "Demo"}, {"Key": "ds:run", "Value": "run1"}]
    assert found["TagSpecifications"] == [{"ResourceType": "spot-fleet-request", "Tags": own}]
    name = [{"Key": "Name", "Value": "DemoWorker"}]
    tags = found["LaunchSpecifications"][0]["TagSpecifications"]
    assert tags == [{"ResourceType": "instance", "Tags": name + own}]


@pytest.mark.fault(12)
def test_tags_of_the_file_stay_beside_ours() -> None:
    tags = [
        {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "n"}, {"Key": "ds:run", "Value": "x"}]}
    ]
    found = first(in_first("TagSpecifications", tags))["TagSpecifications"]
    assert {tag["Key"]: tag["Value"] for tag in found[0]["Tags"]} == {
        "Name": "n", "ds:app": "Demo", "ds:run": "run1",
    }  # fmt: skip


@pytest.mark.fault(2)
def test_the_target_is_a_number() -> None:
    assert type(request(FILE, "CLUSTER_MACHINES = '4'")["TargetCapacity"]) is int


@pytest.mark.fault(45)
@pytest.mark.parametrize(
    ("price", "text"),
    [(0.2, "0.2"), (0.0375, "0.0375"), (1, "1"), (0.00001, "0.00001"), (2.123456789, "2.123456789")],
)
def test_a_bid_keeps_all_of_its_digits(price: float, text: str) -> None:
    assert price_text(price) == text
    assert request(FILE, f"MACHINE_PRICE = {text}")["SpotPrice"] == text


def test_without_a_price_in_the_config_the_files_own_counts() -> None:
    assert request(FILE)["SpotPrice"] == "0.10"
    assert request(FILE | {"SpotPrice": 0.1})["SpotPrice"] == "0.1"
    assert "SpotPrice" not in request(MINIMAL)


@pytest.mark.fault(45)
def test_where_the_file_names_no_strategy_the_best_is_taken() -> None:
    assert request(MINIMAL)["AllocationStrategy"] == "priceCapacityOptimized"


def test_every_type_of_the_config_goes_with_every_specification() -> None:
    two = (
        FILE["LaunchSpecifications"]
        + changed((*NETWORK, "SubnetId"), "subnet-99999999")["LaunchSpecifications"]
    )
    found = request(FILE | {"LaunchSpecifications": two}, "MACHINE_TYPE = ['m5.xlarge', 'm6i.xlarge']")
    pools = [
        (each["InstanceType"], each["NetworkInterfaces"][0]["SubnetId"][:15])
        for each in found["LaunchSpecifications"]
    ]
    assert pools == [
        ("m5.xlarge", "subnet-0123abcd"), ("m6i.xlarge", "subnet-0123abcd"),
        ("m5.xlarge", "subnet-99999999"), ("m6i.xlarge", "subnet-99999999"),
    ]  # fmt: skip


def test_copies_of_a_specification_that_the_reference_needed_make_no_double_pools() -> None:
    copies = FILE | {"LaunchSpecifications": FILE["LaunchSpecifications"] * 3}
    found = request(copies, "MACHINE_TYPE = ['m5.xlarge', 'm5.2xlarge', 'm6i.xlarge']")
    types = [each["InstanceType"] for each in found["LaunchSpecifications"]]
    assert types == ["m5.xlarge", "m5.2xlarge", "m6i.xlarge"]


def test_specifications_for_one_type_each_keep_their_type() -> None:
    arm = in_first("ImageId", "ami-aaaaaaaa")["LaunchSpecifications"]
    both = FILE | {"LaunchSpecifications": FILE["LaunchSpecifications"] + arm}
    found = request(both, "MACHINE_TYPE = ['m5.xlarge', 'm7g.xlarge']")["LaunchSpecifications"]
    pairs = [(each["InstanceType"], each["ImageId"]) for each in found]
    assert pairs == [("m5.xlarge", "ami-0123456789abcdef0"), ("m7g.xlarge", "ami-aaaaaaaa")]


def test_a_type_of_the_file_counts_where_the_config_names_none() -> None:
    assert first(FILE)["InstanceType"] == "m4.xlarge"
    assert first(MINIMAL)["InstanceType"] == "m5.xlarge"
    needs = in_first("InstanceRequirements", {"VCpuCount": {"Min": 4}}, MINIMAL)
    assert "InstanceType" not in first(needs, "MACHINE_TYPE = ['m5.xlarge']")


@pytest.mark.fault(44)
def test_the_disk_is_for_the_containers_wherever_the_image_keeps_them() -> None:
    one = changed(
        ("LaunchSpecifications", 0, "BlockDeviceMappings"),
        FILE["LaunchSpecifications"][0]["BlockDeviceMappings"][:1],
    )
    image_id = FILE["LaunchSpecifications"][0]["ImageId"]
    assert sizes(first(FILE, "EBS_VOL_SIZE = 100")) == {"/dev/xvda": 8, "/dev/xvdcz": 100}
    assert sizes(first(one, "EBS_VOL_SIZE = 100")) == {"/dev/xvda": 100}
    assert sizes(first(MINIMAL, "EBS_VOL_SIZE = 100")) == {"/dev/xvda": 100}
    new = {image_id: Image(smallest=30)}
    assert sizes(first(FILE, "EBS_VOL_SIZE = 100", images=new)) == {"/dev/xvda": 100}
    assert sizes(first(FILE, "EBS_VOL_SIZE = 22", images=new)) == {"/dev/xvda": 30}
    two = {image_id: Image("/dev/xvda", "/dev/xvdb", 20)}
    assert sizes(first(one, "EBS_VOL_SIZE = 100", images=two)) == {"/dev/xvda": 8, "/dev/xvdb": 100}


def test_a_disk_that_the_file_describes_in_full_is_left_as_it_is() -> None:
    scratch = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 500, "VolumeType": "st1"}}
    none = {"DeviceName": "/dev/sdg", "NoDevice": ""}
    found = first(in_first("BlockDeviceMappings", [scratch, none]))["BlockDeviceMappings"]
    assert found[0]["Ebs"] == {"DeleteOnTermination": True, "VolumeSize": 500, "VolumeType": "st1"}
    assert found[1] == none
    assert found[2]["DeviceName"] == "/dev/xvda"


def test_an_image_tells_where_it_keeps_containers() -> None:
    disk = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 30, "SnapshotId": "snap-1"}}
    more = {"DeviceName": "/dev/xvdb", "Ebs": {"VolumeSize": 20}}
    described = {"RootDeviceName": "/dev/xvda", "BlockDeviceMappings": [disk]}
    assert image_of(described) == Image("/dev/xvda", "/dev/xvda", 30)
    assert image_of(described | {"BlockDeviceMappings": [disk, more]}) == Image("/dev/xvda", "/dev/xvdb", 20)
    assert image_of({"BlockDeviceMappings": [{"DeviceName": "x", "VirtualName": "ephemeral0"}]}) == Image()


@pytest.mark.fault(43)
def test_assign_ip_false_takes_the_address_from_every_specification() -> None:
    two = FILE | {"LaunchSpecifications": FILE["LaunchSpecifications"] * 2}
    two = changed(
        ("LaunchSpecifications", 1),
        in_first("SubnetId", "subnet-0123abcd", MINIMAL)["LaunchSpecifications"][0],
        two,
    )
    two["LaunchSpecifications"][1]["SecurityGroups"] = [{"GroupId": "sg-0123abcd"}]
    found = request(two, "ASSIGN_IP = 'False'")["LaunchSpecifications"]
    assert [each["NetworkInterfaces"][0]["AssociatePublicIpAddress"] for each in found] == [False, False]
    assert found[1]["NetworkInterfaces"] == [
        {
            "DeviceIndex": 0,
            "DeleteOnTermination": True,
            "SubnetId": "subnet-0123abcd",
            "Groups": ["sg-0123abcd"],
            "AssociatePublicIpAddress": False,
        }
    ]
    assert not {"SubnetId", "SecurityGroups"} & found[1].keys()


def test_with_several_interfaces_the_address_is_not_spoken_of() -> None:
    faces = FILE["LaunchSpecifications"][0]["NetworkInterfaces"] * 2
    found = first(in_first("NetworkInterfaces", faces), "ASSIGN_IP = False")["NetworkInterfaces"]
    assert len(found) == 2
    assert not any("AssociatePublicIpAddress" in each for each in found)


@pytest.mark.fault(43)
@pytest.mark.parametrize("given_value", [True, False])
def test_assign_ip_true_leaves_what_the_file_says(given_value: bool) -> None:
    content = changed((*NETWORK, "AssociatePublicIpAddress"), given_value)
    found = first(content, "ASSIGN_IP = 'True'")["NetworkInterfaces"][0]["AssociatePublicIpAddress"]
    assert found is given_value
    assert "NetworkInterfaces" not in first(MINIMAL, "ASSIGN_IP = True")


@pytest.mark.parametrize(
    ("line", "name"),
    [("", "lab"), ("SSH_KEY_NAME = 'mine.pem'", "mine"), ("SSH_KEY_NAME = 'mine'", "mine")],
)
def test_the_key_pair_is_the_configs_with_or_without_pem(line: str, name: str) -> None:
    assert first(FILE, line)["KeyName"] == name
    assert "KeyName" not in first(MINIMAL)


def test_a_key_pair_that_was_not_filled_in_is_refused() -> None:
    with pytest.raises(UsageError, match=r"SSH_KEY_NAME: still the placeholder") as caught:
        key_pair(config_of("SSH_KEY_NAME = 'your-key-file.pem'"))
    assert "describe-key-pairs" in caught.value.fix


def test_user_data_is_encoded_and_goes_over_the_files() -> None:
    assert b64decode(first(in_first("UserData", "eA=="))["UserData"]) == b"#!/bin/sh\n"


def test_user_data_that_ec2_would_refuse_is_refused_here() -> None:
    fleet = parse_fleet(json.dumps(FILE), NAME)
    with pytest.raises(UsageError, match="user data"):
        spot_fleet_request(fleet, config_of(), run="r", now=NOW, token="t", user_data="x" * 16_385)


def test_what_will_be_regretted_is_said() -> None:
    content = in_first("ImageId", "ami-fad25980", FILE | {"IamFleetRole": ROLE[:-27] + "spot-fleet-role"})
    content["LaunchSpecifications"][0] |= {"WeightedCapacity": 2, "SpotPrice": "1"}
    content["LaunchSpecifications"][0]["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] = False
    lines = advice(parse_fleet(json.dumps(content), NAME))
    named = [
        "AllocationStrategy",
        "IamFleetRole",
        "ImageId",
        "WeightedCapacity",
        "SpotPrice",
        "BlockDeviceMappings",
    ]
    assert [line.partition(": ")[0].rpartition(".")[2] for line in lines] == named
    assert all(line.partition("; ")[2] for line in lines), "each has its fix"
    assert not advice(parse_fleet(json.dumps(MINIMAL), NAME))


def test_a_new_file_for_another_region_replaces_none() -> None:
    config = config_of("AWS_REGION = 'us-east-1'")
    assert file_name(config, "us-east-1") == "DemoFleet.json"
    assert file_name(config, "us-west-2") == "DemoFleet_us-west-2.json"


@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize("content", [FILE, MINIMAL])
def test_ec2_knows_every_field_that_is_sent(content: Any, assign: bool) -> None:
    loaders = pytest.importorskip("botocore.loaders")
    validate = pytest.importorskip("botocore.validate")
    model = pytest.importorskip("botocore.model")
    ec2 = model.ServiceModel(loaders.Loader().load_service_model("ec2", "service-2"), "ec2")
    sent = request(
        content, f"ASSIGN_IP = {assign}", "SSH_KEY_NAME = 'k'", "MACHINE_TYPE = ['m5.large', 'm6i.large']"
    )
    report = validate.ParamValidator().validate(sent, ec2.shape_for("SpotFleetRequestConfigData"))
    assert not report.has_errors(), report.generate_report()
