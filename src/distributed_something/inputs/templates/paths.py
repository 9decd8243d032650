"""Renders the keys of a job: what INPUTS fetch, and the prefix that OUTPUT publishes under. Pure.

A key that no store could hold, or that could mean more than was written, is refused by UsageError. `fit`
checks every job before it is queued; workers render by the same code.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

from ...errors import UsageError
from .template import Template

MAX_PART = 255  # maximum bytes of a part of a key between slashes: longer ones are no names of files

MAX_KEY = 900
"""Maximum bytes of an output's prefix. S3 takes 1,024 for a key; the rest is for the names of files."""

_PLAIN = frozenset({str, int})
_ARROW = " -> "
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/+[^/]*/*")
_BUCKET = re.compile(r"s3:/+[^/]+(?:/+|$)")


class Input(NamedTuple):
    """An input of a job: `key` in the store, all below it if it ends in "/"; `name` below {input_dir}.

    Of a folder `name` is empty, or a folder (ending in "/") for what is below `key`.
    """

    key: str
    name: str


class _Path:
    """A template whose values become parts of a key: texts and numbers, never a list or an object."""

    def __init__(self, where: str, text: str) -> None:
        self._where = where
        self._template = Template(text, where)
        self._holes = self._template.holes
        self._format = self._template.format
        self.text = text
        self.names = self._template.names

    def fill(self, values: Mapping[str, Any]) -> str:
        """Returns the text with the values in place. Raises UsageError."""
        try:
            found = tuple(map(values.__getitem__, self._holes))
        except KeyError:
            return self._template.fill(values)  # raises
        if _PLAIN.issuperset(map(type, found)):
            return self._format % found  # as `Template.fill`, and quicker
        for name in self._holes:
            if type(values[name]) in (list, dict):
                kind = "a list" if type(values[name]) is list else "an object"
                what = f"{self._where}: {{{name}}} is {kind}, and a key is made of texts and numbers"
                raise UsageError(what, "name a key with one value")
        return self._template.fill(values)


class InputTemplate:
    """An entry of INPUTS (or SHARED_INPUTS: `where`): `key`, or `key -> name` for another name."""

    def __init__(self, text: str, where: str = "INPUTS") -> None:
        source, arrow, target = (part.strip() for part in text.partition(_ARROW))
        if not source or (arrow and not target):
            raise UsageError(f"{where}: {text}: a key or a name is missing", "write 'a/x.txt -> first.txt'")
        _refuse_text(where, source)
        self._where = where
        self._source = _Path(where, source)
        self._target = _Path(where, target) if arrow else None
        self._parts = [_Path(where, part) for part in source.split("/") if part]
        alone = re.fullmatch(r"\{([^{}]+)\}", source)
        self._alone = alone[1] if alone else None
        self.names = self._source.names | (self._target.names if self._target else frozenset())

    def fill_all(self, values: Mapping[str, Any]) -> list[Input]:
        """Returns the inputs that the entry stands for: `{Files}` alone is each value of a list.

        Raises UsageError as `fill` does.
        """
        if self._alone and type(found := values.get(self._alone)) is list:
            return [self.fill({**values, self._alone: each}) for each in found]
        return [self.fill(values)]

    def fill(self, values: Mapping[str, Any]) -> Input:
        """Returns the input of a job with these values. Raises UsageError."""
        key = self._source.fill(values)
        if not key or key.endswith("/") or "//" in key or key.startswith("/"):
            self._refuse_empty(values)
        key = clean_key(key) + ("/" if key.endswith("/") else "")
        if _is_suspect(key):
            _refuse_suspect(self._where, key, ours=False)
        name = "" if key.endswith("/") else key.rpartition("/")[2]
        if self._target is None:
            return Input(key, name)
        target = self._target.fill(values)
        if not target or not {"", ".", ".."}.isdisjoint(target.removesuffix("/").split("/")):
            raise UsageError(f"{self._where}: {target!r} is no name of a file below", "write a relative path")
        if key.endswith("/"):
            return Input(key, target.removesuffix("/") + "/")
        return Input(key, target + name if target.endswith("/") else target)

    def _refuse_empty(self, values: Mapping[str, Any]) -> None:
        """A part that values leave empty would make a folder of it, or another one."""
        for part in self._parts:
            if not part.fill(values).strip("/"):
                of = f"{self._where}: {self._source.text}"
                what = f"{of}: {part.text} is empty, and a whole folder would be fetched"
                raise UsageError(what, f"give {part.text} a value in every job")


class OutputTemplate:
    """OUTPUT, compiled. `names` are its placeholders."""

    def __init__(self, text: str) -> None:
        _refuse_text("OUTPUT", text)
        self._path = _Path("OUTPUT", text)
        self.text = text
        self.names = self._path.names

    def fill(self, values: Mapping[str, Any]) -> str:
        """Returns the prefix of a job, without doubled or outer slashes. Raises UsageError."""
        key = clean_key(self._path.fill(values))
        if not key:
            what = f"OUTPUT: {self.text} comes out as nothing: the job's results would be thrown away"
            raise UsageError(what, "give its keys a value in every job")
        if _is_suspect(key):
            _refuse_suspect("OUTPUT", key, ours=True)
        if len(key) > MAX_PART // 4:
            _check_length(key)
        return key


def clean_key(text: str) -> str:
    """Returns a key without doubled or outer slashes."""
    if "//" in text or text[:1] == "/" or text[-1:] == "/":
        return "/".join(part for part in text.split("/") if part)
    return text


def _is_suspect(key: str) -> bool:
    """Whether a key needs a closer look."""
    return ":" in key or "/." in key or key[:1] in ".rR" or not key.isprintable()


def check_in_bucket(where: str, key: str) -> None:
    """Raises UsageError for a key that no bucket can hold."""
    if not key.isprintable() and re.search(r"[\0-\x1f\x7f]", key):
        _refuse(where, key, "has a control character", "remove it from the job's values: S3 cannot list it")


def _refuse_address(where: str, key: str) -> None:
    if match := _ADDRESS.match(key):
        what = f"{where}: {_shown(key)} is an address, and a key of the store is needed"
        raise UsageError(what, f"write it without {match.group()}")


def _refuse_text(where: str, text: str) -> None:
    """Raises UsageError for what is wrong in the config's own text."""
    if not {".", ".."}.isdisjoint(text.split("/")):
        what = f"{where}: {text} has a part '.' or '..', and no key of a store has one"
        raise UsageError(what, f"write {where} as a path from the top of the store")


def _refuse_suspect(where: str, key: str, *, ours: bool) -> None:
    """Raises UsageError for a key that cannot be one. INPUTS may read what runs keep, if not `ours`."""
    bare = _BUCKET.sub("", key, count=1) if key.startswith("s3:") else key
    parts = bare.split("/")
    if not {".", ".."}.isdisjoint(parts):
        _refuse(where, key, "has a part '.' or '..'", "write paths from the top of the store")
    if "\0" in key:
        _refuse(where, key, "has a NUL character", "remove it from the job's values")
    _refuse_address(where, bare)
    if not bare:
        _refuse(where, key, "is a whole bucket", "name a folder in it")
    if ours and (parts[0].casefold() == "runs" or ".ds" in map(str.casefold, parts)):
        _refuse(
            where, key, "lies among the records of runs", "let OUTPUT lead elsewhere than to runs/ and .ds/"
        )


def _check_length(key: str) -> None:
    if len(key.encode()) > MAX_KEY:
        _refuse("OUTPUT", key, f"has more than {MAX_KEY} bytes", "name shorter keys")
    if any(len(part.encode()) > MAX_PART for part in key.split("/")):
        _refuse("OUTPUT", key, f"has a part of more than {MAX_PART} bytes", "name shorter keys")


def _refuse(where: str, key: str, why: str, fix: str) -> NoReturn:
    raise UsageError(f"{where}: {_shown(key)} {why}", fix)


def _shown(key: str) -> str:
    return repr(key if len(key) <= 60 else key[:57] + "...")


class Prefixes:
    """Collects the output prefix of each job, in some 8 bytes each, and finds those that meet.

    `equal` and `nested` are hashes of prefixes: look through the jobs again to name them (`hash_of`).
    """

    def __init__(self, *, folds_case: bool) -> None:
        self._folds_case = folds_case
        self._hashes = array("q")
        self._above = array("q")
        self._parent = ""

    def folded(self, prefix: str) -> str:
        """The prefix as the store compares it."""
        return prefix.casefold() if self._folds_case else prefix

    def add(self, prefix: str) -> None:
        """Notes the prefix of one more job."""
        prefix = self.folded(prefix)
        self._hashes.append(hash(prefix))
        parent = prefix[: prefix.rfind("/") + 1]
        if parent != self._parent:
            last, self._parent = self._parent, parent
            while parent and not last.startswith(parent):
                self._above.append(hash(parent[:-1]))
                parent = parent[: parent.rfind("/", 0, -1) + 1]

    def meeting(self) -> tuple[set[int], set[int]]:
        """Returns the hashes of prefixes that several jobs have, and of those that others lie inside."""
        ordered = array("q", sorted(self._hashes))
        equal = {one for one, other in pairwise(ordered) if one == other}
        return equal, {each for each in self._above if _is_in(each, ordered)}


def above(prefix: str) -> Iterator[str]:
    """Yields every folder above a prefix, the nearest first."""
    while prefix := prefix.rpartition("/")[0]:
        yield prefix


def _is_in(value: int, ordered: array[int]) -> bool:
    place = bisect_left(ordered, value)
    return place < len(ordered) and ordered[place] == value
