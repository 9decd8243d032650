"""Reads job files (JSON with shared keys and "groups", JSON lines, CSV) as a stream of jobs.

JSON lines and CSV stay on the disk. A JSON file is held in memory: its shared keys may stand behind its
groups, and every job's body holds them. Queues nothing, and knows nothing of the config. `steps/submit.py`
and the checks of the engines call it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, KeysView, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

from ...errors import UsageError
from ...job import LARGE_BODY, Job
from ...system.files import FEWER_FILES, TOO_MANY_FILES, NotRegular, open_regular

if TYPE_CHECKING:
    from .json_groups import JsonGroups

_COMMENT = "_comment"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_TABLES = (".csv", ".tsv")
_LINES = (".jsonl", ".ndjson")


class JobFile:
    """A job file, read as a stream, as often as needed. `shared` overrides the file's own shared keys.

    `.json`: the reference's format, and those of its children: `plates` says that a list "plates" stands for
    the groups, `bare` that the first group is a text or a list, which is then its `Metadata`. `.jsonl`,
    `.ndjson`: a line is a group; `.csv`, `.tsv`: a row is a group, and its values are text. Keys containing
    `_comment` are dropped. A job that is there twice comes twice. `notes` says what a user should know of how
    the file was read: it is complete after each reading.
    Every method raises UsageError: at once, or at the place where the file is wrong.
    """

    def __init__(self, path: Path, shared: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.path = path
        self.notes: list[str] = []
        self._suffix = path.suffix.lower()
        self._json: JsonGroups | None = None
        if self._suffix not in (".json", *_LINES, *_TABLES):
            raise UsageError(
                f"{path}: not a job file by its name", "name it .json, .jsonl, .ndjson, .csv or .tsv"
            )
        with _opened(path) as file:
            if self._suffix == ".json":
                from .json_groups import JsonGroups

                self._json = JsonGroups(path, file.read())
        own = self._json.shared if self._json else {}
        self.plates = bool(self._json and self._json.plates)
        self.bare = bool(self._json and self._json.bare)
        self.shared = _without_comments({**own, **shared})
        if "group" in self.shared:
            what = f'{path}: a shared key is named "group", which holds the keys of each job'
            raise UsageError(what, "give that key another name")

    def groups(self) -> Iterator[Mapping[str, Any]]:
        """The groups in the file's order."""
        clean: KeysView[str] | None = None
        self.notes = []
        for group in self._json.groups() if self._json else self._streamed():
            if group.keys() != clean:  # mostly all groups have the same names
                group = _without_comments(group)
                clean = dict.fromkeys(group).keys()  # of a group's own, all of it would stay
            yield group
        if clean is None:
            raise UsageError(f"{self.path}: holds no jobs", "give it a line for each job")

    def jobs(self, *, in_order: bool = False) -> Iterator[Job]:
        """The jobs: each group with the shared keys around it, as canonical JSON, with its hash for an id.

        `in_order`: the bodies have their keys in the file's order; the ids are the same.
        """
        import msgspec

        from .json_groups import TOO_DEEP

        encode = msgspec.json.Encoder(order="deterministic").encode
        index = -1
        try:
            frame = _frame(self.shared)
            for index, group in enumerate(self.groups()):
                own = encode(group) if frame else b""
                if frame and len(own) < LARGE_BODY:
                    body = frame[0] + own + frame[1]
                else:
                    del own
                    body = encode({**self.shared, "group": group})
                job_id = sha256(body).hexdigest()[:16]
                body = msgspec.json.encode({**self.shared, "group": group}) if in_order else body
                yield Job(job_id, index, body)
        except (RecursionError, ValueError, OverflowError) as error:
            reason = TOO_DEEP if isinstance(error, RecursionError) else error
            place = f"group {index + 1}" if index >= 0 else "the shared keys"
            raise UsageError(f"{self.path}: {place}: {reason}", "give it simpler values") from error

    def _streamed(self) -> Iterator[dict[str, Any]]:
        """The groups of a file that is read anew each time."""
        with _opened(self.path) as file:
            if self._suffix in _LINES:
                from .json_groups import read_lines

                yield from read_lines(self.path, file)
            else:
                from .csv_groups import CsvGroups

                table = CsvGroups(self.path, file)
                self.notes = table.notes
                yield from table.groups()


def parse_set(pairs: Iterable[str]) -> dict[str, Any]:
    """`key=value` words of --set as shared keys: a value is JSON where it can be, else text."""
    result = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {pair}: not key=value", "write --set key=value")
        if key == "group":
            raise UsageError("--set group=…: that name holds the group itself", "take another name")
        result[key] = _json_or_text(value)
    return result


def _json_or_text(value: str) -> Any:
    import msgspec

    from .json_groups import TOO_DEEP

    if value != value.strip():
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeError):
        return value
    except RecursionError:
        raise UsageError(f"--set …={value[:20]}…: {TOO_DEEP}", "give a simpler value") from None


def _frame(shared: Mapping[str, Any]) -> tuple[bytes, bytes] | None:
    """The canonical body before and behind a group: the shared keys are the same for all; None: too large."""
    import msgspec

    body = msgspec.json.encode({**shared, "group": msgspec.Raw(b"\0")}, order="deterministic")
    if len(body) > LARGE_BODY:
        return None
    before, _, behind = body.partition(b"\0")
    return before, behind


def _without_comments(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keys.items() if _COMMENT not in name}


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, open and known to be text that can be read twice. System errors become UsageError."""
    try:
        with open_regular(path) as file:
            start = os.pread(file.fileno(), 2, 0)
            if b"\0" in start or start in _UTF16:
                raise UsageError(f"{path}: is UTF-16 text", "save it as UTF-8 (in Excel: CSV UTF-8)")
            yield file
    except OSError as error:
        fix = "give the path of a job file"
        if isinstance(error, NotRegular):
            fix = "write the jobs into a file first"
        elif error.errno in TOO_MANY_FILES:
            fix = FEWER_FILES
        raise UsageError(f"{path}: cannot be read: {error.strerror}", fix) from error
