"""`ds`, and `python -m distributed_something`, which is the same."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn


def run() -> NoReturn:
    """The program: its command, and an end at once.

    All is written and on its way when a command returns. That Python tears down what it has loaded, and
    SQLite folds its log into the queue's file, would take as long as many a command.
    """
    try:
        from .cli.entry import main

        code = main()
    except KeyboardInterrupt:  # before the command line is up
        code = 130
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
