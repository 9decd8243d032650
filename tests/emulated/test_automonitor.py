"""The auto-monitor's calls against the emulator: through whole runs, beside others, and when calls fail."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from aws_project import Cloud, fleet_file, instances
from distributed_something import automonitor
from distributed_something.automonitor import AutoMonitor
from distributed_something.aws.ecs.resources import Kind
from distributed_something.aws.iam.roles import SCHEDULES, Role, Where
from distributed_something.aws.watch.schedule import Order
from distributed_something.console import Console
from distributed_something.errors import OK, DsError
from distributed_something.job import Cause, Outcome, State
from distributed_something.ledger import LedgerWriter
from distributed_something.s3.session import AwsSession
from distributed_something.steps.setup import setup
from distributed_something.steps.start import start
from distributed_something.steps.watch.monitor import monitor
from emulating import REGION, account_function, endpoint, session
from rights import recorded

ACCOUNT = Where("123456789012", REGION)


@pytest.fixture(scope="module")
def function() -> None:
    """The auto-monitor's function as a record: the emulator calls it never."""
    account_function()


@pytest.fixture
def cloud(tmp_path: Path, function: None) -> Cloud:
    return Cloud(tmp_path / "project", AUTO_MONITOR=True)


@cache
def in_its_role() -> AwsSession:
    """A session whose calls are held against the rights of the auto-monitor's role."""
    return recorded(AwsSession(REGION, endpoint=endpoint()), Role.MONITOR)


class Caller:
    """Calls the auto-monitor with what the app's schedule holds, a minute after the last time.

    `warm`: all calls share a process, as those of a function mostly do; else each has one of its own.
    """

    def __init__(self, cloud: Cloud, *, warm: bool = True) -> None:
        self.cloud = cloud
        self.said = io.StringIO()
        self._warm = AutoMonitor(in_its_role(), cloud.clock, cloud.folder / "warm") if warm else None

    def schedule(self) -> dict[str, Any] | None:
        client = session().client("scheduler")
        try:
            found: dict[str, Any] = client.get_schedule(Name=self.cloud.app, GroupName=SCHEDULES)
        except client.exceptions.ResourceNotFoundException:
            return None
        return found

    def order(self) -> Order:
        found = self.schedule()
        assert found is not None
        return Order.of(json.loads(found["Target"]["Input"]))

    def once(self, order: Order | None = None, after: float = 60.0) -> str:
        self.cloud.clock.advance(after)
        console = Console(yes=True, out=self.said, err=self.said)
        folder = Path(mkdtemp(dir=self.cloud.folder))
        monitor = self._warm or AutoMonitor(in_its_role(), self.cloud.clock, folder)
        return monitor.look(order or self.order(), console)

    def until_over(self) -> list[str]:
        """Call for as long as the schedule would, eight times at most."""
        said: list[str] = []
        while self.schedule() is not None and len(said) < 8:
            said.append(self.once())
        return said


@pytest.fixture
def caller(cloud: Cloud) -> Caller:
    return Caller(cloud)


@pytest.fixture(params=[False, True], ids=["cold", "warm"])
def either(request: pytest.FixtureRequest, cloud: Cloud) -> Caller:
    return Caller(cloud, warm=request.param)


def begin(cloud: Cloud, jobs: int = 5) -> str:
    run = setup(cloud.project)
    cloud.submit(cloud.jobs(jobs))
    start(cloud.project, fleet_file(cloud))
    return run


def work(cloud: Cloud, count: int = 5, output: str | None = None) -> None:
    """What a worker does: lease, run, write down, settle."""
    queue = cloud.engine.queue()
    ledger = LedgerWriter(cloud.engine.store, f"{cloud.project.paths().events}worker{output or ''}.jsonl")
    leases = []
    while len(leases) < count:
        leases += queue.lease(count - len(leases), 1)
    for lease in leases:
        outcome = Outcome(State.SUCCEEDED, output=output)
        ledger.ended("succeeded", cloud.clock.now(), lease, outcome, worker="w")
    ledger.flush()
    queue.done(leases)


def left(cloud: Cloud) -> list[str]:
    """What there still is of the app that costs money or stands in the way."""
    names = [(Kind.QUEUE, "Queue"), (Kind.TASK_DEFINITION, "Task"), (Kind.SERVICE, "Service")]
    found = [f"{kind} {name}" for kind, name in names if cloud.found(kind, cloud.app + name)]
    fleets = [fleet.id for fleet in cloud.engine._looker.fleets.of_app(cloud.app) if fleet.alive]
    return found + fleets + instances(cloud)


@pytest.mark.fault(1, 3, 6, 7)
def test_a_run_ends_without_a_laptop_and_nothing_is_left(cloud: Cloud, either: Caller) -> None:
    caller = either
    run = begin(cloud)
    order = caller.order()
    assert order == Order(cloud.app, run, REGION, cloud.bucket)
    assert caller.once() == "watching"
    work(cloud)
    assert [caller.once(), caller.once()] == ["watching", "watching"]
    assert instances(cloud), "looks a minute apart have to agree"
    assert caller.once() == "finished"
    assert left(cloud) == []
    assert caller.schedule() is None
    cloud.open()
    root = f"runs/{cloud.app}/{run}/"
    report = json.loads(cloud.engine.store.read(root + "report.json"))
    assert report["jobs"]["succeeded"] == 5
    assert caller.once(order) == "over"


def test_the_results_are_collected_without_a_laptop(cloud: Cloud, caller: Caller) -> None:
    cloud.config(COLLECT="csv", OUTPUT="out/{n}")
    begin(cloud, jobs=2)
    work(cloud, 2, output="out/1")
    assert [caller.once() for _ in range(4)] == ["watching"] * 4
    jobs = cloud.project.fold().update().jobs.values()
    assert [job.index for job in jobs if job.state is State.WAITING] == [2]
    assert instances(cloud), "a machine stays for it"
    work(cloud, 1, output="collected")
    assert caller.until_over()[-1] == "finished"
    assert left(cloud) == []


def test_the_end_is_told_without_a_laptop(
    cloud: Cloud, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint())
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    sns, sqs = session().client("sns"), session().client("sqs")
    topic = sns.create_topic(Name=f"distributed-something-{cloud.app}")["TopicArn"]
    mailbox = sqs.create_queue(QueueName=f"{cloud.app}Mailbox")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=mailbox, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    hook = "https://hooks.example.org/T0KEN"
    cloud.config(NOTIFY=[topic, hook])
    run = begin(cloud)
    work(cloud)
    assert caller.until_over()[-1] == "finished"
    kept = [cloud.engine.store.read(file.key) for file in cloud.engine.store.list(f"runs/{cloud.app}/{run}/")]
    assert not [each for each in kept if b"T0KEN" in each]
    [message] = sqs.receive_message(QueueUrl=mailbox, MaxNumberOfMessages=10)["Messages"]
    told = json.loads(message["Body"])
    assert told["Subject"] == f"{cloud.app}: finished"
    assert told["Message"].startswith("5 of 5 jobs succeeded")


@pytest.mark.fault(12)
def test_the_schedule_ends_by_itself_when_everybody_forgets_it(cloud: Cloud, caller: Caller) -> None:
    cloud.config(MAX_RUN_HOURS=2)
    begin(cloud)
    found = caller.schedule()
    assert found is not None
    assert found["ScheduleExpression"] == "rate(1 minute)"
    assert found["EndDate"].timestamp() - cloud.clock.now() == pytest.approx(3 * 3600, abs=2)
    assert found["ActionAfterCompletion"] == "DELETE"
    assert found["Target"]["RetryPolicy"]["MaximumRetryAttempts"] == 0
    assert f"schedule {cloud.app}" in cloud.record().resources


@pytest.mark.fault(2)
def test_machines_that_are_not_needed_are_let_go(cloud: Cloud, caller: Caller) -> None:
    begin(cloud)
    work(cloud, 4)
    for _ in range(3):
        assert caller.once() == "watching"
    (fleet,) = cloud.engine._looker.fleets.look(cloud.record().fleets)
    assert fleet.target == 1
    assert len(instances(cloud)) == 1


def test_a_bad_machine_is_ended_and_what_died_there_is_put_back(cloud: Cloud, either: Caller) -> None:
    begin(cloud, 8)
    assert either.once() == "watching"
    in_its_role().client("ec2").meta.events.register(
        "before-call.ec2.DescribeSpotFleetRequestHistory",
        lambda **_: (AWSResponse("", 200, {}, None), {"HistoryRecords": []}),  # type: ignore[no-untyped-call]
    )
    bad, good, _ = instances(cloud)
    queue, store = cloud.engine.queue(), cloud.engine.store
    leases = []
    while len(leases) < 7:
        leases += queue.lease(7 - len(leases), 1)
    ledger = LedgerWriter(store, f"{cloud.project.paths().events}w.jsonl")
    for lease in leases:
        died = lease in leases[:3]
        for machine in [bad] if died else [bad, good] if lease is leases[3] else [good]:
            state, cause = (State.DEAD, Cause.EXIT) if machine == bad else (State.SUCCEEDED, None)
            name = "dead" if died else "failed" if cause else "succeeded"
            at, outcome = cloud.clock.now(), Outcome(state, cause, exit_code=1 if cause else 0)
            ledger.started(at, lease, worker=machine, machine=machine)
            ledger.ended(name, at, lease, outcome, worker=machine, machine=machine)
            cloud.clock.advance(0.1)
        if died:
            queue.fail(lease, Cause.EXIT, final=True)
    ledger.flush()
    queue.done(leases[3:])
    assert either.once() == "watching"
    assert f"bad machine {bad}: 4 jobs in a row failed there (exit 1)" in either.said.getvalue()
    assert bad not in instances(cloud) and good in instances(cloud)
    fold = cloud.project.fold().update()
    assert (fold.by_state[State.DEAD], fold.by_state[State.WAITING]) == (0, 4)
    assert queue.counts().dead == 0


def test_an_account_without_the_auto_monitor_says_what_to_do_before_anything_is_made(cloud: Cloud) -> None:
    cloud.config(AWS_REGION="eu-west-1")
    with pytest.raises(DsError) as refused:
        cloud.engine.start("run", None, lambda _: None)
    assert "AUTO_MONITOR" in refused.value.what and "ds account setup" in refused.value.fix
    assert instances(cloud) == []


def test_a_look_that_comes_too_soon_does_not_count(cloud: Cloud, caller: Caller) -> None:
    begin(cloud)
    work(cloud)
    said = [caller.once(after=seconds) for seconds in (60, 1, 1, 1, 60, 1, 60)]
    looked = "looked already"
    assert said == ["watching", looked, looked, looked, "watching", looked, "finished"]


def test_looks_of_long_ago_do_not_agree_with_those_of_now(cloud: Cloud, caller: Caller) -> None:
    begin(cloud)
    work(cloud)
    assert [caller.once(), caller.once(), caller.once(after=3600)] == ["watching"] * 3
    assert instances(cloud)


@contextmanager
def failing(service: str, call: str, times: int = 1) -> Iterator[None]:
    """Within: the first `times` calls of an operation are refused, and there are so many at least."""
    left = [None] * times

    def refuse(**_: object) -> Any:
        if not left:
            return None
        left.pop()
        error = {"Error": {"Code": "AccessDenied", "Message": "not now"}}
        return AWSResponse("", 403, {}, None), error  # type: ignore[arg-type,no-untyped-call]

    events = in_its_role().client(service).meta.events
    events.register(f"before-call.{service}.{call}", refuse)
    try:
        yield
    finally:
        events.unregister(f"before-call.{service}.{call}", refuse)
    assert not left, f"{call} was called less often"


CALLS = [
    ("sqs", "ListQueueTags"), ("sqs", "GetQueueAttributes"), ("s3", "GetObject"), ("s3", "ListObjectsV2"),
    ("s3", "PutObject"), ("ec2", "DescribeSpotFleetRequests"), ("ec2", "DescribeInstances"),
    ("ecs", "DescribeServices"),
]  # fmt: skip


@pytest.mark.fault(8)
@pytest.mark.parametrize(("service", "call"), CALLS)
def test_a_call_that_fails_changes_nothing_for_the_next(cloud: Cloud, service: str, call: str) -> None:
    caller = Caller(cloud, warm=False)
    begin(cloud)
    work(cloud)
    caller.once()
    times = 2 if call == "PutObject" else 1  # the first one writes what machines cost: a look goes on without
    with failing(service, call, times), pytest.raises(DsError):
        caller.once()
    assert instances(cloud)
    said = caller.until_over()
    assert said[-1] == "finished" and left(cloud) == []


STEPS = [
    ("ecs", "UpdateService"), ("ec2", "CancelSpotFleetRequests"), ("ecs", "DeleteService"),
    ("ecs", "DeregisterTaskDefinition"), ("sqs", "DeleteQueue"), ("scheduler", "DeleteSchedule"),
]  # fmt: skip


@pytest.mark.fault(4, 8, 9, 10)
@pytest.mark.parametrize(("service", "call"), STEPS)
def test_what_could_not_be_removed_is_removed_by_a_later_call(
    cloud: Cloud, caller: Caller, service: str, call: str
) -> None:
    cloud.config(ECS_CLUSTER="default")
    begin(cloud)
    work(cloud)
    for _ in range(2):
        caller.once()
    with failing(service, call, times=2):
        said = caller.until_over()
    assert "not now" in caller.said.getvalue()
    assert left(cloud) == []
    assert said[0] == "finished"


def test_a_laptop_that_watches_too_does_no_harm(cloud: Cloud, caller: Caller) -> None:
    begin(cloud)
    work(cloud)
    order = caller.order()
    caller.once()
    cloud.open()
    assert monitor(cloud.project, None, None) == OK
    assert caller.schedule() is None and left(cloud) == []
    assert caller.once(order) == "over"


def test_two_calls_at_once_do_no_harm(cloud: Cloud) -> None:
    from concurrent.futures import ThreadPoolExecutor

    caller = Caller(cloud, warm=False)
    begin(cloud)
    work(cloud)
    order = caller.order()
    caller.once()
    caller.once()
    cloud.clock.advance(60)
    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(caller.once, order, 0.0) for _ in range(2)]:
            error = each.exception()
            assert error is None or isinstance(error, DsError)
    caller.until_over()
    assert left(cloud) == [] and caller.schedule() is None


@pytest.mark.fault(5)
def test_a_call_for_an_earlier_run_leaves_the_later_one_alone(cloud: Cloud, caller: Caller) -> None:
    begin(cloud)
    order = caller.order()._replace(run="20200101T000000Z-0000")
    cloud.engine.store.write(
        f"runs/{order.app}/{order.run}/run.json",
        cloud.engine.store.read(f"runs/{order.app}/{caller.order().run}/run.json").replace(
            caller.order().run.encode(), order.run.encode()
        ),
    )
    assert caller.once(order) == "over"
    assert caller.schedule() is not None and instances(cloud)


def test_a_new_run_that_waits_for_its_jobs_is_not_ended_by_a_call_for_the_one_before(
    cloud: Cloud, either: Caller
) -> None:
    """The schedule calls for the run before until the new one starts."""
    begin(cloud)
    work(cloud)
    assert either.once() == "watching"
    order = either.order()
    cloud.open()
    assert setup(cloud.project) != order.run
    assert [either.once(order) for _ in range(4)] == ["over"] * 4
    assert cloud.found(Kind.QUEUE, cloud.app + "Queue") is not None
    cloud.submit(cloud.jobs(3))
    assert cloud.engine.queue().counts().waiting == 3


def test_a_config_that_was_changed_and_a_second_fleet_are_seen(cloud: Cloud, caller: Caller) -> None:
    begin(cloud, jobs=30)
    assert caller.once() == "watching"
    cloud.config(DOCKER_CORES=1)
    setup(cloud.project)
    start(cloud.project, fleet_file(cloud))
    assert caller.once() == "watching"
    assert "6 of 6 machines" in caller.said.getvalue()


def test_a_run_whose_machines_had_their_time_is_given_up_and_the_schedule_goes(
    cloud: Cloud, caller: Caller
) -> None:
    begin(cloud)
    cloud.engine.stop()
    cloud.engine._looker.fleets.terminate(instances(cloud))
    order = caller.order()
    assert caller.once(order) == "given up"
    assert caller.schedule() is None
    assert "5 jobs are left" in caller.said.getvalue()
    assert cloud.found(Kind.QUEUE, cloud.app + "Queue") is not None, "ds start goes on with it"


def test_an_event_that_is_no_order_is_refused() -> None:
    with pytest.raises(DsError, match="no order"):
        automonitor.handler({"app": "x"}, None)
