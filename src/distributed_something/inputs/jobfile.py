"""Job files: JSON (`shared keys + "groups"`), JSON lines and CSV, read as a stream of jobs.

Memory stays flat whatever a file's size. A JSON file is read twice: the shared keys may stand behind the
groups, and every job's body holds them. The first reading only steps over the groups (some 500 MB/s), so an
error anywhere in the file's structure is known before the first job comes out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, KeysView, Mapping
from contextlib import contextmanager
from hashlib import sha256
from itertools import chain
from pathlib import Path
from types import GenericAlias, MappingProxyType
from typing import Any, BinaryIO, NamedTuple, NoReturn

from ..errors import UsageError
from ..job import Job
from ..words import many

WINDOW = 1 << 20
"""Bytes of a JSON file that are looked at together."""

_BOM = b"\xef\xbb\xbf"
_COMMENT = "_comment"
_DEEP = "its lists and objects are nested too deeply"
_OBJECT = 'a group is an object of names and values: {"Plate": "P1", "Well": "A1"}'


class JobFile:
    """A job file, read as a stream, as often as wanted. `shared` goes over the file's own shared keys.

    `.jsonl`, `.ndjson`: a line is a group; `.csv`: a row is one, its values are text; `.json`: the
    reference's format. Keys containing `_comment` are dropped. A job that is there twice comes twice.
    Every method raises UsageError: at once, or at the place where the file is wrong. Of a JSON file about
    `window` bytes are held at a time.
    """

    def __init__(
        self, path: Path, shared: Mapping[str, Any] = MappingProxyType({}), *, window: int = WINDOW
    ) -> None:
        readers = {".jsonl": _lines, ".ndjson": _lines, ".csv": _rows}
        suffix = path.suffix.lower()
        if suffix != ".json" and suffix not in readers:
            raise UsageError(f"{path}: not a job file by its name", "name it .json, .jsonl, .ndjson or .csv")
        self.path = path
        self._window = window
        self._outline = None
        self._reader = readers.get(suffix, self._objects)
        with _opened(path) as file:
            self._outline = _Outline(path, file, window) if suffix == ".json" else None
        own = self._outline.shared if self._outline else {}
        self.shared = _without_comments({**own, **shared})

    def groups(self) -> Iterator[Mapping[str, Any]]:
        """The groups in the file's order."""
        clean: KeysView[str] | None = None
        with _opened(self.path) as file:
            for group in self._reader(self.path, file):
                if group.keys() != clean:  # mostly all groups have the same names
                    group = _without_comments(group)
                    clean = group.keys()
                yield group
        if clean is None:
            raise UsageError(f"{self.path}: holds no jobs", "give it a line for each job")

    def jobs(self) -> Iterator[Job]:
        """The jobs: each group with the shared keys around it, as canonical JSON, with its hash for an id."""
        import msgspec

        encode = msgspec.json.Encoder(order="deterministic").encode
        index = -1
        try:
            before, behind = _frame(self.shared)
            for index, group in enumerate(self.groups()):
                body = before + encode(group) + behind
                yield Job(sha256(body).hexdigest()[:16], index, body)
        except (RecursionError, ValueError, OverflowError) as error:
            why = _DEEP if isinstance(error, RecursionError) else error
            place = f"group {index + 1}" if index >= 0 else "the shared keys"
            raise UsageError(f"{self.path}: {place}: {why}", "give it simpler values") from error

    def _objects(self, path: Path, file: BinaryIO) -> Iterator[dict[str, Any]]:
        assert self._outline is not None
        groups = chain.from_iterable(_decoded(path, file, self._outline.pieces, self._window))
        for number, group in enumerate(groups, 1):
            if type(group) is not dict:
                raise UsageError(f"{path}: group {number} is {_kind(group)}, not an object", _OBJECT)
            yield group


def parse_set(pairs: Iterable[str]) -> dict[str, Any]:
    """`key=value` words of --set as shared keys: a value is JSON where it is that, else text."""
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

    if value != value.strip():
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeError):
        return value
    except RecursionError:
        raise UsageError(f"--set …={value[:20]}…: {_DEEP}", "give a simpler value") from None


# -- Groups to jobs -----------------------------------------------------------------------------------------


def _frame(shared: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """What stands before and behind a group in the canonical body: the shared keys are the same for all."""
    import msgspec

    body = {**shared, "group": msgspec.Raw(b"\0")}
    before, _, behind = msgspec.json.encode(body, order="deterministic").partition(b"\0")
    return before, behind


def _without_comments(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keys.items() if _COMMENT not in name}


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, open. What the system says against it becomes a UsageError."""
    try:
        with path.open("rb") as file:
            if not file.seekable():
                raise UsageError(f"{path}: is a pipe or a device", "write the jobs into a file first")
            yield file
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror}", "give the path of a job file"
        ) from error


# -- JSON lines and CSV -------------------------------------------------------------------------------------


def _lines(path: Path, file: BinaryIO) -> Iterator[dict[str, Any]]:
    import msgspec

    decode = msgspec.json.Decoder().decode
    number = 0
    try:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(_BOM) if number == 1 else line
            if not text.isspace() and text:
                group = decode(text)
                if type(group) is not dict:
                    raise UsageError(f"{path}:{number}: the line is {_kind(group)}, not an object", _OBJECT)
                yield group
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(
            f"{path}:{number}: {_why(error)}", "write one JSON object a line, in UTF-8"
        ) from error


def _rows(path: Path, file: BinaryIO) -> Iterator[dict[str, str]]:
    import csv
    from io import TextIOWrapper

    text = TextIOWrapper(file, "utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    try:
        names = _header(path, next(reader, []))
        width = len(names)
        for row in reader:
            if len(row) == width:
                yield dict(zip(names, row, strict=True))
            elif row:
                what = f"{path}:{reader.line_num}: {many(len(row), 'value')}, and the header has {width}"
                raise UsageError(what, 'put a value that holds a comma into "quotes"')
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}:{_not_utf8(file)}: not UTF-8", "save it as CSV UTF-8") from error
    except csv.Error as error:
        fix = 'write CSV with commas and "quotes"'
        if "field limit" in str(error):
            fix = 'close its "quotes"; or give values as long as that in a .jsonl file'
        raise UsageError(f"{path}:{reader.line_num}: {error}", fix) from error
    finally:
        text.detach()  # the file is closed by who opened it


def _not_utf8(file: BinaryIO) -> int:
    """The first line of a file that is not UTF-8: what reads text meets it many lines ahead."""
    file.seek(0)
    return next(number for number, line in enumerate(file, 1) if _is_not_utf8(line))


def _is_not_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False


def _header(path: Path, names: list[str]) -> list[str]:
    if not names:
        raise UsageError(f"{path}:1: no header", "name the columns in the first row")
    for place, name in enumerate(names, 1):
        if not name.strip():
            raise UsageError(f"{path}:1: column {place} has no name", "name every column in the first row")
        if name in names[: place - 1]:
            raise UsageError(f"{path}:1: two columns are named {name}", "give each column its own name")
    return names


def _kind(value: object) -> str:
    kinds = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return kinds.get(type(value), "null")


def _why(error: Exception) -> str:
    """A decoder's complaint in our words."""
    if isinstance(error, RecursionError):
        return _DEEP
    if isinstance(error, UnicodeDecodeError) or "utf-8" in str(error).lower():
        return "not UTF-8"
    return f"not JSON: {str(error).removeprefix('JSON is malformed: ')}"


# -- JSON ---------------------------------------------------------------------------------------------------


def _decoded(path: Path, file: BinaryIO, pieces: list[_Piece], window: int) -> Iterator[list[Any]]:
    """The second reading: the groups, a piece of the file at a time."""
    import msgspec

    decode = msgspec.json.Decoder(list[Any]).decode
    for piece in pieces:
        file.seek(piece.start)
        try:
            yield decode(b"[%b]" % file.read(piece.end - piece.start))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
            yield list(_one_by_one(_Window(path, file, window, piece.start), piece))


def _one_by_one(window: _Window, piece: _Piece) -> Iterator[Any]:
    """The groups of a piece in which one is wrong: says which."""
    for number in range(piece.number, piece.number + piece.groups):
        if number > piece.number:
            window.take(b",")
        yield window.value(Any, f"group {number}")


class _Piece(NamedTuple):
    """Whole groups: where they stand in the file, how many, and the number (from 1) of the first."""

    start: int
    end: int
    number: int
    groups: int


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}"]', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,:\[\]{}"]+')
_SPACE = re.compile(rb"[ \t\r\n]*")
_BETWEEN = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\Z")


def _value_end(data: bytes, start: int) -> int | None:
    """Where the JSON value that begins at `start` ends; None if it goes on behind the data."""
    if data[start : start + 1] not in (b"{", b"[", b'"'):
        match = _SCALAR.match(data, start)
        return None if match and match.end() == len(data) else (match.end() if match else start + 1)
    depth = 0
    for match in _TOKEN.finditer(data, start):
        token = match.group()
        if token == b'"':
            return None
        depth += (token in b"{[") - (token in b"]}")
        if depth <= 0:
            return match.end()
    return None


class _Window:
    """A moving part of a JSON file; `pos` is the place in `data`, `base` where `data` begins in the file."""

    def __init__(self, path: Path, file: BinaryIO, size: int, start: int = 0) -> None:
        import msgspec

        self.path = path
        self.size = size
        self.file = file
        self.base = start
        self.data = b""
        self.pos = 0
        self.ended = False
        self.decode = msgspec.json.decode
        self.raw = msgspec.Raw
        self.errors = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
        file.seek(start)

    @property
    def place(self) -> int:
        """How far the file has been read."""
        return self.base + self.pos

    def fail(self, what: str, fix: str = "mend it there") -> NoReturn:
        """Raise UsageError with this place."""
        raise UsageError(f"{self.path}: line {self._line()}, byte {self.place}: {what}", fix)

    def _line(self) -> int:
        """The line of this place, from 1 on: counted only now that somebody has to find it."""
        self.file.seek(0)
        left, ends = self.place, 0
        while left > 0 and (data := self.file.read(min(left, self.size))):
            left, ends = left - len(data), ends + data.count(b"\n")
        return ends + 1

    def fill(self) -> None:
        """See to it that there is something to look at."""
        if len(self.data) - self.pos < self.size // 2 and not self.ended:
            self.more()

    def more(self) -> bool:
        """Forget what was read, take in at least as much as is left, and tell whether there was more."""
        chunk = self.file.read(max(self.size, len(self.data) - self.pos))
        self.data = self.data[self.pos :] + chunk
        self.base += self.pos
        self.pos = 0
        self.ended = not chunk
        return bool(chunk)

    def peek(self) -> bytes:
        """The next byte that is not a space; nothing at the end."""
        while True:
            match = _SPACE.match(self.data, self.pos)
            self.pos = match.end() if match else self.pos
            if self.pos < len(self.data):
                return self.data[self.pos : self.pos + 1]
            if not self.more():
                return b""

    def take(self, *expected: bytes) -> bytes:
        """Step over one of these characters."""
        char = self.peek()
        if not char:
            self.fail("the file ends too early", "it was cut off: write it again")
        if char not in expected:
            shown = " or ".join(each.decode() for each in expected)
            self.fail(f"not JSON: expected {shown}, found {char.decode('latin-1')}")
        self.pos += 1
        return char

    def value(self, kind: Any, what: str) -> Any:
        """Decode the value at this place and step over it."""
        self.peek()
        end = _value_end(self.data, self.pos)
        while end is None and self.more():
            end = _value_end(self.data, self.pos)
        if end is None and self.data[self.pos : self.pos + 1] in (b"", b"{", b"[", b'"'):
            self.fail(f"the file ends inside {what}", "it was cut off: write it again")
        piece = self.data[self.pos : end]
        try:
            value = self.decode(piece, type=kind)
        except self.errors as error:
            self.fail(f"{what}: {_why(error)}")
        self.pos += len(piece)
        return value


class _Outline:
    """The first reading: the shared keys, and where the groups are."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.shared: dict[str, Any] = {}
        self.pieces: list[_Piece] = []
        window = _Window(path, file, size)
        window.more()
        if window.data.startswith(_BOM):
            window.pos = len(_BOM)
        self._object(window)
        if not self.pieces:
            raise UsageError(f'{path}: has no "groups"', 'write {"groups": [{…}, {…}]}, a group for each job')

    def _object(self, window: _Window) -> None:
        if window.peek() not in (b"{", b""):
            window.fail("a job file is one JSON object", 'write {"groups": [{…}, {…}]}')
        window.take(b"{")
        if window.peek() == b"}":
            return
        while True:
            self._member(window)
            if window.take(b",", b"}") == b"}":
                break
        if window.peek():
            window.fail("something behind the end of the JSON object", "remove it")

    def _member(self, window: _Window) -> None:
        name = window.value(str, "a name")
        window.take(b":")
        if name == "groups":
            if self.pieces:
                window.fail('"groups" is there twice', "put all groups into one list")
            self._groups(window)
        else:
            self.shared[name] = window.value(Any, name)

    def _groups(self, window: _Window) -> None:
        if window.peek() != b"[":
            window.fail('"groups" is not a list', 'write "groups": [{…}, {…}]')
        self.pieces = list(_Stepper(window).pieces())
        if not self.pieces:
            window.fail('"groups" is empty', "give it a group for each job")


class _Stepper:
    """Steps over the elements of a list, many at a time where it can."""

    def __init__(self, window: _Window) -> None:
        self.window = window
        self.tried = -1
        self.kind = GenericAlias(list, (window.raw,))

    def pieces(self) -> Iterator[_Piece]:
        """The list in pieces of about a window."""
        window, number = self.window, 1
        window.take(b"[")
        more = window.peek() != b"]"
        if not more:
            window.take(b"]")
        while more:
            window.peek()
            start, count = window.place, 0
            while more and window.place - start < window.size:
                count += self._step(number + count)
                end = window.place
                more = window.take(b",", b"]") == b","
            yield _Piece(start, end, number, count)
            number += count

    def _step(self, number: int) -> int:
        """Go over some elements, the first of which has this number; how many it were."""
        window = self.window
        window.fill()
        loaded = window.base + len(window.data)
        if loaded != self.tried:
            self.tried = loaded
            passed = self._many()
            if passed:
                return passed
        window.value(window.raw, f"group {number}")
        return 1

    def _many(self) -> int:
        """Go to the last `}, {` in the window; how many elements that were, or 0.

        That place may lie inside an object or a text. But what begins with an element, ends there and is
        a JSON list between brackets, is whole elements: there is only one way to read JSON.
        """
        window = self.window
        end = _last_boundary(window.data, window.pos)
        if end < 0:
            return 0
        try:
            passed = len(window.decode(b"[%b]" % window.data[window.pos : end], type=self.kind))
        except window.errors:
            return 0
        window.pos = end
        return passed


def _last_boundary(data: bytes, start: int) -> int:
    """Behind the last `}` that a comma and a `{` follow, or -1."""
    brace = len(data)
    for _ in range(4):
        brace = data.rfind(b"{", start, brace)
        if brace < 0:
            break
        match = _BETWEEN.search(data, max(start, brace - 4096), brace)
        if match:
            return match.start() + 1
    return -1
