"""The pretend account: fleets get machines, machines join clusters, services get tasks, as AWS does it."""

from __future__ import annotations

import json
import os
import time
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from distributed_something.worker.attempt.process import environment_of
from pretending import SLEEP, Account, pretend_account, until

pytestmark = pytest.mark.real


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    with pretend_account(tmp_path, *SLEEP) as found:
        yield found


def states(account: Account, ids: list[str]) -> list[str]:
    found = account.ec2.describe_instances(InstanceIds=ids)["Reservations"]
    return [each["State"]["Name"] for reservation in found for each in reservation["Instances"]]


def hosts(account: Account) -> list[dict[str, Any]]:
    arns = account.ecs.list_container_instances(cluster="default")["containerInstanceArns"]
    if not arns:
        return []
    found: list[dict[str, Any]] = account.ecs.describe_container_instances(
        cluster="default", containerInstances=arns
    )["containerInstances"]
    return found


def free(host: dict[str, Any], name: str) -> int:
    return next(int(each["integerValue"]) for each in host["remainingResources"] if each["name"] == name)


def test_a_fleets_machines_run_a_services_tasks(account: Account) -> None:
    account.service(3)
    fleet = account.spot_fleet(2)
    until(lambda: account.running() == 3, "3 tasks")

    assert states(account, account.machines(fleet)) == ["running", "running"]
    assert {each["ec2InstanceId"] for each in hosts(account)} == set(account.machines(fleet))
    assert sorted(free(each, "CPU") for each in hosts(account)) == [0, 1024]  # the first is filled first
    tasks = account.ecs.list_tasks(cluster="default", serviceName="AppService")["taskArns"]
    described = account.ecs.describe_tasks(cluster="default", tasks=tasks)["tasks"]
    assert [each["lastStatus"] for each in described] == ["RUNNING"] * 3
    assert account.described()["placementConstraints"]


def test_a_task_is_a_process_with_what_its_definition_and_its_machine_say(account: Account) -> None:
    account.service(1)
    fleet = account.spot_fleet(1)
    until(lambda: account.running() == 1, "a task")
    until(lambda: len(account.processes()) == 2, "the keeper and the container")
    environments = [environment_of(pid).split(b"\0") for pid in account.processes()]

    (machine,) = account.machines(fleet)
    for environment in environments:
        assert b"GREETING=hello" in environment
        assert f"AWS_ENDPOINT_URL={account.endpoint}".encode() in environment
        assert f"DS_MACHINE={machine}".encode() in environment


def test_nobody_else_on_this_machine_may_use_the_account(account: Account) -> None:
    import boto3
    from botocore.exceptions import ClientError

    keys = dict.fromkeys(("aws_access_key_id", "aws_secret_access_key"), "testing")
    stranger = boto3.Session(region_name="us-east-1", **keys)
    for service, call in (("ecs", "list_clusters"), ("s3", "list_buckets"), ("sqs", "list_queues")):
        with pytest.raises(ClientError, match="403"):
            getattr(stranger.client(service, endpoint_url=account.endpoint), call)()

    assert account.place.facts.stat().st_mode & 0o077 == 0
    assert account.ecs.list_clusters()["clusterArns"] == []


def test_what_does_not_fit_is_not_placed_and_ecs_says_why(account: Account) -> None:
    account.service(2, cpu=2048)
    account.spot_fleet(1)
    until(lambda: account.running() == 1, "the task that fits")
    until(lambda: "insufficient CPU" in account.described()["events"][0]["message"], "a reason")

    assert account.described()["desiredCount"] == 2


def test_whatever_is_left_is_named(account: Account) -> None:
    assert account.facts()["leftovers"] == []
    account.service(0, "mine")
    account.client("sqs").create_queue(QueueName="q")
    account.ec2.create_launch_template(
        LaunchTemplateName="t", LaunchTemplateData={"InstanceType": "m5.large"}
    )
    watch = account.client("cloudwatch")
    watch.put_dashboard(DashboardName="d", DashboardBody="{}")
    metric = {"Namespace": "n", "MetricName": "m", "Statistic": "Sum", "Period": 60}
    watch.put_metric_alarm(
        AlarmName="a",
        EvaluationPeriods=1,
        Threshold=1.0,
        ComparisonOperator="GreaterThanThreshold",
        **metric,
    )

    assert sorted(account.facts()["leftovers"]) == [
        "alarm a",
        "cluster mine",
        "dashboard d",
        "launch template t",
        "queue q",
        "service AppService",
        "task definition AppTask:1",
    ]
    account.ecs.delete_service(cluster="mine", service="AppService", force=True)
    until(lambda: not [each for each in account.facts()["leftovers"] if "service" in each], "its end")
    account.ecs.delete_cluster(cluster="mine")
    account.ecs.deregister_task_definition(taskDefinition="AppTask:1")
    assert sorted(account.facts()["leftovers"]) == ["alarm a", "dashboard d", "launch template t", "queue q"]


@pytest.mark.parametrize(("given", "told"), [({}, set[str]()), ({"MACHINE_PRICE": 0.25}, {"0.25"})])
def test_spot_prices_are_what_the_project_says(tmp_path: Path, given: dict[str, Any], told: set[str]) -> None:
    with pretend_account(tmp_path, *SLEEP, **given) as account:
        answer = account.ec2.describe_spot_price_history(InstanceTypes=["m5.large"])

    assert {each["SpotPrice"] for each in answer["SpotPriceHistory"]} == told


def test_a_mixed_fleet_has_its_machines_on_demand_however_short_spot_is(account: Account) -> None:
    account.post("faults", "capacity=1")
    data = {"ImageId": account.image(), "InstanceType": "m5.large"}
    account.ec2.create_launch_template(LaunchTemplateName="mixed", LaunchTemplateData=data)
    template = {"LaunchTemplateName": "mixed", "Version": "1"}
    size = {"TotalTargetCapacity": 4, "OnDemandTargetCapacity": 2, "DefaultTargetCapacityType": "spot"}
    fleet = account.ec2.create_fleet(
        LaunchTemplateConfigs=[{"LaunchTemplateSpecification": template}], TargetCapacitySpecification=size
    )["FleetId"]

    def kinds() -> list[str]:
        pages = account.ec2.describe_instances()["Reservations"]
        return sorted(
            each.get("InstanceLifecycle", "on demand") for page in pages for each in page["Instances"]
        )

    until(lambda: kinds() == ["on demand", "on demand", "spot"], "three machines")
    account.ec2.modify_fleet(
        FleetId=fleet, TargetCapacitySpecification={"TotalTargetCapacity": 4, "OnDemandTargetCapacity": 3}
    )
    until(lambda: kinds() == ["on demand"] * 3 + ["spot"], "another machine")
    scores = account.ec2.get_spot_placement_scores(InstanceTypes=["m5.large"], TargetCapacity=4)
    assert [each["Score"] for each in scores["SpotPlacementScores"]] == [9]


def test_without_machines_ecs_says_so(account: Account) -> None:
    account.service(1)

    until(lambda: account.described()["events"], "an event")
    assert "No Container Instances were found in your cluster" in account.described()["events"][0]["message"]


def test_a_service_that_wants_less_stops_tasks_and_tells_why(account: Account) -> None:
    account.service(2)
    account.spot_fleet(1)
    until(lambda: account.running() == 2, "2 tasks")
    account.ecs.update_service(cluster="default", service="AppService", desiredCount=0)
    until(lambda: account.running() == 0, "no task")

    stopped = account.ecs.list_tasks(cluster="default", desiredStatus="STOPPED")["taskArns"]
    found = account.ecs.describe_tasks(cluster="default", tasks=stopped)["tasks"]
    assert ["Scaling activity initiated by" in each["stoppedReason"] for each in found] == [True, True]
    assert not account.processes()


@pytest.mark.fault(46)
def test_a_fleet_that_cannot_get_machines_tells_why_in_its_history(account: Account) -> None:
    fleet = account.spot_fleet(1, launch={"ImageId": "ami-00000000000000000"})
    # before the shortage begins: a fleet that may have no machine is not asked what it would start
    until(lambda: "spotFleetRequestConfigurationInvalid" in account.history(fleet), "the refusal")
    account.post("faults", "capacity=0")
    short = account.spot_fleet(1)

    until(lambda: "allLaunchSpecsTemporarilyBlacklisted" in account.history(short), "the shortage")
    (described,) = account.ec2.describe_spot_fleet_requests(SpotFleetRequestIds=[short])[
        "SpotFleetRequestConfigs"
    ]
    assert (described["SpotFleetRequestState"], described["ActivityStatus"]) == ("active", "error")
    assert not account.machines(short)


def test_a_terminated_machine_is_replaced_and_leaves_the_cluster(account: Account) -> None:
    account.service(1)
    fleet = account.spot_fleet(1)
    until(lambda: account.running() == 1, "a task")
    (before,) = account.machines(fleet)
    account.ec2.terminate_instances(InstanceIds=[before])

    until(lambda: before not in account.machines(fleet) and len(account.machines(fleet)) == 1, "another")
    until(lambda: account.running() == 1 and len(hosts(account)) == 1, "a task on it")
    assert account.history(fleet).count("launched") == 2
    assert "terminated" in account.history(fleet)


def test_capacity_follows_what_is_asked_for(account: Account) -> None:
    fleet = account.spot_fleet(3)
    until(lambda: len(account.machines(fleet)) == 3, "3 machines")
    account.ec2.modify_spot_fleet_request(
        SpotFleetRequestId=fleet, TargetCapacity=1, ExcessCapacityTerminationPolicy="noTermination"
    )
    time.sleep(0.5)
    assert len(account.machines(fleet)) == 3
    account.ec2.terminate_instances(InstanceIds=account.machines(fleet)[:2])
    time.sleep(0.5)
    assert len(account.machines(fleet)) == 1  # and are not replaced

    account.ec2.modify_spot_fleet_request(SpotFleetRequestId=fleet, TargetCapacity=2)
    until(lambda: len(account.machines(fleet)) == 2, "2 machines")


@pytest.mark.parametrize(("terminate", "left"), [(True, 0), (False, 2)])
def test_a_cancelled_fleet_ends_or_leaves_its_machines(account: Account, terminate: bool, left: int) -> None:
    fleet = account.spot_fleet(2)
    until(lambda: len(account.machines(fleet)) == 2, "2 machines")
    answer = account.ec2.cancel_spot_fleet_requests(
        SpotFleetRequestIds=[fleet, "sfr-unknown"], TerminateInstances=terminate
    )

    assert answer["SuccessfulFleetRequests"][0]["PreviousSpotFleetRequestState"] == "active"
    assert answer["UnsuccessfulFleetRequests"][0]["SpotFleetRequestId"] == "sfr-unknown"
    wanted = "cancelled" if terminate else "cancelled_running"
    until(lambda: wanted in account.history(fleet), "the state in the history")
    assert len(account.machines(fleet)) == left


@pytest.mark.fault(12)
def test_a_fleet_ends_by_itself_when_its_time_is_over(account: Account) -> None:
    account.image(), account.machines(account.spot_fleet(0))  # clients and types are read before time counts
    soon = datetime.now(UTC) + timedelta(seconds=8)
    fleet = account.spot_fleet(1, ValidUntil=soon, TerminateInstancesWithExpiration=True)
    until(lambda: "cancelled" in account.history(fleet), "the fleet's end", 60)

    history = account.history(fleet)
    assert history.index("launched") < history.index("terminated") < history.index("cancelled")
    assert not account.machines(fleet)


def test_an_ec2_fleet_uses_its_template_and_every_override(account: Account) -> None:
    subnets = [each["SubnetId"] for each in account.ec2.describe_subnets()["Subnets"][:2]]
    data = {"ImageId": account.image(), "InstanceType": "m5.large"}
    account.ec2.create_launch_template(LaunchTemplateName="template", LaunchTemplateData=data)
    configs = [
        {
            "LaunchTemplateSpecification": {"LaunchTemplateName": "template", "Version": "1"},
            "Overrides": [{"InstanceType": "c5.large", "SubnetId": each} for each in subnets],
        }
    ]
    request = {
        "ClientToken": "once",
        "LaunchTemplateConfigs": configs,
        "TargetCapacitySpecification": {"TotalTargetCapacity": 2, "DefaultTargetCapacityType": "spot"},
        "TagSpecifications": [{"ResourceType": "fleet", "Tags": [{"Key": "ds:app", "Value": "App"}]}],
        "Type": "maintain",
    }
    fleet = account.ec2.create_fleet(**request)["FleetId"]
    assert account.ec2.create_fleet(**request)["FleetId"] == fleet

    def active() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = account.ec2.describe_fleet_instances(FleetId=fleet)["ActiveInstances"]
        return found

    until(lambda: len(active()) == 2, "2 machines")
    assert {each["InstanceType"] for each in active()} == {"c5.large"}
    (described,) = account.ec2.describe_fleets(FleetIds=[fleet])["Fleets"]
    assert (described["FleetState"], described["ActivityStatus"]) == ("active", "fulfilled")
    assert described["Tags"] == [{"Key": "ds:app", "Value": "App"}]
    account.ec2.modify_fleet(
        FleetId=fleet,
        ExcessCapacityTerminationPolicy="termination",
        TargetCapacitySpecification={"TotalTargetCapacity": 1},
    )
    until(lambda: len(active()) == 1, "1 machine")
    account.ec2.delete_fleets(FleetIds=[fleet], TerminateInstances=True)
    until(lambda: not active(), "none")

    def history() -> list[str]:
        found = account.ec2.describe_fleet_history(FleetId=fleet, StartTime="2020-01-01T00:00:00Z")
        return [each["EventInformation"]["EventSubType"] for each in found["HistoryRecords"]]

    until(lambda: history()[-1] == "deleted", "the fleet's end")


def test_a_cluster_in_use_cannot_be_deleted(account: Account) -> None:
    account.service(0)
    fleet = account.spot_fleet(1)
    until(lambda: hosts(account), "a machine in the cluster")
    with pytest.raises(account.ecs.exceptions.ClusterContainsContainerInstancesException):
        account.ecs.delete_cluster(cluster="default")
    account.ec2.cancel_spot_fleet_requests(SpotFleetRequestIds=[fleet], TerminateInstances=True)
    until(lambda: not hosts(account), "an empty cluster")
    with pytest.raises(account.ecs.exceptions.ClusterContainsServicesException):
        account.ecs.delete_cluster(cluster="default")
    account.ecs.delete_service(cluster="default", service="AppService")
    until(lambda: account.described()["status"] == "INACTIVE", "the service's end")

    account.ecs.delete_cluster(cluster="default")


@pytest.mark.fault(47)
def test_tasks_keep_to_the_machines_of_their_own_app(account: Account) -> None:
    from base64 import b64encode

    from distributed_something.aws.ec2.requests.userdata import user_data

    others = b64encode(user_data("Other", "default").encode()).decode()
    account.service(1)
    account.spot_fleet(1, launch={"UserData": others})
    until(lambda: hosts(account), "the other app's machine")

    until(
        lambda: "MemberOf placement constraint" in account.described()["events"][0]["message"], "the reason"
    )
    assert account.running() == 0


def test_a_notice_is_in_the_metadata_and_drains_the_machine(account: Account) -> None:
    account.service(1)
    account.post("faults", "notice=60/s,speed=20x")
    fleet = account.spot_fleet(1)
    until(lambda: "termination_notified" in account.history(fleet), "a notice")
    (first, *_) = (each["id"] for each in account.facts()["machines"] if each["noticed"])
    where = f"machines/{first}/latest"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        account.get(f"{where}/meta-data/instance-id")
    token = account.post(f"{where}/api/token", method="PUT")
    headers = {"X-aws-ec2-metadata-token": token}

    assert account.get(f"{where}/meta-data/instance-id", **headers) == first
    assert (
        json.loads(account.get(f"{where}/meta-data/spot/instance-action", **headers))["action"] == "terminate"
    )
    until(
        lambda: (
            any(each["status"] == "DRAINING" for each in hosts(account))
            or first not in account.machines(fleet)
        ),
        "the machine to drain",
    )
    until(lambda: account.history(fleet).count("terminated") >= 1, "its end")


def test_calls_are_counted_and_refused_as_aws_does(account: Account) -> None:
    from botocore.exceptions import ClientError

    account.post("faults", "throttle=50%,error=49%,seed=1")
    codes: dict[str, set[str]] = {}
    calls = {
        "ec2": lambda: account.ec2.describe_fleets(),
        "ecs": lambda: account.ecs.list_clusters(),
        "sqs": lambda: account.client("sqs").list_queues(),
        "s3": lambda: account.client("s3").list_buckets(),
        "iam": lambda: account.client("iam").list_roles(),
        "cloudwatch": lambda: account.client("cloudwatch").describe_alarms(),
    }
    for service, call in calls.items():
        for _ in range(20):
            try:
                call()
            except ClientError as error:
                codes.setdefault(service, set()).add(error.response["Error"]["Code"])

    assert codes["ec2"] == {"RequestLimitExceeded", "InternalError"}
    assert codes["ecs"] == {"ThrottlingException", "ServerException"}
    assert codes["s3"] == {"SlowDown", "InternalError"}
    assert codes["sqs"] == {"RequestThrottled", "InternalFailure"}
    assert codes["iam"] == {"ThrottlingException", "InternalFailure"}
    assert codes["cloudwatch"] == {"ThrottlingException", "InternalFailure"}
    facts = account.facts()
    assert facts["calls"]["ec2.DescribeFleets"] == 20
    assert facts["calls"]["monitoring.DescribeAlarms"] == 20
    assert sum(facts["refused"].values()) >= 110


def test_counts_lag_on_request(account: Account) -> None:
    sqs = account.client("sqs")
    url = sqs.create_queue(QueueName="q")["QueueUrl"]

    def count() -> int:
        names = ["ApproximateNumberOfMessages"]
        return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"][names[0]])

    account.post("faults", "lag=20s,speed=10x")
    assert count() == 0
    sqs.send_message(QueueUrl=url, MessageBody="one")
    assert count() == 0
    until(lambda: count() == 1, "the count")


def tree() -> tuple[str, ...]:
    """A task that leaves processes behind in every way there is."""
    leaves = "sleep 1000 & setsid sleep 1000 & (sleep 1000 &)"
    return ("sh", "-c", f"{leaves}; echo started; trap : TERM; while :; do sleep 1; done")


@pytest.mark.fault(17)
def test_a_killed_machine_takes_its_tasks_whole_trees_with_it(tmp_path: Path) -> None:
    with pretend_account(tmp_path, *tree()) as account:
        account.service(1)
        fleet = account.spot_fleet(1)
        until(lambda: len(account.processes()) >= 5, "a tree")
        first = set(account.processes())
        account.post("faults", "kill=60/s")
        account.ec2.modify_spot_fleet_request(SpotFleetRequestId=fleet, TargetCapacity=2)

        until(lambda: any(each["lost"] for each in account.facts()["machines"]), "a killed machine")
        account.post("faults", "")
        account.ec2.cancel_spot_fleet_requests(SpotFleetRequestIds=[fleet], TerminateInstances=True)
        until(lambda: not account.processes(), "the end of every process")
        assert first


def test_a_container_that_does_not_heed_term_is_killed_after_its_stop_timeout(tmp_path: Path) -> None:
    with pretend_account(tmp_path, *tree()) as account:
        account.service(1, stop=1)
        account.spot_fleet(1)
        until(lambda: len(account.processes()) >= 5, "a tree")
        account.ecs.update_service(cluster="default", service="AppService", desiredCount=0)

        until(lambda: not account.processes(), "the end of every process", 10)


def test_what_a_task_prints_is_in_its_log_stream(tmp_path: Path) -> None:
    with pretend_account(tmp_path, *tree()) as account:
        account.service(1)
        account.spot_fleet(1)
        logs = account.client("logs")

        def printed() -> list[str]:
            found = logs.filter_log_events(logGroupName="logs-default")["events"]
            return [each["message"] for each in found]

        until(lambda: printed() == ["started"], "the line")
        (stream,) = logs.describe_log_streams(logGroupName="logs-default")["logStreams"]
        assert stream["logStreamName"].startswith("App/App/")


def test_nothing_outlives_the_killed_daemon(tmp_path: Path) -> None:
    with pretend_account(tmp_path, *tree()) as account:
        account.service(2)
        account.spot_fleet(1)
        until(lambda: len(account.processes()) >= 10, "two trees")
        os.kill(account.process.pid, 9)

        until(lambda: not account.processes(), "the end of every process")


def test_tasks_that_end_at_once_are_started_slower_and_slower(tmp_path: Path) -> None:
    with pretend_account(tmp_path, "sh", "-c", "exit 3") as account:
        account.service(1)
        account.spot_fleet(1)
        said = "is unable to consistently start tasks successfully"
        until(lambda: any(said in each["message"] for each in account.described()["events"]), "the event")

        stopped = account.ecs.list_tasks(cluster="default", desiredStatus="STOPPED")["taskArns"]
        found = account.ecs.describe_tasks(cluster="default", tasks=stopped)["tasks"]
        assert {each["stoppedReason"] for each in found} == {"Essential container in task exited"}
        assert {each["containers"][0]["exitCode"] for each in found} == {3}


def test_the_bucket_is_the_folder_and_outlives_the_emulator(tmp_path: Path) -> None:
    (tmp_path / "data" / "in").mkdir(parents=True)
    (tmp_path / "data" / "in" / "a file.txt").write_text("given")
    with pretend_account(tmp_path, *SLEEP, AWS_BUCKET="mine") as account:
        s3 = account.client("s3")
        assert s3.get_object(Bucket="mine", Key="in/a file.txt")["Body"].read() == b"given"
        s3.put_object(Bucket="mine", Key="out/b.txt", Body=b"made")
        with pytest.raises(s3.exceptions.ClientError, match="PreconditionFailed"):
            s3.put_object(Bucket="mine", Key="out/b.txt", Body=b"again", IfNoneMatch="*")
        with pytest.raises(s3.exceptions.NoSuchKey):
            s3.get_object(Bucket="mine", Key="nowhere")
        with pytest.raises(s3.exceptions.ClientError, match="InvalidArgument"):
            s3.put_object(Bucket="mine", Key="../out.txt", Body=b"out")
        os.kill(account.process.pid, 9)

    assert (tmp_path / "data" / "out" / "b.txt").read_text() == "made"
