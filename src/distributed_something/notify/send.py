"""Sends one notice to each address: the process that `notifier.py` starts.

Web addresses get JSON, commands environment variables, and topics of SNS a subject and a text; all others are
Apprise's. An address may hold secrets: only its kind and host are printed.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from string import Template
from typing import Any
from urllib.parse import quote, urlsplit

from ..errors import DsError

LIMIT_SECONDS = 20.0  # time limit of one address, in seconds
ALL_SECONDS = 60  # time limit of the process, in seconds
SUBJECT_CHARACTERS = 100  # longest subject that SNS takes; it has to be ASCII

SLACK = "hooks.slack.com"
INSTALL = "pip install 'distributed-something[notify]'"


def send(address: str, message: Mapping[str, Any]) -> None:
    """Send a message to one address. Raises DsError, which does not show the address."""
    kind, _, rest = address.partition(":")
    if kind == "command":
        _command(rest.strip(), message)
        return
    if kind == "arn":
        _topic(address, message)
        return
    try:
        address = Template(address).substitute(os.environ)
    except KeyError as error:
        raise DsError(f"no environment variable {error.args[0]}") from error
    except ValueError as error:
        raise DsError("a $ in it names no variable; write $$ for a dollar sign") from error
    if kind in ("http", "https"):
        _post(address, message)
    else:
        _apprise(address, message)


def send_all(addresses: Sequence[str], message: Mapping[str, Any], failed: Callable[[str], None]) -> bool:
    """Send a message to all addresses at once. Returns whether all have it.

    `failed` takes a line for each address that could not be reached.
    """

    def sent(address: str) -> bool:
        try:
            send(address, message)
        except DsError as error:
            failed(f"{shown(address)}: {error.what}")
        except Exception as error:  # noqa: BLE001  a library's error may show the address: its kind is enough
            failed(f"{shown(address)}: {type(error).__name__}")
        else:
            return True
        return False

    with ThreadPoolExecutor(len(addresses)) as pool:
        return all([*pool.map(sent, addresses)])


def shown(address: str) -> str:
    """Returns what an address may be called in messages: its kind, and its host or the mailbox."""
    kind, _, rest = address.partition(":")
    if kind in ("command", "arn"):
        return "command" if kind == "command" else address
    if not rest.startswith("//"):
        return f"{kind}:{rest.partition('?')[0]}"
    host = None
    if kind in ("http", "https"):
        with suppress(ValueError):
            host = urlsplit(address).hostname
    return f"{kind}://{host if host and '$' not in host else '…'}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the message would become a GET of another place."""

    def redirect_request(self, *_: object) -> None:
        return None


def _post(address: str, message: Mapping[str, Any]) -> None:
    text = f"{message['title']}: {message['text']}"
    slack = urlsplit(address).hostname == SLACK
    body = json.dumps({"text": text} if slack else {**message, "text": text}).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "distributed-something"}
    try:
        request = urllib.request.Request(address, body, headers)  # noqa: S310  http and https only
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=LIMIT_SECONDS):
            return
    except urllib.error.HTTPError as error:
        raise DsError(f"HTTP {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        why = reason.strerror if isinstance(reason, OSError) and reason.strerror else type(reason).__name__
        raise DsError(why) from None


def _command(command: str, message: Mapping[str, Any]) -> None:
    """Run a command, with the message in its environment. What it leaves running is killed."""
    given = {f"DS_{name.upper()}": str(message[name]) for name in ("app", "run", "event", "title", "text")}
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        env={**os.environ, **given},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = process.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise DsError(f"took longer than {LIMIT_SECONDS:.0f} s") from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if code:
        raise DsError(f"exit code {code}")


def _topic(arn: str, message: Mapping[str, Any]) -> None:
    """Publish to a topic of SNS, with the credentials of the environment or of AWS_PROFILE."""
    try:
        import botocore.config
        import botocore.exceptions
        import botocore.session
    except ImportError:
        raise DsError("needs boto3: pip install 'distributed-something[aws]'") from None
    patience = botocore.config.Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 2})
    subject = message["title"].encode("ascii", "replace").decode()[:SUBJECT_CHARACTERS]
    try:
        client: Any = botocore.session.Session().create_client(
            "sns", region_name=arn.split(":")[3], config=patience
        )
        client.publish(TopicArn=arn, Subject=subject, Message=message["text"])
    except botocore.exceptions.ClientError as error:
        raise DsError(error.response["Error"]["Code"]) from error


def _apprise(address: str, message: Mapping[str, Any]) -> None:
    try:
        import apprise
    except ImportError:
        raise DsError(f"needs Apprise: {INSTALL}") from None
    target = apprise.Apprise()
    if not target.add(_own_server(address)):
        raise DsError("Apprise does not know this form of address")
    if not target.notify(title=message["title"], body=message["text"], body_format=apprise.NotifyFormat.TEXT):
        raise DsError("was refused, or not reached")


def _own_server(address: str) -> str:
    """Returns `mailto:ada@lab.org` in Apprise's form: by the mail server of this machine."""
    kind, _, mailbox = address.partition(":")
    if kind != "mailto" or mailbox.startswith("//"):
        return address
    sender = quote(f"ds@{socket.getfqdn()}")
    return f"mailto://localhost?from={sender}&to={quote(mailbox)}"


def main() -> int:
    """Sends what stdin says to all addresses at once. Returns 1 if one failed; stderr says which and why."""
    signal.alarm(ALL_SECONDS)
    order = json.load(sys.stdin)
    return int(not send_all(order["to"], order["message"], lambda line: print(line, file=sys.stderr)))


if __name__ == "__main__":
    sys.exit(main())
