"""Asks hosts by the user's own ssh program, whose config counts. Nothing of a config is in its arguments
but the host's name: the rest goes to a shell's input, quoted."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...errors import DsError, Unreachable

CONNECT_SECONDS = 10
ANSWER_SECONDS = 150.0
"""A host has this long for an answer: the end of a pilot takes up to twice agent.GRACE_SECONDS."""

AT_ONCE = 32
"""Hosts that are asked at a time."""

SAYS = "ds-says "
"""Begins the line with the answer. Start-up files of the user's shell may print others."""

_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": CONNECT_SECONDS,
    "ServerAliveInterval": 15,
    "ClearAllForwardings": "yes",
    "ControlMaster": "no",  # one that stayed behind would hold our pipes open
}
_FIXES = (
    ("Permission denied", "ssh-copy-id {host}, or load your key into your agent: ds asks for no password"),
    (
        "Host key verification|IDENTIFICATION HAS CHANGED",
        "`ssh {host}` once by hand: it says what to do about the host's key",
    ),
    ("Could not resolve", "correct HOSTS, or give the name an address in ~/.ssh/config"),
)
_LACKS = {
    "proc": ("is no Linux machine", "remove it from HOSTS"),
    "folder": ("does not see {folder}", "put the project into a folder that all hosts share, by one path"),
    "python": ("has no {python}", "install ds into a folder that all hosts share, by one path"),
}


def ask(
    hosts: Sequence[str], folder: Path, call: Sequence[str], variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Calls the agent on each host, all at a time. Returns each one's answer, or its error as a DsError.

    `folder`: one that the host has to see; `variables`: those that go into the agent's environment.
    """

    def one(host: str) -> Any:
        try:
            found = _run(host, _script(folder, [*call, host], variables or {}))
        except DsError as error:
            return error
        if isinstance(found, dict) and (lack := found.get("lacks")):
            what, fix = (each.format(folder=folder, python=sys.executable) for each in _LACKS[lack])
            return DsError(f"{host} {what}", fix)
        return found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(hosts, pool.map(one, hosts), strict=True))


def _script(folder: Path, call: Sequence[str], variables: Mapping[str, str]) -> str:
    """The agent's call, where the host has what it needs; its line on what is missing otherwise."""
    python = shlex.quote(sys.executable)
    tests = {"proc": "-d /proc/self", "folder": f"-d {shlex.quote(str(folder))}", "python": f"-x {python}"}
    lines = [f'test {tests[lack]} || {{ echo \'{SAYS}{{"lacks": "{lack}"}}\'; exit; }}' for lack in _LACKS]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join(
        [*lines, "cd /", f"exec {python} -m {__package__}.agent {shlex.join(call)} </dev/null\n"]
    )


def _run(host: str, script: str) -> Any:
    """Returns the agent's answer. Raises Unreachable, with ssh's own last line, where ssh fails."""
    options = [f"-o{name}={value}" for name, value in _OPTIONS.items()]
    command = ["ssh", "-T", "-a", "-x", *options, "--", host, "exec /bin/sh -s"]
    try:
        done = subprocess.run(
            command,
            input=script,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=ANSWER_SECONDS,
        )
    except FileNotFoundError as error:
        raise DsError("no program ssh on this computer", "install OpenSSH's client") from error
    except subprocess.TimeoutExpired as error:
        what = f"{host} did not answer within {ANSWER_SECONDS:.0f} s"
        raise Unreachable(what, f"see what `ssh {host} true` says") from error
    said = [line for line in done.stdout.splitlines() if line.startswith(SAYS)]
    if done.returncode == 0 and said:
        return json.loads(said[-1].removeprefix(SAYS))
    by_ssh = done.returncode == 255
    lines = (done.stderr if by_ssh else done.stdout + done.stderr).split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    if by_ssh:
        fixes = (fix for pattern, fix in _FIXES if re.search(pattern, done.stderr))
        fix = next(fixes, "see what `ssh {host} true` says").format(host=host)
        raise Unreachable(f"{host} cannot be reached: {last}", fix)
    raise DsError(f"{host}: {last}", f"see what `ssh {host} {sys.executable} --version` says")
