"""Runs `ds try` and `ds replay`: one job in the foreground, and what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OK, SOME_DEAD
from ..inputs.jobs.jobfile import JobFile, parse_set
from ..job import Outcome, State
from ..steps.attempt import Attempt, attempt_of_run, job_of_file, run_here
from ..words import duration
from .views.logs import find

if TYPE_CHECKING:
    import argparse

    from ..steps.project import Project


def try_job(project: Project, options: argparse.Namespace) -> int:
    """Run one job of a file. Returns the exit code: 3 if the job failed."""
    file = JobFile(options.job_file, parse_set(options.set))
    attempt = Attempt(job_of_file(file, options.job), 1, project.config)
    return _run(project, attempt, publish=options.publish)


def replay(project: Project, options: argparse.Namespace) -> int:
    """Run a job of a run again, here. Returns the exit code: 3 if the job failed."""
    record = find(project.fold().update(), options.job)
    attempt = attempt_of_run(project, record, options.attempt)
    return _run(project, attempt, publish=options.publish)


def _run(project: Project, attempt: Attempt, *, publish: bool) -> int:
    console, job = project.console, attempt.job
    console.say(f"job {job.id}, attempt {attempt.number}:")
    outcome, folder = run_here(project, attempt, publish=publish)
    succeeded = outcome.state is State.SUCCEEDED
    if console.json:
        facts = {"id": job.id, "attempt": attempt.number, "state": "succeeded" if succeeded else "failed"}
        end = {"cause": outcome.cause, "detail": outcome.detail, "exit_code": outcome.exit_code}
        more = {"seconds": outcome.seconds, "output": outcome.output, "folder": str(folder)}
        console.data({**facts, **end, **more})
    console.say(_ending(outcome, succeeded=succeeded))
    console.say(_output(project, outcome, folder, publish=publish))
    console.say(f"its folders are kept: {folder} (input, work, output, attempt.log)")
    return OK if succeeded else SOME_DEAD


def _ending(outcome: Outcome, *, succeeded: bool) -> str:
    took = f"after {duration(outcome.seconds or 0.0)}"
    return f"succeeded {took}" if succeeded else f"failed {took}: {outcome.cause}: {outcome.detail}"


def _output(project: Project, outcome: Outcome, folder: Path, *, publish: bool) -> str:
    if outcome.output is None:
        return "nothing was published"
    place = project.engine.store.locate(outcome.output)
    return f"published: {place}" if publish else f"not published: {folder / 'output'} would go to {place}"
