"""Whether a run may spend more, and what is shown before machines are asked for."""

from __future__ import annotations

import pytest

from distributed_something.aws.ec2.prices import paid
from distributed_something.budget import Budget, Notice, Over, Quote, Spent, judge, offer, share

FIVE = Budget(usd=5.0)
SPENT = Over("the budget is spent ($5.00 of $5.00)", "ds start --budget +5, then ds monitor")


@pytest.mark.parametrize(
    ("budget", "spent", "verdict"),
    [
        (Budget(), Spent(), None),
        (Budget(), Spent(usd=1e6), None),
        (FIVE, Spent(usd=3.99), None),
        (FIVE, Spent(usd=4.0), Notice("80% of the budget is spent ($4.00 of $5.00); at 100% the run drains")),
        (FIVE, Spent(usd=5.0), SPENT),
        (FIVE, Spent(), Notice("what the run has spent is not known yet: the budget cannot be held")),
        (
            Budget(hours=10),
            Spent(hours=12.5),
            Over("the budget is spent (12.50 of 10 machine-hours)", "ds start --budget +5h, then ds monitor"),
        ),
    ],
)
def test_verdicts(budget: Budget, spent: Spent, verdict: object) -> None:
    assert judge(budget, spent) == verdict


def test_the_limit_that_is_reached_first_counts_even_if_the_other_is_unknown() -> None:
    both = Budget(usd=5, hours=10)
    assert isinstance(judge(both, Spent(usd=1, hours=10)), Over)
    assert isinstance(judge(both, Spent(usd=None, hours=10)), Over)
    assert isinstance(judge(both, Spent(usd=5, hours=1)), Over)
    assert share(both, Spent(usd=1, hours=9)) == 0.9


def test_a_raised_budget_raises_only_limits_that_there_are() -> None:
    assert FIVE.raised(usd=5, hours=3) == Budget(usd=10)


def test_an_offer_names_the_cost_where_the_time_of_a_job_is_known() -> None:
    lines = list(offer(Quote(10, 4, (0.04, 0.07)), 1000, 360.0, Budget(usd=2), Spent()))
    assert lines == [
        "10 machines at $0.0400 to $0.0700 an hour each: $0.70 an hour at most",
        "1,000 jobs of 6 min: 25.00 machine-hours, $1.00 to $1.75",
        "budget: $2.00",
    ]


def test_an_offer_says_what_is_unknown() -> None:
    lines = list(offer(Quote(1, 4), 10, None))
    assert lines[0] == "1 machine; the price of one is not known"
    assert "unknown until 20 jobs have ended" in lines[1]
    assert len(lines) == 2


def test_an_offer_says_that_the_budget_is_too_small() -> None:
    dear = Quote(10, 4, (0.04, 0.07))
    assert "less than that" in [*offer(dear, 1000, 360.0, Budget(usd=1.5), Spent(usd=0.6))][-1]
    assert "less than that" in [*offer(dear, 1000, 360.0, Budget(hours=20), Spent(hours=1))][-1]
    assert "less than that" not in [*offer(dear, 1000, 360.0, Budget(hours=26), Spent())][-1]


@pytest.mark.parametrize(
    ("since", "until", "dollars"),
    [
        (0.0, 3600.0, 0.10),  # before the first price, that price
        (3600.0, 7200.0, 0.10),
        (7200.0, 10800.0, 0.30),
        (5400.0, 9000.0, 0.05 + 0.15),  # half an hour at each
        (7200.0, 7200.0, 0.0),
        (0.0, 14400.0, 0.10 * 2 + 0.30 * 2),
    ],
)
def test_each_hour_costs_the_price_of_its_time(since: float, until: float, dollars: float) -> None:
    assert paid([(3600.0, 0.10), (7200.0, 0.30)], since, until) == pytest.approx(dollars)


def test_an_offer_of_machines_without_a_price_is_of_hours() -> None:
    free = Quote(4, 2, priced=False)
    assert list(offer(free, 10, None)) == ["4 machines, 2 jobs at a time on each"]
    assert list(offer(free, 1000, 36.0, Budget(hours=3)))[1:] == [
        "1,000 jobs of 36 s: 5.00 machine-hours",
        "budget: 3 machine-hours",
        "the budget is less than that: the run will drain before all jobs have ended",
    ]
    assert "machine-hours are unknown" in list(offer(free, 10, None, Budget(hours=3)))[1]
