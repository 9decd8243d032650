"""Who is let in by the servers that listen on this machine's loopback address."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

import pytest

from distributed_something.rehearsal.auth import for_programs, signed
from distributed_something.system.loopback import is_foreign

HOST = "127.0.0.1:5000"
KEY = "k" * 32


def application(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"in"]


def asked(headers: dict[str, str], path: str = "/", key: str | None = KEY) -> str:
    """The status that a request gets; the body of a refused one is not read."""
    said: list[str] = []
    body = BytesIO(b"GET / HTTP/1.1")
    names = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    environ = {"PATH_INFO": path, "wsgi.input": body, "CONTENT_LENGTH": "14", **names}
    for_programs(application, key)(environ, lambda status, _: said.append(status))
    if said == ["403 Forbidden"]:
        assert body.tell() == 0
    return said[0]


@pytest.mark.parametrize(
    ("host", "origin", "site"),
    [
        ("evil.example:5000", None, None),  # a name of theirs that leads here
        ("127.0.0.1.evil.example", None, None),
        ("", None, None),
        ("[", None, None),
        (HOST, "https://evil.example", None),
        (HOST, "null", None),
        (HOST, "http://127.0.0.1:6000", None),
        (HOST, None, "cross-site"),
        (HOST, None, "same-site"),  # another port of this machine
    ],
)
def test_pages_elsewhere_are_foreign(host: str, origin: str | None, site: str | None) -> None:
    assert is_foreign(host, origin, site)


@pytest.mark.parametrize("host", [HOST, "localhost:5000", "127.0.0.1"])
def test_programs_and_the_servers_own_page_are_not(host: str) -> None:
    assert not is_foreign(host, None, None)
    assert not is_foreign(host, f"http://{host}", "same-origin")
    assert not is_foreign(host, None, "none")


def test_a_rehearsal_answers_to_its_key() -> None:
    assert asked({"Host": HOST, **signed(KEY)}) == "200 OK"
    scope = f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/ecs/aws4_request, Signature=0"
    assert asked({"Host": HOST, "Authorization": scope}) == "200 OK"
    assert asked({"Host": HOST}, "/ds/machines/i-1/latest/api/token") == "200 OK"
    assert asked({"Host": HOST}, key=None) == "200 OK"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": HOST},
        {"Host": HOST, **signed("testing")},
        {"Host": HOST, **signed(KEY[1:])},
        {"Host": HOST, **signed(KEY + "\xff")},
        {"Host": HOST, **signed(KEY), "Origin": "https://evil.example"},
        {"Host": "evil.example", **signed(KEY)},
    ],
)
def test_and_to_nobody_else(headers: dict[str, str]) -> None:
    assert asked(headers) == "403 Forbidden"


def test_the_keys_of_the_rehearsals_own_addresses_count_too() -> None:
    for path in ("/ds/end", "/ds/faults", "/ds/clock", "/ds/account", "/moto-api/reset"):
        assert asked({"Host": HOST}, path) == "403 Forbidden"
