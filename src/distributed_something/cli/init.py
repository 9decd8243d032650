"""`ds init`: copies a packaged example into a new folder, or writes a project for the files of a folder."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from .. import examples
from ..console import Console
from ..engines import ENGINES
from ..errors import UsageError
from ..inputs import found
from ..inputs.config import load_config, parse_config
from ..words import many, none_of

JOBS = "files/jobs.jsonl"


def copy_example(name: str, target: Path) -> Path:
    """Copies an example into a new or empty folder and returns the path of its README.

    Raises UsageError for any other folder.
    """
    if not is_free(target):
        raise UsageError(f"{target}: is there already and not an empty folder", "choose another folder")
    ignored, packaged = shutil.ignore_patterns("__pycache__"), Path(examples.__file__).parent
    shutil.copytree(packaged / name, target, dirs_exist_ok=True, ignore=ignored)
    if not (target / "data").exists():
        shutil.copytree(packaged / "images" / "data", target / "data")
    (target / "gitignore").rename(target / ".gitignore")
    return target / "README.md"


def is_free(target: Path) -> bool:
    """Whether a folder is missing or empty."""
    return not target.exists() or (target.is_dir() and not any(target.iterdir()))


def adopt(console: Console, target: Path, options: argparse.Namespace) -> list[str]:
    """Writes config.py and the job file for the files of a folder. Returns the commands to type next.

    Overwrites nothing. Raises UsageError if nothing in the folder can be used; it is then as before.
    """
    if not target.is_dir():
        raise UsageError(f"{target}: is a file", "name a folder")
    if any((target / name).exists() for name in ("config.py", "config.toml")):
        return _complete(console, target)
    from ..local.store import FolderStore

    here = found.look(file.key for file in FolderStore(target).list())
    if not (here.inputs or here.dockerfile or here.environment):
        what = f"{target}: no images, FASTQ files, Dockerfile, environment.yml or config.py in it"
        raise UsageError(what, "name the folder with your data, or a new one for an example")
    for each in here.inputs:
        console.say(f"found: {many(each.jobs, each.kind)}: {each.pattern}")
    if here.single:
        console.say(f"note: {many(here.single, 'FASTQ file')} without the other file of its pair")
    chosen = _choose(console, here.inputs)
    command = console.ask(
        "command of a job", chosen.command if chosen else "echo hello > {output_dir}/out.txt"
    )
    engine = options.engine or console.ask(f"engine ({', '.join(ENGINES)})", "local")
    if engine not in ENGINES:
        raise UsageError(none_of(engine, [*ENGINES]), "answer with one of these")
    here = here._replace(dockerfile=here.dockerfile and ENGINES[engine].containers[0] == "docker")
    app = found.app_name(target.resolve().name)
    recipe = target / "environment.yml"
    conda = found.environment_name(recipe.read_text(errors="replace")) if here.environment else ""
    text = found.config_text(here, chosen, app, engine, command)
    parse_config(text)
    with (target / "config.py").open("x", encoding="utf-8") as file:
        file.write(text)
    console.say(f"wrote {target / 'config.py'}")
    if chosen:
        _write_jobs(console, target, chosen)
    return [
        *([f"docker build -t {found.image_name(app)} ."] if here.dockerfile else []),
        *([f"conda env create -f environment.yml && conda activate {conda}"] if conda else []),
        *_next(JOBS if chosen else "JOBFILE"),
    ]


def _choose(console: Console, inputs: tuple[found.Inputs, ...]) -> found.Inputs | None:
    if len(inputs) < 2:
        return inputs[0] if inputs else None
    patterns = {each.pattern: each for each in inputs}
    answer = console.ask("which files are the inputs", inputs[0].pattern)
    if answer not in patterns:
        raise UsageError(none_of(answer, [*patterns]), "answer with one of these")
    return patterns[answer]


def _write_jobs(console: Console, target: Path, chosen: found.Inputs) -> None:
    """Writes the job file by `ds jobfile new`; one that is there stays. After an error config.py is gone."""
    from ..steps.project import Project
    from .jobfile import new

    path = target / JOBS
    if path.exists():
        console.say(f"{path} is there and stays")
        return
    options = argparse.Namespace(
        new_file=str(path),
        pattern=chosen.pattern,
        group_by=None,
        path_key=None,
        product=[],
        zipped=False,
        table=None,
        columns=None,
        where=[f"{name}!~^[.]" for name in chosen.names],
        unique=False,
    )
    try:
        path.parent.mkdir(exist_ok=True)
        new(Project.open(target, console, "local"), options)
    except BaseException:  # the half-made project goes, and the error is raised again
        (target / "config.py").unlink()
        raise
    with path.open("rb") as file:
        if (jobs := sum(1 for _ in file)) != chosen.jobs:
            console.say(f"note: {jobs:,} jobs for {chosen.jobs:,} found: more files match; look at {path}")


def _complete(console: Console, target: Path) -> list[str]:
    """Says what the config of a folder lacks, and writes nothing."""
    config = load_config(target)
    jobs = sorted(path for path in target.glob("files/*") if _is_job_file(path, config.app_name))
    console.say(f"the config of {config.app_name} is there and stays")
    for line in found.lacking(config, len(jobs)):
        console.say(f"missing: {line}")
    return _next(f"files/{jobs[0].name}" if jobs else "JOBFILE")


def _is_job_file(path: Path, app: str) -> bool:
    """Whether a file of files/ is neither a fleet file nor a run record, by its name."""
    other = "fleet" in path.name.lower() or path.name.startswith(f"{app}SpotFleetRequestId")
    return path.suffix in (".json", ".jsonl", ".csv") and not other


def _next(jobs: str) -> list[str]:
    return [f"ds {verb} {jobs}" for verb in ("check", "try", "run")]
