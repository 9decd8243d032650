"""Runs one command line: parses it, calls the command, prints every error as one line.

Every error becomes a message and an exit code here. No other module catches unexpected errors.
"""

from __future__ import annotations

import argparse
import sys
from errno import EACCES, ENOSPC, EROFS

from ..errors import FAILED, INTERRUPTED, DsError
from .parser import build_parser

TYPE_CHECKING = False  # as in typing, without the milliseconds that typing takes
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ..console import Console

    Command = Callable[[Console, argparse.Namespace], int]


def main(argv: Sequence[str] | None = None, *, reference: bool = False) -> int:
    """Run a command and return its exit code. `reference`: read arguments as the reference's run.py does."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    _replace_closed_streams()
    try:
        words = as_ours(args) if reference else args
        try:
            return _execute(build_parser("run.py" if reference else "ds", words).parse_args(words))
        finally:
            sys.stdout.flush()  # an error of this flush is reported below; Python's own last flush could not
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _settle_stdout()
        return FAILED
    except Exception as error:  # noqa: BLE001 - users read one line, whatever the error is
        _settle_stdout()
        if debug:
            _print_traceback(error)
        return _report(in_our_words(error))


_EXTRAS = {"boto3": "aws", "botocore": "aws", "obstore": "aws", "moto": "rehearsal", "flask": "rehearsal"}
"""Modules of the optional dependencies, and the extra that installs each."""


_OF_THE_SYSTEM = {
    EACCES: "check the rights on it and on its folder, or ",
    EROFS: "have that disk mounted for writing, or ",
    ENOSPC: "make room on that disk, or ",
}
"""How to fix errors of the operating system."""


def in_our_words(error: Exception) -> DsError:
    """Returns any error as one line and a fix. An unexpected error is reported as a fault of ds."""
    if isinstance(error, DsError):
        return error
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get(str(error.name).partition(".")[0])):
        return DsError(f"{error.name} is not installed", f"pip install 'distributed-something[{extra}]'")
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        from ..system.files import FEWER_FILES, TOO_MANY_FILES

        if error.errno in TOO_MANY_FILES:
            return DsError(f"{where}{error.strerror}", FEWER_FILES)
        fix = _OF_THE_SYSTEM.get(error.errno or 0, "")
        return DsError(f"{where}{error.strerror or error}", f"{fix}add --debug to see where it happened")
    what = f"a fault in ds itself: {type(error).__name__}: {error}".splitlines()[0]
    return DsError(what, "add --debug to see where it happened, and report it; nothing of the run is lost")


def _print_traceback(error: Exception) -> None:
    from traceback import format_exception

    from ..console import Console

    Console().say("".join(format_exception(error)).rstrip())


def _report(error: DsError) -> int:
    from ..console import Console

    Console().error(error)
    return error.exit_code


def as_ours(args: Sequence[str]) -> list[str]:
    """Translates the reference's `monitor RECORD True` into `monitor RECORD --cheapest`. Drops `False`."""
    behind = args.index("monitor") + 2 if "monitor" in args else len(args)
    ours = {"true": ["--cheapest"], "false": []}
    return [*args[:behind], *(each for word in args[behind:] for each in ours.get(word.lower(), [word]))]


def _replace_closed_streams() -> None:
    """Reopens closed standard streams (`>&-`) on /dev/null, so that no later file gets their descriptor."""
    import os

    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def _settle_stdout() -> None:
    """Flush stdout. If its reader has gone or its disk is full, send Python's last flush to /dev/null."""
    from ..console import silence

    try:
        sys.stdout.flush()
    except OSError:
        silence(sys.stdout)


def _execute(options: argparse.Namespace) -> int:
    from pathlib import Path

    from ..console import Console

    console = Console(json=options.json, yes=options.yes)
    options.folder = Path(options.folder)
    for name in ("job_file", "fleet_file", "record"):
        if (given := getattr(options, name, None)) is not None:
            setattr(options, name, _find_file(Path(given), options.folder))
    run: Command = options.run
    return run(console, options)


def _find_file(path: Path, folder: Path) -> Path:
    """Returns a file named on the command line: relative to this folder, or else to the project folder."""
    return path if path.exists() or not (folder / path).exists() else folder / path
