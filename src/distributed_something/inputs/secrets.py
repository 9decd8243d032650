"""Finds the secrets of a config: where each lies, and, on this machine, its value.

The config names secrets and never holds one. Called by engines, by `ds check` and by `ds try`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import UsageError
from ..system.files import read_regular
from .config import Config

_LOOKS_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|PRIVATE_?KEY|CREDENTIAL", re.IGNORECASE)


def read_secrets(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the value of each secret, for jobs on this machine.

    What only AWS can read is taken from the environment variable of the secret's own name. Raises UsageError
    if a secret is missing, or if other users may read its file.
    """
    return {name: _read(name, place, environ) for name, place in config.secrets.items()}


def variables_of(config: Config) -> Sequence[str]:
    """Returns the environment variables that secrets are read from, on this machine."""
    return [name for each in config.secrets.items() if (name := _variable(*each))]


def _variable(name: str, place: str) -> str:
    kind, _, where = place.partition(":")
    return {"env": where, "file": ""}.get(kind, name)


def _read(name: str, place: str, environ: Mapping[str, str]) -> str:
    kind, _, where = place.partition(":")
    if kind == "file":
        return _read_file(name, Path(where).expanduser())
    variable = _variable(name, place)
    if value := environ.get(variable):
        return value
    what = f"SECRETS: {name}: " + ("" if kind == "env" else f"only AWS reads {place!r}, and here ")
    raise UsageError(f"{what}the environment variable {variable} is not set", f"export {variable}=…")


def _read_file(name: str, path: Path) -> str:
    try:
        mode, text = path.stat().st_mode, read_regular(path).decode().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"SECRETS: {name}: {path}: {why}", "write the secret into that file") from error
    if mode & 0o077:
        raise UsageError(f"SECRETS: {name}: other users may read {path}", f"chmod 600 {path}")
    if not text:
        raise UsageError(f"SECRETS: {name}: {path} is empty", "write the secret into that file")
    return text


def check_for_aws(config: Config) -> None:
    """Raises UsageError for a secret that AWS cannot read for its tasks."""
    for name, place in config.secrets.items():
        kind = place.partition(":")[0]
        if kind in ("env", "file"):
            what = f"SECRETS: {name}: tasks on AWS cannot read {place!r}"
            fix = f"aws ssm put-parameter --type SecureString --name /lab/{name} …; then 'ssm:/lab/{name}'"
            raise UsageError(what, fix)


def plain_secrets(config: Config) -> Iterator[str]:
    """Yields the names of plain variables that look like secrets: every task and report would show them."""
    for name, value in config.worker_environment().items():
        if value and _LOOKS_SECRET.search(name):
            yield name
