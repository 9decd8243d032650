"""An emulator of the AWS services that the project uses: moto's server, with corrections to what differs.

    python -m distributed_something.rehearsal.emulator --port 5000

serves until it is interrupted; its address is the first line on stdout. Point AWS_ENDPOINT_URL there, and
boto3 and every child process follow. Nothing is kept: when it ends, all that was made in it is gone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from ...errors import DsError
from ...system.loopback import ADDRESS
from ..auth import Wsgi, for_programs
from .clock import PATH, ServiceTime

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
"""What the emulator takes for credentials (it takes any). Real ones should never reach it."""

SETTINGS = {
    "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
}


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m distributed_something.rehearsal.emulator")
    parser.add_argument("--port", type=int, default=5000, help="0: any free one (default: 5000)")
    parser.add_argument("--until-eof", action="store_true", help="end when stdin ends")
    options = parser.parse_args(arguments)
    try:
        server = make_server(options.port)
    except DsError as error:
        print(f"{error.what}\nfix: {error.fix}", file=sys.stderr)
        return error.exit_code
    print(f"http://{ADDRESS}:{server.server_port}", flush=True)
    if options.until_eof:
        threading.Thread(target=_end_at_eof, daemon=True).start()
    with suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


def make_server(port: int, account: Wsgi | None = None, key: str | None = None) -> Any:
    """Returns a werkzeug server of every service, corrected; `serve_forever` runs it. Once a process.

    `account` answers in the place of bare moto; with a `key`, only calls signed with it are answered.
    """
    os.environ.update(SETTINGS | os.environ)
    try:
        from . import http as moto_server
        from . import sqs as moto_sqs
    except ImportError as error:
        raise DsError(
            f"the rehearsal needs an emulator that is not installed: {error}",
            "pip install 'distributed-something[rehearsal]'",
        ) from error
    time = ServiceTime()
    moto_sqs.install(time)
    try:
        application = for_programs(_with_clock(account or moto_server.Dispatcher(), time), key)
        return moto_server.make(ADDRESS, port, application)
    except (OSError, SystemExit) as error:
        raise DsError(
            f"the emulator cannot listen on port {port}: {error}", "choose another --port"
        ) from error


def _with_clock(application: Wsgi, time: ServiceTime) -> Wsgi:
    """Returns the application, and beside it the address that tells and moves the emulator's time."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != PATH:
            return application(environ, start_response)
        size = int(environ.get("CONTENT_LENGTH") or 0)
        _move(time, json.loads(environ["wsgi.input"].read(size) or "{}"))
        body = json.dumps({"now": time.now(), "manual": time.manual}).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return answer


def _move(time: ServiceTime, change: dict[str, Any]) -> None:
    if "now" in change:
        time.set(change["now"])
    if "advance" in change:
        time.advance(change["advance"])


def _end_at_eof() -> None:
    """End with the parent: its end of the pipe closes however it dies."""
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    os._exit(0)
