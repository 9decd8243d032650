"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import re
import sys
from errno import EACCES, ENOSPC, EROFS
from itertools import takewhile

from . import __version__, arguments
from .engines import ENGINES
from .errors import FAILED, INTERRUPTED, LEFTOVERS, OK, DsError, UsageError
from .words import did_you_mean, many, none_of

TYPE_CHECKING = False  # as in typing, without the milliseconds that typing takes
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from typing import Any, NoReturn

    from .console import Console
    from .engine import PutReport
    from .project import Project
    from .submission import CheckedJobs

    Command = Callable[[Console, argparse.Namespace], int]
    InProject = Callable[[Project, argparse.Namespace], int]


class _Help(argparse.HelpFormatter):
    """Help of a fixed width: argparse asks for the terminal's at every option, which costs milliseconds."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that usage errors look like all others."""

    def _get_formatter(self) -> argparse.HelpFormatter:
        return _Help(self.prog)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", f"{self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but each command refuses what it does not know, in its own name."""
        ends = {*COMMANDS, *REFERENCE_NAMES, "--"}  # what comes later is the command's, or no option
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
    """The parser of a command line. Raises UsageError when it parses something wrong.

    It knows the commands among `words` only, or else all: building all takes longer than most commands.
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
    run, text = COMMANDS[name]
    aliases = [old for old, new in REFERENCE_NAMES.items() if new == name]
    sub = found.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", aliases=aliases)
    sub.set_defaults(run=run)
    _add_common(sub, default=False)
    arguments.add(name, sub)


def _add_common(parser: argparse.ArgumentParser, *, default: bool) -> None:
    """Options that may stand before or after the command; after it they have no default of their own."""

    def add(name: str, text: str, value: object, **more: Any) -> None:
        parser.add_argument(name, help=text, default=value if default else argparse.SUPPRESS, **more)

    engines = [*ENGINES]
    names = f"{', '.join(engines[:-1])} or {engines[-1]}"
    add("-C", "the project folder", ".", dest="folder", metavar="DIR")
    add("--engine", f"{names}, whatever the config says", None, metavar="E", choices=engines)
    add("--json", "print data for programs", False, action="store_true")
    add("--yes", "answer yes to every confirmation", False, action="store_true")
    add("--debug", "show where an error came from", False, action="store_true")


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

    from .console import Console

    Console().say("".join(format_exception(error)).rstrip())


def _tell(error: DsError) -> int:
    from .console import Console

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
    from .console import silence

    try:
        sys.stdout.flush()
    except OSError:
        silence(sys.stdout)


def _execute(options: argparse.Namespace) -> int:
    from pathlib import Path

    from .console import Console

    console = Console(json=options.json, yes=options.yes)
    options.folder = Path(options.folder)
    for name in ("job_file", "fleet_file", "record"):
        if (given := getattr(options, name, None)) is not None:
            setattr(options, name, _find_file(Path(given), options.folder))
    run: Command = options.run
    return run(console, options)


def _in_project(run: InProject) -> Command:
    """The command in the project that -C and --engine choose."""

    def opened(console: Console, options: argparse.Namespace) -> int:
        from .project import Project

        faults = getattr(options, "faults", "")
        return run(Project.open(options.folder, console, options.engine, faults), options)

    return opened


def _find_file(path: Path, folder: Path) -> Path:
    """A file that is named on the command line: from here, or else from the project folder."""
    return path if path.exists() or not (folder / path).exists() else folder / path


def _init(console: Console, options: argparse.Namespace) -> int:
    from pathlib import Path

    from .examples import copy_example

    target = Path(options.target)
    readme = copy_example(options.example, target)
    if console.json:
        console.data({"folder": str(target)})
    console.say(f"made {target}: see {readme}")
    console.hint(f"cd {target} && ds run files/exampleJob.json")
    return OK


def _worker(_console: Console, _options: argparse.Namespace) -> int:
    import os

    from .aws import worker

    return worker.run(os.environ)


def _completion(console: Console, options: argparse.Namespace) -> int:
    import shtab

    console.line(shtab.complete(build_parser("ds", []), options.shell))
    return OK


def _setup(project: Project, options: argparse.Namespace) -> int:
    from . import steps

    if options.dry_run:
        plan = project.engine.plan(steps.next_run(project))
        if project.console.json:
            project.console.data({"plan": list(plan)})
        else:
            for line in plan:
                project.console.line(line)
        return OK
    run = steps.setup(project)
    if project.console.json:
        project.console.data({"app": project.config.app_name, "run": run})
    project.console.say(f"{project.config.app_name} is set up: run {run}")
    project.console.hint(f"ds submit {project.example_jobs}")
    return OK


def _submit(project: Project, options: argparse.Namespace) -> int:
    report = _do_submit(project, _check(project, options))
    if project.console.json:
        facts = {"sent": report.sent, "known": report.known, "failed": dict(report.failed)}
        project.console.data(facts)
    project.console.hint("ds start")
    return OK


def _check(project: Project, options: argparse.Namespace) -> CheckedJobs:
    from . import steps
    from .jobfile import parse_set

    return steps.check(project, options.job_file, parse_set(options.set))


def _do_submit(project: Project, checked: CheckedJobs) -> PutReport:
    """Submit and say what came of it. Raises DsError where the queue refused jobs."""
    from . import steps

    try:
        report = steps.submit(project, checked)
    except KeyboardInterrupt:
        project.console.hint("submit the file again: it adds what is missing")
        raise
    were = "was" if report.known == 1 else "were"
    known = f"; {report.known:,} {were} in the run already" if report.known else ""
    project.console.say(f"{many(report.sent, 'job')} submitted{known}")
    if report.failed:
        job, why = report.failed[0]
        what = f"{many(len(report.failed), 'job', 'was', 'were')} refused by the queue, such as {job}: {why}"
        raise DsError(what, "submit the file again: it adds what is missing, and nothing twice")
    return report


def _start(project: Project, options: argparse.Namespace) -> int:
    from . import steps

    steps.start(project, options.fleet_file)
    try:
        machines = steps.await_machines(project, options.wait * 60)
    except KeyboardInterrupt:
        project.console.say("\nno longer watching; the machines that were asked for still come")
        project.console.hint("ds status, or ds monitor")
        return INTERRUPTED
    if project.console.json:
        facts = {"target": machines.target, "running": machines.running, "lost": machines.lost}
        project.console.data({"run": project.record().run, "machines": facts})
    if machines.running < machines.target:
        wanted = f"{machines.running:,} of {machines.target:,} machines have come; the request stands"
        project.console.say(f"{wanted}: {machines.trouble}" if machines.trouble else wanted)
    at_once = many(machines.slots, "job")
    project.console.say(f"started: {at_once} at a time; the work goes on when this terminal closes")
    project.console.hint("ds monitor")
    return OK


def _monitor(project: Project, options: argparse.Namespace) -> int:
    from . import steps

    try:
        code = steps.monitor(project, options.record, options.every, cheapest=options.cheapest)
    except KeyboardInterrupt:
        project.console.say("\nno longer watching; the work goes on")
        project.console.hint("ds monitor to watch again, ds stop to stop")
        return INTERRUPTED
    if project.config.engine_kind.rehearses:
        _tell_story(project)
    return code


def _tell_story(project: Project) -> None:
    from .rehearsal import story

    found = story.read(project.engine.store, project.paths())
    if found is None:
        return
    if project.console.json:
        project.console.data({"rehearsal": found})
    for line in () if project.console.json else story.lines(found):
        project.console.line(line)


def _run(project: Project, options: argparse.Namespace) -> int:
    from . import steps

    if (fleet := options.fleet_file) is not None and not fleet.is_file():
        raise UsageError(f"{fleet}: there is no such file", "name a fleet file, or none")
    with project.engine.exclusive():
        if fleet is not None:  # a bad file must not cost the last run's queue
            project.engine.check_fleet(fleet)
        checked = _check(project, options)
        steps.setup(project)
        _do_submit(project, checked)
        steps.start(project, options.fleet_file)
        options.record = None
        return _monitor(project, options)


def _status(project: Project, options: argparse.Namespace) -> int:
    from . import views
    from .collector import never_again

    if not options.watch:
        never_again()
    return views.status(project, watch=options.watch)


def _jobs(project: Project, options: argparse.Namespace) -> int:
    from . import views
    from .collector import never_again

    never_again()
    return views.jobs(project, options.state, options.cause, csv=options.csv)


def _logs(project: Project, options: argparse.Namespace) -> int:
    from . import views

    return views.logs(project, options.job, follow=options.follow, attempt=options.attempt)


def _failures(project: Project, _options: argparse.Namespace) -> int:
    from . import views

    return views.failures(project)


def _retry(project: Project, options: argparse.Namespace) -> int:
    from . import steps, views

    ids = views.find_ids(project, options.jobs)
    back = steps.retry(project, options.cause, ids)
    if project.console.json:
        project.console.data({"retried": back})
    project.console.say(f"{many(len(back), 'job')} put back" + ("" if back else ": no such job is dead"))
    if back:
        project.console.hint(_after_retry(project))
    return OK


def _after_retry(project: Project) -> str:
    """What brings workers to the jobs; those of a changed config may come of a new set-up only."""
    if project.engine.machines().running:
        return "ds monitor"
    anew = project.config.engine_kind.works_as_set_up
    first = "ds setup, where the config has changed; " if anew else ""
    return f"{first}ds start, then ds monitor"


def _fleet(project: Project, options: argparse.Namespace) -> int:
    from .aws.newfleet import file_name, write_fleet_file

    region = options.region or project.config.aws_region
    path = project.folder / "files" / file_name(project.config, region)
    if path.exists():
        project.console.confirm(f"{path} is there; replace it")
    write_fleet_file(project.config, region, path)
    if project.console.json:
        project.console.data({"fleet_file": str(path)})
    project.console.say(f"wrote {path}")
    first = "" if region == project.config.aws_region else f"AWS_REGION = '{region}' in the config, then "
    project.console.hint(f"{first}ds start files/{path.name}")
    return OK


def _stop(project: Project, options: argparse.Namespace) -> int:
    from . import steps
    from .console import progress_line

    snapshot = steps.stop(project, now=options.now)
    if project.console.json:
        project.console.data(snapshot.to_json())
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


def _dashboard(project: Project, options: argparse.Namespace) -> int:
    from .dashboard.command import dashboard

    return dashboard(project, options.port)


def _look(project: Project, options: argparse.Namespace) -> int:
    from . import check

    findings = check.make_all(project.checks(options.job_file, options.fleet_file))
    check.show(project.console, findings)
    return check.exit_code(findings)


def _image(project: Project, options: argparse.Namespace) -> int:
    from .image import command

    make = command.worker if options.what == "worker" else command.build
    return make(project, options.tag, push=options.push)


def _account(project: Project, options: argparse.Namespace) -> int:
    from .aws import account_command

    if options.action == "policy":
        return account_command.policy(project, administrator=options.administrator)
    if options.action == "destroy":
        return account_command.destroy(project, dry_run=options.dry_run)
    return account_command.setup(project, dry_run=options.dry_run)


COMMANDS: dict[str, tuple[Command, str]] = {
    "init": (_init, "make a project that runs as it stands"),
    "check": (_in_project(_look), "tell what can be known to be wrong before a run"),
    "setup": (_in_project(_setup), "make the queue and whatever else a run needs"),
    "submit": (_in_project(_submit), "queue the jobs of a job file"),
    "start": (_in_project(_start), "start the machines"),
    "monitor": (_in_project(_monitor), "watch until all is done, then end the machines"),
    "run": (_in_project(_run), "the four steps in a row"),
    "status": (_in_project(_status), "counts, rate, time left, machines"),
    "jobs": (_in_project(_jobs), "one line a job"),
    "logs": (_in_project(_logs), "what a job printed"),
    "failures": (_in_project(_failures), "failed and dead jobs, grouped by cause and last line"),
    "retry": (_in_project(_retry), "put dead jobs back into the queue"),
    "stop": (_in_project(_stop), "drain: running jobs finish, no new ones start"),
    "dashboard": (_in_project(_dashboard), "the run as a web page, for this machine only"),
    "fleet": (_in_project(_fleet), "a fleet file for this account and region"),
    "worker": (_worker, "the process inside a task of the fleet: runs jobs until it is told to stop"),
    "cleanup": (_in_project(_cleanup), "remove everything the run made, but its results"),
    "image": (_in_project(_image), "build an image that has the worker"),
    "account": (_in_project(_account), "once per AWS account: the roles of tasks and machines"),
    "completion": (_completion, "print what a shell needs to complete commands and options"),
}
"""Every command: the function that runs it, and what it does. What it takes is in `arguments`."""

REFERENCE_NAMES = {"submitJob": "submit", "startCluster": "start"}
"""The reference's names of the steps, where they differ."""


if __name__ == "__main__":
    sys.exit(main())
