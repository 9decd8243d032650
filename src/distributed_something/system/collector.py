"""Turns Python's garbage collector off where it only costs time. Called by workers and commands."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Runs a block without the collector: jobs and events make no cycles, and looking for them is slow."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def never_again() -> None:
    """Turns the collector off for good, in a process that looks once and ends."""
    gc.disable()
