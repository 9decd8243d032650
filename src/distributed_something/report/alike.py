"""Which failures are alike: the line of a log that tells why, and that line without its values. Pure."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence

LINE_CHARACTERS = 400
"""Of a line; what comes later tells no more, and folding takes time with the square of the length."""

LAST_LINES = 40
"""An error named before these was handled: the job went on."""

VARIED = 5
"""As many different words at one place of otherwise equal lines are values, and not different problems."""

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
"""Lines that say that something went wrong, or where, and not what."""

_NAMES_IT = re.compile(
    r"(?:Caused by: |Exception in thread \"[^\"]*\" )"
    r"|(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt|Warning)(?:: |$)"
    r"|Error(?:: | in )|(?i:fatal(?: error)?: )"
)
_R_GOES_ON = re.compile(r"Error(?: in .*)?:$")

_FOLDS = (
    (re.compile(r"(?<!\w)'[^']*'|\"[^\"]*\"|`[^`]*`|\N{LEFT SINGLE QUOTATION MARK}.*?\N{RIGHT SINGLE QUOTATION MARK}"), "<value>"),  # noqa: E501
    (re.compile(r"(?:[A-Za-z]:\\|\\\\)[^\s:;,)]+"), "<path>"),
    (re.compile(r"(?:\w+:/)?[\w.~+%@=-]*/[\w.~+%@=/-]*"), "<path>"),
    (re.compile(r"\b[0-9a-f]{8,}\b", re.IGNORECASE), "<n>"),
    (re.compile(r"[\w.+~-]*\d[\w.+~-]*(?:[:,]\d[\w.+-]*)*"), "<n>"),
)  # fmt: skip


def telling_line(text: str) -> str:
    """The line that tells why the job failed: the last one that names an error, or else the last one that
    is more than a frame of a stack; the project's own notes only where there is nothing else."""
    lines = [line.strip() for line in _ESCAPES.sub("", text).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(_OURS)]
    new = [(at, line) for at, line in enumerate(said) if not _NOTHING_NEW.match(line)]
    for at, line in reversed(new[-LAST_LINES:]):
        if _NAMES_IT.match(line):
            follows = said[at + 1] if _R_GOES_ON.match(line) and at + 1 < len(said) else ""
            return f"{line} {follows}".strip()[:LINE_CHARACTERS]
    return (new[-1][1] if new else (said or lines or [""])[-1])[:LINE_CHARACTERS]


def is_ours(line: str) -> bool:
    """Whether a line of a log is a note of this project, and not the job's."""
    return line.startswith(_OURS)


def fold_line(line: str) -> str:
    """The line without quoted values, paths, and words with digits: the same for failures that are alike."""
    line = line[:LINE_CHARACTERS]
    for pattern, word in _FOLDS:
        line = pattern.sub(word, line)
    return " ".join(line.split())


def merge_varied(keys: Iterable[tuple[Hashable, str]]) -> dict[tuple[Hashable, str], tuple[Hashable, str]]:
    """For each (kind, folded line) the key of the problem that it belongs to.

    Lines of one kind that differ in one word only, which has many values, are one problem: `<word>` stands
    for it. A line of fewer than three words says too little for that.
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
