"""The command line's last line of defence: what no part foresaw is still one line and a fix."""

from __future__ import annotations

import pytest

from distributed_something.cli import in_our_words
from distributed_something.errors import USAGE, DsError, UsageError


def test_our_own_errors_stay_as_they_are() -> None:
    error = UsageError("jobs.json: no jobs", "give it some")
    assert in_our_words(error) is error
    assert in_our_words(error).exit_code == USAGE


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (PermissionError(13, "Permission denied", "data"), "data: Permission denied", "--debug"),
        (ModuleNotFoundError("No module", name="botocore.exceptions"), "botocore", "[aws]"),
        (ModuleNotFoundError("No module", name="moto"), "moto", "[rehearsal]"),
        (ModuleNotFoundError("No module named 'other'", name="other"), "a fault in ds", "--debug"),
        (ZeroDivisionError("division\nby zero"), "ZeroDivisionError: division", "--debug"),
    ],
)
def test_whatever_comes_up_is_one_line_and_a_fix(error: Exception, what: str, fix: str) -> None:
    found = in_our_words(error)
    assert type(found) is DsError
    assert what in found.what
    assert fix in found.fix
    assert "\n" not in found.what
