"""What the page says of a run: what it does now, what is wrong, and the command to go on."""

from __future__ import annotations

from typing import Any

import pytest

from distributed_something.budget import Budget
from distributed_something.dashboard.story import Around, Earlier, story
from distributed_something.engine import Cost, Diagnosis, Machines
from distributed_something.exclusion import Pause
from distributed_something.report.failures import FailureGroup
from distributed_something.runs.snapshot import JobCounts, Snapshot

MACHINES = Machines(target=3, running=2, slots=8, hours=6.0, cost=Cost(4.2, 0.2))


def run(**given: Any) -> Snapshot:
    jobs = JobCounts(total=100, waiting=40, running=8, succeeded=48, dead=4)
    facts = {"state": "running", "jobs": jobs, "machines": MACHINES, "queued": 48, "started": 0.0}
    rest = {"attempts": 0, "interruptions": 0, "rate": 0.0, "eta": None, "finished": None}
    return Snapshot(app="App", engine="aws", run="r", **{**rest, **facts, **given})


def group(dead: int, cause: str, example: str) -> FailureGroup:
    found = FailureGroup(cause, example)
    found.dead = dead
    return found


@pytest.mark.parametrize(
    ("snapshot", "around", "wrong", "following"),
    [
        pytest.param(
            run(budget=Budget(usd=5)),
            Around(rents=True),
            "84% of the budget is spent ($4.20 of $5.00); at 100% the run drains",
            "ds monitor",
            id="most of the budget",
        ),
        pytest.param(
            run(budget=Budget(usd=4)),
            Around(rents=True),
            "the budget is spent ($4.20 of $4.00)",
            "ds start --budget +5 && ds monitor",
            id="the budget",
        ),
        pytest.param(
            run(budget=Budget(hours=5)),
            Around(rents=True),
            "the budget is spent (6.00 of 5 machine-hours)",
            "ds start --budget +5h && ds monitor",
            id="the hours",
        ),
        pytest.param(
            run(),
            Around(too_many="4 jobs are dead (MAX_FAILURES = 3)", rents=True),
            "On hold: 4 jobs are dead (MAX_FAILURES = 3). ds monitor drains the run, and ds start refuses",
            "ds start && ds monitor",
            id="too many dead",
        ),
        pytest.param(
            run(
                why_idle="1 worker paused: the store is full", pauses=(Pause("m", 0.0, "the store is full"),)
            ),
            Around(),
            "1 worker paused: the store is full",
            "ds status",
            id="a sick machine",
        ),
        pytest.param(
            run(why_idle="no machine has come yet"),
            Around(),
            "Why nothing moves: no machine has come yet",
            None,
            id="idle",
        ),
        pytest.param(
            run(machines=MACHINES._replace(lost=2, diagnosis=Diagnosis("no capacity", "other types"))),
            Around(rents=True),
            "2 machines were lost; their jobs went back, and no attempt was charged",
            "ds monitor",
            id="lost machines",
        ),
        pytest.param(
            run(),
            Around([group(3, "exit", "bad value")], Earlier("before", 2)),
            "3 jobs are dead (exit): bad value",
            None,
            id="failures",
        ),
    ],
)
def test_what_is_wrong_comes_with_the_command_to_go_on(
    snapshot: Snapshot, around: Around, wrong: str, following: str | None
) -> None:
    told = story(snapshot, around)
    assert wrong in told["wrong"]
    commands = [each["command"] for each in told["next"] if each["command"]]
    assert commands[-1:] == ([following] if following else [])
    assert not any(text.startswith("Why nothing moves") and snapshot.paused for text in told["wrong"])


def test_the_canary_is_told_until_the_run_ends() -> None:
    told = story(run(), Around(canary=60, rents=True))
    assert told["now"].endswith(
        "The canary goes first: 52 of its 60 jobs have ended; then ds monitor asks for the other machines."
    )
    assert "canary" not in story(run(state="finished"), Around(canary=60, rents=True))["now"]


def test_no_command_changes_an_earlier_run() -> None:
    told = story(run(budget=Budget(usd=4)), Around(too_many="4 jobs are dead", past=True))
    assert told["next"] == []
