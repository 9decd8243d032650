"""Times on the screen have their day where it is not today."""

from __future__ import annotations

from datetime import datetime

import pytest

from distributed_something.local.engine import time_text

NOON = datetime(2026, 3, 4, 12).timestamp()


@pytest.mark.fault(76)
@pytest.mark.parametrize(
    ("hours", "text"),
    [(3, "15:00:00"), (-3, "09:00:00"), (13, "2026-03-05 01:00:00"), (-36, "2026-03-03 00:00:00")],
)
def test_a_time_of_another_day_has_its_day(hours: int, text: str) -> None:
    assert time_text(NOON + hours * 3600, NOON) == text
