"""Runs `ds runs`, `ds report` and `ds wait`: prints what `steps/look/runs.py` finds."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import FAILED, OK, SOME_DEAD, DsError, UsageError
from ...runs.snapshot import Snapshot
from ...steps.look.runs import RunFacts, all_runs, compare, remake_report, report_key
from ...system.state import make_private, open_private
from ...words import duration, many, money

if TYPE_CHECKING:
    from ...steps.project import Project


def runs(project: Project) -> int:
    """Print every run of the project, the newest first."""
    console, found = project.console, all_runs(project)
    if console.json:
        for each in found:
            console.data(each._asdict())
        return OK
    if not found:
        console.say(f"{project.config.app_name} has no run yet")
        return OK
    header = ("run", "started", "engine", "state", "jobs", "succeeded", "dead", "time", "cost")
    console.table(header, map(_row, found))
    return OK


def _row(facts: RunFacts) -> tuple[object, ...]:
    jobs = facts.jobs
    done = jobs.get("succeeded", 0) + jobs.get("skipped", 0)
    return (
        facts.run,
        (facts.started or "")[:16].replace("T", " "),
        facts.engine,
        facts.state,
        jobs.get("total", 0),
        done,
        jobs.get("dead", 0),
        "" if facts.seconds is None else duration(facts.seconds),
        "" if facts.cost_usd is None else money(facts.cost_usd),
    )


def diff(project: Project, names: list[str]) -> int:
    """Print what differs between two runs."""
    one, other = (project.find_run(name) for name in names)
    found = compare(project, one, other)
    if project.console.json:
        project.console.data(found)
        return OK
    lines = [*_lines(found)]
    for line in lines or ["no difference"]:
        project.console.line(line)
    return OK


_OTHER = {"size": "of another size", "place": "at another place", "content": "with other content"}


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"{name}: {_text(one)} -> {_text(other)}" for part in ("config", "ran")
             for name, (one, other) in found[part].items()]  # fmt: skip
    jobs = found["jobs"]
    if jobs["only_first"]["count"] or jobs["only_second"]["count"]:
        parts = [f"{jobs['both']:,} in both"]
        for name, run in zip(("only_first", "only_second"), found["runs"], strict=True):
            if jobs[name]["count"]:
                parts.append(
                    f"{jobs[name]['count']:,} only in {run}, such as {', '.join(jobs[name]['such_as'])}"
                )
        lines.append("jobs: " + "; ".join(parts))
    for each in found["outcomes"]:
        shown = ", ".join(each["such_as"])
        lines.append(
            f"outcomes: {many(each['count'], 'job')} {each['from']} -> {each['to']}, such as {shown}"
        )
    lines += [
        f"outputs: {many(each['count'], 'job')} {_OTHER[each['what']]}, such as {', '.join(each['such_as'])}"
        for each in found["outputs"]
    ]
    return lines + _measured(found)


def _measured(found: dict[str, Any]) -> list[str]:
    lines = []
    for name, key, text in (("time", "seconds", duration), ("cost", "cost_usd", money)):
        one, other = found[key]
        if one is not None and other is not None and text(one) != text(other):
            lines.append(f"{name}: {text(one)} -> {text(other)}")
    return lines


def _text(value: object) -> str:
    return "(not set)" if value in (None, "", []) else str(value)


def report(project: Project, *, remake: bool) -> int:
    """Print where the run's report is, and open it where there is a screen; make it if it is missing."""
    console = project.console
    key = None if remake else report_key(project)
    if key is None:
        key = remake_report(project)
        console.say(f"report of run {project.paths().run} written")
    place = project.engine.store.locate(key)
    if not Path(place).is_file():  # in a bucket: browsers cannot open it there
        local = project.folder / ".ds" / f"report-{project.config.app_name}-{project.paths().run}.html"
        make_private(local.parent)
        with open(local, "wb", opener=open_private) as file:
            file.write(project.engine.store.read(key))
        place = str(local)
    if console.json:
        console.data({"run": project.paths().run, "report": place})
        return OK
    console.line(place)
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if screen and console.err.isatty():
        import webbrowser

        webbrowser.open(Path(place).absolute().as_uri())
    return OK


def wait(project: Project, minutes: float | None) -> int:
    """Wait until the run has ended. Returns 0, or 3 if jobs are dead. Raises DsError if it cannot end.

    It only looks: `ds monitor` ends the machines of a run.
    """
    from .status import watch_run

    until = None if minutes is None else project.clock.monotonic() + minutes * 60
    snapshot = watch_run(project, until)
    if project.console.json:
        project.console.data(snapshot.to_json())
    return _code(project, snapshot, over=until is not None and project.clock.monotonic() >= until)


def _code(project: Project, snapshot: Snapshot, *, over: bool) -> int:
    jobs = snapshot.jobs
    if not jobs.total:
        raise UsageError(
            f"{project.config.app_name} has no jobs to wait for", f"ds run {project.example_jobs}"
        )
    left = jobs.total - jobs.final
    if left and over:
        project.console.say(f"{many(left, 'job')} left when the time was over")
        return FAILED
    if left:
        why = f": {snapshot.why_idle}" if snapshot.why_idle else ""
        raise DsError(
            f"{many(left, 'job', 'is', 'are')} left and no machine runs{why}", "ds start, then ds wait"
        )
    if jobs.dead:
        project.console.hint("ds failures, then ds retry")
        return SOME_DEAD
    return OK
