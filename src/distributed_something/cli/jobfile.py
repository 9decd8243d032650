"""Runs `ds jobfile new`: lists files, reads tables, writes groups by `inputs/jobs/generate.py`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DsError, UsageError
from ..inputs.jobs.generate import (
    FILES,
    Group,
    Pattern,
    Summary,
    choose_columns,
    combine,
    group_files,
    missing,
    multiply,
    parse_lists,
    parse_where,
    write_lines,
)
from ..words import many, none_of

if TYPE_CHECKING:
    from ..engine import Store
    from ..steps.project import Project

_LINES = (".jsonl", ".ndjson")


def new(project: Project, options: argparse.Namespace) -> Path:
    """Write a job file and show what is in it. Returns its path.

    Raises UsageError; the file is then as it was before.
    """
    path = _target(options.new_file, project.folder)
    lists = parse_lists(options.product)
    if options.zipped and not lists:
        raise UsageError("--zip: there is no list to go through", "add --product Plate=P1,P2 Well=A01,A02")
    if path.exists():
        project.console.confirm(f"{path} is there; replace it")
    with ExitStack() as stack:
        groups, distinct = _groups(project, options, lists, stack)
        for condition in map(parse_where, options.where):
            groups = filter(condition, groups)
        if options.columns:
            groups, distinct = choose_columns(groups, options.columns), False
        summary = _write(path, groups, unique=options.unique, distinct=distinct)
    _tell(project, path, summary, unique=options.unique)
    return path


def _target(given: str, folder: Path) -> Path:
    """Returns where to write: relative to this folder, or else to the project folder."""
    path = Path(given)
    if path.suffix.lower() not in _LINES:
        raise UsageError(f"{path}: the file holds JSON lines", f"name it {path.with_suffix('.jsonl')}")
    if not path.parent.is_dir() and (folder / path).parent.is_dir():
        path = folder / path
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}", "make it, or name another one")
    return path


def _groups(
    project: Project, options: argparse.Namespace, lists: Mapping[str, list[Any]], stack: ExitStack
) -> tuple[Iterable[Group], bool]:
    """Returns the groups of all sources, and whether no two can be equal."""
    zipped = options.zipped
    if options.pattern and options.table:
        raise UsageError("--from and --table: one of them at a time", "join them in a table first")
    if options.group_by and not options.pattern:
        raise UsageError("--group-by: groups files, and there is no --from", "add --from PATTERN")
    if options.pattern:
        groups = _from_files(project, options)
    elif options.table:
        groups = read_table(options.table, stack)
    elif lists:
        return combine(lists, zipped=zipped), all(len(set(each)) == len(each) for each in lists.values())
    else:
        raise UsageError(
            "nothing to make jobs of", "add --from PATTERN, --product NAME=VALUES or --table FILE"
        )
    return (multiply(groups, lists, zipped=zipped) if lists else groups), False


def _from_files(project: Project, options: argparse.Namespace) -> Iterable[Group]:
    """Returns the groups of the files that match; says which combinations of a grid are missing."""
    text: str = options.pattern
    pattern = Pattern(f"{Path.home()}{text[1:]}" if text.startswith("~/") else text)
    by = options.group_by.split(",") if options.group_by else []
    for name in by:
        if name not in pattern.names:
            raise UsageError(f"--group-by {none_of(name, pattern.names)}", "name keys of the pattern")
    if options.path_key and options.path_key in pattern.names:
        raise UsageError(f"--path-key {options.path_key}: the pattern has this name", "take another name")
    found: list[tuple[Group, str]] = []
    looked = 0
    with project.console.progress(None, "files listed") as progress:
        for looked, path in enumerate(list_files(project, pattern), 1):
            if (group := pattern.match(path)) is not None:
                found.append((group, path))
            if not looked % 10_000:
                progress.update(looked)
    if not found:
        what = f"--from {pattern.text}: none of {many(looked, 'file')} below {pattern.prefix or '.'} matches"
        raise UsageError(what, "look at the names: a name in braces matches within one file or folder name")
    project.console.say(f"{many(len(found), 'file')} of {looked:,} match")
    lacking, first = missing((group for group, _ in found), pattern.names)
    if lacking:
        shown = "; ".join(" ".join(f"{name}={value}" for name, value in each.items()) for each in first)
        project.console.say(f"note: {many(lacking, 'combination', 'has', 'have')} no file, such as {shown}")
    if by:
        return group_files(found, by)
    if options.path_key:
        return [{**group, options.path_key: path} for group, path in found]
    return (group for group, _ in found)


def list_files(project: Project, pattern: Pattern) -> Iterator[str]:
    """Yields the paths below a pattern's prefix, in a bucket (`s3://`), a folder (`/`, `./`) or the store."""
    prefix = pattern.prefix
    if pattern.text.startswith("s3://"):
        bucket, slash, key = prefix.removeprefix("s3://").partition("/")
        if not slash:
            raise UsageError(f"--from {pattern.text}: names no bucket", "write s3://bucket/raw/{Plate}.tif")
        yield from (f"s3://{bucket}/{path}" for path in _stored(_bucket(project, bucket, key), key))
    elif pattern.text.startswith(("/", "./", "../")):
        top = prefix.rpartition("/")[0] + "/"
        yield from (top + path for path in _below(Path(top)))
    else:
        yield from _stored(project.engine.store, prefix)


def _stored(store: Store, prefix: str) -> Iterator[str]:
    """Yields the keys of a store, without those of runs and manifests."""
    for file in store.list(prefix):
        if not file.key.startswith("runs/") and "/.ds/" not in file.key:
            yield file.key


def _bucket(project: Project, name: str, key: str) -> Store:
    if project.config.engine_kind.rents and name == project.config.aws_bucket:
        return project.engine.store
    from ..s3.access import Access
    from ..s3.plain_store import PlainStore

    return Access(project.config, kind=PlainStore, say=project.console.say)(name, key)


def _below(folder: Path) -> Iterator[str]:
    """Yields the files below a folder in order, relative to it; does not follow links to folders."""
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(folder / inside) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise UsageError(
                f"{folder / inside}: {error.strerror}", "name a folder that can be read"
            ) from error
        folders = []
        for entry in found:
            path = inside + entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{path}/")
            elif entry.is_file():
                yield path
        waiting += reversed(folders)


def read_table(given: str, stack: ExitStack) -> Iterable[Group]:
    """Reads a table (.csv, .tsv, JSON lines, .json, .parquet, or `-` for stdin) as groups."""
    if given == "-":
        return _rows(_stdin(stack))
    path = Path(given)
    if path.suffix.lower() == ".parquet":
        return _parquet(path)
    return _rows(path)


def _rows(path: Path) -> Iterator[Group]:
    from ..inputs.jobs.jobfile import JobFile

    file = JobFile(path)
    for group in file.groups():
        yield {**file.shared, **group}


def _stdin(stack: ExitStack) -> Path:
    """Copies stdin into a file: tables are read twice. The first character tells JSON lines from CSV."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ds-table-")))
    data = sys.stdin.buffer
    head = data.read(1 << 16)
    path = folder / ("stdin.jsonl" if head.lstrip()[:1] == b"{" else "stdin.csv")
    with path.open("wb") as file:
        while head:
            file.write(head)
            head = data.read(1 << 20)
    return path


def _parquet(path: Path) -> Iterator[Group]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        fix = "pip install 'distributed-something[parquet]'"
        raise DsError(f"{path}: pyarrow is not installed, which reads Parquet", fix) from error
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (OSError, ArrowException) as error:
        raise UsageError(f"{path}: cannot be read: {error}", "give the path of a Parquet file") from error


def _write(path: Path, groups: Iterable[Group], *, unique: bool, distinct: bool) -> Summary:
    """Writes a file beside the target and moves it into place: after an error the old one is still there."""
    from ..system.collector import uncollected

    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("xb") as file:
            write: Callable[[bytes], object] = file.write
            with uncollected():
                summary = write_lines(groups, write, unique=unique, distinct=distinct)
        if not summary.jobs:
            raise UsageError("no job is left: --where leaves all out", "check the conditions")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return summary


def _tell(project: Project, path: Path, summary: Summary, *, unique: bool) -> None:
    """Show the number of jobs, duplicates, and the first commands."""
    from ..inputs.checks.preview import Previewer

    console, previewer = project.console, Previewer(project.config)
    commands: list[str] = []
    note = ""
    for group in summary.first:
        try:
            commands.append(previewer.command(group | {"job_id": "JOB_ID", "attempt": 1}))
        except UsageError as unfit:
            note = f"note: {unfit.what}"
            break
    if console.json:
        facts = {"job_file": str(path), "jobs": summary.jobs, "duplicates": summary.duplicates}
        console.data({**facts, "first": summary.first, "commands": commands})
    else:
        for group, command in zip(summary.first, commands, strict=False):
            shown = " ".join(f"{name}={value}" for name, value in group.items() if name != FILES)
            console.line(f"{shown}\n  {command}")
    if note:
        console.say(note)
    if summary.duplicates:
        end = "dropped" if unique else "kept: --unique drops them, and the same job twice is one job in a run"
        console.say(f"note: {many(summary.duplicates, 'duplicate')} {end}")
    console.say(f"wrote {path}: {many(summary.jobs, 'job')}")
