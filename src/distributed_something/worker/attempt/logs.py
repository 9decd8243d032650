"""Keeps what jobs print, within bounds, in a segment that a slot's jobs share. Called by slots.

A file for each job would be slow and dear at a million jobs. So the text of one attempt is a piece of the
slot's segment, and the ledger says where: `logs/<worker>-<slot>.log@<offset>+<length>`.
"""

from __future__ import annotations

from ...engine import Store

HEAD_BYTES = 1 << 20
TAIL_BYTES = 1 << 20
"""Kept bytes at the start and at the end of an attempt's text; the middle of a longer one is left out."""


class SlotLog:
    """The log segment of one slot. Not thread-safe: a slot has one thread.

    Writing never raises: a job does not fail because its log could not be kept. `lost` then says
    so, and the slot puts it into the outcome.
    """

    def __init__(self, store: Store, root: str, name: str) -> None:
        self._store = store
        self._key = root + name
        self._name = name
        self._size = 0
        self._tail = bytearray()
        self.begin()

    def begin(self) -> None:
        """Starts the text of a new attempt."""
        self._start = self._size
        self._tail.clear()
        self._left_out = 0
        self.lost = False

    @property
    def place(self) -> str:
        """The place at which the attempt's text begins, without its length."""
        return f"{self._name}@{self._start}"

    def write(self, data: bytes) -> None:
        """Adds to the attempt's text: the head is stored at once, the tail waits for `end`."""
        room = HEAD_BYTES - (self._size - self._start)
        if room > 0:
            self._append(data[:room])
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * TAIL_BYTES:
            self._left_out += len(self._tail) - TAIL_BYTES
            del self._tail[:-TAIL_BYTES]

    def note(self, text: str) -> None:
        """Adds a line of our own."""
        self.write(f"[ds] {text}\n".encode("utf-8", "replace"))

    def end(self) -> str | None:
        """Ends the attempt's text. Returns its place; None: nothing was printed."""
        self._left_out += max(0, len(self._tail) - TAIL_BYTES)
        if self._left_out:
            self._append(b"\n[ds] ... %d bytes left out ...\n" % self._left_out)
        if self._tail:
            self._append(bytes(self._tail[-TAIL_BYTES:]))
        length = self._size - self._start
        return f"{self._name}@{self._start}+{length}" if length else None

    def tail(self, limit: int) -> bytes:
        """Returns the last bytes of the attempt's text, which may say why it failed."""
        if len(self._tail) >= limit or self._size == self._start:
            return bytes(self._tail[-limit:])
        start = max(self._start, self._size - limit)
        try:
            return self._store.read(self._key, start, self._size - start) + bytes(self._tail)
        except Exception:  # noqa: BLE001  the reason of a failure must not hide behind another one
            return bytes(self._tail[-limit:])

    def _append(self, data: bytes) -> None:
        try:
            self._store.append(self._key, data)
        except Exception:  # noqa: BLE001  whatever the store raises, the job goes on
            self.lost = True
        else:
            self._size += len(data)
