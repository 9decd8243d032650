"""Holds every call that these tests see a role make against the rights of that role."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def rights() -> Iterator[None]:
    """At the end: no role has made a call that it may not make."""
    pytest.importorskip("botocore")
    import rights

    yield
    found = {str(role or "people"): calls for role in rights.SEEN if (calls := rights.beyond(role))}
    assert not found, f"calls without a right, and the tests that made them: {found}"
