"""Decides which project fits the files of a folder: what `ds init` writes. Pure; `cli/init.py` acts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

from ..engines import ENGINES
from .config import Config

_IMAGES = "tif|tiff|png|jpg|jpeg|bmp|nd2|czi|lif|dv|ims|dcm|nii|nii.gz|svs|ndpi"
_IMAGE = re.compile(rf"(?P<name>.+?)(?P<tail>\.({_IMAGES.replace('.', '[.]')}))", re.IGNORECASE)
_READS = re.compile(r"(?P<name>.+?)(?P<tail>\.(fastq|fq)(\.gz|\.bz2)?)", re.IGNORECASE)
_PAIRED = re.compile(
    r"(?P<name>.+)(?P<read>_R?)(?P<mate>[12])(?P<tail>(_001)?\.(fastq|fq)(\.gz|\.bz2)?)", re.IGNORECASE
)
_CLOSED = re.compile(r"(.+?)/(?:\.ds/.*|pyvenv\.cfg)")
"""Marks a folder that is no input: it has a manifest of ours, or is a Python environment."""


class Inputs(NamedTuple):
    """Files that can be the inputs of jobs. `pattern` is for `ds jobfile new`, `keys` are INPUTS."""

    kind: str
    pattern: str
    keys: tuple[str, ...]
    jobs: int

    @property
    def names(self) -> list[str]:
        """The job keys of the pattern."""
        return re.findall(r"\{(\w+)\}", self.pattern)

    @property
    def command(self) -> str:
        """A command that runs anywhere, for a config whose program is not known yet."""
        files = " ".join("{input_dir}/" + key.rpartition("/")[2] for key in self.keys)
        return f"cksum {files} > {{output_dir}}/checksums.txt"


class Found(NamedTuple):
    """What a folder has. `inputs`: the kind with most jobs first; `output`: a new folder."""

    inputs: tuple[Inputs, ...]
    single: int
    dockerfile: bool
    environment: bool
    output: str


def look(paths: Iterable[str]) -> Found:
    """Finds inputs, a Dockerfile and a Conda environment among paths relative to the folder."""
    all_paths = set(paths)
    closed = {found[1] for path in all_paths if (found := _CLOSED.fullmatch(path))} | {"runs"}
    usable = {path for path in all_paths if _usable(path, closed)}
    groups: dict[tuple[str, int, str, str], list[str]] = defaultdict(list)
    single = 0
    for path in usable:
        folder, slash, name = path.rpartition("/")
        if (read := _PAIRED.fullmatch(name)) and read["name"]:
            first, second = (f"{read['read']}{mate}{read['tail']}" for mate in "12")
            mate = first if read["mate"] == "2" else second
            if f"{folder}{slash}{read['name']}{mate}" not in usable:
                single += 1
            elif read["mate"] == "1":
                groups["FASTQ pair", path.count("/"), first, second].append(folder)
        elif found := _READS.fullmatch(name):
            groups["FASTQ file", path.count("/"), found["tail"], ""].append(folder)
        elif found := _IMAGE.fullmatch(name):
            groups["image", path.count("/"), found["tail"], ""].append(folder)
    paired = any(kind == "FASTQ pair" for kind, *_ in groups)
    made = [
        _inputs(kind, folders, tail, mate)
        for (kind, _, tail, mate), folders in groups.items()
        if not (paired and kind == "FASTQ file")
    ]
    tops = {path.partition("/")[0] for path in all_paths}
    names = (f"results-{number}" if number > 1 else "results" for number in count(1))
    return Found(
        tuple(sorted(made, key=lambda each: (-each.jobs, each.pattern))),
        single,
        "Dockerfile" in all_paths,
        "environment.yml" in all_paths,
        next(name for name in names if name not in tops),
    )


def _usable(path: str, closed: set[str]) -> bool:
    """Whether a path can be an input: not hidden, no output of ours, no character that a pattern acts on."""
    if re.search(r"(^|/)\.|[{}*\\\x00-\x1f\ud800-\udfff]| -> |^~", path):
        return False
    parts = path.split("/")
    return not any("/".join(parts[:end]) in closed for end in range(1, len(parts)))


def _inputs(kind: str, folders: list[str], tail: str, mate: str) -> Inputs:
    """Makes the pattern: a folder name that all share stays, one that differs becomes a key."""
    levels = zip(*(folder.split("/") for folder in folders), strict=True) if folders[0] else ()
    way, differing = "", 0
    for names in map(set, levels):
        differing += len(names) > 1
        key = f"{{Folder{differing if differing > 1 else ''}}}"
        way += f"{key if len(names) > 1 else names.pop()}/"
    way += "{Image}" if kind == "image" else "{Sample}"
    return Inputs(kind, way + tail, (way + tail, way + mate) if mate else (way + tail,), len(folders))


def app_name(folder: str) -> str:
    """Returns a valid APP_NAME for the name of a folder."""
    return re.sub(r"[^A-Za-z0-9]+", "-", folder).strip("-")[:64].strip("-") or "MyApp"


def image_name(app: str) -> str:
    """Returns a name for the image that the folder's Dockerfile makes."""
    return f"{re.sub('[^a-z0-9]+', '-', app.lower())}:1"


def environment_name(text: str) -> str:
    """Returns the name in an environment.yml; empty: none that a command line may take as it is."""
    found = re.search(r"^name:[ \t]*([\"']?)([A-Za-z0-9][\w.-]*)\1[ \t]*(#.*)?$", text, re.MULTILINE)
    return found[2] if found else ""


def config_text(found: Found, chosen: Inputs | None, app: str, engine: str, command: str) -> str:
    """Writes a config.py with a comment for each choice."""
    keys, kind = chosen.keys if chosen else (), ENGINES[engine]
    bucket = kind.rents and not kind.rehearses
    output = "/".join([found.output, *(f"{{{name}}}" for name in chosen.names)]) if chosen else found.output
    lines = [
        '"""What is run, and how. Lines are KEY = value; nothing here is executed."""\n',
        f"APP_NAME = {app!r}  # names everything that belongs to this project",
        f"ENGINE = {engine!r}  # where the jobs run: local, slurm, ssh, aws or rehearsal",
        *(["AWS_BUCKET = 'your-bucket'  # holds inputs and outputs"] if bucket else []),
        "\n# THE WORK",
        "# {input_dir} and {output_dir} are folders of the job; other names in braces are keys of a job",
    ]
    if chosen and command == chosen.command:
        lines.append("# A placeholder that writes checksums: put your program here")
    lines.append(f"COMMAND = {command!r}")
    if found.dockerfile:
        lines.append(
            f"DOCKERHUB_TAG = {image_name(app)!r}  # the image of the Dockerfile here; build it first"
        )
    lines += [
        f"INPUTS = {list(keys)!r}  # what a job needs, below STORE",
        f"OUTPUT = {output!r}  # where its results go, below STORE",
        "STORE = '.'  # this folder; records of runs are in runs/",
        "\n# WHEN SOMETHING GOES WRONG",
        "JOB_TIMEOUT = 3600  # seconds; a job that takes longer is stopped",
        "JOB_RETRIES = 3  # how often a job is tried before it is given up",
        "\n# STARTING AGAIN",
        "CHECK_IF_DONE_BOOL = True  # skip jobs whose results are there already",
    ]
    return "\n".join(lines) + "\n"


def lacking(config: Config, job_files: int) -> list[str]:
    """Says what a config that is there lacks for a run, one line a thing."""
    there = config.given
    say = []
    if "ENGINE" not in there:
        say.append("ENGINE: not given, so the jobs run on aws; ENGINE = 'local' runs them here")
    if config.image_starts_worker:
        say.append("COMMAND or HANDLER: neither is given, so the image's own worker is started, on aws only")
    elif "OUTPUT" not in there or "INPUTS" not in there:
        names = " and ".join(name for name in ("INPUTS", "OUTPUT") if name not in there)
        say.append(f"{names}: not given; a job then fetches or publishes nothing")
    if config.engine_kind.rents and not config.aws_bucket:
        say.append("AWS_BUCKET: not given; it holds inputs and outputs")
    if not job_files:
        say.append("a job file: none in files/; ds jobfile new files/jobs.jsonl --from PATTERN makes one")
    return say
