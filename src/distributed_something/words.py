"""Words for people: numbers and what they count, and what a mistyped word was meant to be. Pure."""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, without the milliseconds that typing takes
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


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


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message on a word that is not known: nothing where none is like it."""
    near = nearest(word, known)
    return f": did you mean {near}?" if near else ""


def none_of(word: str, known: Sequence[str]) -> str:
    """What is wrong with a word that is none of the known ones."""
    return f"{word}: is none of {', '.join(known)}" + did_you_mean(word, known)
