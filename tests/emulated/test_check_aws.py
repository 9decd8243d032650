"""`ds check` for AWS on the emulator: what is wrong is found, and what cannot be asked is said."""

from __future__ import annotations

import json
import uuid

import pytest
from botocore.stub import Stubber

from conftest import DsProject
from distributed_something.aws import check
from distributed_something.aws.iam.roles import Where
from distributed_something.errors import DsError
from distributed_something.inputs.checks.findings import Check, Severity
from distributed_something.inputs.config import parse_config
from distributed_something.inputs.fleetfile import parse_fleet
from distributed_something.rehearsal.emulator.server import CREDENTIALS
from distributed_something.s3.archived import archive_of
from distributed_something.s3.session import AwsSession
from emulating import REGION, endpoint, session


@pytest.fixture
def ds(project: DsProject) -> DsProject:
    session()
    project.environment |= CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint(), "AWS_EC2_METADATA_DISABLED": "true"}
    return project


def checked(ds: DsProject, *args: object, code: int | None) -> dict[str, str]:
    """What was found, and how bad it is."""
    lines = ds.ds("check", "--json", *args, code=code).stdout.splitlines()
    return {each["what"]: each["severity"] for each in map(json.loads, lines)}


def test_a_project_for_aws_is_checked_against_the_account(ds: DsProject) -> None:
    name = f"c{uuid.uuid4().hex[:12]}"
    session().client("s3").create_bucket(Bucket=name)
    session().client("s3").put_object(Bucket=name, Key="in/P1.tif", Body=b"x")
    session().client("logs").create_log_group(logGroupName=name)
    session().client("sqs").create_queue(QueueName=f"{name}Queue", tags={"ds:app": "Another"})
    ds.config(
        APP_NAME=name,
        ENGINE="aws",
        AWS_REGION=REGION,
        AWS_BUCKET=name,
        DOCKERHUB_TAG="lab/image:1",
        COMMAND="convert {Plate}",
        INPUTS=["in/{Plate}.tif"],
        OUTPUT="out/{Plate}",
        JOB_TIMEOUT=60,
        MACHINE_TYPE=["m5.xlarge"],
        CPU_SHARES=8192,
        DOCKER_CORES=None,
    )
    found = checked(ds, ds.jobs([{"Plate": "P1"}, {"Plate": "P2"}]), code=2)
    errors = [what for what, severity in found.items() if severity == "error"]
    warned = [what for what, severity in found.items() if severity == "warning"]
    assert any("INPUTS: 1 of 2 jobs lacks an input" in what for what in warned)
    for says in (
        "no task would be placed on m5.xlarge",
        "belongs to the app Another",
    ):
        assert any(says in what for what in errors), (says, found)
    about_roles = [what for what in errors if "role" in what]  # other tests make and remove them
    assert len(errors) - len(about_roles) == 2
    assert any("keeps its lines for ever" in what for what in found)
    assert f"AWS_BUCKET: {name} is there, in {REGION}" in found
    assert any(what.startswith("could not check the quotas") for what in found)  # the emulator has none


@pytest.mark.fault(29, 41)
def test_without_credentials_or_with_an_absent_profile_the_rest_is_checked_all_the_same(
    ds: DsProject,
) -> None:
    ds.config(
        APP_NAME="App",
        ENGINE="aws",
        DOCKERHUB_TAG="lab/image:1",
        AWS_PROFILE="no-such-profile",
        JOB_TIMEOUT=9,
    )
    found = checked(ds, code=1)
    assert found["DOCKERHUB_TAG: lab/image:1 looks like the name of an image"] == "ok"
    assert any("no-such-profile" in what for what, severity in found.items() if severity == "error")


def test_a_fleet_file_is_checked_and_its_placeholders_named(ds: DsProject) -> None:
    ds.config(APP_NAME="App", ENGINE="aws", DOCKERHUB_TAG="lab/image:1", AWS_BUCKET="some-bucket")
    fleet = ds.folder / "fleet.json"
    fleet.write_text(
        json.dumps({"IamFleetRole": "arn:aws:iam::XXXXXXXXXXXX:role/x", "LaunchSpecifications": []})
    )
    found = checked(ds, "--fleet", fleet, code=2)
    assert any("IamFleetRole" in what and "placeholder" in what for what in found)


def asker(aws: AwsSession, **keys: object) -> check.Asker:
    session()  # credentials
    given = {"APP_NAME": "App", "AWS_REGION": REGION, "CLUSTER_MACHINES": 10, **keys}
    config = parse_config("".join(f"{name} = {value!r}\n" for name, value in given.items()))
    return check.Asker(aws, config, Where("123456789012", REGION), None)


def test_the_quota_is_asked_for_by_its_code() -> None:
    aws = AwsSession(REGION, endpoint=endpoint())
    with Stubber(aws.client("service-quotas")) as stub:
        expected = {"ServiceCode": "ec2", "QuotaCode": "L-3819A6DF"}
        stub.add_response("get_service_quota", {"Quota": {"Value": 16.0}}, expected)
        (found,) = asker(aws, MACHINE_TYPE=["g4dn.xlarge"]).quotas()
        stub.assert_no_pending_responses()
    assert found.severity is Severity.WARNING and "the account may have 16: 4 machines" in found.what


def test_a_denied_question_is_a_finding() -> None:
    aws = AwsSession(REGION, endpoint=endpoint())
    with Stubber(aws.client("service-quotas")) as stub:
        stub.add_client_error(
            "get_service_quota", "AccessDeniedException", "not authorized to perform: servicequotas:Get"
        )
        (found,) = Check("the quotas", asker(aws).quotas).findings()
    assert found.severity is Severity.WARNING
    assert found.what.startswith("could not check the quotas: ") and "servicequotas:Get" in found.what


@pytest.mark.fault(41)
def test_the_region_of_the_config_is_asked_for() -> None:
    session().client("ec2")
    (found,) = asker(session(), AWS_REGION="ap-east-1").region()
    assert found.severity is Severity.ERROR and "ap-east-1 is not enabled" in found.what
    assert not list(asker(session()).region())


def test_a_profile_that_a_fleet_file_names_and_nobody_has_is_found() -> None:
    role, profile = f"r{uuid.uuid4().hex[:8]}", f"p{uuid.uuid4().hex[:8]}"
    session().client("iam").create_role(RoleName=role, AssumeRolePolicyDocument="{}")
    specification = {
        "ImageId": "ami-0123456789abcdef0",
        "IamInstanceProfile": {"Arn": f"arn:aws:iam::123456789012:instance-profile/{profile}"},
    }
    text = {
        "IamFleetRole": f"arn:aws:iam::123456789012:role/{role}",
        "LaunchSpecifications": [specification],
    }
    where = Where("123456789012", REGION)
    fleet = parse_fleet(json.dumps(text), "fleet.json")
    there, missing = check.Asker(session(), parse_config("APP_NAME = 'App'"), where, fleet).fleet_roles()
    assert (there.severity, missing.severity) == (Severity.OK, Severity.ERROR)
    assert f"{profile} is not there" in missing.what


def test_a_profile_that_is_not_there_says_how_to_do_without() -> None:
    session()
    with pytest.raises(DsError, match="nobody") as refused:
        AwsSession(REGION, "nobody").credentials()
    assert "AWS_PROFILE = ''" in refused.value.fix


@pytest.mark.fault(69)
def test_an_archived_input_is_named_as_such(ds: DsProject) -> None:
    name = f"t{uuid.uuid4().hex[:10]}"
    s3 = session().client("s3")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="in/P1.tif", Body=b"x")
    s3.put_object(Bucket=name, Key="in/P2.tif", Body=b"x", StorageClass="DEEP_ARCHIVE")
    keys = {"ENGINE": "aws", "AWS_REGION": REGION, "AWS_BUCKET": name, "COMMAND": "convert {Plate}"}
    ds.config(**keys, INPUTS=["in/{Plate}.tif"])
    found = checked(ds, ds.jobs([{"Plate": "P1"}, {"Plate": "P2"}]), code=None)
    assert found["INPUTS: archived: 1 of the first 2 inputs, such as in/P2.tif (DEEP_ARCHIVE)"] == "error"


@pytest.mark.parametrize(
    ("described", "kind"),
    [
        ({}, ""),
        ({"StorageClass": "STANDARD_IA"}, ""),
        ({"StorageClass": "GLACIER_IR"}, ""),  # read at once
        ({"StorageClass": "GLACIER"}, "GLACIER"),
        ({"StorageClass": "GLACIER", "Restore": 'ongoing-request="true"'}, "GLACIER"),
        ({"StorageClass": "GLACIER", "Restore": 'ongoing-request="false", expiry-date="Fri"'}, ""),
        ({"StorageClass": "INTELLIGENT_TIERING", "ArchiveStatus": "ARCHIVE_ACCESS"}, "ARCHIVE_ACCESS"),
    ],
)
def test_what_is_archived(described: dict[str, str], kind: str) -> None:
    assert archive_of(described) == kind
