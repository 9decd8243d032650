"""Guards a rehearsal's servers: only programs of this machine that have the key may call them.

A caller of the pretend account runs commands on this machine, as the user who rehearses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from hmac import compare_digest
from typing import Any

from ..system.loopback import is_foreign

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

OPEN = ("/ds/machines/", "/ds/tasks/")  # metadata: read-only, for clients that sign nothing

_CREDENTIAL = re.compile("Credential=([^/]*)/")


def for_programs(application: Wsgi, key: str | None = None) -> Wsgi:
    """Returns the application, which then refuses pages in a browser and, with a `key`, calls without it.

    The signature itself is not checked: the key cannot be overheard on the loopback address. What a refused
    caller sends is not read; both servers close the connection behind each answer.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if _may_enter(environ, key):
            return application(environ, start_response)
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
    """Returns the header that lets a request in which no client of AWS signs."""
    return {"Authorization": f"Credential={key}/"}
