"""Finds the line of a log that says why a job failed, and groups lines that differ in values only. Pure."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import islice

LINE_CHARACTERS = 400  # longest part of a line that is read, in characters: folding takes quadratic time
LAST_LINES = 40  # words that show that the job went on after the error named before them
VARIED = 5  # number of different words at one place of equal lines, from which on they count as values

_OURS = "[ds] "
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_NOTHING_NEW = re.compile(
    r"at [\w.$/<>]+\(.*\)$"  # Java: a frame of the stack
    r"|\.\.\. \d+ (?:common frames omitted|more)$"
    r"|Execution halted$|Calls: "  # R
    r"|Traceback \(most recent|File \".*\", line \d+|\^+$|~*\^+~*$"
    r"|note: run with `RUST_BACKTRACE"
    r"|g?make(?:\[\d+\])?: |Command exited with non-zero status|\++ |Aborted$"
    r"|During handling of the above|The above exception was"
)
"""Lines that say where something went wrong, or that it did, but not what."""

_NAMES_IT = re.compile(
    r"(?:Caused by: |Exception in thread \"[^\"]*\" )"
    r"|(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt|Warning)(?:: |$)"
    r"|Error(?:: | in )|(?i:fatal(?: error)?: )"
)
_GROUP = "+ Exception Group Traceback"
_BORDER = re.compile(r"[|+\- ]*")
_OF_GROUP = re.compile(r"\S*ExceptionGroup: .*\(\d+ sub-exceptions?\)$")
_R_GOES_ON = re.compile(r"Error(?: in .*)?:$")

_FOLDS = (
    (re.compile(r"(?<!\w)'[^']*'|\"[^\"]*\"|`[^`]*`|\u2018.*?\u2019"), "<value>"),
    (re.compile(r"(?:[A-Za-z]:\\|\\\\)[^\s:;,)]+"), "<path>"),
    (re.compile(r"(?:\w+:/)?[\w.~+%@=-]*/[\w.~+%@=/-]*"), "<path>"),
    (re.compile(r"\b[0-9a-f]{8,}\b", re.IGNORECASE), "<n>"),
    (re.compile(r"[\w.+~-]*\d[\w.+~-]*(?:[:,]\d[\w.+-]*)*"), "<n>"),
)  # fmt: skip


def plain(text: str) -> str:
    """Returns a text without a terminal's escape sequences."""
    return _ESCAPES.sub("", text)


@lru_cache(maxsize=256)  # many jobs of a run fail alike
def telling_line(text: str) -> str:
    """Returns the line that says why the job failed.

    That is the last line that names an error, or else the last one that is not a frame of a stack. The
    project's own notes count only if there is nothing else.
    """
    lines = [short for line in plain(text).splitlines() if (short := line.strip())]
    said = [line for line in lines if not line.startswith(_OURS)]
    if _GROUP in text and (leaf := _first_leaf(said)):
        return leaf[:LINE_CHARACTERS]
    backwards = zip(range(len(said) - 1, -1, -1), reversed(said), strict=True)
    new = ((at, line) for at, line in backwards if not _NOTHING_NEW.match(line))
    last = ""
    for at, line in islice(new, LAST_LINES):
        if _NAMES_IT.match(line):
            follows = said[at + 1] if _R_GOES_ON.match(line) and at + 1 < len(said) else ""
            return f"{line} {follows}".strip()[:LINE_CHARACTERS]
        last = last or line
    return (last or (said or lines or [""])[-1])[:LINE_CHARACTERS]


def _first_leaf(lines: Sequence[str]) -> str:
    """Returns the first error inside the last group of exceptions (Python); empty: there is none."""
    start = max((at for at, line in enumerate(lines) if line.startswith(_GROUP)), default=len(lines))
    inside = (line[_BORDER.match(line).end() :] for line in lines[start:] if line[0] in "|+")  # type: ignore[union-attr]
    return next((line for line in inside if _NAMES_IT.match(line) and not _OF_GROUP.match(line)), "")


def is_ours(line: str) -> bool:
    """Returns whether a line of a log is a note of this project, not of the job."""
    return line.startswith(_OURS)


@lru_cache(4096)
def fold_line(line: str) -> str:
    """Returns the line without quoted values, paths and words with digits: equal for similar failures."""
    line = line[:LINE_CHARACTERS]
    for pattern, word in _FOLDS:
        line = pattern.sub(word, line)
    return " ".join(line.split())


def merge_varied(keys: Iterable[tuple[Hashable, str]]) -> dict[tuple[Hashable, str], tuple[Hashable, str]]:
    """Returns for each (kind, folded line) the key of its problem.

    Lines of one kind that differ in one word only are one problem if that word has many values; `<word>`
    replaces it in the key. Lines of fewer than three words are never merged.
    """
    words = {key: key[1].split() for key in dict.fromkeys(keys)}
    places: dict[tuple[Hashable, str], list[tuple[Hashable, str]]] = {}
    for key, line in words.items():
        for wide in _widened(key[0], line):
            places.setdefault(wide, []).append(key)
    found = {key: key for key in words}
    for wide, members in sorted(places.items(), key=lambda place: (-len(place[1]), str(place[0]))):
        free = [key for key in members if found[key] is key]
        if len(free) >= VARIED:
            found.update(dict.fromkeys(free, wide))
    return found


def _widened(kind: Hashable, words: Sequence[str]) -> list[tuple[Hashable, str]]:
    if len(words) < 3:
        return []
    return [
        (kind, " ".join([*words[:at], "<word>", *words[at + 1 :]]))
        for at, word in enumerate(words)
        if not word.startswith("<")
    ]
