"""Words for people: numbers and what they count, and what a mistyped word was meant to be. Pure."""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, without the milliseconds that typing takes
if TYPE_CHECKING:
    from collections.abc import Iterable


def many(number: int, thing: str, does: str = "", do: str = "") -> str:
    """`1 job`, `2,000 jobs`; with verbs `1 job is` and `2 jobs are` for `many(n, "job", "is", "are")`."""
    counted = f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
    return " ".join(filter(None, [counted, does if number == 1 else do]))


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known word that this one is a slip of, in capitals or not; None where none is so like it.

    The same letters in another order come before all others; `likeness` is difflib's, from 0 to 1.
    """
    from difflib import get_close_matches  # takes long to load: only for a slip

    folded = {each.casefold(): each for each in known}
    meant = word.casefold()
    swapped = [each for each in folded if sorted(each) == sorted(meant)]
    found = [meant] if meant in folded else swapped or get_close_matches(meant, folded, 1, likeness)
    return folded[found[0]] if found else None
