"""Serves the page until Ctrl-C: `ds dashboard`."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..console import Console
from ..errors import OK, DsError
from ..steps.project import Project
from ..system.leftovers import sweep
from ..system.state import make_private, refuse_foreign
from .runs import Runs
from .server import PageServer


class Address(NamedTuple):
    """Token and port of the server: an open page finds the server again after a restart."""

    token: str
    port: int


def dashboard(project: Project, port: int | None, run: str | None) -> int:
    """Print the page's address (of this run), open it if there is a screen, and serve until Ctrl-C."""
    console, place = project.console, project.folder / ".ds" / f"dashboard-{project.config.app_name}.json"
    known = _read(place)
    token = known.token if known else secrets.token_urlsafe(24)

    def opened(run: str | None) -> Project:
        return Project.open(project.folder, console, project.config.engine, run=run)

    with _bound(opened, token, port, known.port if known else 0) as server:
        _write(place, Address(token, server.server_address[1]))
        door = place.with_suffix(".html")
        try:
            _show_address(console, server.url + (f"#overview?run={run}" if run else ""), door)
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            console.say("")
        finally:
            door.unlink(missing_ok=True)
    return OK


def _show_address(console: Console, url: str, door: Path) -> None:
    if console.json:
        console.data({"url": url})
    else:
        console.line(url)
    console.out.flush()
    console.say("the page is for this machine and anyone who has its address; Ctrl-C ends it, not the run")
    if not console.json and console.err.isatty():
        _open(url, door)


def _bound(opened: Callable[[str | None], Project], token: str, port: int | None, known: int) -> PageServer:
    """Returns a server at the requested port, or else at the port of last time, or else at any port."""
    runs = Runs(opened)
    for wanted in [port] if port is not None else [known, 0]:
        try:
            return PageServer(runs, token, wanted)
        except OSError as error:
            why = error.strerror
    raise DsError(f"port {port}: {why}", "choose another one, or leave --port out")


def _read(place: Path) -> Address | None:
    """Reads the remembered address; None: it is missing, or other users could have read or written it."""
    try:
        found = place.stat()
        if found.st_mode & 0o077 or found.st_uid != os.getuid():
            return None
        facts = json.loads(place.read_text())
        return Address(str(facts["token"]), int(facts["port"])) if len(str(facts["token"])) >= 32 else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(place: Path, address: Address) -> None:
    """Remember the address. If that fails, the next server has a new one."""
    _keep(place, json.dumps(address._asdict()))


def _keep(place: Path, text: str) -> bool:
    """Write a file that only its user can read. Returns whether that succeeded."""
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        make_private(place.parent)
        refuse_foreign(place.parent)
        sweep(place.parent, f".{place.name}.")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        temporary.replace(place)
    except OSError:
        temporary.unlink(missing_ok=True)
        return False
    return True


def _open(url: str, door: Path) -> None:
    """Open the page in a browser if there is a screen; a text browser would take over this terminal.

    All users of a machine can see the browser's command line. So it names a file that leads to the page and
    that only its user can read.
    """
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if screen and _keep(door, f'<!doctype html><meta http-equiv="refresh" content="0; url={url}">\n'):
        import webbrowser

        webbrowser.open(door.as_uri())
