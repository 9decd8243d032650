"""Prepares the environment of jobs on this machine: what ENVIRONMENT_FILE lists, and the lines of SETUP.

An environment is made once for each content of its file, in the project's `.ds/environments`, which the nodes
of a cluster share. A link is made to it when it is complete, and the first one counts: no half-made one is
used. The lines run once a machine, in one shell; its variables are then those of all jobs.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import DsError
from .state import make_private

SETUP_SECONDS = 300.0
MAKE_SECONDS = 7200.0

_LAST_LINES = 5
_OF_THE_SHELL = ("_", "SHLVL", "PWD", "OLDPWD")
_LOGIN_PATH = 'case ":$PATH:" in *":$0:"*) ;; *) export PATH="$0:$PATH" ;; esac'
"""Keeps the caller's programs (of a venv, say) before those that a login shell finds."""


class _Kind(NamedTuple):
    """A kind of ENVIRONMENT_FILE: the programs that make it, with their words. The first one found is used.

    In words and `variables`, {file} is the file, {project} its folder, {made} the folder to make.
    """

    programs: Mapping[str, str]
    variables: Mapping[str, str] = {}
    below: str = ""
    """Where the environment is in the folder."""
    beside: str = ""
    """A file beside it that counts too, if it is there. Both are copied into the folder to make."""


_PREFIX = "--prefix {made} --file {file}"
_CONDA = _Kind(
    {
        name: f"{verb} {_PREFIX}"
        for name, verb in {"micromamba": "create", "mamba": "env create", "conda": "env create"}.items()
    },
    {"CONDA_ALWAYS_YES": "true", "MAMBA_ALWAYS_YES": "true"},
)
_UV = _Kind(
    {"uv": "sync --locked --no-dev --no-install-project --project {project}"},
    {"UV_PROJECT_ENVIRONMENT": "{made}"},
)
_PIXI = _Kind({"pixi": "install --manifest-path {made}/pixi.toml"}, {}, ".pixi/envs/default", "pixi.lock")


def _kind_of(file: Path) -> _Kind:
    return {"uv.lock": _UV, "pixi.toml": _PIXI}.get(file.name, _CONDA)


def _files(file: Path) -> list[Path]:
    """Returns the file, and the one beside it that counts too."""
    beside = _kind_of(file).beside
    return [file, *([there] if beside and (there := file.with_name(beside)).exists() else [])]


class Environment(NamedTuple):
    """What a config says about the environment of jobs: lines of SETUP, and the path of ENVIRONMENT_FILE."""

    setup: Sequence[str]
    file: Path | None
    root: Path
    """The folder of all environments of the project."""

    def digest(self) -> str:
        """Returns the digest of all that it is made of; empty: of nothing. Raises DsError."""
        if not self.setup and self.file is None:
            return ""
        return _digest([*map(str.encode, self.setup), self._of_file().encode()])

    def _of_file(self) -> str:
        if self.file is None:
            return ""
        try:
            texts = [each.read_bytes() for each in _files(self.file)]
        except OSError as error:
            what = f"ENVIRONMENT_FILE: {self.file}: {error.strerror}"
            raise DsError(what, "name uv.lock, pixi.toml or environment.yml of the project folder") from error
        return _digest([self.file.name.encode(), *texts])

    def prefix(self) -> Path | None:
        """Returns the folder of the complete environment; None: it is not made, or there is no file."""
        if self.file is None:
            return None
        link = self.root / self._of_file()
        return self.root / link.readlink() / _kind_of(self.file).below if link.exists() else None

    def python(self) -> str:
        """Returns the Python of ENVIRONMENT_FILE; empty: it has none."""
        prefix = self.prefix()
        return str(prefix / "bin/python") if prefix and (prefix / "bin/python").exists() else ""

    def program(self) -> str:
        """Returns what makes the environment of the file. Raises DsError if it is not installed."""
        assert self.file is not None
        names = _kind_of(self.file).programs
        found = next(filter(None, map(shutil.which, names)), None)
        if found is None:
            raise DsError(
                f"ENVIRONMENT_FILE = {self.file.name!r}: no {' or '.join(names)} here", "install one"
            )
        return found

    def to_make(self) -> str:
        """Returns what `make` will do, in words; empty: nothing. Raises DsError."""
        if self.file is None or self.prefix() is not None:
            return ""
        by = Path(self.program()).name
        return f"ENVIRONMENT_FILE: ds setup makes the environment of {self.file.name}, by {by}"

    def make(self, say: Callable[[str], None]) -> None:
        """Makes the environment of the file, unless it is there. Raises DsError, and leaves nothing then."""
        if self.file is None or self.prefix() is not None:
            return
        kind, program, name = _kind_of(self.file), self.program(), self._of_file()
        say(f"making the environment of {self.file.name} by {Path(program).name}")
        make_private(self.root)
        made, link = self.root / f"{name}-{os.urandom(4).hex()}", self.root / name
        places = {"made": made, "file": self.file, "project": self.file.parent}
        words = [word.format(**places) for word in kind.programs[Path(program).name].split()]
        variables = {key: value.format(**places) for key, value in kind.variables.items()}
        try:
            if kind.beside:
                made.mkdir()
                for each in _files(self.file):
                    shutil.copy(each, made)
            code, said = _run([program, *words], {**os.environ, **variables}, MAKE_SECONDS)
            if code != 0:
                what = f"ENVIRONMENT_FILE = {self.file.name!r}: {Path(program).name} {words[0]}"
                raise DsError(f"{what}: {_ended(code)}: {said}", "correct the file; ds setup makes it again")
            if link.is_symlink() and not link.exists():
                link.unlink()  # its folder was removed
            with suppress(FileExistsError):  # another command was quicker
                link.symlink_to(made.name)
        finally:
            if not link.is_symlink() or link.readlink().name != made.name:
                shutil.rmtree(made, ignore_errors=True)

    def variables(self, given: Mapping[str, str]) -> dict[str, str]:
        """Returns the variables of jobs, from those `given`. Raises DsError, with the line that failed."""
        lines = [(f"SETUP: {line}", line) for line in self.setup]
        if self.file is not None:
            prefix = self.prefix()
            if prefix is None:
                raise DsError(
                    f"ENVIRONMENT_FILE: no environment of this {self.file.name} is made", "ds setup"
                )
            lines.append((f"ENVIRONMENT_FILE = {self.file.name!r}", _activation(prefix)))
        return run_lines(lines, given) if lines else dict(given)

    def adopt(self, own: Mapping[str, str]) -> None:
        """Makes its variables those of this process, so of its workers and their jobs. Raises DsError.

        `own` is what the config sets: lines see it.
        """
        if not self.setup and self.file is None:
            return
        become(self.variables({**os.environ, **own}))


def become(variables: Mapping[str, str]) -> None:
    """Makes these the variables of this process."""
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def _activation(prefix: Path) -> str:
    """Returns the line that puts an environment first, and runs what its packages bring for that."""
    place = shlex.quote(str(prefix))
    named = "VIRTUAL_ENV" if (prefix / "pyvenv.cfg").exists() else "CONDA_PREFIX"
    scripts = f"for ds_each in {place}/etc/conda/activate.d/*.sh"
    run = '[ ! -r "$ds_each" ] || . "$ds_each"'
    return f"unset PYTHONHOME; export {named}={place} PATH={place}/bin:$PATH; {scripts}; do {run}; done"


def run_lines(lines: Sequence[tuple[str, str]], given: Mapping[str, str]) -> dict[str, str]:
    """Runs lines, each with its name, in one login shell (bash). Returns the variables that it ends with.

    Raises DsError for the first line that fails, with the end of what it printed.
    """
    bash = shutil.which("bash")
    if bash is None:
        raise DsError("SETUP: no bash here to run its lines", "install bash")
    with tempfile.TemporaryFile() as report:
        out = report.fileno()
        steps = [f"echo {at} >&{out}; eval {shlex.quote(line)} || exit" for at, (_, line) in enumerate(lines)]
        script = "\n".join([_LOGIN_PATH, *steps, f"printf '\\0' >&{out}", f"command env -0 >&{out}"])
        words = [bash, "-l", "-c", script, given.get("PATH", os.defpath)]
        code, said = _run(words, given, SETUP_SECONDS, out)
        report.seek(0)
        begun, complete, found = report.read().partition(b"\0")
    if code != 0 or not complete:
        name = lines[int((begun.split() or [b"0"])[-1])][0]
        raise DsError(f"{name}: {_ended(code)}: {said}", "correct the line, or mend what it needs")
    pairs = (os.fsdecode(each).partition("=") for each in found.split(b"\0") if each)
    kept = {name: given[name] for name in _OF_THE_SHELL if name in given}
    return {name: value for name, _, value in pairs if name not in _OF_THE_SHELL} | kept


def _run(
    words: Sequence[str], variables: Mapping[str, str], seconds: float, *passed: int
) -> tuple[int | None, str]:
    """Runs a command to its end. Returns its exit code (None: it took too long), and what it printed last.

    A process that it leaves does not hold us up: it prints to a file.
    """
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            env=dict(variables),
            pass_fds=passed,
            start_new_session=True,
        )
        code: int | None = None
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if code is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        printed.seek(0)
        lines = printed.read().decode(errors="replace").strip().splitlines()
    return code, " | ".join(lines[-_LAST_LINES:])[:1000] or "it printed nothing"


def _ended(code: int | None) -> str:
    if code is None:
        return "took too long"
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def _digest(parts: Sequence[bytes]) -> str:
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]
