"""Does the work of a run's collecting job: fetches the outputs of all jobs, or joins their CSV files.

`steps/watch/collect.py` queues that job when all others have ended, with a list of their outputs in the
store. Slots call this module. It writes nothing into the store: the slot publishes the result as any job's.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from ...engine import Store, check_key
from ...errors import UsageError
from ..files.manifest import MANIFESTS, Manifest

KEY = "ds_collect"
"""Key of a collecting job: its value is the store key of the list of outputs."""

MANIFEST_BYTES = 16 << 20
"""Longest manifest that is read; the outputs of a job with a longer one are listed."""

_AT_ONCE = 500


class Outputs(NamedTuple):
    """The outputs of one job: its id, the prefix of its files, and the keys of its group."""

    id: str
    prefix: str
    group: Mapping[str, Any]


def list_lines(outputs: Iterable[Outputs]) -> bytes:
    """Returns the content of a list of outputs."""
    return b"".join(json.dumps(each._asdict(), ensure_ascii=False).encode() + b"\n" for each in outputs)


def read_list(store: Store, key: str) -> list[Outputs]:
    """Reads a list of outputs. Raises KeyMissing, or UsageError if it is damaged."""
    try:
        return [Outputs(**json.loads(line)) for line in store.read(key).splitlines()]
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{store.locate(key)}: is no list of outputs", "ds monitor makes a new one"
        ) from error


def fetch_outputs(store: Store, listed: str, folder: Path, check: Callable[[], None]) -> int:
    """Fetch the outputs of all jobs into `folder`, each under its prefix. Returns their bytes.

    `check` is called before each file; it raises if the attempt is to end.
    """
    made: set[Path] = set()

    def files() -> Iterator[tuple[str, Path]]:
        for outputs, names in with_files(store, read_list(store, listed)):
            for name in names:
                check()
                key = check_key(f"{outputs.prefix}/{name}")  # a manifest may say anything
                path = folder / key
                if path.parent not in made:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    made.add(path.parent)
                yield key, path

    return sum(store.fetch_many(files()))


def with_files(store: Store, listed: Sequence[Outputs]) -> Iterator[tuple[Outputs, dict[str, int]]]:
    """Yields the outputs of each job with its files and their bytes: by its manifest, or by a listing."""
    for start in range(0, len(listed), _AT_ONCE):
        part = listed[start : start + _AT_ONCE]
        keys = ((f"{each.prefix}/{MANIFESTS}/{each.id}.json", 0, MANIFEST_BYTES) for each in part)
        for outputs, text in zip(part, store.read_many(keys), strict=True):
            manifest = None if text is None else Manifest.from_json(text)
            if manifest is not None:
                yield outputs, {file.name: file.size for file in manifest.files}
            else:
                top = outputs.prefix + "/"
                found = {file.key[len(top) :]: file.size for file in store.list(top)}
                yield outputs, {name: found[name] for name in found if MANIFESTS not in name.split("/")}


def join_csv(store: Store, key: str, name: str, path: Path, check: Callable[[], None]) -> int:
    """Join the CSV files of all jobs, with a job's keys before its columns. Returns the number of rows.

    A key with the name of a column is called `job.<key>`. Raises UsageError, naming the job, if it has no
    such file, or several, or one with another header, or a row of another length. Blank lines are left out.
    """
    listed = read_list(store, key)
    names = list(dict.fromkeys(name for each in listed for name in each.group))
    header: list[str] | None = None
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for outputs, text in files_of_jobs(store, listed, name, "csv"):
            check()
            reader = csv.reader(io.StringIO(text.decode("utf-8-sig"), newline=""))
            lines = (row for row in reader if row)
            found = next(lines, None)
            if found is None:
                continue
            if header is None:
                header = found
                writer.writerow([*key_columns(names, header), *header])
            elif found != header:
                shown, first = ",".join(found)[:200], ",".join(header)[:200]
                what = f"job {outputs.id} ({outputs.prefix}): its columns are {shown}"
                raise UsageError(f"{what}, and the first job's are {first}", "COLLECT = 'csv:NAME.csv'")
            own = [outputs.group.get(each, "") for each in names]
            for row in lines:
                if len(row) != len(header):
                    what = (
                        f"job {outputs.id} ({outputs.prefix}): line {reader.line_num} has {len(row)} values"
                    )
                    raise UsageError(f"{what} for {len(header)} columns", f"look at {outputs.prefix}/{name}")
                writer.writerow([*own, *row])
                rows += 1
    if header is None:
        raise UsageError(f"COLLECT = 'csv': no job has a file {name}", "COLLECT = 'csv:NAME.csv'")
    return rows


def key_columns(names: Iterable[str], header: Sequence[str]) -> list[str]:
    """Returns the columns of the jobs' keys: `job.<key>` if the files have a column of that name."""
    return [f"job.{each}" if each in header else each for each in names]


def files_of_jobs(
    store: Store, listed: Sequence[Outputs], name: str, kind: str
) -> Iterator[tuple[Outputs, bytes]]:
    """Yields the file of this name of each job. Raises UsageError for a job without one, or with several."""
    waiting: list[tuple[Outputs, str, int]] = []
    for outputs, files in with_files(store, listed):
        fitting = [each for each in files if fnmatchcase(each, name)]
        if len(fitting) != 1:
            what = f"job {outputs.id} ({outputs.prefix}) has {len(fitting)} files {name}"
            raise UsageError(what, f"COLLECT = '{kind}:NAME.{kind}', with a name that each job has once")
        waiting.append((outputs, f"{outputs.prefix}/{fitting[0]}", files[fitting[0]]))
        if len(waiting) >= _AT_ONCE:
            yield from _read(store, waiting)
            waiting.clear()
    yield from _read(store, waiting)


def _read(store: Store, waiting: Sequence[tuple[Outputs, str, int]]) -> Iterator[tuple[Outputs, bytes]]:
    """Yields the content of the files. Raises UsageError for one that is missing, or has changed its size."""
    pieces = ((key, 0, size + 1) for _, key, size in waiting)
    for (outputs, key, size), text in zip(waiting, store.read_many(pieces), strict=True):
        if text is None or len(text) != size:
            what = f"job {outputs.id}: {key} is not the file that the job published ({size:,} bytes)"
            raise UsageError(what, "run the job again")
        yield outputs, text
