"""Times in AWS's answers are read as botocore reads them, only faster."""

from __future__ import annotations

import pytest

from distributed_something.s3 import session


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-22T22:15:01Z",
        "2026-11-22T22:15:01.123Z",
        "2026-11-22T22:15:01.123456Z",
        "2026-11-22T22:15:01+01:00",
        "Sun, 22 Nov 2026 22:15:01 GMT",
        "1795385701",
        1795385701,
        1795385701.5,
        "20261122",
    ],
)
def test_a_time_is_what_botocore_makes_of_it(value: object) -> None:
    parse = pytest.importorskip("botocore.utils").parse_timestamp
    found, expected = session._timestamp(value), parse(value)
    assert found == expected and found.utcoffset() == expected.utcoffset()


@pytest.mark.parametrize("value", ["", "2026-11-22T25:99:01Z", "soon"])
def test_what_is_no_time_is_an_error_as_ever(value: str) -> None:
    pytest.importorskip("botocore")
    with pytest.raises(ValueError):
        session._timestamp(value)
