"""Looks whether what a job runs can be started. `ds check`, `ds submit` and `ds run` call it.

What is not on this machine (another machine's programs, an image's) is not looked for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...errors import UsageError
from ...words import bytes_text, many
from ..collect import collect_handler
from ..config import Config
from ..files import ProjectFile, named_in, project_files, travels
from ..handler import handler_needs, imported_files, source_of
from ..templates.template import CommandTemplate
from .findings import Finding, Severity, error, ok, refused, warning, wrong
from .fit import nothing_to_run

IMPORT_SECONDS = 60.0
SHELL_SECONDS = 10.0

_LOAD = "import sys, runpy; runpy.run_path(sys.argv[2])['load'](sys.argv[1])"
_HOST = str(Path(__file__).parents[2] / "worker/attempt/host.py")
_MAY_NOT_RUN = re.compile(
    r"\|\||\bPATH=|(^|[;&|(\n]|\b(do|then|else)\b)\s*(if|case|while|until|command|which|type|hash|\.|source|eval"
    r"|module|conda|mamba|spack)\s"
)
"""Where a program is perhaps not started, or PATH is changed before."""


def runnable_findings(
    config: Config, folder: Path, prepared: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Yields whether the command or function of a job can be started, as far as this machine can tell.

    `prepared` are the variables after SETUP; without them, programs are not looked for if there is a SETUP.
    """
    here = config.engine_kind.on_this_machine and not config.in_containers
    if unfit := _unfit_setup(config, here=here):
        yield unfit
    here = here and not (prepared is None and (config.setup or config.environment_file))
    variables = {**(os.environ if prepared is None else prepared), **config.worker_environment()}
    if config.image_starts_worker:
        if not config.engine_kind.foreign_workers:
            yield refused(nothing_to_run())
        return
    try:
        files = project_files(config, folder)
    except UsageError as missing:
        yield refused(missing)
        return
    if files:
        size = bytes_text(sum(file.size for file in files.values()))
        yield ok(f"FILES: {many(len(files), 'file')}, {size}, travel with the jobs")
    yield from _left_behind(config, folder, files)
    if here and (collecting := collect_handler(config.collect)):
        yield _imported(config, folder, variables, "COLLECT", collecting)
    if config.handler:
        yield from _handler(config, folder, files, variables if here else None)
        return
    try:
        command = CommandTemplate(config.command)
    except UsageError as unfit:
        yield refused(unfit)
        return
    if command.shell and (said := _shell_says(command)):
        what = f"COMMAND: the shell refuses it: {said}"
        fix = "correct its syntax: /bin/sh runs it, which need not be bash"
        yield error(what, fix) if here else warning(f"{what} (this machine's /bin/sh)", fix)
        return
    yield from _relative(command)
    if here:
        yield from _programs(config, command, variables)


def _unfit_setup(config: Config, *, here: bool) -> Finding | None:
    """Returns an error for SETUP or ENVIRONMENT_FILE where jobs would not have what it makes."""
    fix = "put into the image what it makes"
    if (config.setup or config.environment_file) and not config.engine_kind.on_this_machine:
        name = "SETUP" if config.setup else "ENVIRONMENT_FILE"
        return error(
            f"{name}: the engine {config.engine!r} runs jobs as their image is", f"{fix}; remove {name}"
        )
    if config.environment_file and not here:
        return error("ENVIRONMENT_FILE: jobs run as their image is", f"{fix}, or CONTAINERS = False")
    return None


def _shell_says(command: CommandTemplate) -> str:
    """Returns what the shell finds wrong with the command's syntax: values cannot change it."""
    argv = command.argv(dict.fromkeys(command.names, "1"))
    try:
        done = subprocess.run(
            ["/bin/sh", "-n", *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SHELL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return (lines or [f"exit code {done.returncode}"])[0] if done.returncode else ""


def _relative(command: CommandTemplate) -> Iterator[Finding]:
    """Yields an error for a relative program at the start: a job begins in an empty folder."""
    first = next(iter(command.programs), "")
    if "/" in first and not first.startswith("/"):
        what = f"COMMAND: {first} is looked for in the job's own folder, which is empty at its start"
        name = first.removeprefix("./")
        yield error(what, f"write \"$DS_PROJECT_DIR/{name}\", and FILES = ['{name}'] to have it travel")


def _left_behind(config: Config, folder: Path, files: Mapping[str, ProjectFile]) -> Iterator[Finding]:
    """Yields the project files that jobs name, and that do not travel with them."""
    named = [name for text in (config.command, config.collect) for name in named_in(text)]
    for name in dict.fromkeys(each for each in named if not travels(each, files)):
        fix = f"FILES = [{', '.join(map(repr, [*config.files, name]))}]"
        if files:
            yield wrong(f"FILES: $DS_PROJECT_DIR/{name} is not among them", fix)
        elif config.engine_kind.rents:
            yield warning(f"$DS_PROJECT_DIR/{name}: does not travel; the image must have it", fix)
        elif not (folder / name).exists():
            yield error(f"$DS_PROJECT_DIR/{name}: is not in the project folder", "put it there")


def _programs(config: Config, command: CommandTemplate, given: Mapping[str, str]) -> Iterator[Finding]:
    """Yields whether the programs that COMMAND starts by name are on this machine."""
    path = given.get("PATH", os.defpath)
    named = [each for each in command.programs if "/" not in each or each.startswith("/")]
    missing = [each for each in named if shutil.which(each, path=path) is None]
    for program in missing:
        what, fix = (
            f"COMMAND: no program {program} on this machine",
            f"install {program}, or name it by its path",
        )
        yield warning(what, fix) if _MAY_NOT_RUN.search(config.command) else error(what, fix)
    if not command.programs:
        yield ok("COMMAND: is for the shell; its programs are not looked for")
    elif not missing and named:
        yield ok(f"COMMAND: {', '.join(named)} {'is' if len(named) == 1 else 'are'} there")


def _handler(
    config: Config, folder: Path, files: Mapping[str, ProjectFile], given: Mapping[str, str] | None
) -> Iterator[Finding]:
    """`given` are the variables of a function that runs here; None: it runs elsewhere."""
    try:
        handler_needs(config, folder)
    except UsageError as missing:
        yield refused(missing)
        return
    source = source_of(config.handler, folder)
    if source is not None and (files or config.engine_kind.rents):
        needed = [source.relative_to(folder).as_posix(), *imported_files(source, folder)]
        for name in (each for each in needed if not travels(each, files)):
            fix = f"FILES = [{', '.join(map(repr, [*config.files, name]))}]"
            what = f"HANDLER: {name} of this folder does not travel with the jobs"
            yield Finding(Severity.NOTICE, what, fix)
    if given is not None:
        yield _imported(config, folder, given, "HANDLER", config.handler)


def _imported(config: Config, folder: Path, given: Mapping[str, str], key: str, name: str) -> Finding:
    """Imports the function that a key names as a worker does, in temporary folders. Returns the finding."""
    python = config.shell(folder).python() or sys.executable
    command = [python, "-c", _LOAD, name, _HOST]
    with tempfile.TemporaryDirectory(prefix="ds-check-") as own:
        environment = {**given, **_as_in_a_slot(Path(own), folder)}
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=IMPORT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            what = f"{key}: importing {name} takes longer than {IMPORT_SECONDS:.0f} s"
            return warning(what, "import less at its top: each slot waits for it")
    if done.returncode == 0:
        return ok(f"{key}: {name} can be imported")
    said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
    fix = f"correct {key}, or install what it needs for {python}"
    return error(f"{key}: {name} cannot be imported: {said[-1]}", fix)


def _as_in_a_slot(own: Path, project: Path) -> dict[str, str]:
    """Returns the variables that a function may read while it is imported."""
    folders = {f"DS_{name.upper()}_DIR": own / name for name in ("work", "input", "output")}
    for each in folders.values():
        each.mkdir()
    names = {**folders, "DS_PROJECT_DIR": project, "DS_JOB": own / "job.json"}
    return {name: str(path) for name, path in names.items()}
