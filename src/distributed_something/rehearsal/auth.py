"""The door of a rehearsal's servers: programs of this machine come in, and those alone that have the key.

Whoever may call the pretend account runs commands on this machine, as the user who rehearses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from hmac import compare_digest
from typing import Any

from ..system.loopback import is_foreign

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

OPEN = ("/ds/machines/", "/ds/tasks/")
"""Metadata: to be read only, and by clients that sign nothing."""

_CREDENTIAL = re.compile("Credential=([^/]*)/")


def for_programs(application: Wsgi, key: str | None = None) -> Wsgi:
    """The application without what pages in a browser ask, and, with a `key`, what is not signed with it.

    The signature itself is not looked at: nobody overhears the key on the loopback address.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if _may_enter(environ, key):
            return application(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # or it is the next request
        said = b"the rehearsal answers its own programs only\n"
        start_response("403 Forbidden", [("Content-Type", "text/plain"), ("Content-Length", str(len(said)))])
        return [said]

    return answer


def _may_enter(environ: dict[str, Any], key: str | None) -> bool:
    get = environ.get
    if is_foreign(get("HTTP_HOST", ""), get("HTTP_ORIGIN"), get("HTTP_SEC_FETCH_SITE")):
        return False
    if key is None or environ["PATH_INFO"].startswith(OPEN):
        return True
    found = _CREDENTIAL.search(get("HTTP_AUTHORIZATION", ""))
    return found is not None and compare_digest(found[1].encode(), key.encode())


def signed(key: str) -> dict[str, str]:
    """The header that lets a request in which no client of AWS signs."""
    return {"Authorization": f"Credential={key}/"}
