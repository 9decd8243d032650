"""The program `ds`, and `python -m distributed_something`."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn


def run() -> NoReturn:
    """Runs the command and exits at once.

    When a command returns, everything is written. The usual exit of Python would free all modules and make
    SQLite merge its log, which takes as long as a short command.
    """
    if sys.getfilesystemencoding() != "utf-8":  # names of files are UTF-8 in every store, whatever the locale
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
    gc.set_threshold(
        20_000
    )  # a short command makes few circles, and looking for them is a twentieth of its time
    try:
        from .cli.entry import main

        code = main()
    except KeyboardInterrupt:  # before the command line is up
        code = 130
    atexit._run_exitfuncs()  # temporary folders go
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
