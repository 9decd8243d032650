"""Reads the groups of a CSV job file: the header names the keys, and a row is a group.

The separator is recognised from the header: a comma, a semicolon, a tab or a bar. Values stay as they are.
`jobfile` is the only caller.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ...errors import UsageError
from ...words import many

if TYPE_CHECKING:
    from _csv import Reader as _Reader

SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}


class CsvGroups:
    """A CSV job file, read once. `notes` says what a user should know of how it was read.

    Raises UsageError with the line. Rows without a value are skipped and counted.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.notes: list[str] = []
        self._path = path
        self._file = file
        self._text = TextIOWrapper(file, "utf-8-sig", newline="")

    def groups(self) -> Iterator[dict[str, str]]:
        """The groups in the file's order."""
        empty = line = 0
        try:
            reader = self._reader()
            names = self._header(next(filter(_has_value, reader), []), reader.line_num)
            width = len(names)
            for row in reader:
                line = reader.line_num
                if not _has_value(row):
                    empty += 1
                elif len(row) == width or _trim(row, width):
                    yield dict(zip(names, row, strict=True))
                else:
                    what = f"{self._path}:{line}: {many(len(row), 'value')}, and the header has {width}"
                    raise UsageError(what, 'put a value that holds the separator into "quotes"')
        except UnicodeDecodeError as error:
            raise UsageError(f"{self._path}:{self._not_utf8()}: not UTF-8", "save it as CSV UTF-8") from error
        except csv.Error as error:
            fix = 'write CSV with commas and "quotes"'
            if "field limit" in str(error):
                fix = 'close its "quotes"; or give values as long as that in a .jsonl file'
            raise UsageError(f"{self._path}:{reader.line_num}: {error}", fix) from error
        finally:
            self._text.detach()  # the caller closes the file
        if empty:
            self.notes.append(f"{self._path.name}: {many(empty, 'row')} without a value skipped")

    def _reader(self) -> _Reader:
        """Makes a reader for the header's separator, which drops space behind it if the header has some."""
        line = next((line for line in self._text if line.strip()), "")
        self._text.seek(0)
        separator = max(SEPARATORS, key=lambda each: len(_cells(line, each)))
        if separator != ",":
            self.notes.append(f"{self._path.name}: values are separated by {SEPARATORS[separator]}")
        spaced = any(cell.startswith(" ") for cell in _cells(line, separator))
        return csv.reader(self._text, delimiter=separator, skipinitialspace=spaced, strict=True)

    def _header(self, cells: list[str], line: int) -> list[str]:
        names = [cell.strip() for cell in cells]
        while names and not names[-1]:  # a spreadsheet's trailing columns
            names.pop()
        if not names:
            raise UsageError(f"{self._path}:1: no header", "name the columns in the first row")
        seen: set[str] = set()
        for place, name in enumerate(names, 1):
            what = f"{self._path}:{line}: "
            if not name:
                raise UsageError(f"{what}column {place} has no name", "name every column in the first row")
            if name in seen:
                raise UsageError(f"{what}two columns are named {name}", "give each column its own name")
            seen.add(name)
        return names

    def _not_utf8(self) -> int:
        """The first line that is not UTF-8: the reader of texts meets it many lines ahead."""
        self._file.seek(0)
        return next(number for number, line in enumerate(self._file, 1) if _is_not_utf8(line))


def _cells(line: str, separator: str) -> list[str]:
    """The cells of a line; none where its quotes do not pair."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def _has_value(row: list[str]) -> bool:
    return any(map(str.strip, row))


def _trim(row: list[str], width: int) -> bool:
    """Remove empty cells behind the last named column; whether the row has the right width then."""
    while len(row) > width and not row[-1].strip():
        row.pop()
    return len(row) == width


def _is_not_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False
