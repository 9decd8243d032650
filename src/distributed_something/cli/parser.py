"""Builds the argument parser and holds the table of commands. `entry` calls it.

It imports nothing slow: building the parser is most of the time of `ds --help`.
"""

from __future__ import annotations

import argparse
import re
from itertools import takewhile

from .. import __version__
from ..engines import ENGINES
from ..errors import OK, UsageError
from ..words import did_you_mean, none_of
from . import arguments, commands

TYPE_CHECKING = False  # as in typing, without the milliseconds that typing takes
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn

    from ..console import Console

    Command = Callable[[Console, argparse.Namespace], int]
    AddArguments = Callable[[argparse.ArgumentParser], None]


class _Help(argparse.HelpFormatter):
    """Formats help at a fixed width. argparse would ask for the terminal's at every option, which is slow."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that usage errors look like all others."""

    def _get_formatter(self) -> argparse.HelpFormatter:
        return _Help(self.prog)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", f"{self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses as argparse does, except that each command reports its own unknown words."""
        ends = {*COMMANDS, *REFERENCE_NAMES, "--"}  # later words belong to the command
        for word in takewhile(lambda word: word not in ends, args or ()):
            name = word.partition("=")[0]
            if re.fullmatch("--[a-z-]+", name) and not any(each.startswith(name) for each in self._options):
                self._unknown(name)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._unknown(unknown[0])
        return found, unknown

    def _unknown(self, word: str) -> NoReturn:
        what = "option" if word.startswith("-") else "argument"
        self.error(f"unknown {what} {word}" + did_you_mean(word, self._options))

    @property
    def _options(self) -> Iterable[str]:
        return self._option_string_actions

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        if action.dest == "command":
            self.error(f"unknown command {value}" + did_you_mean(value, [*COMMANDS, *REFERENCE_NAMES]))
        raise argparse.ArgumentError(action, none_of(value, list(action.choices)))


def build_parser(prog: str, words: Sequence[str]) -> argparse.ArgumentParser:
    """Returns the parser of a command line. It raises UsageError for a wrong one.

    It knows only the commands among `words`, or all if there is none: building all is slow.
    """
    parser = _Parser(
        prog=prog,
        description="Run one command or Python function over many independent jobs.",
        epilog="The four steps in a row: ds run files/exampleJob.json",
    )
    parser.add_argument("--version", action="version", version=__version__)
    _add_common(parser, default=True)
    found = parser.add_subparsers(
        metavar="COMMAND", required=True, dest="command", prog=prog, parser_class=_Parser
    )
    called = {REFERENCE_NAMES.get(word, word) for word in words} & COMMANDS.keys()
    for name in COMMANDS if not called or words[0] in ("-h", "--help") else called:
        _add_command(found, name)
    return parser


def _add_command(found: argparse._SubParsersAction[_Parser], name: str) -> None:
    run, text, add_arguments = COMMANDS[name]
    aliases = [old for old, new in REFERENCE_NAMES.items() if new == name]
    sub = found.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", aliases=aliases)
    sub.set_defaults(run=run)
    _add_common(sub, default=False)
    if add_arguments is not None:
        add_arguments(sub)


def _add_common(parser: argparse.ArgumentParser, *, default: bool) -> None:
    """Adds the options that may stand before or after the command. After it they have no default."""

    def add(name: str, text: str, value: object, **more: Any) -> None:
        parser.add_argument(name, help=text, default=value if default else argparse.SUPPRESS, **more)

    engines = [*ENGINES]
    names = f"{', '.join(engines[:-1])} or {engines[-1]}"
    add("-C", "the project folder", ".", dest="folder", metavar="DIR")
    add("--engine", f"{names}, whatever the config says", None, metavar="E", choices=engines)
    add("--json", "print data for programs", False, action="store_true")
    add("--yes", "answer yes to every confirmation", False, action="store_true")
    add("--debug", "show where an error came from", False, action="store_true")


def do_completion(console: Console, options: argparse.Namespace) -> int:
    """Runs `ds completion`."""
    import shtab

    console.line(shtab.complete(build_parser("ds", []), options.shell))
    return OK


COMMANDS: dict[str, tuple[Command, str, AddArguments | None]] = {
    "init": (
        commands.do_init,
        "make a project: an example, or one for the files of a folder",
        arguments.init,
    ),
    "jobfile": (commands.do_jobfile, "a job file from files, lists of values or a table", arguments.jobfile),
    "check": (commands.do_check, "tell what can be known to be wrong before a run", arguments.check),
    "try": (commands.do_try, "run one job of a file, here and now", arguments.try_),
    "replay": (commands.do_replay, "run a job of a run again, here and now", arguments.replay),
    "setup": (commands.do_setup, "make the queue and whatever else a run needs", arguments.setup),
    "submit": (commands.do_submit, "queue the jobs of a job file", arguments.submit),
    "start": (commands.do_start, "start the machines", arguments.start),
    "monitor": (commands.do_monitor, "watch until all is done, then end the machines", arguments.monitor),
    "run": (commands.do_run, "the four steps in a row", arguments.run),
    "status": (commands.do_status, "counts, rate, time left, machines", arguments.status),
    "wait": (commands.do_wait, "wait until the run has ended", arguments.wait),
    "runs": (commands.do_runs, "every run of the project; what differs between two", arguments.runs),
    "report": (commands.do_report, "where the report of a run is; made again if need be", arguments.report),
    "jobs": (commands.do_jobs, "one line a job", arguments.jobs),
    "logs": (commands.do_logs, "what a job printed", arguments.logs),
    "failures": (
        commands.do_failures,
        "failed and dead jobs, grouped by cause and last line",
        arguments.failures,
    ),
    "retry": (commands.do_retry, "put dead jobs back into the queue", arguments.retry),
    "drop": (
        commands.do_drop,
        "take junk jobs out, so that the run can end without dead jobs",
        arguments.drop,
    ),
    "repair": (commands.do_repair, "rebuild a damaged queue from the ledger", None),
    "stop": (commands.do_stop, "drain: running jobs finish, no new ones start", arguments.stop),
    "dashboard": (commands.do_dashboard, "the run as a web page, for this machine only", arguments.dashboard),
    "fleet": (commands.do_fleet, "a fleet file for this account and region", arguments.fleet),
    "worker": (
        commands.do_worker,
        "the process inside a task: runs jobs until it is stopped",
        arguments.worker,
    ),
    "cleanup": (commands.do_cleanup, "remove everything the run made, but its results", None),
    "image": (commands.do_image, "build an image that has the worker", arguments.image),
    "account": (commands.do_account, "once per AWS account: roles of tasks and machines", arguments.account),
    "completion": (do_completion, "print the completion script of a shell", arguments.completion),
}
"""For every command: the function that runs it, what it does, and the function that adds its arguments."""


REFERENCE_NAMES = {"submitJob": "submit", "startCluster": "start"}
"""Names of the reference's steps that differ from ours."""
