"""Prints the state of a run, once or until it has ended: `ds status`, and `ds wait`."""

from __future__ import annotations

from ...budget import used
from ...console import describe, fitting, progress_parts
from ...engine import Machines
from ...errors import OK, DsError
from ...ledger import Fold
from ...runs.snapshot import Snapshot, unproven_text
from ...steps.look.jobs import left_dead
from ...steps.project import Project
from ...words import duration, many, money, rate_text

RUNNING_SHOWN = 6  # most running jobs that `ds status` shows


def status(project: Project, *, watch: bool) -> int:
    """Print the state of the run, once or until it has ended."""
    console = project.console
    fold = project.fold() if project.current_run() else None
    snapshot = project.snapshot(fold)
    if watch:
        snapshot = watch_run(project)
    if console.json:
        console.data(snapshot.to_json())
        return OK
    facts = _facts(snapshot)
    if fold is not None and not project.config.image_starts_worker:
        facts["earlier"] = _earlier(project, fold)
    text = describe(facts, console.columns)
    console.line(text)
    room = console.lines - text.count("\n") - 3 if console.lines else RUNNING_SHOWN
    if fold is not None and snapshot.jobs.running and room > 1:
        from .running import running_lines

        for line in running_lines(project, fold, snapshot, min(room, RUNNING_SHOWN), console.columns):
            console.line(line)
    return OK


def _earlier(project: Project, fold: Fold) -> str | None:
    """Names the dead jobs of the run before, if this one does not have them."""
    try:
        found = left_dead(project, fold)
    except DsError:  # it is only a notice
        return None
    if found is None:
        return None
    run, dead = found
    return (
        f"{many(dead, 'job', 'is', 'are')} dead in run {run}, and no part of this one: ds status --run {run}"
    )


def watch_run(project: Project, until: float | None = None) -> Snapshot:
    """Show the run until it ends or stands still, or that monotonic time. Returns the last snapshot."""
    fold = project.fold()
    with project.console.watch() as watcher:
        while True:
            snapshot = project.snapshot(fold)
            watcher.show(snapshot)
            idle = snapshot.state == "idle" and not at_work(snapshot.machines)
            over = until is not None and project.clock.monotonic() >= until
            if snapshot.state == "finished" or idle or over:
                return snapshot
            project.clock.wait(max(project.engine.poll_interval, 0.5))


SHOWN_NEEDS = 4  # maximum different needs of waiting jobs that `ds status` shows


def at_work(machines: Machines) -> bool:
    """Returns whether machines run or are still to come."""
    return bool(machines.running or (machines.replaces_lost and machines.target))


def _facts(snapshot: Snapshot) -> dict[str, object]:
    jobs, machines = snapshot.jobs, snapshot.machines
    return {
        "app": f"{snapshot.app} ({snapshot.engine})",
        "run": snapshot.run,
        "state": snapshot.state,
        "jobs": fitting(progress_parts(snapshot)[:-1], None),  # the last one is the state
        "succeeded": jobs.succeeded - jobs.unproven or None,
        "not known": unproven_text(jobs._asdict()),
        "skipped": jobs.skipped or None,
        "dead": jobs.dead or None,
        "dropped": jobs.dropped or None,
        "waiting": jobs.waiting or None,
        "running": jobs.running or None,
        "to retry": jobs.failed or None,
        "attempts": snapshot.attempts or None,
        "interruptions": snapshot.interruptions or None,
        "rate": rate_text(snapshot.rate) if snapshot.rate else None,
        "time left": duration(snapshot.eta) if snapshot.eta is not None else snapshot.no_eta,
        "machines": _machines(machines),
        **dict(machines.details),
        "needs": _needs(machines) or None,
        "bad machines": "; ".join(f"{name}: {why}" for name, why in snapshot.excluded.items()) or None,
        "cost": None if snapshot.cost_usd is None else _cost(snapshot.cost_usd, snapshot.expected_usd),
        "budget": used(snapshot.budget, snapshot.spent) or None,
        "why idle": snapshot.why_idle,
    }


def _cost(so_far: float, expected: float | None) -> str:
    return money(so_far) + (f", {money(expected)} at the end" if expected not in (None, so_far) else "")


def _needs(machines: Machines) -> str:
    """Says what waiting jobs need, the most frequent first."""
    found = sorted(machines.needs, key=lambda each: -each[1])
    more = ["…"] if len(found) > SHOWN_NEEDS else []
    return "; ".join([f"{many(count, 'job')}: {needs}" for needs, count in found[:SHOWN_NEEDS]] + more)


def _machines(machines: Machines) -> str:
    target = f" of {machines.target:,}" if machines.replaces_lost else ""
    lost = f", {machines.lost:,} lost" if machines.lost else ""
    return f"{machines.running:,}{target} running, {machines.slots:,} slots{lost}"
