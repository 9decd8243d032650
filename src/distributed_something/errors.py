"""Defines the errors that a person reads: what happened and why on one line, then what to do about it."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
SOME_DEAD = 3
LEFTOVERS = 4
INTERRUPTED = 130


class DsError(Exception):
    """Something of ours or of the world went wrong.

    `what` is one line ("what: why"); `fix` says what the user can do now, or is empty.
    The command line prints both and ends with `exit_code`.
    """

    exit_code = FAILED

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class UsageError(DsError):
    """The command line, or a file that the user wrote, is wrong; nothing was changed."""

    exit_code = USAGE


class Unreachable(DsError):
    """A service did not answer, or throttles: a retry may succeed, and nothing was lost."""


class QueueDamaged(DsError):
    """The queue is not what was written into it. No retry helps; it is rebuilt from the ledger."""


class QueueIncomplete(DsError):
    """A queue of the run is missing: `setup` makes it, and the run goes on."""


class SickMachine(DsError):
    """The machine, or its way to the store, cannot work now: no job is at fault."""


class NotSignedIn(DsError):
    """The account does not accept the credentials: no call can succeed."""


class KeyRefused(DsError):
    """A store key that could lead out of the store: nothing was touched."""


class KeyMissing(DsError):
    """No file with that key in the store."""
