"""Formats numbers, sizes and times for messages, and guesses what a mistyped word was meant to be. Pure."""

from __future__ import annotations

import time

TYPE_CHECKING = False  # as in typing, without the milliseconds that typing takes
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def time_text(when: float, now: float, form: str = "%H:%M:%S") -> str:
    """Formats a time of the local clock (Unix seconds), with its day if that is not today."""
    at, today = (time.localtime(each) for each in (when, now))
    return time.strftime(form if at[:3] == today[:3] else f"%Y-%m-%d {form}", at)


def many(number: int, thing: str, does: str = "", do: str = "") -> str:
    """Formats a count: `1 job`, `2,000 jobs`; `many(n, "job", "is", "are")` adds the verb: `2 jobs are`."""
    counted = f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
    return " ".join(filter(None, [counted, does if number == 1 else do]))


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """Returns the known word nearest to `word`, whatever its case; None: none is near.

    Words of the same letters in another order come first; `likeness` is difflib's ratio, from 0 to 1.
    """
    from difflib import get_close_matches  # takes long to load: only for a slip

    folded = {each.casefold(): each for each in known}
    meant = word.casefold()
    swapped = [each for each in folded if sorted(each) == sorted(meant)]
    found = [meant] if meant in folded else swapped or get_close_matches(meant, folded, 1, likeness)
    return folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ends a message about an unknown word: `: did you mean …?`, or nothing."""
    near = nearest(word, known)
    return f": did you mean {near}?" if near else ""


def none_of(word: str, known: Sequence[str]) -> str:
    """Says that a word is none of the known ones."""
    return f"{word}: is none of {', '.join(known)}" + did_you_mean(word, known)


def money(dollars: float) -> str:
    """Formats dollars; small amounts with four digits behind the point."""
    return f"${dollars:,.2f}" if dollars >= 0.1 or not dollars else f"${dollars:.4f}"


def rate_text(rate: float) -> str:
    """Formats a rate per second, minute or hour, whichever gives a number above 1."""
    if rate >= 1:
        return f"{rate:,.1f}/s" if rate < 100 else f"{rate:,.0f}/s"
    return f"{rate * 60:.1f}/min" if rate * 60 >= 1 else f"{rate * 3600:.1f}/h"


def duration(seconds: float) -> str:
    """Formats seconds: 40 ms, 4.5 s, 45 s, 12 min 30 s, 3 h 20 min, 2 d 4 h."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, below, below_size in (
        (86400, "d", "h", 3600),
        (3600, "h", "min", 60),
        (60, "min", "s", 1),
    ):
        if whole >= size:
            rest = whole % size // below_size
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def bytes_text(size: float | None) -> str:
    """Formats a size in powers of 1000."""
    if size is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def json_kind(value: object) -> str:
    """Says what a JSON value is."""
    kinds = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return kinds.get(type(value), "null" if value is None else "an object")
