"""Runs one command line: parses it, calls the command, prints every error as one line.

Here every error becomes words and an exit code. Nothing else in the package catches what nothing foresaw.
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
    """Run a command; its exit code. `reference` reads the arguments as the reference's run.py does."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    _replace_closed_streams()
    try:
        words = as_ours(args) if reference else args
        try:
            return _execute(build_parser("run.py" if reference else "ds", words).parse_args(words))
        finally:
            sys.stdout.flush()  # where that fails it is told here, and not by Python when all is over
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _settle_stdout()
        return FAILED
    except Exception as error:  # noqa: BLE001 - whatever it is, a person reads one line of it
        _settle_stdout()
        if debug:
            _tell_where(error)
        return _tell(in_our_words(error))


_EXTRAS = {"boto3": "aws", "botocore": "aws", "obstore": "aws", "moto": "rehearsal", "flask": "rehearsal"}
"""What of ours is installed only on request, and by which extra."""


_OF_THE_SYSTEM = {
    EACCES: "check the rights on it and on its folder, or ",
    EROFS: "have that disk mounted for writing, or ",
    ENOSPC: "make room on that disk, or ",
}
"""What to do about errors of the system, wherever they come up."""


def in_our_words(error: Exception) -> DsError:
    """Any error as one line and a fix: ours as it is, what nothing foresaw as a fault of ds."""
    if isinstance(error, DsError):
        return error
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get(str(error.name).partition(".")[0])):
        return DsError(f"{error.name} is not installed", f"pip install 'distributed-something[{extra}]'")
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        fix = _OF_THE_SYSTEM.get(error.errno or 0, "")
        return DsError(f"{where}{error.strerror or error}", f"{fix}add --debug to see where it happened")
    what = f"a fault in ds itself: {type(error).__name__}: {error}".splitlines()[0]
    return DsError(what, "add --debug to see where it happened, and report it; nothing of the run is lost")


def _tell_where(error: Exception) -> None:
    from traceback import format_exception

    from ..console import Console

    Console().say("".join(format_exception(error)).rstrip())


def _tell(error: DsError) -> int:
    from ..console import Console

    Console().error(error)
    return error.exit_code


def as_ours(args: Sequence[str]) -> list[str]:
    """The reference's `monitor RECORD True` is our `monitor RECORD --cheapest`; `False` is nothing."""
    behind = args.index("monitor") + 2 if "monitor" in args else len(args)
    ours = {"true": ["--cheapest"], "false": []}
    return [*args[:behind], *(each for word in args[behind:] for each in ours.get(word.lower(), [word]))]


def _replace_closed_streams() -> None:
    """A stream that whoever started us closed (`>&-`) leads nowhere, and no file comes to be in its place."""
    import os

    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def _settle_stdout() -> None:
    """Whoever read our output has gone, or its disk is full: let Python's last flush go nowhere."""
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
    """A file that is named on the command line: from here, or else from the project folder."""
    return path if path.exists() or not (folder / path).exists() else folder / path
