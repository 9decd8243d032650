"""Decides whether a run may spend more, and says what it will cost. Pure.

`steps/start.py` shows `offer` before machines are asked for; `steps/watch/monitor.py` acts on `judge`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .words import duration, many, money

NOTICE_SHARE = 0.8
"""Share of the budget from which on the monitor prints a notice."""

MEASURED_JOBS = 20
"""Number of ended jobs from which on their mean time counts as known."""


class Budget(NamedTuple):
    """The limits of a run: dollars, and hours of machines. None: no limit."""

    usd: float | None = None
    hours: float | None = None

    def __bool__(self) -> bool:
        return self != Budget()

    def raised(self, usd: float = 0.0, hours: float = 0.0) -> Budget:
        """Returns the budget with so much more of each limit that it has."""
        return Budget(
            None if self.usd is None else self.usd + usd,
            None if self.hours is None else self.hours + hours,
        )


NO_BUDGET = Budget()


class Spent(NamedTuple):
    """What a run has spent so far. None: unknown."""

    usd: float | None = None
    hours: float | None = None


NOTHING = Spent()


class Notice(NamedTuple):
    """Most of the budget is spent, or what is spent is not known: the run goes on."""

    text: str


class Over(NamedTuple):
    """The budget is spent: the run drains."""

    text: str
    fix: str


def share(budget: Budget, spent: Spent) -> float | None:
    """Returns the largest share of a limit that is spent; None: unknown, or there is no limit."""
    found = [part for part, _ in _parts(budget, spent) if part is not None]
    return max(found, default=None)


def judge(budget: Budget, spent: Spent) -> Notice | Over | None:
    """Returns what the monitor must act on. A limit whose use is unknown does not hide one that is spent."""
    parts = _parts(budget, spent)
    known = [(part, text) for part, text in parts if part is not None]
    part, text = max(known, default=(0.0, ""))
    if part >= 1:
        more = "+5" if text.startswith("$") else "+5h"
        return Over(f"the budget is spent ({text})", f"ds start --budget {more}, then ds monitor")
    if part >= NOTICE_SHARE:
        return Notice(f"{part:.0%} of the budget is spent ({text}); at 100% the run drains")
    if len(known) < len(parts):
        return Notice("what the run has spent is not known yet: the budget cannot be held")
    return None


def used(budget: Budget, spent: Spent) -> str:
    """Returns how much of each limit is spent, in words; empty if there is no limit."""
    parts = _parts(budget, spent)
    return ", ".join(f"{text} ({part:.0%})" if part is not None else "not known" for part, text in parts)


def _parts(budget: Budget, spent: Spent) -> list[tuple[float | None, str]]:
    """Returns for each limit the share that is spent, and that in words."""
    found: list[tuple[float | None, str]] = []
    if budget.usd is not None:
        usd = spent.usd
        found.append((None, "") if usd is None else (usd / budget.usd, _of(money(usd), money(budget.usd))))
    if budget.hours is not None:
        hours = spent.hours
        of = "" if hours is None else _of(f"{hours:.2f}", f"{budget.hours:g} machine-hours")
        found.append((None if hours is None else hours / budget.hours, of))
    return found


def _of(part: str, whole: str) -> str:
    return f"{part} of {whole}"


class Quote(NamedTuple):
    """The machines that a start asks for: how many, jobs at a time on each, lowest and highest price now.

    Prices are in dollars an hour and machine; None: unknown.
    """

    machines: int
    slots: int
    usd_per_hour: tuple[float, float] | None = None
    priced: bool = True
    """The machines have a price, known or not."""


def offer(
    quote: Quote, jobs: int, seconds: float | None, budget: Budget = NO_BUDGET, spent: Spent = NOTHING
) -> Iterator[str]:
    """Yields in words what the run will cost, as far as is known, and whether the budget is less than that.

    `seconds`: mean time of a job; None: unknown.
    """
    machines, price = many(quote.machines, "machine"), quote.usd_per_hour
    if not quote.priced:
        yield f"{machines}, {many(quote.slots, 'job')} at a time on each"
    elif price is None:
        yield f"{machines}; the price of one is not known"
    else:
        yield f"{machines} at {_span(price)} an hour each: {money(price[1] * quote.machines)} an hour at most"
    hours = None if seconds is None else jobs * seconds / 3600 / max(quote.slots, 1)
    if seconds is None or hours is None:
        known = f"unknown until {MEASURED_JOBS} jobs have ended, or JOB_SECONDS says how long one takes"
        if quote.priced:
            yield f"{many(jobs, 'job')}: what they will cost is {known}"
        elif budget:
            yield f"{many(jobs, 'job')}: their machine-hours are {known}"
    else:
        cost = "" if price is None else f", {_span((price[0] * hours, price[1] * hours))}"
        yield f"{many(jobs, 'job')} of {duration(seconds)}: {hours:,.2f} machine-hours{cost}"
    if budget:
        yield "budget: " + " and ".join(_limits(budget, spent))
    needs = Spent(
        (spent.usd or 0.0) + price[0] * hours if price and hours else None, _sum(spent.hours, hours)
    )
    if (share(budget, needs) or 0.0) > 1:
        yield "the budget is less than that: the run will drain before all jobs have ended"


def _sum(spent: float | None, more: float | None) -> float | None:
    return None if more is None else (spent or 0.0) + more


def _limits(budget: Budget, spent: Spent) -> Iterator[str]:
    if budget.usd is not None:
        yield money(budget.usd) + (f" ({money(spent.usd)} are spent)" if spent.usd else "")
    if budget.hours is not None:
        yield f"{budget.hours:g} machine-hours" + (f" ({spent.hours:.2f} are spent)" if spent.hours else "")


def _span(prices: tuple[float, float]) -> str:
    low, high = map(money, prices)
    return low if low == high else f"{low} to {high}"
