"""Decides who may call our servers on the loopback address: programs of this machine, and their own page.

Every page that a browser has open can send requests there, and a name of its own may lead there too.
"""

from __future__ import annotations

from urllib.parse import urlsplit

ADDRESS = "127.0.0.1"

_NAMES = frozenset({ADDRESS, "localhost"})


def is_foreign(host: str, origin: str | None, site: str | None) -> bool:
    """Whether a page of another server calls, by the headers Host, Origin and Sec-Fetch-Site."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return True
    elsewhere = origin is not None and origin != f"http://{host}"
    return name not in _NAMES or elsewhere or site not in (None, "same-origin", "none")
