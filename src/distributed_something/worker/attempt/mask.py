"""Hides secrets in what jobs print. Called by the executor, between a job's output and its log."""

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
        text = self._any.sub(HIDDEN, self._held + data)
        held = max((_begun(text, each) for each in self._secrets), default=0)
        self._held = text[len(text) - held :]
        if ready := text[: len(text) - held]:
            self._write(ready)

    def flush(self) -> None:
        """Writes what was held back: no more will come."""
        if self._held:
            self._write(self._held)
            self._held = b""


def _begun(text: bytes, secret: bytes) -> int:
    """Returns how many bytes at the end of the text begin the secret."""
    most = min(len(text), len(secret) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(secret[:size])), 0)
