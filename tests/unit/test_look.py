"""What one look at fleet and tasks means."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest

from distributed_something.aws.ec2.fleets import Fleet, Machine
from distributed_something.aws.ec2.shrinking import idle, instances, located, spread
from distributed_something.aws.look import Facts, Looker, machines_of, why_idle
from distributed_something.engine import Counts, Diagnosis

if TYPE_CHECKING:
    from distributed_something.s3.session import AwsSession

NOW = 1_790_000_000.0
FLEET = Fleet("sfr-1", alive=True, target=3, made=NOW - 240)
HERE = [Machine(f"i-0000000{n}", "running") for n in range(3)]
SERVICE = {"desiredCount": 3, "runningCount": 3, "pendingCount": 0, "events": []}
ALL = Facts([FLEET], HERE, SERVICE)
WAITING = Counts(waiting=5)
FULL = Diagnosis("the account's limit is reached", "ask for more")


def why(facts: Facts, counts: Counts = WAITING) -> str:
    return why_idle(facts, counts, visibility=120, now=NOW, task_logs="aws logs tail App_perInstance") or ""


def test_machines_are_counted() -> None:
    gone = Machine("i-00000009", "terminated", "Server.SpotInstanceTermination")
    ended = Machine("i-00000008", "terminated", "Client.UserInitiatedShutdown")
    found = machines_of(ALL._replace(machines=[*HERE, gone, ended]), slots=8, now=NOW)
    assert (found.target, found.running, found.lost, found.slots, found.tasks) == (3, 3, 1, 24, 3)
    assert found.replaces_lost and not found.draining and found.ended is None


def test_a_fleet_that_was_ended_on_purpose() -> None:
    dead = FLEET._replace(alive=False, state="cancelled")
    nothing = Facts([dead], [], None)
    assert machines_of(nothing, slots=1, now=NOW).ended == "stopped"
    late = Facts([dead._replace(valid_until=NOW - 1)], [], None)
    assert machines_of(late, slots=1, now=NOW).ended == "out of time (MAX_RUN_HOURS)"
    assert machines_of(Facts([FLEET], [], None), slots=1, now=NOW).ended is None
    assert machines_of(Facts(), slots=1, now=NOW).ended is None


def test_partial_capacity_goes_on_and_a_final_error_without_a_machine_does_not() -> None:
    final = FULL._replace(final=True)
    assert machines_of(Facts([FLEET], [], SERVICE, final), slots=1, now=NOW).unfulfillable
    assert not machines_of(Facts([FLEET], HERE[:1], SERVICE, final), slots=1, now=NOW).unfulfillable
    assert not machines_of(Facts([FLEET], [], SERVICE, FULL), slots=1, now=NOW).unfulfillable


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (Facts(), "no machines were asked for: ds start"),
        (Facts([FLEET], [], SERVICE), "no machine has come yet of the 3 asked for 4 min ago"),
        (Facts([FLEET], [], SERVICE, FULL), "the account's limit is reached; ask for more"),
        (Facts([FLEET._replace(alive=False)], [], SERVICE), "no machines: stopped; ds start"),
        (ALL._replace(service=None), "its service is gone"),
        (ALL._replace(service=SERVICE | {"runningCount": 0, "desiredCount": 0}), "stopped; ds start"),
        (ALL._replace(service=SERVICE | {"runningCount": 0}), "about 3 minutes"),
        (ALL._replace(service=SERVICE | {"runningCount": 0, "pendingCount": 2}), "2 are starting"),
        (ALL._replace(service=SERVICE | {"runningCount": 0, "events": [{"message": "insufficient memory"}]}),
         "too little memory; lower MEMORY"),
        (ALL._replace(service=SERVICE | {"runningCount": 0}, stopped=["CannotPullContainerError: no"]),
         "check DOCKERHUB_TAG"),
        (ALL._replace(service=SERVICE | {"runningCount": 0, "events": [{"message": "odd"}]}),
         "ECS says: odd"),
        (ALL, "no job is under way yet; if that lasts, see what they print: aws logs tail App_perInstance"),
    ],
)  # fmt: skip
def test_why_nothing_moves(facts: Facts, said: str) -> None:
    assert said in why(facts)


@pytest.mark.fault(68)
def test_a_message_from_before_the_machines_is_no_reason() -> None:
    """A task did not fit beside others while a machine was lost; the one that replaces it is joining."""

    def said(when: float) -> str:
        event = {
            "message": "insufficient CPU units available",
            "createdAt": datetime.fromtimestamp(when, UTC),
        }
        machines = [Machine("i-00000001", "running", since=NOW - 60)]
        service = SERVICE | {"runningCount": 0, "events": [event]}
        return why(ALL._replace(machines=machines, service=service))

    assert "too few processors" in said(NOW - 30)
    assert said(NOW - 90) == "1 machine runs, and no task: machines need about 3 minutes to join"
    old = [*HERE[:2], Machine("i-00000003", "running", since=NOW - 900)]
    stale = {"message": "insufficient CPU", "createdAt": datetime.fromtimestamp(NOW - 1000, UTC)}
    facts = ALL._replace(machines=old, service=SERVICE | {"runningCount": 0, "events": [stale]})
    diagnosis = machines_of(facts, slots=1, now=NOW).diagnosis
    assert diagnosis and "too few processors" not in diagnosis.what


def test_where_to_read_what_tasks_print_is_as_the_engine_says() -> None:
    found = why_idle(ALL, WAITING, visibility=120, now=NOW, task_logs="/project/tasks.log")
    assert found is not None and found.endswith("see what they print: /project/tasks.log")


def test_machines_tell_of_their_end() -> None:
    spot = Machine("i-1", "terminated", "Server.SpotInstanceTermination: no capacity (2026-09-21)", 1.0, 9.0)
    broken = Machine("i-2", "terminated", "Server.InternalError: host (2026-09-21)")
    ended = Machine("i-3", "terminated", "Client.UserInitiatedShutdown")
    found = machines_of(ALL._replace(machines=[HERE[0], spot, broken, ended]), slots=1, now=NOW).rented
    assert [(each.running, each.lost, each.why) for each in found] == [
        (True, False, ""),
        (False, True, "taken back by AWS"),
        (False, True, "lost: Server.InternalError: host"),
        (False, False, "ended"),
    ]
    assert (found[1].since, found[1].ended) == (1.0, 9.0)


def test_leases_of_a_machine_that_is_gone_end_a_term_after_it() -> None:
    gone = Machine("i-1", "terminated", "Server.SpotInstanceTermination", NOW - 900, NOW - 100)
    leased = Counts(leased=3)
    assert _at(NOW + 20) in why(ALL._replace(machines=[*HERE, gone]), leased)
    assert _at(NOW + 120) in why(ALL._replace(machines=[*HERE, gone._replace(ended=NOW - 500)]), leased)


def _at(when: float) -> str:
    return time.strftime("until %H:%M", time.localtime(when))


def test_jobs_hidden_by_leases_come_back_at_a_time() -> None:
    assert "4 jobs are leased" in why(ALL, Counts(leased=3, delayed=1))
    assert why(ALL, Counts(waiting=5, leased=3)) == ""


def test_a_smaller_target_is_taken_from_the_newest_fleet_first() -> None:
    old, new = FLEET, Fleet("fleet-2", alive=True, target=5)
    assert list(spread([old, new], 8)) == []
    assert list(spread([old, new], 4)) == [(new, 1)]
    assert list(spread([old, new], 2)) == [(new, 0), (old, 2)]
    assert list(spread([old, new], 0)) == [(new, 0), (old, 0)]


def test_only_machines_that_are_known_to_be_idle_may_go() -> None:
    machines = [*HERE, Machine("i-00000009", "terminated")]
    assert idle(machines, set()) == ["i-00000000", "i-00000001", "i-00000002"]
    assert idle(machines, {"i-00000001 worker-1"}) == ["i-00000000", "i-00000002"]
    assert idle(machines, {"i-00000001 worker-1", "4f1b2c9a7d3e worker-2"}) == []
    assert instances({"worker i-0123456789abcdef0-3", "x"}) == {"i-0123456789abcdef0"}


def test_a_worker_that_is_named_after_its_container_is_found_by_its_task() -> None:
    hosts = {"4f1b2c9a7d3e": "i-00000002", "0a1b": "i-00000001"}
    names = {"4f1b2c9a7d3e worker-2", "i-00000000 worker", "gone worker"}
    found = located(names, hosts)
    assert "4f1b2c9a7d3e worker-2 i-00000002" in found and "i-00000000 worker" in found
    assert idle(HERE, found) == [], "one is not found: it may be on any machine"
    assert idle(HERE, located(names - {"gone worker"}, hosts)) == ["i-00000001"]


class Ecs:
    """ECS with running tasks, each on a machine of its own; every call is counted."""

    def __init__(self, count: int) -> None:
        self.tasks = [f"arn:aws:ecs:us-east-1:1:task/lab/{number:032x}" for number in range(count)]
        self.calls: Counter[str] = Counter()

    def client(self, _: str) -> Ecs:
        return self

    def get_paginator(self, _: str) -> Ecs:
        return self

    def paginate(self, **_: object) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self.tasks), 100):
            self.calls["list"] += 1
            yield {"taskArns": self.tasks[start : start + 100]}

    def describe_tasks(self, *, tasks: list[str], **_: object) -> dict[str, Any]:
        self.calls["describe"] += 1
        return {"tasks": [self._task(arn) for arn in tasks]}

    def _task(self, arn: str) -> dict[str, Any]:
        number = arn[-8:]
        containers = [{"runtimeId": f"feed{number}ffffffff"}]
        return {"taskArn": arn, "containerInstanceArn": f"place-{number}", "containers": containers}

    def describe_container_instances(
        self,
        *,
        containerInstances: list[str],  # noqa: N803
        **_: object,
    ) -> dict[str, Any]:
        self.calls["machines"] += 1
        found = [
            {"containerInstanceArn": each, "ec2InstanceId": f"i-{each[-8:]}"} for each in containerInstances
        ]
        return {"containerInstances": found}


def test_tasks_that_were_found_once_are_not_looked_for_again() -> None:
    pytest.importorskip("botocore")
    ecs = Ecs(3000)
    looker = Looker(cast("AwsSession", ecs), "App", "lab")
    busy = {f"feed{number:08x} worker" for number in range(300)}
    found = looker.place(busy)
    assert "feed0000012b worker i-0000012b" in found and len(found) == 300
    assert ecs.calls == {"list": 30, "describe": 30, "machines": 30}
    ecs.calls.clear()
    assert looker.place({*list(busy)[:50], "i-00000001 worker"}) and not ecs.calls
    ecs.tasks.append(f"arn:aws:ecs:us-east-1:1:task/lab/{3000:032x}")
    assert looker.place({f"feed{3000:08x} worker"}) == {f"feed{3000:08x} worker i-{3000:08x}"}
    assert ecs.calls == {"list": 31, "describe": 1, "machines": 1}


@pytest.mark.fault(27)
def test_machines_that_never_joined_are_noticed_and_young_or_working_ones_are_not() -> None:
    """Not by how busy their processors are: a machine that fetches its inputs has a task."""
    old = [machine._replace(since=NOW - 700) for machine in HERE]
    assert machines_of(ALL._replace(machines=old), slots=1, now=NOW).diagnosis is None
    two = SERVICE | {"runningCount": 2}
    found = machines_of(ALL._replace(machines=old, service=two), slots=1, now=NOW)
    assert found.diagnosis is not None and found.diagnosis.what.startswith(
        "1 of 3 machines have run for 10 minutes"
    )
    young = [*old[:2], HERE[2]._replace(since=NOW - 60)]
    assert machines_of(ALL._replace(machines=young, service=two), slots=1, now=NOW).diagnosis is None
