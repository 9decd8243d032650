"""Numbers and what they count, in English. Pure."""

from __future__ import annotations


def many(number: int, thing: str, does: str = "", do: str = "") -> str:
    """`1 job`, `2,000 jobs`; with verbs `1 job is` and `2 jobs are` for `many(n, "job", "is", "are")`."""
    counted = f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
    return " ".join(filter(None, [counted, does if number == 1 else do]))
