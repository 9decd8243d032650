"""Makes the groups of a job file from files, lists of values and tables: `ds jobfile new`.

Everything streams except what has to be compared: grouped files, and duplicates of files and tables. Pure:
the caller lists the files, reads the tables and writes the lines. `cli/jobfile.py` calls it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from hashlib import sha256
from itertools import islice, product
from math import prod
from typing import Any, NamedTuple

from ...errors import UsageError
from ...words import none_of

Group = dict[str, Any]

FILES = "Files"  # key of the list of files in a grouped job
PREVIEWED = 3  # number of groups that a summary keeps

MOST_VALUES = 1_000_000
"""Most values of one list on the command line: lists are held in memory, their product is not."""

_NAME = r"[A-Za-z_][A-Za-z0-9_.-]*"
_PIECES = re.compile(rf"\{{({_NAME})\}}|(\*\*/)|(\*\*)|(\*)")
_REGEX_SPECIAL = re.compile(r"[\\.^$*+?{}\[\]|()]")


# -- Files --------------------------------------------------------------------------------------------------


class Pattern:
    """A pattern of file paths. `names` are the keys that it finds, `prefix` begins every path it matches.

    `raw/{Plate}/{Well}_{Site}.tif`: a name stands for part of one folder or file name. A name that comes
    twice has the same value. `*` matches within one name, `**` across folders. With `(?P<Plate>…)` in it the
    text is a regular expression for the whole path. Raises UsageError.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        regex, names = (text, []) if "(?P<" in text else _translated(text)
        try:
            compiled = re.compile(regex, re.DOTALL)
        except re.error as error:
            raise UsageError(f"--from {text}: no regular expression: {error}", _FROM_FIX) from error
        self._index = (
            compiled.groupindex if "(?P<" in text else {name: at for at, name in enumerate(names, 1)}
        )
        if not self._index:
            raise UsageError(f"--from {text}: names no key of a job", _FROM_FIX)
        self.names = tuple(self._index)
        self.prefix = _prefix_of_regex(text) if "(?P<" in text else text[: _first_piece(text)]
        self._match = compiled.fullmatch

    def match(self, path: str) -> Group | None:
        """Returns the keys of a path; None: it does not match."""
        found = self._match(path)
        return {name: found[number] for name, number in self._index.items()} if found else None


_FROM_FIX = "write it as 'raw/{Plate}/{Well}_{Site}.tif'"


def _first_piece(text: str) -> int:
    found = _PIECES.search(text)
    return found.start() if found else len(text)


def _translated(text: str) -> tuple[str, list[str]]:
    """Returns a pattern as a regular expression, and the names of its groups."""
    names: list[str] = []

    def piece(found: re.Match[str]) -> str:
        if name := found[1]:
            if name in names:
                return rf"(?P=g{names.index(name)})"
            names.append(name)
            return rf"(?P<g{len(names) - 1}>[^/]+?)"
        return r"(?:.*/)?" if found[2] else ".*" if found[3] else "[^/]*"

    at, regex = 0, []
    for found in _PIECES.finditer(text):
        regex += [re.escape(text[at : found.start()]), piece(found)]
        at = found.end()
    return "".join([*regex, re.escape(text[at:])]), names


def _prefix_of_regex(text: str) -> str:
    """Returns the literal text that every match begins with."""
    if "|" in text:
        return ""
    found = _REGEX_SPECIAL.search(text)
    end = found.start() if found else len(text)
    return text[: end - 1] if found and found[0] in "*?{" and end else text[:end]


def group_files(files: Iterable[tuple[Group, str]], by: Sequence[str]) -> list[Group]:
    """Makes one group of all files that share the values of `by`, with the list of their paths."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for group, path in files:
        found.setdefault(tuple(group[name] for name in by), []).append(path)
    return [{**dict(zip(by, values, strict=True)), FILES: paths} for values, paths in found.items()]


def missing(groups: Iterable[Mapping[str, Any]], names: Sequence[str]) -> tuple[int, list[Group]]:
    """Returns how many combinations of values are missing, and the first of them.

    Returns 0 if most combinations are missing: the names then do not form a grid.
    """
    there = {tuple(group[name] for name in names) for group in groups}
    values = [sorted({each[place] for each in there}) for place in range(len(names))]
    lacking = prod(len(each) for each in values) - len(there)
    if not there or len(names) < 2 or lacking > len(there):
        return 0, []
    first = islice((each for each in product(*values) if each not in there), PREVIEWED)
    return lacking, [dict(zip(names, each, strict=True)) for each in first]


# -- Lists of values ----------------------------------------------------------------------------------------


def parse_lists(words: Iterable[str]) -> dict[str, list[Any]]:
    """Reads words such as `Well=A01..H12` and `sigma=0.5,1,2`. Raises UsageError."""
    lists: dict[str, list[Any]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not re.fullmatch(_NAME, name):
            raise UsageError(f"--product {word}: is not NAME=VALUES", "write Plate=P1,P2 or Well=A01..H12")
        if name in lists:
            raise UsageError(f"--product {name}: is given twice", "put all its values into one list")
        lists[name] = expand(text, f"--product {name}")
    return lists


def expand(text: str, where: str) -> list[Any]:
    """Expands a list with commas and ranges: `A01..H12` (a rectangle of wells), `1..9`, `0..1..0.1`.

    A value is a number if JSON writes it in the same way; other values (`01`, `0.50`) stay texts.
    """
    values: list[Any] = []
    for part in text.split(","):
        if not part:
            raise UsageError(f"{where}: {text!r} has an empty value", "write values between commas: a,b,c")
        values += _range(part, where) if ".." in part else [_number_or_text(part)]
        if len(values) > MOST_VALUES:
            raise UsageError(f"{where}: more than {MOST_VALUES:,} values", "make a table, and use --table")
    return values


_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
_WELL = re.compile(r"([A-Za-z]*)(\d+)")


def _number_or_text(text: str) -> Any:
    if not _NUMBER.fullmatch(text):
        return text
    number = float(text) if "." in text else int(text)
    return number if str(number) == text else text


def _range(text: str, where: str) -> list[Any]:
    """Expands one range."""
    ends = text.split("..")
    fix = "write A01..H12, 1..9 or 0..1..0.1"
    if len(ends) in (2, 3) and all(re.fullmatch(r"-?\d+(\.\d+)?", end) for end in ends):
        return _numbers(ends, text, where)
    found = [_WELL.fullmatch(end) for end in ends]
    if len(ends) == 2 and found[0] and found[1]:
        (row, first), (last_row, last) = found[0].groups(), found[1].groups()
        columns = _numbers([first, last], text, where)
        rows = [row] if row == last_row else _letters(row, last_row, text, where)
        return [f"{each}{column}" for each in rows for column in columns]
    if len(ends) == 2 and all(end.isascii() and end.isalpha() for end in ends):
        return list(_letters(ends[0], ends[1], text, where))
    raise UsageError(f"{where}: {text} is no range", fix)


def _numbers(ends: Sequence[str], text: str, where: str) -> list[Any]:
    """Expands a range of numbers. Leading zeros of the first end give all values its width."""
    first, last = Decimal(ends[0]), Decimal(ends[1])
    step = Decimal(ends[2]) if len(ends) == 3 else Decimal(1)
    if not step:
        raise UsageError(f"{where}: {text} has a step of 0", "give a step such as 0.1")
    if (last - first) / abs(step) > MOST_VALUES or (first - last) / abs(step) > MOST_VALUES:
        raise UsageError(
            f"{where}: {text} has more than {MOST_VALUES:,} values", "make a table, and use --table"
        )
    step = abs(step) if last >= first else -abs(step)
    numbers = [first + step * at for at in range(int((last - first) / step) + 1)]
    if any("." in end for end in ends):
        return [float(each) for each in numbers]
    width = len(ends[0]) if len(ends[0]) > 1 and ends[0].startswith("0") else 0
    return [f"{int(each):0{width}}" if width else int(each) for each in numbers]


def _letters(first: str, last: str, text: str, where: str) -> list[str]:
    """Expands a range of rows: A..H, or A..AF as large plates have them."""
    if max(len(first), len(last)) > 2 or not (first and last) or first.isupper() != last.isupper():
        raise UsageError(f"{where}: {text} is no range of rows", "write A01..H12, or list the values: a,b,c")
    low, high = _row_number(first), _row_number(last)
    names = [_row_name(number) for number in range(low, high + 1)]
    if not names:
        raise UsageError(f"{where}: {text} runs backwards", "write the first row first")
    return names if first.isupper() else [name.lower() for name in names]


def _row_number(name: str) -> int:
    number = 0
    for letter in name.upper():
        number = number * 26 + ord(letter) - 64
    return number


def _row_name(number: int) -> str:
    name = ""
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(65 + rest) + name
    return name


def combine(lists: Mapping[str, Sequence[Any]], *, zipped: bool) -> Iterator[Group]:
    """Yields every combination of the lists, the last name fastest; or the lists side by side if `zipped`."""
    names = list(lists)
    if zipped and len({len(each) for each in lists.values()}) > 1:
        lengths = ", ".join(f"{name} has {len(each):,}" for name, each in lists.items())
        raise UsageError(f"--zip: the lists differ in length: {lengths}", "make them equally long")
    rows = zip(*lists.values(), strict=True) if zipped else product(*lists.values())
    return (dict(zip(names, row, strict=True)) for row in rows)


def multiply(groups: Iterable[Group], lists: Mapping[str, Sequence[Any]], *, zipped: bool) -> Iterator[Group]:
    """Yields each group with every combination of the lists. Raises UsageError if both have the same name."""
    for group in groups:
        if both := group.keys() & lists.keys():
            raise UsageError(
                f"--product {min(both)}: the files or the table have this name too", "rename one"
            )
        for each in combine(lists, zipped=zipped):
            yield {**group, **each}


# -- Choosing -----------------------------------------------------------------------------------------------


def choose_columns(groups: Iterable[Group], text: str) -> Iterator[Group]:
    """Yields the groups with these columns only. `New=Old` renames one. Raises UsageError."""
    pairs = [(new, old or new) for new, _, old in (part.partition("=") for part in text.split(","))]
    if any(not new for new, _ in pairs) or len(dict(pairs)) < len(pairs):
        raise UsageError(
            f"--columns {text}: names a column twice, or none", "write --columns Plate,Well=well_id"
        )
    for group in groups:
        try:
            yield {new: group[old] for new, old in pairs}
        except KeyError as error:
            what = f"--columns: {none_of(str(error.args[0]), list(group))}"
            raise UsageError(what, "name columns that exist") from None


_CONDITION = re.compile(r"([^=!<>~]+?)\s*(!=|!~|<=|>=|==|=|<|>|~)\s*(.*)", re.DOTALL)
_QUOTED = re.compile(r"""(["'])(.*)\1""", re.DOTALL)


def parse_where(text: str) -> Callable[[Group], bool]:
    """Reads a condition: `Well!=A01,H12`, `Site<=4`, `Plate~^P1`. Raises UsageError."""
    found = _CONDITION.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            f"--where {text}: is no condition", "write 'Well!=A01..A12', 'Site<=4' or 'Plate~^P1'"
        )
    name, sign, right = found.groups()
    test = _test(sign, right, text)

    def holds(group: Group) -> bool:
        if name not in group:
            raise UsageError(f"--where {text}: {none_of(name, list(group))}", "name a key of the jobs")
        return test(group[name])

    return holds


def _test(sign: str, right: str, text: str) -> Callable[[Any], bool]:
    if sign in ("~", "!~"):
        try:
            search = re.compile(right).search
        except re.error as error:
            raise UsageError(f"--where {text}: no regular expression: {error}", "correct it") from error
        return lambda value: (search(str(value)) is not None) == (sign == "~")
    if sign in ("=", "==", "!="):
        if quoted := _QUOTED.fullmatch(right):
            wanted = {quoted[2]}
        else:
            wanted = {str(each) for each in expand(right, f"--where {text}")} if right else {""}
        return lambda value: (str(value) in wanted) == (sign != "!=")
    limit = _as_number(right, text)
    compare: Mapping[str, Callable[[float], bool]] = {
        "<": lambda number: number < limit,
        "<=": lambda number: number <= limit,
        ">": lambda number: number > limit,
        ">=": lambda number: number >= limit,
    }
    return lambda value: compare[sign](_as_number(value, text))


def _as_number(value: Any, text: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UsageError(f"--where {text}: {value!r} is no number", "compare texts with = or !=") from None


# -- Writing ------------------------------------------------------------------------------------------------


class Summary(NamedTuple):
    """What was made: the number of jobs, of duplicates (kept or dropped), and the first groups."""

    jobs: int
    duplicates: int
    first: list[Group]


def write_lines(
    groups: Iterable[Group], write: Callable[[bytes], object], *, unique: bool, distinct: bool
) -> Summary:
    """Writes the groups as JSON lines. `unique`: drops duplicates; `distinct`: there can be none."""
    import msgspec

    encode = msgspec.json.Encoder().encode
    canonical = msgspec.json.Encoder(order="deterministic").encode
    seen: set[bytes] = set()
    first: list[Group] = []
    jobs = duplicates = 0
    lines: list[bytes] = []
    for group in groups:
        if not distinct:
            mark = sha256(canonical(group)).digest()[:16]
            if mark in seen:
                duplicates += 1
                if unique:
                    continue
            seen.add(mark)
        if jobs < PREVIEWED:
            first.append(group)
        jobs += 1
        lines.append(encode(group))
        if len(lines) >= 10_000:
            lines.append(b"")
            write(b"\n".join(lines))
            lines.clear()
    if lines:
        lines.append(b"")
        write(b"\n".join(lines))
    return Summary(jobs, duplicates, first)
