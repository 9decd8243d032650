"""Hides secrets in what jobs print, and in the reasons of failures. Called by the executor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

HIDDEN = b"***"

LEAST_BYTES = 4
"""Length from which a secret is hidden: a shorter one would be found in every word."""


class Mask:
    """Passes text on, with each secret replaced. A secret may arrive in parts."""

    def __init__(self, write: Callable[[bytes], None], secrets: Iterable[bytes]) -> None:
        hidden = sorted((each for each in secrets if len(each) >= LEAST_BYTES), key=len, reverse=True)
        self._write = write
        self._secrets = hidden
        self._any = re.compile(b"|".join(map(re.escape, hidden))) if hidden else None
        self._held = b""

    def __call__(self, data: bytes) -> None:
        """Writes what cannot be a part of a secret, and holds the rest back."""
        if self._any is None:
            self._write(data)
            return
        data = self._held + data
        ready = len(data) - max(_begun(data, each) for each in self._secrets)
        across = (each.start() for each in self._any.finditer(data) if each.start() < ready < each.end())
        ready = next(across, ready)
        self._held = data[ready:]
        if ready:
            self._write(self._any.sub(HIDDEN, data[:ready]))

    def flush(self) -> None:
        """Writes what was held back: no more will come."""
        if self._any is not None and self._held:
            self._write(self._any.sub(HIDDEN, self._held))
            self._held = b""

    def hide(self, text: str) -> str:
        """Returns a text with each secret replaced, and what may be the beginning of one at its end."""
        if self._any is None:
            return text
        data = self._any.sub(HIDDEN, text.encode("utf-8", "replace"))
        begun = max(_begun(data, each) for each in self._secrets)
        if begun >= LEAST_BYTES:
            data = data[:-begun] + HIDDEN
        return data.decode("utf-8", "replace")


def _begun(text: bytes, secret: bytes) -> int:
    """Returns how many bytes at the end of the text begin the secret."""
    most = min(len(text), len(secret) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(secret[:size])), 0)
