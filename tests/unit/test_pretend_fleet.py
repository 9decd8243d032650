"""What a pretend fleet does, where tasks go, what a lost machine cost: decided by pure functions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from distributed_something.ledger import Fold, RunPaths
from distributed_something.local.store import FolderStore
from distributed_something.rehearsal.account import Own, adapted
from distributed_something.rehearsal.cloud.placing import Host, Need, meets, need_of, place, why_not
from distributed_something.rehearsal.emulator.clock import BriskClock
from distributed_something.rehearsal.emulator.fleet_plan import Held, Plan, State, Terms, plan
from distributed_something.rehearsal.story import build, keep, lines, read
from distributed_something.testing import FakeClock

ACTIVE, ENDING, LEFT, OVER = State.ACTIVE, State.ENDING, State.LEFT, State.OVER
TWO = (Held("a"), Held("b"))


def planned(state: State, terms: Terms, *held: Held, started: int = 0, weight: float = 1.0) -> Plan:
    return plan(state, terms, held, now=100.0, started=started, weight=weight)


@pytest.mark.parametrize(
    ("state", "terms", "held", "expected"),
    [
        (ACTIVE, Terms(3), (), Plan(ACTIVE, launch=3)),
        (ACTIVE, Terms(3), TWO, Plan(ACTIVE, launch=1)),
        (ACTIVE, Terms(2), TWO, Plan(ACTIVE)),
        (ACTIVE, Terms(1), TWO, Plan(ACTIVE, end=("b",))),
        (ACTIVE, Terms(0), TWO, Plan(ACTIVE, end=("b", "a"))),
        (ACTIVE, Terms(1, shrinks=False), TWO, Plan(ACTIVE)),
        (ACTIVE, Terms(2, valid_until=100.0), TWO, Plan(ENDING, end=("a", "b"))),
        (ACTIVE, Terms(2, valid_until=100.0, ends=False), TWO, Plan(LEFT)),
        (ACTIVE, Terms(2, valid_until=100.5), TWO, Plan(ACTIVE)),
        (ENDING, Terms(2), TWO, Plan(ENDING, end=("a", "b"))),
        (ENDING, Terms(2), (), Plan(OVER)),
        (LEFT, Terms(3), TWO, Plan(LEFT)),
        (LEFT, Terms(3), (), Plan(OVER)),
    ],
)
def test_a_fleet_goes_to_its_target(
    state: State, terms: Terms, held: tuple[Held, ...], expected: Plan
) -> None:
    assert planned(state, terms, *held) == expected


def test_weights_count_as_capacity() -> None:
    assert planned(ACTIVE, Terms(5), weight=2.0) == Plan(ACTIVE, launch=3)
    assert planned(ACTIVE, Terms(5), Held("a", 4.0), Held("b", 2.0)) == Plan(ACTIVE)
    assert planned(ACTIVE, Terms(4), Held("a", 4.0), Held("b", 2.0)) == Plan(ACTIVE, end=("b",))


def test_a_fleet_of_type_request_replaces_nothing() -> None:
    once = Terms(2, replaces=False)

    assert planned(ACTIVE, once).launch == 2
    assert planned(ACTIVE, once, Held("a"), started=2).launch == 0


APP = [{"type": "memberOf", "expression": "attribute:ds.app == App"}]
MINE = {"ds.app": "App"}


def test_a_task_goes_where_there_is_room() -> None:
    small, large = Host("small", 1024, 900, MINE), Host("large", 4096, 8000, MINE)

    assert place(Need(1024, 500), [small, large], APP, "binpack") == small
    assert place(Need(1024, 500), [small, large], APP) == large
    assert place(Need(2048, 500), [small, large], APP, "binpack") == large
    assert place(Need(1024, 9000), [small, large], APP) is None


def test_a_task_keeps_to_its_apps_machines_that_do_not_drain() -> None:
    other, draining = Host("other", 4096, 8000, {"ds.app": "B"}), Host("d", 4096, 8000, MINE, active=False)

    assert place(Need(1, 1), [other, draining], APP) is None
    assert not meets(APP, other) and meets(APP, draining)
    assert not meets([{"type": "memberOf", "expression": "agentVersion > 1"}], draining)


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ([], "No Container Instances were found in your cluster"),
        ([Host("h", 0, 9999, MINE)], "(container-instance h) has insufficient CPU units available"),
        ([Host("h", 4096, 1, MINE)], "(container-instance h) has insufficient memory available"),
        ([Host("h", 4096, 9999)], "MemberOf placement constraint unsatisfied"),
        ([Host("h", 4096, 9999, MINE, active=False)], "is not in the ACTIVE state"),
    ],
)
def test_ecs_says_why_a_task_goes_nowhere(hosts: list[Host], said: str) -> None:
    message = why_not("AppService", Need(1024, 500), hosts, APP)

    assert message.startswith("(service AppService) was unable to place a task because")
    assert said in message


def test_of_a_containers_memory_what_is_reserved_counts() -> None:
    carrier = {"cpu": 0, "memory": 128, "memoryReservation": 16}

    assert need_of([carrier, {"cpu": 1024, "memory": 900}, {}]) == Need(1024, 916)


OWN = Own("arn:role/ours", "arn:profile/ours", "ami-ours", "subnet-ours", ("sg-ours",))


def test_a_fleet_file_gets_the_pretend_accounts_own_and_keeps_the_rest() -> None:
    theirs: dict[str, Any] = {
        "IamFleetRole": "arn:aws:iam::XXXXXXXX:role/fleet",
        "SpotPrice": "0.1",
        "LaunchSpecifications": [
            {
                "ImageId": "ami-theirs",
                "KeyName": "theirs",
                "InstanceType": "m5.xlarge",
                "IamInstanceProfile": {"Arn": "theirs"},
                "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-theirs"}}],
                "NetworkInterfaces": [
                    {"DeviceIndex": 0, "SubnetId": "subnet-theirs", "Groups": ["sg-theirs"]}
                ],
            }
        ],
    }
    text, replaced = adapted(json.dumps(theirs), OWN)

    assert "theirs" not in text and "XXXX" not in text
    assert json.loads(text)["SpotPrice"] == "0.1"
    assert json.loads(text)["LaunchSpecifications"][0]["InstanceType"] == "m5.xlarge"
    assert replaced == (
        "IamFleetRole", "IamInstanceProfile", "ImageId", "SubnetId", "Groups", "SnapshotId", "KeyName",
    )  # fmt: skip
    assert adapted(text, OWN) == (text, ())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"LaunchSpecifications": 3}', '{"LaunchSpecifications": [3]}']
)
def test_what_is_no_fleet_file_is_left_to_who_reads_it(text: str) -> None:
    assert adapted(text, OWN) == (text, ())


def machine(name: str, *, ended: float, lost: bool) -> dict[str, Any]:
    why = "killed without a notice" if lost else "the fleet has ended it"
    return {"id": name, "run": "run", "started": 0.0, "ended": ended, "why": why, "lost": lost}


def event(t: float, name: str, job: str, where: str, **more: object) -> dict[str, Any]:
    return {"t": t, "event": name, "id": job, "attempt": 1, "machine": where, "worker": where, **more}


ACCOUNT: dict[str, Any] = {
    "calls": {
        "sqs.ReceiveMessage": 1_000_000,
        "s3.PutObject": 1000,
        "s3.GetObject": 1000,
        "ec2.CreateFleet": 1,
    },
    "refused": {"sqs.ReceiveMessage (throttle)": 2},
    "machines": [machine("gone", ended=50.0, lost=True), machine("good", ended=3550.0, lost=False)],
    "leftovers": [],
}
EVENTS = [
    event(1.0, "succeeded", "a", "gone", seconds=1.0),
    event(10.0, "started", "b", "gone"),
    event(49.0, "interrupted", "c", "gone", seconds=4.0),
    event(45.0, "started", "c", "gone"),
    event(60.0, "succeeded", "b", "good", seconds=2.0),
    event(61.0, "started", "d", "good"),
]


@pytest.mark.fault(80)
def test_the_story_leaves_out_machines_of_an_earlier_run(tmp_path: Any) -> None:
    store, paths = FolderStore(tmp_path), RunPaths("App", "run")
    earlier = {**machine("early", ended=9_000.0, lost=True), "run": "before"}
    account = {**ACCOUNT, "machines": [earlier, *ACCOUNT["machines"]]}
    assert keep(store, paths, account, price=0.5) == keep(store, paths, ACCOUNT, price=0.5)


def test_the_story_tells_what_lost_machines_cost(tmp_path: Any) -> None:
    fold = Fold(FolderStore(tmp_path), RunPaths("App", "run"))
    story = build(ACCOUNT, "run", fold, EVENTS, price=0.5)

    assert [each["machine"] for each in story["lost"]] == ["gone"]
    assert story["lost"][0]["jobs"] == 2
    assert story["lost"][0]["dollars"] == pytest.approx(
        0.5 * 60 / 3600, abs=1e-6
    )  # a minute is billed at least
    assert story["lost"][0]["repeated_s"] == pytest.approx(40.0 + 4.0)
    assert story["machine_hours"] == 1.0
    assert story["request_dollars"] == pytest.approx(0.4 + 0.005 + 0.0004)
    assert story["dollars"] == pytest.approx(0.5 * (1 + 10 / 3600) + 0.4054)
    assert next(iter(story["calls"])) == "sqs.ReceiveMessage"


def test_the_story_in_words(tmp_path: Any) -> None:
    store, paths = FolderStore(tmp_path), RunPaths("App", "run")
    assert read(store, paths) is None
    for each in EVENTS:
        store.append(f"{paths.events}w.jsonl", json.dumps(each).encode() + b"\n")
    store.append(f"{paths.events}w.jsonl", b'{"t":')
    keep(store, paths, {**ACCOUNT, "leftovers": ["machine i-1"]}, price=None)
    story = read(store, paths)
    assert story is not None
    text = "\n".join(lines(story))

    assert "2 machines, 1 of them lost" in text
    assert "gone killed without a notice after 50 s: 2 jobs begun anew, 44 s of work repeated" in text
    assert "2 of them were refused on purpose" in text
    assert "1.000 machine hours" in text
    assert "left behind: machine i-1" in text


def test_who_waits_for_an_emulator_waits_a_tenth() -> None:
    clock = FakeClock()
    began, brisk = clock.now(), BriskClock(clock)
    brisk.wait(50.0)

    assert brisk.now() == clock.now() == began + 5.0
