"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import __version__
from .errors import FAILED, INTERRUPTED, LEFTOVERS, OK, DsError, UsageError

if TYPE_CHECKING:
    from .console import Console
    from .project import Project

REFERENCE_NAMES = {"submitJob": "submit", "startCluster": "start"}
"""The reference's names of the steps, where they differ."""

Command = Callable[["Project", argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that usage errors look like all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", f"{self.prog} --help")


def build_parser(prog: str = "ds") -> argparse.ArgumentParser:
    """The parser of every command; each subparser carries the function that runs it."""
    parser = _Parser(
        prog=prog,
        description="Run one command or Python function over many independent jobs.",
        epilog="The four steps in a row: ds run files/exampleJob.json",
    )
    parser.add_argument("--version", action="version", version=__version__)
    _add_common(parser, default=True)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command", parser_class=_Parser)

    def add(name: str, run: Command, text: str, *, project: bool = True) -> argparse.ArgumentParser:
        aliases = [old for old, new in REFERENCE_NAMES.items() if new == name]
        sub = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", aliases=aliases
        )
        _add_common(sub, default=False)
        sub.set_defaults(run=run, needs_project=project)
        return sub

    _add_steps(add)
    _add_views(add)
    _add_repairs(add)
    return parser


def _add_common(parser: argparse.ArgumentParser, *, default: bool) -> None:
    """Options that may stand before or after the command; after it they have no default of their own."""
    unset = argparse.SUPPRESS

    def flag(name: str, text: str) -> None:
        parser.add_argument(name, action="store_true", help=text, default=False if default else unset)

    parser.add_argument(
        "-C",
        dest="folder",
        metavar="DIR",
        type=Path,
        help="the project folder",
        default=Path() if default else unset,
    )
    parser.add_argument(
        "--engine",
        metavar="E",
        choices=["local", "aws", "rehearsal"],
        help="local, aws or rehearsal, whatever the config says",
        default=None if default else unset,
    )
    flag("--json", "print data for programs")
    flag("--yes", "answer yes to every confirmation")
    flag("--debug", "show where an error came from")


Add = Callable[..., argparse.ArgumentParser]


def _add_steps(add: Add) -> None:
    init = add("init", _init, "make a project that runs as it stands", project=False)
    init.add_argument("target", metavar="DIR", type=Path)
    init.add_argument(
        "--example", choices=["images", "text"], default="images", help="which example (images)"
    )
    add("setup", _setup, "make the queue and whatever else a run needs")
    submit = add("submit", _submit, "queue the jobs of a job file")
    _add_job_file(submit)
    start = add("start", _start, "start the machines")
    start.add_argument("fleet_file", metavar="FLEETFILE", type=Path, nargs="?")
    start.add_argument(
        "--wait", metavar="MINUTES", type=float, default=10, help="how long to watch them come (10)"
    )
    monitor = add("monitor", _monitor, "watch until all is done, then end the machines")
    monitor.add_argument("record", metavar="RECORD", type=Path, nargs="?")
    _add_every(monitor)
    run = add("run", _run, "the four steps in a row")
    _add_job_file(run)
    run.add_argument("fleet_file", metavar="FLEETFILE", type=Path, nargs="?")
    _add_every(run)


def _add_job_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job_file", metavar="JOBFILE", type=Path, help=".json, .jsonl or .csv")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a shared key")


def _add_every(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every", metavar="SECONDS", type=_positive, help="time between two looks")
    parser.add_argument(
        "--cheapest", action="store_true", help="keep one machine once the queue runs low (aws)"
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text}: must be more than 0 seconds")
    return value


def _add_views(add: Add) -> None:
    status = add("status", _status, "counts, rate, time left, machines")
    status.add_argument("--watch", action="store_true", help="go on until the run has ended")
    jobs = add("jobs", _jobs, "one line a job")
    jobs.add_argument(
        "--state", choices=["waiting", "running", "succeeded", "failed", "dead", "skipped"], help="only these"
    )
    jobs.add_argument("--cause", metavar="C", help="only jobs with this cause")
    jobs.add_argument("--csv", action="store_true", help="as CSV")
    logs = add("logs", _logs, "what a job printed")
    logs.add_argument("job", metavar="JOB", help="its id, the start of its id, or its index")
    logs.add_argument("--follow", action="store_true", help="go on while it runs")
    add("failures", _failures, "failed and dead jobs, grouped by cause and last line")


def _add_repairs(add: Add) -> None:
    retry = add("retry", _retry, "put dead jobs back into the queue")
    retry.add_argument("--state", choices=["dead"], default="dead", help="which jobs (dead)")
    retry.add_argument("--cause", metavar="C", action="append", default=[], help="only jobs with this cause")
    retry.add_argument("jobs", metavar="JOB", nargs="*", help="ids, starts of ids, or indexes")
    stop = add("stop", _stop, "drain: running jobs finish, no new ones start")
    stop.add_argument("--now", action="store_true", help="running jobs go back to the queue at once")
    add("cleanup", _cleanup, "remove everything the run made, but its results")


def main(argv: Sequence[str] | None = None, *, reference: bool = False) -> int:
    """Run a command; its exit code. `reference` reads the arguments as the reference's run.py does."""
    from .console import Console

    args = list(sys.argv[1:] if argv is None else argv)
    console = Console(json="--json" in args)
    try:
        options = build_parser("run.py" if reference else "ds").parse_args(
            _as_ours(args) if reference else args
        )
        console.yes = options.yes
        return _execute(options, console)
    except DsError as error:
        if "--debug" in args:
            raise
        console.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        console.say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return FAILED
    except OSError as error:
        if "--debug" in args:
            raise
        where = f"{error.filename}: " if error.filename else ""
        console.error(DsError(f"{where}{error.strerror or error}", "add --debug to see where it happened"))
        return FAILED


def _as_ours(args: Sequence[str]) -> list[str]:
    """The reference's `monitor RECORD True` is our `monitor RECORD --cheapest`; `False` is nothing."""
    if args and args[0] == "monitor" and len(args) > 2 and args[-1].lower() in ("true", "false"):
        return [*args[:-1], *(["--cheapest"] if args[-1].lower() == "true" else [])]
    return list(args)


def _silence_stdout() -> None:
    """Whoever read our output has gone: let Python's last flush go nowhere."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _execute(options: argparse.Namespace, console: Console) -> int:
    if not options.needs_project:
        code: int = options.run(console, options)
        return code
    from .project import Project

    return int(options.run(Project.open(options.folder, console, options.engine), options))


def _init(console: Console, options: argparse.Namespace) -> int:
    from .examples import copy_example

    readme = copy_example(options.example, options.target)
    console.say(f"made {options.target}: see {readme}")
    console.hint(f"cd {options.target} && ds run files/exampleJob.json")
    return OK


def _setup(project: Project, _options: argparse.Namespace) -> int:
    from . import steps

    run = steps.setup(project)
    if project.console.json:
        project.console.data({"app": project.config.app_name, "run": run})
    project.console.say(f"{project.config.app_name} is set up: run {run}")
    project.console.hint("ds submit files/exampleJob.json")
    return OK


def _submit(project: Project, options: argparse.Namespace) -> int:
    _do_submit(project, options)
    project.console.hint("ds start")
    return OK


def _do_submit(project: Project, options: argparse.Namespace) -> None:
    from . import steps
    from .jobfile import parse_set

    report = steps.submit(project, options.job_file, parse_set(options.set))
    if project.console.json:
        project.console.data({"sent": report.sent, "known": report.known})
        return
    known = f"; {report.known:,} were in the run already" if report.known else ""
    project.console.say(f"{report.sent:,} jobs submitted{known}")


def _start(project: Project, options: argparse.Namespace) -> int:
    from . import steps

    steps.start(project, options.fleet_file)
    machines = project.engine.machines()
    project.console.say(
        f"started: {machines.slots} jobs at a time; the work goes on when this terminal closes"
    )
    project.console.hint("ds monitor")
    return OK


def _monitor(project: Project, options: argparse.Namespace) -> int:
    from . import steps

    try:
        return steps.monitor(project, options.record, options.every)
    except KeyboardInterrupt:
        project.console.say("\nno longer watching; the work goes on")
        project.console.hint("ds monitor to watch again, ds stop to stop")
        return INTERRUPTED


def _run(project: Project, options: argparse.Namespace) -> int:
    from . import steps

    with project.engine.exclusive():
        quiet = project.console.json
        steps.setup(project)
        from .jobfile import parse_set

        report = steps.submit(project, options.job_file, parse_set(options.set))
        if not quiet:
            known = f"; {report.known:,} were in the run already" if report.known else ""
            project.console.say(f"{report.sent:,} jobs submitted{known}")
        steps.start(project, options.fleet_file)
        options.record = None
        return _monitor(project, options)


def _status(project: Project, options: argparse.Namespace) -> int:
    from . import views

    return views.status(project, watch=options.watch)


def _jobs(project: Project, options: argparse.Namespace) -> int:
    from . import views

    return views.jobs(project, options.state, options.cause, csv=options.csv)


def _logs(project: Project, options: argparse.Namespace) -> int:
    from . import views

    return views.logs(project, options.job, follow=options.follow)


def _failures(project: Project, _options: argparse.Namespace) -> int:
    from . import views

    return views.failures(project)


def _retry(project: Project, options: argparse.Namespace) -> int:
    from . import steps, views

    ids = views.find_ids(project, options.jobs)
    back = steps.retry(project, options.cause, ids)
    if project.console.json:
        project.console.data({"retried": back})
    project.console.say(f"{len(back):,} jobs put back")
    if back:
        project.console.hint("ds start, then ds monitor")
    return OK


def _stop(project: Project, options: argparse.Namespace) -> int:
    from . import steps
    from .console import progress_line

    snapshot = steps.stop(project, now=options.now)
    project.console.say(f"stopped: {progress_line(snapshot)}")
    return OK


def _cleanup(project: Project, _options: argparse.Namespace) -> int:
    from . import steps

    leftovers = steps.cleanup(project)
    if project.console.json:
        project.console.data({"leftovers": leftovers})
    for leftover in leftovers:
        project.console.say(f"still there: {leftover}")
    if leftovers:
        return LEFTOVERS
    kept = project.engine.store.locate(f"runs/{project.config.app_name}")
    project.console.say(f"clean: nothing is left but the results ({kept} has logs and ledger)")
    return OK


if __name__ == "__main__":
    sys.exit(main())
