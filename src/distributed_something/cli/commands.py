"""The commands: each calls a step or a view and prints the result. `parser.COMMANDS` lists them.

A module that is slow to import is imported inside the command that needs it.
"""

from __future__ import annotations

import argparse

from ..errors import INTERRUPTED, LEFTOVERS, OK, USAGE, DsError, UsageError
from ..words import many

TYPE_CHECKING = False  # as in typing, without the milliseconds that typing takes
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..console import Console
    from ..inputs.checks.fit import CheckedJobs
    from ..steps.project import Project

    Command = Callable[[Console, argparse.Namespace], int]
    InProject = Callable[[Project, argparse.Namespace], int]


def in_project(run: InProject) -> Command:
    """Makes a command run in the project that -C and --engine choose."""

    def opened(console: Console, options: argparse.Namespace) -> int:
        from ..steps.project import Project

        faults, shown = getattr(options, "faults", ""), getattr(options, "run_id", None)
        return run(Project.open(options.folder, console, options.engine, faults, shown), options)

    return opened


def do_init(console: Console, options: argparse.Namespace) -> int:
    from pathlib import Path
    from shlex import quote

    from .init import adopt, copy_example, is_free

    target = Path(options.folder if options.target is None else options.target)
    if options.example is None and not is_free(target):
        commands = adopt(console, target, options)
        if target.resolve() != Path.cwd():
            commands.insert(0, f"cd {quote(str(target))}")
    else:
        readme = copy_example(options.example or "images", target)
        console.say(f"made {target}: see {readme}")
        commands = ["ds run files/exampleJob.json"]
        if target.resolve() != Path.cwd():
            commands = [f"cd {quote(str(target))} && {commands[0]}"]
    if console.json:
        console.data({"folder": str(target)})
    for command in commands:
        console.hint(command)
    return OK


def do_worker(_console: Console, _options: argparse.Namespace) -> int:
    import os

    from ..aws import worker

    return worker.run(os.environ)


@in_project
def do_setup(project: Project, options: argparse.Namespace) -> int:
    from ..steps.setup import next_run, setup

    if options.dry_run:
        plan = project.engine.plan(next_run(project))
        if project.console.json:
            project.console.data({"plan": list(plan)})
        else:
            for line in plan:
                project.console.line(line)
        return OK
    run = setup(project)
    if project.console.json:
        project.console.data({"app": project.config.app_name, "run": run})
    project.console.say(f"{project.config.app_name} is set up: run {run}")
    project.console.hint(f"ds submit {project.example_jobs}")
    return OK


@in_project
def do_submit(project: Project, options: argparse.Namespace) -> int:
    if options.dry_run:
        return _show_submission(project, options)
    from ..steps.submit import submit_checked

    report = submit_checked(project, _check(project, options))
    if project.console.json:
        facts = {"sent": report.sent, "known": report.known, "failed": dict(report.failed)}
        project.console.data(facts)
    project.console.hint("ds start")
    return OK


def _show_submission(project: Project, options: argparse.Namespace) -> int:
    """Check the job file and show its first jobs. Queues nothing."""
    from .views.preview import show_first

    checked = _check(project, options)
    show_first(project, checked.file, options.show)
    project.console.say(f"{many(checked.total, 'job')} would be submitted; nothing was")
    return OK


def _check(project: Project, options: argparse.Namespace) -> CheckedJobs:
    """Checks the job file. A dry run shows what is missing, and does not refuse it."""
    from ..inputs.jobs.jobfile import parse_set
    from ..steps.submit import check

    unchecked = options.unchecked or getattr(options, "dry_run", False)
    return check(project, options.job_file, parse_set(options.set), unchecked=unchecked)


@in_project
def do_start(project: Project, options: argparse.Namespace) -> int:
    from ..steps.start import await_machines, mend, raise_budget, show_rest, start

    mend(project)
    if options.budget is not None:
        limits = raise_budget(project, options.budget)
        shown = [f"${limits.usd:,.2f}"] if limits.usd is not None else []
        shown += [f"{limits.hours:g} machine-hours"] if limits.hours is not None else []
        project.console.say(f"the budget is now {' and '.join(shown)}")
        machines = project.engine.machines()
        if machines.running and not machines.draining:
            project.console.say("no machines were asked for: those of the run go on")
            project.console.hint("ds monitor")
            return OK
    show_rest(project, options.fleet_file)
    start(project, options.fleet_file)
    try:
        machines = await_machines(project, options.wait * 60)
    except KeyboardInterrupt:
        project.console.say("\nno longer watching; the machines that were asked for still come")
        project.console.hint("ds status, or ds monitor")
        return INTERRUPTED
    if project.console.json:
        facts = {"target": machines.target, "running": machines.running, "lost": machines.lost}
        project.console.data({"run": project.record().run, "machines": facts})
    if machines.running < machines.target:
        wanted = f"{machines.running:,} of {machines.target:,} machines have come; the request stands"
        project.console.say(f"{wanted}: {machines.diagnosis.what}" if machines.diagnosis else wanted)
    at_once = many(machines.slots, "job")
    project.console.say(f"started: {at_once} at a time; the work goes on when this terminal closes")
    project.console.hint("ds monitor")
    return OK


@in_project
def do_monitor(project: Project, options: argparse.Namespace) -> int:
    return _monitor(project, options)


def _monitor(project: Project, options: argparse.Namespace) -> int:
    from ..steps.watch.monitor import monitor

    try:
        code = monitor(project, options.record, options.every, cheapest=options.cheapest)
    except KeyboardInterrupt:
        project.console.say("\nno longer watching; the work goes on")
        project.console.hint("ds monitor to watch again, ds stop to stop")
        return INTERRUPTED
    if project.config.engine_kind.rehearses:
        _print_story(project)
    return code


def _print_story(project: Project) -> None:
    from ..rehearsal import story

    found = story.read(project.engine.store, project.paths())
    if found is None:
        return
    if project.console.json:
        project.console.data({"rehearsal": found})
    for line in () if project.console.json else story.lines(found):
        project.console.line(line)


@in_project
def do_run(project: Project, options: argparse.Namespace) -> int:
    from ..inputs.jobs.jobfile import parse_set
    from ..steps.run import begin

    with project.engine.exclusive():
        shared, unchecked = parse_set(options.set), options.unchecked
        begin(project, options.job_file, shared, options.fleet_file, unchecked=unchecked)
        options.record = None
        return _monitor(project, options)


@in_project
def do_status(project: Project, options: argparse.Namespace) -> int:
    from ..system.collector import never_again
    from .views.status import status

    if not options.watch:
        never_again()
    return status(project, watch=options.watch)


@in_project
def do_wait(project: Project, options: argparse.Namespace) -> int:
    from .views import runs

    return runs.wait(project, options.timeout)


@in_project
def do_runs(project: Project, options: argparse.Namespace) -> int:
    from .views import runs

    if options.what is None:
        return runs.runs(project)
    if len(options.runs) != 2:
        raise UsageError("runs diff: takes two runs", "ds runs diff RUN RUN; ds runs lists them")
    return runs.diff(project, options.runs)


@in_project
def do_report(project: Project, options: argparse.Namespace) -> int:
    from .views import runs

    return runs.report(project, remake=options.remake)


@in_project
def do_jobs(project: Project, options: argparse.Namespace) -> int:
    from ..system.collector import never_again
    from .views import jobs

    never_again()
    return jobs.jobs(project, options.state, options.cause, options.columns, csv=options.csv)


@in_project
def do_logs(project: Project, options: argparse.Namespace) -> int:
    from .views.logs import logs

    return logs(project, options.job, follow=options.follow, attempt=options.attempt)


@in_project
def do_failures(project: Project, _options: argparse.Namespace) -> int:
    from .views.logs import failures

    return failures(project)


@in_project
def do_retry(project: Project, options: argparse.Namespace) -> int:
    from ..steps.retry import retry
    from .views.logs import find_ids

    ids = find_ids(project, options.jobs)
    if options.collect:
        from ..steps.watch.collect import collecting_jobs

        ids = sorted(collecting_jobs(project))
    back = retry(project, options.cause, ids) if ids or not options.collect else []
    if project.console.json:
        project.console.data({"retried": back})
    none = "the dead queue has no such job" if project.config.image_starts_worker else "no such job is dead"
    project.console.say(f"{many(len(back), 'job')} put back" + ("" if back else f": {none}"))
    if back:
        project.console.hint(_after_retry(project))
    return OK


@in_project
def do_drop(project: Project, options: argparse.Namespace) -> int:
    from itertools import islice

    from ..steps.retry import DROP_FIX, drop
    from .views.logs import find_ids

    out, left = drop(project, find_ids(project, options.jobs))
    if project.console.json:
        project.console.data({"dropped": out, "left": left})
    project.console.say(f"{many(len(out), 'job')} taken out of the run")
    for job_id, state in islice(left.items(), 1):
        more = f" (and {len(left) - 1:,} more)" if len(left) > 1 else ""
        raise DsError(f"job {job_id}{more} is {state}, and stays in the run", DROP_FIX)
    return OK


def _after_retry(project: Project) -> str:
    """Returns the commands that bring workers to the jobs. A changed config may need a new set-up first."""
    if project.engine.machines().running:
        return "ds monitor"
    anew = project.config.engine_kind.works_as_set_up
    first = "ds setup, where the config has changed; " if anew else ""
    return f"{first}ds start, then ds monitor"


@in_project
def do_fleet(project: Project, options: argparse.Namespace) -> int:
    from ..aws.ec2.requests.newfleet import file_name, write_fleet_file

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


@in_project
def do_try(project: Project, options: argparse.Namespace) -> int:
    from . import attempt

    return attempt.try_job(project, options)


@in_project
def do_replay(project: Project, options: argparse.Namespace) -> int:
    from . import attempt

    return attempt.replay(project, options)


@in_project
def do_jobfile(project: Project, options: argparse.Namespace) -> int:
    from . import jobfile

    path = jobfile.new(project, options)
    project.console.hint(f"ds check {path}, then ds run {path}")
    return OK


@in_project
def do_stop(project: Project, options: argparse.Namespace) -> int:
    from ..console import progress_line
    from ..steps.stop import stop

    snapshot = stop(project, now=options.now)
    if project.console.json:
        project.console.data(snapshot.to_json())
    project.console.say(f"stopped: {progress_line(snapshot)}")
    return OK


@in_project
def do_repair(project: Project, _options: argparse.Namespace) -> int:
    from ..steps.repair import repair

    repaired = repair(project)
    if project.console.json:
        project.console.data(repaired._asdict())
    if repaired.damage:
        project.console.hint("ds start, then ds monitor")
    else:
        project.console.say("the queue is whole: nothing to repair")
    return OK


@in_project
def do_cleanup(project: Project, _options: argparse.Namespace) -> int:
    from ..steps.cleanup import cleanup

    leftovers = cleanup(project)
    if project.console.json:
        project.console.data({"leftovers": leftovers})
    for leftover in leftovers:
        project.console.say(f"still there: {leftover}")
    if leftovers:
        return LEFTOVERS
    kept = project.engine.store.locate(f"runs/{project.config.app_name}")
    project.console.say(f"clean: nothing is left but the results ({kept} has logs and ledger)")
    return OK


@in_project
def do_dashboard(project: Project, options: argparse.Namespace) -> int:
    from ..dashboard.command import dashboard

    return dashboard(project, options.port, project.current_run() if options.run_id else None)


@in_project
def do_check(project: Project, options: argparse.Namespace) -> int:
    from ..inputs.checks import findings as check
    from ..inputs.jobs.jobfile import JobFile, parse_set
    from .views.preview import show_findings, show_first

    if options.job_file is None and (options.set or options.show):
        raise UsageError("--set and --show: are for a job file, and none is given", "ds check JOBFILE")
    file = JobFile(options.job_file, parse_set(options.set)) if options.job_file else None
    findings = check.make_all(project.checks(file, options.fleet_file))
    show_findings(project.console, findings)
    code = check.exit_code(findings)
    if file is not None and options.show and code != USAGE:
        show_first(project, file, options.show)
    return code


@in_project
def do_image(project: Project, options: argparse.Namespace) -> int:
    from . import image as command

    make = command.worker if options.what == "worker" else command.build
    return make(project, options.tag, push=options.push)


@in_project
def do_account(project: Project, options: argparse.Namespace) -> int:
    from . import account as account_command

    if options.action == "policy":
        own = {"administrator": options.administrator, "boundary": options.boundary}
        return account_command.policy(project, **own)
    if options.action == "destroy":
        return account_command.destroy(project, dry_run=options.dry_run)
    return account_command.setup(project, dry_run=options.dry_run)
