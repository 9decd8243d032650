"""A run that is over one of its limits drains; it goes on when the limit is raised, or the cause mended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aws_project import Cloud, answer, fleet_file, instances, work
from distributed_something.aws.ecs.resources import Kind
from distributed_something.budget import Budget, Quote
from distributed_something.console import Console
from distributed_something.errors import DsError, Unreachable, UsageError
from distributed_something.steps.setup import setup
from distributed_something.steps.start import raise_budget, show_rest, start
from distributed_something.steps.watch.monitor import Watch, monitor


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    found = Cloud(tmp_path / "project")
    found.config(MACHINE_PRICE=0.2, BUDGET_USD=0.001, MAX_FAILURES=3)
    setup(found.project)
    found.submit(found.jobs(5))
    start(found.project, fleet_file(found))
    return found


def watched(cloud: Cloud) -> DsError:
    with pytest.raises(DsError) as stopped:
        monitor(cloud.project, None, None)
    return stopped.value


def test_at_its_end_the_machines_go_and_the_jobs_stay(cloud: Cloud) -> None:
    stopped = watched(cloud)
    assert stopped.what.startswith("5 jobs are left, and the workers have ended: the budget is spent ($0.")
    assert stopped.fix == "ds start --budget +5, then ds monitor"
    assert instances(cloud) == []
    snapshot = cloud.project.snapshot()
    assert (snapshot.queued, snapshot.jobs.waiting) == (5, 5)
    told = snapshot.to_json()["budget"]
    assert told["usd"] == 0.001 and told["share"] > 1 and told["spent_hours"] > 0


def test_no_machine_is_asked_for_until_the_budget_is_raised(cloud: Cloud) -> None:
    watched(cloud)
    with pytest.raises(DsError, match="no machines were asked for: the budget is spent"):
        show_rest(cloud.project, None)
    assert raise_budget(cloud.project, Budget(usd=5)) == Budget(usd=5.001)
    cloud.project.console.yes = True
    show_rest(cloud.project, None)
    start(cloud.project, fleet_file(cloud))
    assert Watch(cloud.project).look(Console().watch()) is None
    assert len(instances(cloud)) > 0, "they stay"


def test_only_a_limit_of_the_config_can_be_raised(cloud: Cloud) -> None:
    with pytest.raises(UsageError, match="no BUDGET_HOURS"):
        raise_budget(cloud.project, Budget(hours=5))


def test_without_a_yes_no_machine_is_asked_for(cloud: Cloud) -> None:
    raise_budget(cloud.project, Budget(usd=5))
    cloud.project.console.yes = False
    with pytest.raises(UsageError, match="ask for these machines"):
        show_rest(cloud.project, None)


def test_a_drain_that_fails_is_tried_again(cloud: Cloud) -> None:
    calls = 0

    class Once:
        """The engine whose first stop meets a network that fails."""

        def __getattr__(self, name: str) -> Any:
            return getattr(cloud.engine, name)

        def stop(self, *, now: bool = False) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise Unreachable("telling the service: no answer")
            cloud.engine.stop(now=now)

    project = cloud.project
    project._given_engine = Once()  # type: ignore[assignment]
    project.__dict__.pop("engine", None)
    assert "the budget is spent" in watched(cloud).what
    assert calls >= 2 and instances(cloud) == []


def test_a_quote_has_machines_slots_and_the_price_that_is_bid(cloud: Cloud) -> None:
    answer(cloud, "DescribeSpotPriceHistory", {"SpotPriceHistory": []})
    quote = cloud.engine.quote(None)
    assert quote == Quote(cloud.project.config.cluster_machines, quote.slots, (0.2, 0.2))


def test_machines_end_if_too_many_jobs_are_dead(cloud: Cloud) -> None:
    raise_budget(cloud.project, Budget(usd=5))
    work(cloud, 2, dead=2)
    stopped = watched(cloud)
    assert "2 jobs are dead: 2 of them alike: exit" in stopped.what
    assert stopped.what.endswith("(MAX_FAILURES = 3)")
    assert instances(cloud) == []


@pytest.fixture
def canary(tmp_path: Path) -> Cloud:
    found = Cloud(tmp_path / "canary", CANARY=4, MAX_FAILURE_RATE=0.5)
    setup(found.project)
    found.submit(found.jobs(60))
    start(found.project, fleet_file(found))
    assert len(instances(found)) == 1 and found.record().held
    return found


def test_the_other_machines_come_when_the_canary_has_ended_well(canary: Cloud) -> None:
    watch = Watch(canary.project)
    work(canary, 3)
    assert watch.look(Console().watch()) is None
    assert len(instances(canary)) == 1, "three of four have ended"
    work(canary, 2, dead=1)
    assert watch.look(Console().watch()) is None
    assert not canary.record().held
    (fleet,) = canary.engine._looker.fleets.of_app(canary.app)
    service = canary.found(Kind.SERVICE, f"{canary.app}Service")
    assert (fleet.target, service.settings["desiredCount"]) == (3, 3)
    watch.look(Console().watch())
    assert fleet.target == 3, "asked for once"


def test_a_canary_that_dies_is_the_end(canary: Cloud) -> None:
    work(canary, 4, dead=3)
    assert "of 4 ended jobs 3 jobs are dead: 3 of them alike" in watched(canary).what
    assert instances(canary) == []
    with pytest.raises(DsError, match="no workers were started"):
        show_rest(canary.project, None)
