"""How many jobs may be dead before a run drains."""

from __future__ import annotations

import pytest

from distributed_something.failing import Failing, Limits, may_be_too_many, too_many

X, RATE = "exit: x", " (MAX_FAILURE_RATE = 0.1)"
FIFTY, TENTH = Limits(jobs=50), Limits(rate=0.1)


@pytest.mark.parametrize(
    ("limits", "found", "why"),
    [
        (Limits(), Failing(1000, 1000, 1000, "exit"), None),
        (FIFTY, Failing(1000, 50, 1), None),
        (FIFTY, Failing(1000, 51, 1), "51 jobs are dead (MAX_FAILURES = 50)"),
        (FIFTY, Failing(1000, 25, 25, "exit: x"), None),
        (FIFTY, Failing(26, 26, 26, X), "26 jobs are dead: 26 of them alike: exit: x (MAX_FAILURES = 50)"),
        (FIFTY, Failing(90, 40, 11, X), "40 jobs are dead: 11 of them alike: exit: x (MAX_FAILURES = 50)"),
        (Limits(jobs=0), Failing(9, 1), "1 job is dead (MAX_FAILURES = 0)"),
        (TENTH, Failing(19, 19), None),
        (TENTH, Failing(20, 2), None),
        (TENTH, Failing(20, 3), "of 20 ended jobs 3 jobs are dead (MAX_FAILURE_RATE = 0.1)"),
        (
            TENTH,
            Failing(40, 3, 2, X),
            "of 40 ended jobs 3 jobs are dead: 2 of them alike: exit: x" + RATE,
        ),
        (Limits(canary=5), Failing(4, 4), None),
        (Limits(canary=5), Failing(5, 1), "of 5 ended jobs 1 job is dead (MAX_FAILURE_RATE = 0.1)"),
        (Limits(rate=0.5, canary=5), Failing(5, 2), None),
    ],
)
def test_the_limit(limits: Limits, found: Failing, why: str | None) -> None:
    assert too_many(limits, found) == why


def test_logs_are_read_only_if_the_answer_may_depend_on_them() -> None:
    assert not may_be_too_many(FIFTY, 1000, 25)
    assert may_be_too_many(FIFTY, 1000, 26)
    assert not may_be_too_many(Limits(), 1000, 1000)
