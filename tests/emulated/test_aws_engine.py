"""The aws engine against the emulator, by the steps that a user takes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aws_project import IMAGE, Calls, Cloud, answer, fleet_file, instances
from distributed_something.aws.ec2.requests.newfleet import write_fleet_file
from distributed_something.aws.ecs.resources import Kind
from distributed_something.errors import DsError, Unreachable, UsageError
from distributed_something.job import Cause, Job
from distributed_something.steps.setup import next_run, setup
from distributed_something.steps.start import await_machines, start
from distributed_something.steps.submit import check, submit_checked
from emulating import REGION, endpoint, session


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path / "project")


# -- setup --------------------------------------------------------------------------------------------------


def test_setup_makes_everything_and_records_it(cloud: Cloud) -> None:
    run = setup(cloud.project)
    for kind, name in [
        (Kind.QUEUE, "Queue"),
        (Kind.QUEUE, "DeadMessages"),
        (Kind.LOG_GROUP, ""),
        (Kind.LOG_GROUP, "_perInstance"),
        (Kind.TASK_DEFINITION, "Task"),
        (Kind.SERVICE, "Service"),
    ]:
        assert cloud.found(kind, cloud.app + name) is not None, name
        assert f"{kind} {cloud.app}{name}" in cloud.record().resources
    assert cloud.engine.current_run() == cloud.record().run == run
    assert cloud.record().bucket == cloud.bucket, "as the reference has it"
    assert cloud.found(Kind.LOG_GROUP, cloud.app).settings["retentionInDays"] == 60


def test_a_dry_run_prints_the_plan_and_makes_nothing(cloud: Cloud) -> None:
    calls = Calls(cloud.engine)
    plan = cloud.engine.plan(next_run(cloud.project))
    assert f"create queue {cloud.app}Queue" in plan and f"create service {cloud.app}Service" in plan
    reads = ("Describe", "Get", "List", "Head")
    assert all(name.startswith(reads) for name in calls.names()), calls.names()
    assert cloud.engine.current_run() is None and not cloud.project.record_path.exists()


@pytest.mark.fault(18)
def test_setup_again_makes_nothing_and_brings_settings_in_line(cloud: Cloud) -> None:
    run = setup(cloud.project)
    made = cloud.record().resources
    calls = Calls(cloud.engine)
    assert setup(cloud.project) == run
    assert cloud.record().resources == made
    assert not [name for name in calls.names() if name.startswith(("Create", "Register", "Delete", "Purge"))]
    assert "changed queue" not in cloud.err.getvalue()
    cloud.config(SQS_MESSAGE_VISIBILITY=77, MEMORY=1000)
    assert setup(cloud.project) == run
    told = cloud.err.getvalue()
    assert f"changed queue {cloud.app}Queue: VisibilityTimeout 120 → 77\n" in told
    (task,) = [line for line in told.splitlines() if "changed task definition " in line]
    assert f"containerDefinitions.{cloud.app}.memory " in task
    assert cloud.found(Kind.QUEUE, cloud.app + "Queue").settings["VisibilityTimeout"] == "77"
    task = cloud.found(Kind.TASK_DEFINITION, cloud.app + "Task").settings
    assert task["containerDefinitions"][-1]["memory"] == 1000
    assert cloud.found(Kind.SERVICE, cloud.app + "Service").settings["taskDefinition"] == cloud.app + "Task"


@pytest.mark.parametrize("again", [False, True])
def test_setup_reads_what_is_there_once(cloud: Cloud, again: bool) -> None:
    if again:
        setup(cloud.project)
        cloud.open()
    calls = Calls(cloud.engine)
    setup(cloud.project)
    seen = ("HeadBucket", "GetInstanceProfile", "DescribeClusters", "DescribeInstanceTypes")
    assert [calls.names().count(name) for name in seen] == [1, 1, 1, 1]
    assert len(calls.seen) <= 45


def test_tasks_are_told_the_queues_own_address(cloud: Cloud) -> None:
    setup(cloud.project)
    [_, main] = cloud.found(Kind.TASK_DEFINITION, cloud.app + "Task").settings["containerDefinitions"]
    told = {each["name"]: each["value"] for each in main["environment"]}
    assert told["SQS_QUEUE_URL"] == cloud.engine.queue().urls.jobs
    assert told["DS_RUN"] == cloud.engine.current_run()


@pytest.mark.fault(47)
def test_tasks_are_placed_on_the_apps_own_machines(cloud: Cloud) -> None:
    calls = Calls(cloud.engine)
    setup(cloud.project)
    [sent] = calls.of("CreateService")
    rule = {"type": "memberOf", "expression": f"attribute:ds.app == {cloud.app}"}
    assert sent["placementConstraints"] == [rule]


def test_each_resource_is_recorded_before_the_next_is_made(cloud: Cloud) -> None:
    """Setup fails at each of its steps in turn: what was made by then is in the record, and setup goes on."""
    for step in ("CreateCluster", "RegisterTaskDefinition", "CreateService"):
        service = cloud.engine.session.client("ecs")
        event = f"provide-client-params.ecs.{step}"

        def fail(**_: object) -> None:
            raise DsError("the network went away")

        service.meta.events.register(event, fail)
        with pytest.raises(DsError, match="went away"):
            setup(cloud.project)
        service.meta.events.unregister(event, fail)
        for resource in cloud.record().resources:
            kind = next(kind for kind in Kind if resource.startswith(f"{kind} "))
            assert cloud.found(kind, resource.removeprefix(f"{kind} ")) is not None
    run = cloud.record().run
    assert setup(cloud.project) == run
    assert len(cloud.record().resources) == 8


@pytest.mark.fault(35, 36, 42)
def test_names_are_compared_exactly_over_all_pages(cloud: Cloud) -> None:
    sqs, logs = session().client("sqs"), session().client("logs")
    logs.create_log_group(logGroupName=f"{cloud.app}_per")
    for number in range(60):
        logs.create_log_group(logGroupName=f"{cloud.app}-{number}")
    for name in (f"lab-{cloud.app}Queue", f"{cloud.app}Queue2"):
        sqs.create_queue(QueueName=name)
    session().client("ecs").create_cluster(clusterName=f"lab-cluster-{cloud.app}")
    plan = cloud.engine.plan("run1")
    assert all(line.startswith("create ") for line in plan), plan
    setup(cloud.project)
    assert cloud.found(Kind.LOG_GROUP, cloud.app) is not None


def test_a_missing_role_is_one_clear_line(cloud: Cloud) -> None:
    iam = session().client("iam")
    iam.delete_role(RoleName="distributed-something-task")
    try:
        with pytest.raises(DsError, match="no role distributed-something-task") as error:
            setup(cloud.project)
    finally:
        iam.create_role(RoleName="distributed-something-task", AssumeRolePolicyDocument="{}")
    assert error.value.fix.startswith("ds account setup")
    assert cloud.engine.current_run() is None


def test_a_missing_bucket_and_a_type_that_there_is_not(cloud: Cloud) -> None:
    cloud.config(AWS_BUCKET="no-such-bucket-of-ours")
    with pytest.raises(UsageError, match="no bucket no-such-bucket-of-ours"):
        cloud.engine.plan("run1")
    cloud.config(AWS_BUCKET=cloud.bucket, MACHINE_TYPE=["m5.xxlarge"])
    with pytest.raises(UsageError, match=r"MACHINE_TYPE: .*m5\.xxlarge"):
        cloud.engine.plan("run1")


@pytest.mark.fault(16)
def test_a_queue_of_another_app_is_not_shared(cloud: Cloud, tmp_path: Path) -> None:
    setup(cloud.project)
    other = Cloud(tmp_path / "other", SQS_QUEUE_NAME=f"{cloud.app}Queue")
    with pytest.raises(UsageError, match=f"belongs to the app {cloud.app}"):
        setup(other.project)
    strange = f"strange-{cloud.app}"
    sqs = session().client("sqs")
    sqs.send_message(QueueUrl=sqs.create_queue(QueueName=strange)["QueueUrl"], MessageBody="{}")
    other.config(SQS_QUEUE_NAME=strange)
    with pytest.raises(UsageError, match="was not made by us, and holds 1 messages"):
        setup(other.project)


@pytest.mark.fault(16)
def test_a_dead_letter_queue_that_apps_share_is_left_alone_and_the_app_has_one_of_its_own(
    cloud: Cloud,
) -> None:
    sqs, shared = session().client("sqs"), f"DeadMessages-{cloud.app}"
    url = sqs.create_queue(QueueName=shared)["QueueUrl"]
    cloud.config(SQS_DEAD_LETTER_QUEUE=shared)
    setup(cloud.project)
    jobs = sqs.get_queue_url(QueueName=f"{cloud.app}Queue")["QueueUrl"]
    policy = sqs.get_queue_attributes(QueueUrl=jobs, AttributeNames=["All"])["Attributes"]["RedrivePolicy"]
    assert json.loads(policy)["deadLetterTargetArn"].endswith(f":{cloud.app}Queue-dead")
    assert not sqs.list_queue_tags(QueueUrl=url).get("Tags")

    cloud.open()  # a new engine knows no more than the config and the account
    later = cloud.engine
    later.queue().put([Job("0" * 16, 0, b'{"group":{}}')])
    (lease,) = later.queue().lease(1)
    later.queue().fail(lease, Cause.EXIT, "broken", final=True)
    assert later.queue().counts().dead == 1
    assert later.remove() == []
    assert sqs.get_queue_url(QueueName=shared)["QueueUrl"] == url


@pytest.mark.fault(16)
def test_two_apps_that_set_up_at_once_do_not_take_each_others_dead_letter_queue(cloud: Cloud) -> None:
    sqs, shared = session().client("sqs"), f"DeadMessages-{cloud.app}"
    cloud.config(SQS_DEAD_LETTER_QUEUE=shared)

    def other_makes_it_too(resource: str) -> None:
        if resource == f"queue {shared}":
            url = sqs.get_queue_url(QueueName=shared)["QueueUrl"]
            sqs.tag_queue(QueueUrl=url, Tags={"ds:app": "Other", "ds:run": "r"})

    cloud.engine.setup("20261130T000000Z-0000", other_makes_it_too)
    url = sqs.get_queue_url(QueueName=shared)["QueueUrl"]
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"]["ds:app"] == "Other"
    jobs = sqs.get_queue_url(QueueName=f"{cloud.app}Queue")["QueueUrl"]
    policy = sqs.get_queue_attributes(QueueUrl=jobs, AttributeNames=["All"])["Attributes"]["RedrivePolicy"]
    assert json.loads(policy)["deadLetterTargetArn"].endswith(f":{cloud.app}Queue-dead")


@pytest.mark.fault(29, 41)
def test_no_key_is_in_the_task_definition_and_the_configs_region_is_used(cloud: Cloud) -> None:
    setup(cloud.project)
    text = json.dumps(cloud.found(Kind.TASK_DEFINITION, cloud.app + "Task").settings, default=str)
    assert "testing" not in text and "SECRET" not in text
    cloud.config(AWS_REGION="eu-central-1")
    assert cloud.engine.current_run() is None


# -- submit -------------------------------------------------------------------------------------------------


def test_jobs_are_submitted_listed_and_known(cloud: Cloud) -> None:
    setup(cloud.project)
    assert cloud.submit()[:2] == (5, 0)
    cloud.open()
    assert cloud.submit(cloud.jobs(8))[:2] == (3, 5)
    assert cloud.engine.queue().counts().waiting == 8
    snapshot = cloud.project.snapshot()
    assert (snapshot.jobs.total, snapshot.jobs.waiting, snapshot.queued) == (8, 8, 8)


def test_an_interrupted_submission_adds_what_is_missing_and_nothing_twice(cloud: Cloud) -> None:
    setup(cloud.project)
    jobs = cloud.jobs(400)
    checked = check(cloud.project, jobs, {})
    checked = checked._replace(file=_Interrupting(checked.file, after=150))
    with pytest.raises(KeyboardInterrupt):
        submit_checked(cloud.project, checked)
    assert "submit the file again" in cloud.err.getvalue()
    sent = cloud.engine.queue().counts().waiting
    assert 100 <= sent < 400
    cloud.open()
    report = cloud.submit(jobs)
    assert (report.sent, report.known) == (400 - sent, sent)
    assert cloud.engine.queue().counts().waiting == cloud.project.snapshot().jobs.total == 400


class _Interrupting:
    """A job file during whose reading somebody presses Ctrl-C."""

    def __init__(self, file: Any, after: int) -> None:
        self._file, self._after = file, after
        self.path = file.path

    def jobs(self, *, in_order: bool) -> Iterator[Any]:
        for number, job in enumerate(self._file.jobs(in_order=in_order)):
            if number == self._after:
                os.kill(os.getpid(), signal.SIGINT)
            yield job


def test_a_job_too_large_for_a_message_is_found_before_anything_is_sent(cloud: Cloud) -> None:
    setup(cloud.project)
    path = cloud.folder / "jobs.json"
    path.write_text(json.dumps({"groups": [{"n": 1}, {"n": "x" * 1_100_000}]}))
    cloud.config(COMMAND="echo")
    with pytest.raises(UsageError, match="job 2: is larger than the queue takes"):
        cloud.submit(path)
    assert cloud.engine.queue().counts().open == 0


# -- start --------------------------------------------------------------------------------------------------


@pytest.mark.fault(12, 43, 45)
def test_start_asks_for_the_fleet_of_the_file(cloud: Cloud) -> None:
    run = setup(cloud.project)
    calls = Calls(cloud.engine)
    start(cloud.project, fleet_file(cloud))
    [sent] = calls.of("RequestSpotFleet")
    request = sent["SpotFleetRequestConfig"]
    assert (request["TargetCapacity"], request["ClientToken"]) == (3, f"{run}-0")
    assert request["ValidUntil"] == "2026-09-22T14:13:20Z"  # a day after the start
    [record] = [cloud.record()]
    assert record.fleets[0].startswith("sfr-")
    assert len(instances(cloud)) == 3
    tags = {each["ResourceType"] for each in request["TagSpecifications"]}
    assert tags == {"spot-fleet-request"}
    order = [n for n in calls.names() if n in ("UpdateService", "RequestSpotFleet")]
    assert order[-2:] == ["UpdateService", "RequestSpotFleet"]
    assert calls.of("UpdateService")[-1]["desiredCount"] == 3
    machines = cloud.engine.machines()
    assert (machines.target, machines.running, machines.slots) == (3, 3, 12)


def test_a_fleet_that_is_refused_leaves_no_tasks_wanted_for_it(cloud: Cloud) -> None:
    """More tasks than the machines are to have would crowd those that are there."""
    setup(cloud.project)
    start(cloud.project, fleet_file(cloud))
    with pytest.raises(DsError, match="ImageId"):
        start(cloud.project, fleet_file(cloud, ImageId="ami-00000000000000000"))
    service = cloud.found(Kind.SERVICE, cloud.app + "Service").settings
    assert service["desiredCount"] == 3


@pytest.mark.fault(11)
def test_a_second_start_adds_a_fleet(cloud: Cloud) -> None:
    setup(cloud.project)
    start(cloud.project, fleet_file(cloud))
    cloud.open()
    calls = Calls(cloud.engine)
    start(cloud.project, None)
    assert [each[:4] for each in cloud.record().fleets] == ["sfr-", "flee"]
    assert calls.of("UpdateService")[-1]["desiredCount"] == 6
    assert calls.of("CreateFleet")[0]["ClientToken"].endswith("-1")
    assert len(instances(cloud)) == 6


def test_a_fleet_that_a_killed_start_could_not_write_down_is_taken_over(cloud: Cloud) -> None:
    setup(cloud.project)
    before = cloud.project.record_path.read_text()
    start(cloud.project, fleet_file(cloud))
    fleets = cloud.record().fleets
    cloud.project.record_path.write_text(before)
    cloud.open()
    start(cloud.project, fleet_file(cloud))
    assert cloud.record().fleets == fleets
    assert len(instances(cloud)) == 3


def test_placeholders_are_found_before_anything_is_asked(cloud: Cloud) -> None:
    setup(cloud.project)
    calls = Calls(cloud.engine)
    with pytest.raises(UsageError, match="placeholder"):
        start(cloud.project, fleet_file(cloud, ImageId="ami-xxxxxxxx"))
    assert not [name for name in calls.names() if not name.startswith(("Get", "List"))]


@pytest.mark.fault(32, 45, 46)
def test_start_without_a_file_makes_a_fleet_from_the_config(cloud: Cloud) -> None:
    cloud.config(MACHINE_TYPE=["m5.xlarge", "c5.2xlarge"], MACHINE_PRICE=0.123)
    setup(cloud.project)
    calls = Calls(cloud.engine)
    start(cloud.project, None)
    [template] = calls.of("CreateLaunchTemplate")
    data = template["LaunchTemplateData"]
    assert data["ImageId"] == session().client("ssm").get_parameter(Name=IMAGE)["Parameter"]["Value"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["SecurityGroupIds"] and data["IamInstanceProfile"]["Arn"].endswith(
        "/distributed-something-machine"
    )
    [fleet] = calls.of("CreateFleet")
    [config] = fleet["LaunchTemplateConfigs"]
    overrides = config["Overrides"]
    assert {each["InstanceType"] for each in overrides} == {"m5.xlarge", "c5.2xlarge"}
    assert len({each["SubnetId"] for each in overrides}) == 6
    assert {each["MaxPrice"] for each in overrides} == {"0.123"}
    assert fleet["SpotOptions"]["AllocationStrategy"] == "price-capacity-optimized"
    assert f"launch template {template['LaunchTemplateName']}" in cloud.record().resources
    names = calls.names()
    assert names.index("CreateLaunchTemplate") < names.index("CreateFleet")


@pytest.mark.parametrize(
    ("types", "parameter"), [(["m6g.large"], "arm64/recommended"), (["g4dn.xlarge"], "gpu/recommended")]
)
def test_the_image_fits_the_machines(cloud: Cloud, types: list[str], parameter: str) -> None:
    cloud.config(MACHINE_TYPE=types)
    calls = Calls(cloud.engine)
    cloud.engine.region.image_id()
    assert parameter in calls.of("GetParameter")[0]["Name"]


def test_a_dashboard_is_made_and_where_it_cannot_be_the_fleet_stands(cloud: Cloud) -> None:
    cloud.config(CREATE_DASHBOARD=True)
    watch = session().client("cloudwatch")
    watch.put_dashboard(DashboardName=cloud.app, DashboardBody='{"widgets": []}')
    setup(cloud.project)
    with pytest.raises(DsError, match=r"machines were asked for .*, but the dashboard") as error:
        start(cloud.project, fleet_file(cloud))
    assert "CREATE_DASHBOARD" in error.value.fix
    watch.delete_dashboards(DashboardNames=[cloud.app])
    cloud.open()
    start(cloud.project, fleet_file(cloud))
    assert len(instances(cloud)) == 3
    body = watch.get_dashboard(DashboardName=cloud.app)["DashboardBody"]
    assert cloud.record().fleets[0] in body


def test_a_setup_that_cannot_begin_leaves_the_record_of_the_last_run(cloud: Cloud) -> None:
    setup(cloud.project)
    before = cloud.project.record_path.read_text()
    cloud.config(MEMORY=1_000_000)
    with pytest.raises(UsageError, match="no task fits"):
        setup(cloud.project)
    assert cloud.project.record_path.read_text() == before


def test_machines_that_came_are_shown(cloud: Cloud) -> None:
    setup(cloud.project)
    start(cloud.project, None)
    machines = await_machines(cloud.project, 600)
    assert machines.running == 3
    assert "3 of 3 machines" in cloud.err.getvalue()


def test_a_look_that_fails_ends_no_wait_for_machines(cloud: Cloud) -> None:
    setup(cloud.project)
    start(cloud.project, fleet_file(cloud))
    fails = iter([True, True])

    def fail(**_: object) -> None:
        if next(fails, False):
            raise Unreachable("the network went away", "try again")

    events = cloud.engine.session.client("ec2").meta.events
    events.register("provide-client-params.ec2.DescribeInstances", fail)
    assert await_machines(cloud.project, 600).running == 3
    assert cloud.err.getvalue().count("the network went away; looking again") == 2
    events.register("provide-client-params.ec2.DescribeInstances", _unreachable)
    with pytest.raises(Unreachable):
        await_machines(cloud.project, 60)


def _unreachable(**_: object) -> None:
    raise Unreachable("the network went away", "try again")


@pytest.mark.fault(44, 46)
def test_a_new_fleet_file_is_resolved_and_can_be_started(cloud: Cloud) -> None:
    iam, ec2 = session().client("iam"), session().client("ec2")
    ec2.create_key_pair(KeyName=f"key-{cloud.app}")
    path = cloud.folder / "files" / "fleet.json"
    config = cloud.config(SSH_KEY_NAME="no-such-key.pem").config
    with pytest.raises(UsageError, match="has no key pair no-such-key"):
        write_fleet_file(config, REGION, path, endpoint())
    config = cloud.config(SSH_KEY_NAME=f"key-{cloud.app}.pem").config
    with pytest.raises(DsError, match="no role distributed-something-fleet"):
        write_fleet_file(config, REGION, path, endpoint())
    assert not path.exists()
    iam.create_role(RoleName="distributed-something-fleet", AssumeRolePolicyDocument="{}")
    try:
        write_fleet_file(config, REGION, path, endpoint())
    finally:
        iam.delete_role(RoleName="distributed-something-fleet")
    content = json.loads(path.read_text())
    image = session().client("ssm").get_parameter(Name=IMAGE)["Parameter"]["Value"]
    for each in content["LaunchSpecifications"]:
        [disk] = each["BlockDeviceMappings"]
        assert each["ImageId"] == image and each["KeyName"] == f"key-{cloud.app}"
        assert disk["Ebs"]["SnapshotId"].startswith("snap-")
    subnets = {each["NetworkInterfaces"][0]["SubnetId"] for each in content["LaunchSpecifications"]}
    assert len(subnets) == 6
    setup(cloud.project)
    start(cloud.project, path)
    assert len(instances(cloud)) == 3


def refused(cloud: Cloud, said: str, machines: int = 0) -> None:
    """From now on the fleet has so many machines, and its history says why not more."""
    here = [{"InstanceId": f"i-0000000{n}", "State": {"Name": "running"}} for n in range(machines)]
    answer(cloud, "DescribeInstances", {"Reservations": [{"Instances": here}]})
    told = {"EventType": "error", "EventInformation": {"EventDescription": said}}
    answer(cloud, "DescribeSpotFleetRequestHistory", {"HistoryRecords": [told]})


@pytest.mark.fault(46)
def test_a_fleet_that_can_never_get_a_machine_is_taken_back_with_its_reason(cloud: Cloud) -> None:
    setup(cloud.project)
    start(cloud.project, fleet_file(cloud))
    calls = Calls(cloud.engine)
    refused(cloud, "The key pair 'lost' does not exist (InvalidKeyPair.NotFound)")
    with pytest.raises(DsError, match="no machine can come: the key pair") as error:
        await_machines(cloud.project, 600)
    assert "SSH_KEY_NAME" in error.value.fix
    assert len(calls.of("CancelSpotFleetRequests")) == 1
    assert calls.of("UpdateService")[-1]["desiredCount"] == 0


@pytest.mark.fault(46)
@pytest.mark.parametrize("machines", [0, 1])
def test_where_capacity_is_short_the_request_stands_and_the_wait_ends(cloud: Cloud, machines: int) -> None:
    setup(cloud.project)
    start(cloud.project, fleet_file(cloud))
    calls = Calls(cloud.engine)
    refused(cloud, "There is no Spot capacity available for m5.xlarge in us-east-1d", machines)
    before = cloud.clock.now()
    found = await_machines(cloud.project, 600)
    assert cloud.clock.now() - before == 600
    assert (found.running, found.target) == (machines, 3)
    assert cloud.err.getvalue().count("no spare capacity for m5.xlarge in us-east-1d") == 1
    assert "Cancel" not in " ".join(calls.names())
