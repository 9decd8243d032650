"""Reads the groups of JSON job files: `{shared keys…, "groups": [{…}, …]}`, and JSON lines.

A JSON file is held in memory; its groups become values one at a time. The parser says where each value ends,
so that the place of a mistake and a second "groups" are known. `jobfile` is the only caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec

from ...errors import UsageError
from ...words import json_kind

_BOM = b"\xef\xbb\xbf"
TOO_DEEP = "its lists and objects are nested too deeply"
_OBJECT = 'a group is an object of names and values: {"Plate": "P1", "Well": "A1"}'

_SPACE = re.compile(rb"[ \t\r\n]*")
_BEHIND = re.compile(r"trailing characters \(byte (\d+)\)")
_BYTE = re.compile(r" \(byte (\d+)\)$")

_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)
_decode = msgspec.json.Decoder().decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_skip = msgspec.json.Decoder(msgspec.Raw).decode


class JsonGroups:
    """A JSON job file. `shared` are its shared keys; `groups` decodes its groups.

    Raises UsageError with line and byte. All of the file's structure is checked before the first group.
    """

    def __init__(self, path: Path, data: bytes) -> None:
        self.shared: dict[str, Any] = {}
        self.plates = False
        self._path = path
        self._data = data
        self._view = memoryview(data)
        self._at = len(_BOM) if data.startswith(_BOM) else 0
        self._list: tuple[int, int] | None = None
        self._plates: tuple[int, int] | None = None
        self._read_object()
        if self._list is None and self._plates is not None:
            del self.shared["plates"]
            self._list, self.plates = self._plates, True
        if self._list is None:
            raise UsageError(f'{path}: has no "groups"', 'write {"groups": [{…}, {…}]}, a group for each job')

    def groups(self) -> Iterator[dict[str, Any]]:
        """The groups in the file's order."""
        assert self._list is not None
        start, end = self._list
        for number, raw in enumerate(_decode_list(self._view[start:end]), 1):
            try:
                group = _decode(raw)
            except _ERRORS as error:
                place = next(islice(self._elements(start), number - 1, None))
                self._refuse(error, place, f"group {number}")
            named = group if type(group) is dict else self._named(group)
            if named is None:
                element, wanted = ("plate", "a text") if self.plates else ("group", "an object")
                what = f"{self._path}: {element} {number} is {json_kind(group)}, not {wanted}"
                raise UsageError(what, _OBJECT)
            yield named

    @property
    def bare(self) -> bool:
        """Whether the first group is a text or a list, and no plate."""
        assert self._list is not None
        self._at = self._list[0] + 1
        return not self.plates and self._peek() in (b'"', b"[")

    def _named(self, value: Any) -> dict[str, Any] | None:
        """The group that a bare value stands for; None: it stands for none."""
        if self.plates:
            return {"plate": value} if isinstance(value, str) else None
        is_cellprofilers = isinstance(value, (str, list)) and "pipeline" in self.shared
        return {"Metadata": value} if is_cellprofilers else None

    def _read_object(self) -> None:
        if self._peek() not in (b"{", b""):
            self._fail("a job file is one JSON object", 'write {"groups": [{…}, {…}]}')
        self._take(b"{")
        if self._peek() == b"}":
            self._take(b"}")
        else:
            self._read_members()
        if self._peek():
            self._fail("something behind the end of the JSON object", "remove it")

    def _read_members(self) -> None:
        more = True
        while more:
            name = self._value("a name")
            if not isinstance(name, str):
                self._fail("a name: not JSON: names are texts in quotes")
            self._take(b":")
            self._peek()
            if name == "groups":
                self._read_groups()
            else:
                start = self._at
                self.shared[name] = self._value(name)
                if name == "plates" and isinstance(self.shared[name], list) and self.shared[name]:
                    self._plates = start, self._at
            more = self._take(b",", b"}") == b","

    def _read_groups(self) -> None:
        if self._list is not None:
            self._fail('"groups" is there twice', "put all groups into one list")
        if self._peek() != b"[":
            self._fail('"groups" is not a list', 'write "groups": [{…}, {…}]')
        start = self._at
        try:
            self._at = self._end_of(start)
        except _ERRORS:
            for _ in self._elements(start):  # fails at the element that is wrong
                pass
            raise
        first = _SPACE.match(self._data, start + 1)
        if first and self._data[first.end() : first.end() + 1] == b"]":
            self._fail('"groups" is empty', "give it a group for each job")
        self._list = start, self._at

    def _elements(self, start: int) -> Iterator[int]:
        """Where each element of the list at `start` begins."""
        self._at, number, more = start + 1, 1, True
        while more:
            self._peek()
            yield self._at
            try:
                self._at = self._end_of(self._at)
            except _ERRORS as error:
                self._refuse(error, self._at, f"group {number}")
            more = self._take(b",", b"]") == b","
            number += 1

    def _value(self, what: str) -> Any:
        """Decode the value at this place and step over it."""
        self._peek()
        start = self._at
        try:
            self._at = self._end_of(start)
            return _decode(self._view[start : self._at])
        except _ERRORS as error:
            self._refuse(error, start, what)

    def _end_of(self, start: int) -> int:
        """Where the value at `start` ends (with the space behind it). Raises the parser's error."""
        try:
            _skip(self._view[start:])
        except _ERRORS as error:
            if behind := _BEHIND.search(str(error)):
                return start + int(behind[1]) - 1  # the parser has read that character
            raise
        return len(self._data)

    def _peek(self) -> bytes:
        """The next byte that is no space; nothing at the end."""
        space = _SPACE.match(self._data, self._at)
        self._at = space.end() if space else self._at
        return self._data[self._at : self._at + 1]

    def _take(self, *expected: bytes) -> bytes:
        """Step over one of these characters."""
        char = self._peek()
        if not char:
            self._fail("the file ends too early", "it was cut off: write it again")
        if char not in expected:
            shown = " or ".join(each.decode() for each in expected)
            self._fail(f"not JSON: expected {shown}, found {char.decode('latin-1')}")
        self._at += 1
        return char

    def _refuse(self, error: Exception, start: int, what: str) -> NoReturn:
        """Raise UsageError for the parser's error about the value that begins at `start`."""
        place = _BYTE.search(str(error))
        self._at = start + (int(place[1]) if place else 0)
        cut_off = "truncated" in str(error)
        self._fail(f"{what}: {_why(error)}", "it was cut off: write it again" if cut_off else "mend it there")

    def _fail(self, what: str, fix: str = "mend it there") -> NoReturn:
        line = self._data.count(b"\n", 0, self._at) + 1
        raise UsageError(f"{self._path}: line {line}, byte {self._at}: {what}", fix)


def read_lines(path: Path, file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Reads a group a line. Raises UsageError with the line."""
    number = 0
    try:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(_BOM) if number == 1 else line
            if not text.isspace() and text:
                group = _decode(text)
                if type(group) is not dict:
                    what = f"{path}:{number}: the line is {json_kind(group)}, not an object"
                    raise UsageError(what, _OBJECT)
                yield group
    except _ERRORS as error:
        raise UsageError(
            f"{path}:{number}: {_why(error)}", "write one JSON object a line, in UTF-8"
        ) from error


def _why(error: Exception) -> str:
    """A decoder's complaint in our words, without its place."""
    if isinstance(error, RecursionError):
        return TOO_DEEP
    if isinstance(error, UnicodeDecodeError) or "utf-8" in str(error).lower():
        return "not UTF-8"
    return f"not JSON: {_BYTE.sub('', str(error)).removeprefix('JSON is malformed: ')}"
