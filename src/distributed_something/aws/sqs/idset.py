"""A set of job ids that stays small: 16 to 32 MB for a million, where a set of strings takes 120."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

_FIRST = 1 << 12


class IdSet:
    """Job ids (16 hex digits) as 64-bit numbers in one table; an id can be added, not taken out.

    Ids are hashes, so their own bits say where they belong; where that place is taken, the next free one.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._table = array("Q", bytes(8 * _FIRST))
        self._count = 0
        self._zero = False  # 0 marks a free place, so that id stands here
        for each in ids:
            self.add(each)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, job_id: str) -> bool:
        number = int(job_id, 16)
        return self._table[self._place(number)] == number if number else self._zero

    def __iter__(self) -> Iterator[str]:
        """The ids, in no order."""
        if self._zero:
            yield f"{0:016x}"
        for number in self._table:
            if number:
                yield f"{number:016x}"

    def add(self, job_id: str) -> bool:
        """Add an id; whether it was not there before."""
        number = int(job_id, 16)
        if not number:
            new, self._zero = not self._zero, True
            self._count += new
            return new
        place = self._place(number)
        if self._table[place]:
            return False
        self._table[place] = number
        self._count += 1
        if self._count * 2 > len(self._table):
            self._grow()
        return True

    def _place(self, number: int) -> int:
        table, mask = self._table, len(self._table) - 1
        place = number & mask
        while (found := table[place]) and found != number:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        before = self._table
        self._table = array("Q", bytes(16 * len(before)))
        for number in before:
            if number:
                self._table[self._place(number)] = number
