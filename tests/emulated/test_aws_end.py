"""The end of a run on AWS: machines let go on the way, and what is there when it is over."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from aws_project import Calls, Cloud, answer, fleet_file, instances, left, work
from distributed_something.aws.ecs.resources import Kind
from distributed_something.aws.teardown import LEAVE_SECONDS
from distributed_something.aws.watch.dashboard import put_dashboard
from distributed_something.cli.views.jobs import jobs
from distributed_something.cli.views.logs import failures
from distributed_something.errors import (
    LEFTOVERS,
    OK,
    SOME_DEAD,
    DsError,
    NotSignedIn,
    QueueIncomplete,
    UsageError,
)
from distributed_something.job import Cause, Lease
from distributed_something.runs.joblog import read_log
from distributed_something.runs.record import RunRecord, read_record, write_record
from distributed_something.runs.runfile import read_run_file
from distributed_something.s3.session import NoAnswer
from distributed_something.s3.uploads import prefixes_of
from distributed_something.steps.cleanup import cleanup
from distributed_something.steps.retry import retry
from distributed_something.steps.setup import setup
from distributed_something.steps.start import start
from distributed_something.steps.stop import stop
from distributed_something.steps.watch.finish import end
from distributed_something.steps.watch.monitor import monitor
from emulating import session


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path / "project")


def begin(cloud: Cloud, jobs: int = 5) -> str:
    run = setup(cloud.project)
    cloud.submit(cloud.jobs(jobs))
    start(cloud.project, fleet_file(cloud))
    return run


@pytest.mark.fault(1, 40)
def test_the_monitor_ends_a_run_that_is_done_and_nothing_is_left(cloud: Cloud) -> None:
    begin(cloud)
    work(cloud, 5)
    calls = Calls(cloud.engine)
    assert monitor(cloud.project, None, None) == OK
    assert left(cloud) == []
    assert cloud.found(Kind.LOG_GROUP, cloud.app) is not None
    assert cloud.found(Kind.CLUSTER, str(cloud.given["ECS_CLUSTER"])) is None
    names = calls.names()
    assert names.index("UpdateService") < names.index("DeleteService"), "to 0, then deleted"
    assert names.index("CancelSpotFleetRequests") < names.index("DeleteService")
    assert all(each["TerminateInstances"] for each in calls.of("CancelSpotFleetRequests"))


def test_what_a_run_has_cost_is_known_when_everything_has_gone(cloud: Cloud) -> None:
    cloud.config(MACHINE_PRICE=0.2)
    run = begin(cloud)
    cloud.clock.advance(3600)
    work(cloud, 5)
    monitor(cloud.project, None, None)
    report = json.loads(cloud.engine.store.read(f"runs/{cloud.app}/{run}/report.json"))
    assert report["cost_usd"] > 0
    ended = cloud.open().snapshot()
    assert (ended.state, ended.cost_usd) == ("finished", report["cost_usd"])
    assert ended.to_json()["cost_usd"] == report["cost_usd"]


@pytest.mark.fault(7)
@pytest.mark.parametrize("every", [None, 5.0])
def test_the_end_needs_looks_that_agree_a_minute_apart(cloud: Cloud, every: float | None) -> None:
    begin(cloud)
    work(cloud, 5)
    before = cloud.clock.now()
    monitor(cloud.project, None, every)
    assert cloud.clock.now() - before >= 2 * 60


def test_with_dead_jobs_the_queues_stay_and_retry_works(cloud: Cloud) -> None:
    run = begin(cloud)
    work(cloud, 5, dead=2)
    assert monitor(cloud.project, None, None) == SOME_DEAD
    assert left(cloud) == ["queue Queue", "queue DeadMessages", "queue Queue-carried"]
    cloud.open()
    assert len(retry(cloud.project, (), ())) == 2
    cloud.config(JOB_TIMEOUT=77)
    assert setup(cloud.project) == run, "the same run, with the config as it is now"
    assert read_run_file(cloud.engine.store, cloud.app, run).config.job_timeout == 77
    start(cloud.project, None)
    work(cloud, 2, worker="worker-2")
    assert monitor(cloud.project, None, None) == OK
    assert left(cloud) == []


def test_of_workers_that_write_no_ledger_the_queue_tells_how_jobs_ended(cloud: Cloud) -> None:
    cloud.config(COMMAND="")
    begin(cloud, 5)
    queue = cloud.engine.queue()
    leases: list[Lease] = []
    while len(leases) < 5:
        leases += queue.lease(5, 1)
    lost, *done = leases
    queue.done(done)
    running = cloud.project.snapshot()
    assert (running.jobs.succeeded, running.jobs.running, running.state) == (4, 1, "running")
    queue.fail(lost, Cause.WORKER_LOST, final=True)
    looked = cloud.open().snapshot()
    assert (looked.jobs.succeeded, looked.jobs.dead) == (4, 1)
    assert [record.id for record in cloud.project.fold().dead()] == [lost.job.id], "while the run goes on"
    assert jobs(cloud.project, None, None, csv=False) == OK
    assert "4 waiting jobs have left the queue" in cloud.err.getvalue()
    assert failures(cloud.project) == OK and "worker-lost" in cloud.out.getvalue()
    cloud.open()
    assert monitor(cloud.project, None, None) == SOME_DEAD
    found = cloud.project.fold().update().jobs
    assert sorted(record.state for record in found.values()) == ["dead"] + ["succeeded"] * 4
    assert (found[lost.job.id].cause, found[lost.job.id].state) == ("worker-lost", "dead")
    cloud.open()
    assert retry(cloud.project, (), ()) == [lost.job.id]


@pytest.mark.fault(6, 38, 39)
def test_what_a_job_printed_can_be_read_when_everything_has_gone(cloud: Cloud) -> None:
    """Logs are in the bucket from the start: nothing is exported at the end, and nothing is hours late."""
    begin(cloud, jobs=1)
    paths = cloud.project.paths()
    cloud.engine.store.append(f"{paths.logs}worker-1.log", b"it is done\n")
    work(cloud, 1)
    calls = Calls(cloud.engine)
    monitor(cloud.project, None, None)
    assert "CreateExportTask" not in calls.names()
    cloud.open()
    assert read_log(cloud.engine.store, cloud.project.paths(), "worker-1.log@0+11") == b"it is done\n"


STEPS = (
    "CancelSpotFleetRequests", "DeleteService", "DeregisterTaskDefinition", "DeleteQueue",
    "DeleteLaunchTemplate", "DeleteCluster",
)  # fmt: skip


@pytest.mark.fault(10)
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_and_started_again_it_ends_in_the_same_place(cloud: Cloud, step: str) -> None:
    begin(cloud)
    start(cloud.project, None)  # a second fleet, with a launch template
    work(cloud, 5)
    killed = Stop(cloud, step, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        cloud.engine.end()
    killed.undo()
    cloud.open()
    assert monitor(cloud.project, None, None) == OK
    assert left(cloud) == []


class Stop:
    """Whatever makes this call to AWS fails."""

    def __init__(self, cloud: Cloud, step: str, error: type[BaseException]) -> None:
        self._error = error
        self._events = [
            (cloud.engine.session.client(service).meta.events, f"provide-client-params.{service}.{step}")
            for service in ("ec2", "ecs", "sqs")
        ]
        for events, name in self._events:
            events.register(name, self._fail)

    def _fail(self, **_: object) -> None:
        raise self._error("the network went away")

    def undo(self) -> None:
        for events, name in self._events:
            events.unregister(name, self._fail)


@pytest.mark.fault(9, 10)
@pytest.mark.parametrize("step", STEPS[:4])
def test_one_step_that_fails_stops_no_other_and_is_told(cloud: Cloud, step: str) -> None:
    begin(cloud)
    work(cloud, 5)
    failing = Stop(cloud, step, DsError)
    assert monitor(cloud.project, None, None) == LEFTOVERS
    assert "the network went away" in cloud.err.getvalue()
    remaining = left(cloud)
    assert remaining and len(remaining) <= 4
    failing.undo()
    assert cleanup(cloud.project) == []
    assert left(cloud) == []


@pytest.mark.fault(9, 10)
def test_a_fleet_that_will_not_end_keeps_no_other_one_running(cloud: Cloud) -> None:
    begin(cloud)
    start(cloud.project, fleet_file(cloud))
    first, _ = cloud.record().fleets

    def refuse(params: dict[str, Any], **_: object) -> None:
        if first in params["SpotFleetRequestIds"]:
            raise DsError(f"ending the fleet {first}: not now")

    events = cloud.engine.session.client("ec2").meta.events
    events.register("provide-client-params.ec2.CancelSpotFleetRequests", refuse)
    told = cloud.engine.end()
    assert f"ending the fleet {first}: not now" in told
    alive = [fleet.id for fleet in cloud.engine._looker.fleets.of_app(cloud.app) if fleet.alive]
    assert (alive, len(instances(cloud))) == ([first], 3), "those of the other one have ended"


@pytest.mark.fault(9, 10)
@pytest.mark.parametrize("call", ["ListQueueTags", "GetQueueAttributes"])
def test_where_nobody_can_tell_of_dead_jobs_the_machines_end_and_the_queues_stay(
    cloud: Cloud, call: str
) -> None:
    begin(cloud)
    cloud.open()
    failing = Stop(cloud, call, DsError)
    told = cloud.engine.end()
    assert told[0] == f"queue {cloud.app}Queue, as it may have dead jobs: the network went away"
    assert left(cloud) == ["queue Queue", "queue DeadMessages", "queue Queue-carried"]
    failing.undo()
    assert cleanup(cloud.open()) == []
    assert left(cloud) == []


@pytest.mark.fault(9, 10)
def test_a_clean_up_that_leaves_something_keeps_the_record_and_waits_for_no_right(cloud: Cloud) -> None:
    begin(cloud)
    failing, before = Stop(cloud, "DescribeLaunchTemplates", DsError), cloud.clock.now()
    assert cleanup(cloud.project) == ["the network went away"]
    assert cloud.clock.now() - before < LEAVE_SECONDS
    assert cloud.project.record_path.exists(), "the next clean-up looks for what is in it"
    failing.undo()
    assert cleanup(cloud.project) == []
    assert not cloud.project.record_path.exists()


@pytest.mark.fault(9, 10)
@pytest.mark.parametrize("call", ["DescribeSpotFleetRequests", "DescribeFleets"])
def test_a_right_to_look_at_one_kind_of_fleet_that_is_missing_hides_no_other_kind(
    cloud: Cloud, call: str
) -> None:
    begin(cloud)
    start(cloud.project, None)
    kept = cloud.record().fleets[0 if call == "DescribeSpotFleetRequests" else 1]
    failing = Stop(cloud, call, DsError)
    told = [line for line in cleanup(cloud.project) if not line.startswith("machine ")]
    assert told == ["the network went away"]
    failing.undo()
    alive = [fleet.id for fleet in cloud.engine._looker.fleets.of_app(cloud.app) if fleet.alive]
    assert alive == [kept]
    assert cleanup(cloud.project) == []
    assert left(cloud) == []


@pytest.mark.fault(9, 10)
@pytest.mark.parametrize("text", ["{", "[]", "", '{"MONITOR_FLEET_ID": 1}'])
def test_a_damaged_record_stops_no_clean_up(cloud: Cloud, text: str) -> None:
    begin(cloud)
    cloud.project.record_path.write_text(text)
    cloud.open()
    assert cloud.engine.machines().running == 3
    assert cleanup(cloud.project) == []
    assert "resources that only this file names are not removed" in cloud.err.getvalue()
    assert left(cloud) == []
    assert not cloud.project.record_path.exists()


def test_a_damaged_record_stops_no_end_of_a_run(cloud: Cloud) -> None:
    begin(cloud)
    fold = cloud.project.fold()
    work(cloud, 5)
    cloud.project.record_path.write_text("{")
    assert end(cloud.open(), fold) == OK
    assert left(cloud) == []


@pytest.mark.fault(9, 10)
def test_without_a_network_a_clean_up_is_one_error_and_the_next_goes_on(cloud: Cloud) -> None:
    begin(cloud)
    cloud.open()
    gone = [no_network(cloud, service) for service in ("sqs", "ecs", "ec2", "cloudwatch")]
    before = cloud.clock.now()
    with pytest.raises(NoAnswer) as raised:
        cleanup(cloud.project)
    assert "network" in raised.value.fix
    assert cloud.clock.now() == before, "nobody waits for what is left to go"
    assert sum(map(len, gone)) <= 4
    assert cloud.project.record_path.exists()
    assert cleanup(cloud.open()) == []
    assert left(cloud) == []


def no_network(cloud: Cloud, service: str) -> list[object]:
    """From now on nobody answers for a service; the calls that are made to it all the same."""
    from botocore.exceptions import EndpointConnectionError

    made: list[object] = []

    def fail(model: Any, **_: object) -> None:
        made.append(model.name)
        raise EndpointConnectionError(endpoint_url="https://aws")

    cloud.engine.session.client(service).meta.events.register("before-call", fail)
    return made


@pytest.mark.fault(9, 10)
def test_where_one_service_does_not_answer_the_others_are_cleaned_up(cloud: Cloud) -> None:
    begin(cloud)
    cloud.open()
    no_network(cloud, "ecs")
    told = cleanup(cloud.project)
    assert any("Could not connect" in line for line in told)
    assert instances(cloud) == []
    assert cleanup(cloud.open()) == []


@pytest.mark.parametrize("call", ["ListQueueTags", "CancelSpotFleetRequests", "DescribeLaunchTemplates"])
def test_a_sign_in_that_runs_out_in_a_clean_up_is_one_error_and_the_next_goes_on(
    cloud: Cloud, call: str
) -> None:
    begin(cloud)
    cloud.open()
    failing = Stop(cloud, call, NotSignedIn)
    with pytest.raises(NotSignedIn):
        cleanup(cloud.project)
    assert "went away" not in cloud.err.getvalue(), "said once, by whoever catches it"
    failing.undo()
    assert cloud.project.record_path.exists()
    assert cleanup(cloud.open()) == []
    assert left(cloud) == []


@pytest.mark.fault(10)
def test_what_is_absent_is_fine(cloud: Cloud) -> None:
    begin(cloud)
    sqs = session().client("sqs")
    for url in sqs.list_queues(QueueNamePrefix=cloud.app)["QueueUrls"]:
        sqs.delete_queue(QueueUrl=url)
    cloud.open()
    assert cloud.engine.remove() == []
    assert cloud.engine.remove() == []


@pytest.mark.fault(4)
def test_the_cluster_default_stays_and_everything_else_goes(cloud: Cloud) -> None:
    cloud.config(ECS_CLUSTER="default")
    begin(cloud)
    assert cloud.engine.remove() == []
    assert left(cloud) == []
    assert cloud.found(Kind.CLUSTER, "default") is not None


def test_a_cluster_that_others_use_stays(cloud: Cloud) -> None:
    begin(cloud)
    cluster = str(cloud.given["ECS_CLUSTER"])
    ecs = session().client("ecs")
    ecs.register_task_definition(
        family="other", containerDefinitions=[{"name": "c", "image": "i", "memory": 9}]
    )
    ecs.create_service(cluster=cluster, serviceName="other", taskDefinition="other", desiredCount=1)
    assert cloud.engine.remove() == []
    assert cloud.found(Kind.CLUSTER, cluster) is not None
    assert cloud.found(Kind.SERVICE, "other") is not None


@pytest.mark.fault(5, 35, 42)
@pytest.mark.parametrize("name", ["My_AppQueue", "QueueOfQueues", "x"])
def test_others_with_names_like_ours_are_left_alone(cloud: Cloud, name: str) -> None:
    name = f"{name}-{cloud.app}"
    cloud.config(SQS_QUEUE_NAME=name)
    sqs, ecs = session().client("sqs"), session().client("ecs")
    others = [sqs.create_queue(QueueName=each)["QueueUrl"] for each in (f"{name}2", f"lab-{name}")]
    ecs.register_task_definition(
        family=f"{cloud.app}Task2", containerDefinitions=[{"name": "c", "image": "i", "memory": 9}]
    )
    begin(cloud)
    assert cloud.engine.remove() == []
    assert left(cloud) == []
    assert {*others} <= {*sqs.list_queues()["QueueUrls"]}
    assert cloud.found(Kind.TASK_DEFINITION, f"{cloud.app}Task2") is not None


def strangers(cloud: Cloud, desired: int, **more: Any) -> str:
    """A service and a task definition with the app's names, and without its tag; the revision's ARN."""
    ecs = session().client("ecs")
    ecs.create_cluster(clusterName=str(cloud.given["ECS_CLUSTER"]))
    containers = [{"name": "c", "image": "i", "memory": 9}]
    made = ecs.register_task_definition(family=f"{cloud.app}Task", containerDefinitions=containers, **more)
    revision = str(made["taskDefinition"]["taskDefinitionArn"])
    ecs.create_service(
        cluster=str(cloud.given["ECS_CLUSTER"]),
        serviceName=f"{cloud.app}Service",
        taskDefinition=revision,
        desiredCount=desired,
        **more,
    )
    return revision


def active(cloud: Cloud) -> list[str]:
    found = session().client("ecs").list_task_definitions(familyPrefix=f"{cloud.app}Task", status="ACTIVE")
    return list(found["taskDefinitionArns"])


@pytest.mark.fault(5)
@pytest.mark.parametrize("tags", [[], [{"key": "ds:app", "value": "Another"}]])
def test_a_service_and_a_task_of_our_names_that_are_not_ours_are_left_alone(
    cloud: Cloud, tags: list[dict[str, str]]
) -> None:
    revision = strangers(cloud, 2, tags=tags)
    whose = "belongs to the app Another" if tags else "was not made by us, and has 2 tasks"
    with pytest.raises(UsageError, match=whose):
        setup(cloud.project)
    assert cloud.engine.remove() == []
    assert active(cloud) == [revision]
    assert cloud.found(Kind.SERVICE, f"{cloud.app}Service").settings["desiredCount"] == 2


@pytest.mark.fault(5)
def test_what_the_reference_has_left_is_taken_over_and_its_own_revisions_stay(cloud: Cloud) -> None:
    revision = strangers(cloud, 0)
    begin(cloud)
    assert len(active(cloud)) == 2
    assert cloud.engine.remove() == []
    assert active(cloud) == [revision]
    assert cloud.found(Kind.SERVICE, f"{cloud.app}Service") is None


@pytest.mark.fault(5)
@pytest.mark.parametrize(("tags", "ends"), [({}, True), ({"ds:app": "Another"}, False)])
def test_a_fleet_in_the_record_is_ended_unless_it_bears_another_apps_tag(
    cloud: Cloud, tags: dict[str, str], ends: bool
) -> None:
    begin(cloud)
    ec2, (own,) = session().client("ec2"), cloud.record().fleets
    (known,) = ec2.describe_spot_fleet_requests(SpotFleetRequestIds=[own])["SpotFleetRequestConfigs"]
    first = known["SpotFleetRequestConfig"]["LaunchSpecifications"][0]
    request = {
        "IamFleetRole": known["SpotFleetRequestConfig"]["IamFleetRole"],
        "TargetCapacity": 1,
        "AllocationStrategy": "diversified",
        "LaunchSpecifications": [{"ImageId": first["ImageId"], "InstanceType": "m5.xlarge"}],
    }
    if tags:
        told = [{"Key": key, "Value": value} for key, value in tags.items()]
        request["TagSpecifications"] = [{"ResourceType": "spot-fleet-request", "Tags": told}]
    other = ec2.request_spot_fleet(SpotFleetRequestConfig=request)["SpotFleetRequestId"]
    write_record(cloud.project.record_path, cloud.record().with_fleet(other))
    assert cleanup(cloud.open()) == []
    alive = [fleet.id for fleet in cloud.engine._looker.fleets.look([own, other]) if fleet.alive]
    assert alive == ([] if ends else [other])


@pytest.mark.fault(5, 37)
def test_dashboards_go_by_their_exact_names_and_nobodys_alarms_do(cloud: Cloud) -> None:
    begin(cloud)
    watch = session().client("cloudwatch")
    put_dashboard(cloud.session, cloud.project.config, cloud.record().fleets, cloud.record().run)
    watch.put_dashboard(DashboardName=f"{cloud.app}2", DashboardBody="{}")
    names = {cloud.app, f"{cloud.app}Queue", f"{cloud.app}.i-0123456789abcdef0"}
    for name in names:
        watch.put_metric_alarm(
            AlarmName=name,
            Namespace="AWS/EC2",
            MetricName="CPUUtilization",
            Statistic="Maximum",
            Period=300,
            EvaluationPeriods=3,
            Threshold=1.0,
            ComparisonOperator="LessThanThreshold",
        )
    assert cloud.engine.remove() == []
    boards = [each["DashboardName"] for each in watch.list_dashboards()["DashboardEntries"]]
    alarms = [each["AlarmName"] for each in watch.describe_alarms()["MetricAlarms"]]
    assert f"{cloud.app}2" in boards and cloud.app not in boards
    assert {name for name in alarms if name.startswith(cloud.app)} == names, "alarms are their owners' own"


# -- On the way ---------------------------------------------------------------------------------------------


@pytest.mark.fault(2, 13)
def test_idle_machines_are_let_go_and_the_one_with_a_job_is_not(cloud: Cloud) -> None:
    begin(cloud, jobs=9)
    busy = instances(cloud)[1]
    work(cloud, 8)
    work(cloud, 1, worker=busy, hold=True)
    calls = Calls(cloud.engine)
    with pytest.raises(Enough):
        cloud.clock = ClockUntil(cloud, looks=4)
        monitor(cloud.project, None, 60)
    assert instances(cloud) == [busy]
    [change] = calls.of("ModifySpotFleetRequest")
    assert (change["TargetCapacity"], change["ExcessCapacityTerminationPolicy"]) == (1, "noTermination")
    names = calls.names()
    assert names.index("ModifySpotFleetRequest") < names.index("TerminateInstances")


def test_a_machine_with_a_job_of_which_nothing_is_known_is_not_ended(cloud: Cloud) -> None:
    begin(cloud, jobs=1)
    cloud.engine.queue().lease(1, 1)  # a worker of the reference: it writes no ledger
    cloud.clock = ClockUntil(cloud, looks=5)
    with pytest.raises(Enough):
        monitor(cloud.project, None, 60)
    assert len(instances(cloud)) == 3


@pytest.mark.fault(14)
@pytest.mark.parametrize(("cheapest", "targets"), [(True, [1]), (False, [])])
def test_cheapest_replaces_no_machine_after_a_while(cloud: Cloud, cheapest: bool, targets: list[int]) -> None:
    begin(cloud, jobs=40)
    calls = Calls(cloud.engine)
    cloud.clock = ClockUntil(cloud, looks=20)
    with pytest.raises(Enough):
        monitor(cloud.project, None, 60, cheapest=cheapest)
    assert [each["TargetCapacity"] for each in calls.of("ModifySpotFleetRequest")] == targets
    assert len(instances(cloud)) == 3


def test_a_look_takes_few_calls(cloud: Cloud) -> None:
    """Whatever the fleet's size: nine a minute, those to the bucket aside."""
    begin(cloud, jobs=40)
    work(cloud, 1, worker=instances(cloud)[0], hold=True)
    fold = cloud.project.fold()
    cloud.project.snapshot(fold)
    calls = Calls(cloud.engine)
    cloud.project.snapshot(fold)
    names = [name for name in calls.names() if not name.endswith(("ObjectsV2", "Object"))]
    assert len(names) <= 6, names


def test_a_look_at_a_fleet_in_trouble_takes_nine_calls_at_most(cloud: Cloud) -> None:
    begin(cloud, jobs=4)
    history = {"EventType": "error", "EventInformation": {"EventDescription": "no Spot capacity"}}
    answer(cloud, "DescribeSpotFleetRequestHistory", {"HistoryRecords": [history]})
    cloud.engine._looker.fleets.terminate(instances(cloud)[:1])
    service = {"serviceName": f"{cloud.app}Service", "status": "ACTIVE", "runningCount": 0, "desiredCount": 3}
    answer(cloud, "DescribeServices", {"services": [service]}, "ecs")
    fold = cloud.project.fold()
    cloud.project.snapshot(fold)
    calls = Calls(cloud.engine)
    snapshot = cloud.project.snapshot(fold)
    names = [name for name in calls.names() if not name.endswith(("ObjectsV2", "Object"))]
    assert len(names) <= 9, names
    assert snapshot.machines.diagnosis and "no spare capacity" in snapshot.machines.diagnosis.what


@pytest.mark.fault(8)
def test_looks_that_fail_do_not_end_the_watching(cloud: Cloud) -> None:
    begin(cloud)
    work(cloud, 5)
    network_goes(cloud, "ec2.DescribeInstances", (2, 3, 5))
    assert monitor(cloud.project, None, None) == OK
    assert cloud.err.getvalue().count("looking again") >= 1
    assert left(cloud) == []


def network_goes(cloud: Cloud, call: str, times: tuple[int, ...]) -> None:
    """Of the calls of this name ("ec2.DescribeInstances") these, counted from one, do not reach AWS."""
    from botocore.exceptions import EndpointConnectionError

    calls = count(1)

    def fail(**_: object) -> None:
        if next(calls) in times:
            raise EndpointConnectionError(endpoint_url="https://aws")

    client = cloud.engine.session.client(call.partition(".")[0])
    client.meta.events.register(f"before-call.{call}", fail)


class Enough(Exception):
    """The clock has been waited on often enough."""


class ClockUntil:
    """Moves on as the project waits, so many times."""

    def __init__(self, cloud: Cloud, looks: int) -> None:
        self._clock = cloud.clock
        self._left = looks
        cloud.project.clock = self  # type: ignore[assignment]

    def now(self) -> float:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def wait(self, seconds: float, until: Any = None) -> bool:
        self._left -= 1
        if not self._left:
            raise Enough
        return self._clock.wait(seconds, until)


# -- stop ---------------------------------------------------------------------------------------------------


def test_stop_drains_and_then_ends_the_machines(cloud: Cloud) -> None:
    begin(cloud)
    calls = Calls(cloud.engine)
    cloud.engine.stop()
    assert calls.of("UpdateService")[-1]["desiredCount"] == 0
    assert calls.of("ModifySpotFleetRequest")[-1]["TargetCapacity"] == 0
    assert len(instances(cloud)) == 3
    stop(cloud.project, now=False)
    assert instances(cloud) == []
    assert cloud.engine.machines().ended == "stopped" or not cloud.engine.machines().target
    assert cloud.engine.queue().counts().waiting == 5


@pytest.mark.fault(8)
@pytest.mark.parametrize(("call", "times"), [("ec2.DescribeInstances", (2, 3)), ("s3.ListObjectsV2", (1, 2))])
def test_looks_that_fail_do_not_end_a_stop_before_the_machines(
    cloud: Cloud, call: str, times: tuple[int, ...]
) -> None:
    begin(cloud)
    network_goes(cloud, call, times)
    stop(cloud.project, now=False)
    assert cloud.err.getvalue().count("looking again") >= 1
    assert instances(cloud) == []


@pytest.mark.fault(8)
def test_a_last_look_that_fails_does_not_make_a_stop_one_that_failed(cloud: Cloud) -> None:
    begin(cloud)
    cloud.engine.stop(now=True)  # no machine runs: the next look is the last one
    network_goes(cloud, "s3.ListObjectsV2", (1, 2))
    assert stop(cloud.project, now=True).jobs.total == 5
    assert cloud.err.getvalue().count("looking again") == 1


def test_stop_now_ends_the_machines_at_once_and_start_goes_on(cloud: Cloud) -> None:
    begin(cloud)
    stop(cloud.project, now=True)
    assert instances(cloud) == []
    cloud.open()
    start(cloud.project, fleet_file(cloud))
    assert len(cloud.record().fleets) == 2
    work(cloud, 5)
    assert monitor(cloud.project, None, None) == OK
    assert left(cloud) == []


def test_clean_up_finds_by_tag_what_an_earlier_config_made_under_other_names(cloud: Cloud) -> None:
    """Without a record: another project folder made it, or the record went with a laptop."""
    begin(cloud, 1)
    old = cloud.app + "Queue", cloud.app + "DeadMessages", str(cloud.given["ECS_CLUSTER"])
    names = {"SQS_QUEUE_NAME": "New" + cloud.app, "SQS_DEAD_LETTER_QUEUE": "NewDead" + cloud.app}
    cloud.project.record_path.unlink()
    cloud.config(ECS_CLUSTER="new-" + old[2], **names)
    fix = "name it in the config, then ds monitor or ds cleanup"
    assert sorted(cleanup(cloud.project)) == [
        f"queue {old[1]} of an earlier config",
        f"queue {old[0]} of an earlier config, with 1 job: {fix}",
        f"queue {old[0]}-carried of an earlier config",
    ]
    assert cloud.found(Kind.QUEUE, old[0]), "its job may still be wanted"
    client = cloud.session.client("ecs")
    assert client.describe_clusters(clusters=[old[2]])["clusters"][0]["status"] == "INACTIVE"
    cloud.config(SQS_QUEUE_NAME=old[0], SQS_DEAD_LETTER_QUEUE=old[1])
    assert cleanup(cloud.project) == []
    assert cloud.found(Kind.QUEUE, old[0]) is None


def denied(**_: object) -> None:
    error = {"Error": {"Code": "AccessDeniedException", "Message": "not authorized: tag:GetResources"}}
    raise ClientError(error, "GetResources")  # type: ignore[arg-type]


def test_clean_up_that_may_not_look_by_tag_does_not_say_that_nothing_is_left(cloud: Cloud) -> None:
    begin(cloud)
    cloud.engine.session.client("resourcegroupstaggingapi").meta.events.register(
        "provide-client-params.*.GetResources", denied
    )
    (line,) = cleanup(cloud.project)
    assert "what earlier configs named otherwise" in line and "GetResources" in line


@pytest.mark.parametrize("renamed", [False, True])
def test_set_up_makes_a_queue_of_dead_jobs_that_is_missing_and_the_run_goes_on(
    cloud: Cloud, renamed: bool
) -> None:
    run = begin(cloud)
    old, new = cloud.app + "DeadMessages", cloud.app + ("Dead2" if renamed else "DeadMessages")
    client = cloud.session.client("sqs")
    client.delete_queue(QueueUrl=cloud.found(Kind.QUEUE, old).settings["QueueUrl"])
    cloud.config(SQS_DEAD_LETTER_QUEUE=new)
    cloud.clock.advance(120)
    with pytest.raises(QueueIncomplete, match="not all there"):
        cloud.project.snapshot()
    assert setup(cloud.project) == run
    cloud.open()
    work(cloud, 5, dead=1)
    assert cloud.project.snapshot().jobs.dead == 1
    policy = json.loads(cloud.found(Kind.QUEUE, cloud.app + "Queue").settings["RedrivePolicy"])
    assert policy["deadLetterTargetArn"].endswith(f":{new}")


def test_a_run_keeps_its_dead_jobs_when_the_config_renames_their_queue(cloud: Cloud) -> None:
    begin(cloud)
    work(cloud, 4, dead=2)
    cloud.config(SQS_DEAD_LETTER_QUEUE="Renamed" + cloud.app)
    assert cloud.project.snapshot().jobs.dead == 2
    setup(cloud.project)
    assert "the run keeps this queue of dead jobs" in cloud.err.getvalue()
    assert len(retry(cloud.project, (), ())) == 2
    cloud.open()
    setup(cloud.project)
    assert cloud.found(Kind.QUEUE, "Renamed" + cloud.app), "now that the old one is empty"
    work(cloud, 3, worker="worker-2")
    assert cleanup(cloud.project) == []
    assert cloud.found(Kind.QUEUE, cloud.app + "DeadMessages") is None


def references_run(cloud: Cloud) -> RunRecord:
    """A run as the reference leaves it: its fleet, service, queue and record, and no tag of ours."""
    strangers(cloud, 2)
    client = cloud.session.client("sqs")
    url = client.create_queue(QueueName=cloud.app + "Queue")["QueueUrl"]
    client.send_message(QueueUrl=url, MessageBody='{"group": {"n": 1}}')
    specification = json.loads(fleet_file(cloud).read_text())
    request = {**specification, "TargetCapacity": 1, "AllocationStrategy": "lowestPrice"}
    fleet = session().client("ec2").request_spot_fleet(SpotFleetRequestConfig=request)["SpotFleetRequestId"]
    record = RunRecord.new(cloud.project.config, "aws", "", cloud.bucket, 0.0).with_fleet(fleet)
    cloud.project.record_path.parent.mkdir(exist_ok=True)
    theirs = {name: value for name, value in json.loads(record.to_json()).items() if name.isupper()}
    cloud.project.record_path.write_text(json.dumps(theirs))
    return record


@pytest.mark.fault(5, 71)
def test_a_run_that_the_reference_started_is_not_watched_and_is_removed_whole(cloud: Cloud) -> None:
    """The monitor would see no job of ours, and end the machines under the jobs."""
    (fleet,) = references_run(cloud).fleets
    for named in (cloud.project.record_path, None):
        with pytest.raises(UsageError, match="the reference started this run"):
            monitor(cloud.project, named, None)
    cloud.config(SQS_QUEUE_NAME="Another")
    with pytest.raises(UsageError, match="SQS_QUEUE_NAME"):
        cleanup(cloud.project)
    service = cloud.found(Kind.SERVICE, f"{cloud.app}Service")
    assert service.settings["desiredCount"] == 2 and cloud.found(Kind.QUEUE, cloud.app + "Queue")
    cloud.config(SQS_QUEUE_NAME=cloud.app + "Queue")
    assert cleanup(cloud.project) == []
    assert f"fleet {fleet}, service {cloud.app}Service, queue {cloud.app}Queue" in cloud.err.getvalue()
    assert cloud.found(Kind.QUEUE, cloud.app + "Queue") is None
    assert cloud.found(Kind.SERVICE, f"{cloud.app}Service") is None
    assert not any(each.alive for each in cloud.engine._looker.fleets.look([fleet]))
    assert not cloud.project.record_path.exists()


def test_set_up_keeps_the_record_of_a_run_that_the_reference_started(cloud: Cloud) -> None:
    cloud.project.record_path.parent.mkdir(exist_ok=True)
    old = RunRecord.new(cloud.project.config, "aws", "", cloud.bucket, 0.0).with_fleet("sfr-1")
    write_record(cloud.project.record_path, old)
    setup(cloud.project)
    kept = cloud.project.record_path.with_suffix(".reference.json")
    assert read_record(kept).fleets == ("sfr-1",) and str(kept) in cloud.err.getvalue()
    assert not cloud.record().is_references


@pytest.mark.fault(79)
def test_cleanup_ends_old_uploads_of_killed_workers_below_its_own_prefixes(cloud: Cloud) -> None:
    cloud.config(OUTPUT="out/{n}")
    begin(cloud)
    s3 = session().client("s3")
    keys = ["out/1/large", f"runs/{cloud.app}/r/log", "others/large", "outside/1", f"runs/{cloud.app}2/x"]
    for key in keys:
        s3.create_multipart_upload(Bucket=cloud.bucket, Key=key)

    def unfinished() -> set[str]:
        return {each["Key"] for each in s3.list_multipart_uploads(Bucket=cloud.bucket)["Uploads"]}

    assert unfinished() == set(keys)
    cloud.project.engine.remove()  # the emulator says of each upload that it began in 2010
    assert unfinished() == set(keys[2:])
    assert "ended 2 unfinished uploads" in cloud.err.getvalue()


@pytest.mark.parametrize("output", ["{Plate}/{Well}", "", "{n}"])
def test_an_output_without_a_fixed_part_has_no_prefix_of_its_own(cloud: Cloud, output: str) -> None:
    cloud.config(OUTPUT=output)
    assert prefixes_of(cloud.project.config) == [f"runs/{cloud.app}/"]
