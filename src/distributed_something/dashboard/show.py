"""Turns records and snapshots into the JSON values of the page, with texts ready to read. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from csv import writer as csv_writer
from io import StringIO
from typing import Any

from ..budget import used
from ..engine import Machines, RentedMachine, StoredFile
from ..job import State
from ..ledger import Fold, JobRecord
from ..report.failures import FailureGroup
from ..report.plots import Part, parts_plot, throughput_plot
from ..report.statistics import throughput
from ..runs.snapshot import Alive, Snapshot, outcomes
from ..words import bytes_text, duration, money, rate_text
from .files import how_shown

PAGE_ROWS = 100
MACHINES = 200
JOBS_OF_MACHINE = 32
VALUE_CHARACTERS = 160
KEY_COLUMNS = 12
"""Most keys of jobs that have a column."""

CSV_COLUMNS = (
    *("index", "id", "state", "attempts", "cause", "exit_code"),
    *("seconds", "max_rss_bytes", "machine", "output"),
)
"""First columns of a CSV file; the jobs' keys follow."""


def overview(snapshot: Snapshot, fold: Fold, now: float) -> dict[str, Any]:
    """Returns the object of `ds status --json` with figures, plots and machines, as of the time `now`."""
    return {
        **snapshot.to_json(),
        "headline": _headline(snapshot),
        "figures": _figures(snapshot),
        "parts": _parts(snapshot),
        "throughput": _throughput(snapshot, fold, now),
        "said": _said(snapshot),
        "fleet": _machines(snapshot, fold, now),
        "alive": snapshot.machines.running > 0,
        "draining": snapshot.machines.draining,
    }


def _headline(snapshot: Snapshot) -> dict[str, str]:
    """Returns the run's state, its tone, and a sentence of results. A run with dead jobs is never good."""
    jobs, state = snapshot.jobs, snapshot.state
    ended = state == "finished"
    dead = f", {jobs.dead:,} dead" if jobs.dead else ""
    dropped = f", {jobs.dropped:,} taken out" if jobs.dropped else ""
    tones = {"finished": "good", "running": "running"}
    tone = ("bad" if ended else "warn") if jobs.dead else tones.get(state, "warn")
    skipped = f", {jobs.skipped:,} skipped" if jobs.skipped else ""
    unproven = f", {jobs.unproven:,} left the queue, no outputs seen" if jobs.unproven else ""
    return {
        "state": state + (dead if ended else ""),
        "tone": tone,
        "sentence": f"{jobs.succeeded - jobs.unproven:,} of {jobs.total:,} succeeded"
        f"{unproven}{skipped}{dead}{dropped}",
    }


def _figures(snapshot: Snapshot) -> list[tuple[str, str]]:
    jobs, machines = snapshot.jobs, snapshot.machines
    ended = snapshot.finished is not None and snapshot.started is not None
    took = (snapshot.finished or 0) - (snapshot.started or 0)
    return [
        ("done", f"{jobs.final:,} of {jobs.total:,}"),
        ("running", f"{jobs.running:,}"),
        ("to retry", f"{jobs.failed:,}"),
        ("dead", f"{jobs.dead:,}"),
        ("rate", rate_text(snapshot.rate) if snapshot.rate else "\N{EN DASH}"),
        ("took", duration(took)) if ended else ("time left", _left(snapshot)),
        *_count_machines(machines),
        *([("interruptions", f"{snapshot.interruptions:,}")] if snapshot.interruptions else []),
        *_cost(snapshot),
        *([("budget", used(snapshot.budget, snapshot.spent))] if snapshot.budget else []),
    ]


def _count_machines(machines: Machines) -> list[tuple[str, str]]:
    if not machines.target and not machines.running:
        return []
    return [("machines", f"{machines.running:,} of {machines.target:,}")]


def _cost(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Returns the cost so far and at the end; empty if machines cost nothing."""
    if snapshot.cost_usd is None and snapshot.machines.hours is not None:
        return [("machine-hours", f"{snapshot.machines.hours:,.2f}")]
    if snapshot.cost_usd is None:
        return [("cost so far", "not known")] if snapshot.machines.rented else []
    if snapshot.state == "finished":
        return [("cost", money(snapshot.cost_usd))]
    expected = snapshot.expected_usd
    at_end = "\N{EN DASH}" if expected is None else money(expected)
    return [("cost so far", money(snapshot.cost_usd)), ("cost at the end", at_end)]


def _left(snapshot: Snapshot) -> str:
    return duration(snapshot.eta) if snapshot.eta is not None else "\N{EN DASH}"


def _parts(snapshot: Snapshot) -> str:
    counts = outcomes(snapshot.jobs._asdict()) or [("waiting", 0)]
    return parts_plot([Part(state, count, f"{count:,}", state) for state, count in counts], "Jobs")


def _throughput(snapshot: Snapshot, fold: Fold, now: float) -> str | None:
    if snapshot.started is None or fold.last_end is None:
        return None
    until = now if snapshot.jobs.running else fold.last_end
    return throughput_plot(throughput(snapshot.jobs.final, snapshot.started, until, fold.ended_in), duration)


def _said(snapshot: Snapshot) -> str:
    """Returns the text for screen readers. It changes with every tenth of the jobs."""
    jobs = snapshot.jobs
    tenths = f"{jobs.final * 10 // jobs.total * 10} % done" if jobs.total else "no jobs"
    return f"{snapshot.state}, {tenths}, {jobs.dead:,} dead"


def _machines(snapshot: Snapshot, fold: Fold, now: float) -> dict[str, Any]:
    """Returns the machines of the run: busy ones first, ended ones last."""
    alive, running = Alive.of(snapshot.machines), dict[str, list[JobRecord]]()
    for record in fold.running() if alive.any else ():
        if alive.state(record) is State.RUNNING:
            running.setdefault(machine_of(record), []).append(record)
    rented, done_by = {each.id: each for each in snapshot.machines.rented}, fold.done_by()
    names = sorted(
        {*rented, *running, *done_by},
        key=lambda name: (not _here(rented, name), -len(running.get(name, ())), name),
    )
    return {
        "rows": [
            {
                "name": name,
                "kind": rented[name].kind if name in rented else "",
                "done": f"{done_by.get(name, 0):,}",
                "running": [{"id": r.id, "index": r.index} for r in running.get(name, ())[:JOBS_OF_MACHINE]],
                "more": max(len(running.get(name, ())) - JOBS_OF_MACHINE, 0),
                "here": bool(snapshot.machines.running) and _here(rented, name),
                "state": _life(snapshot, rented.get(name), now),
                "lost": name in rented and rented[name].lost,
            }
            for name in names[:MACHINES]
        ],
        "more": max(len(names) - MACHINES, 0),
        "details": snapshot.machines.details,
    }


def _here(rented: Mapping[str, RentedMachine], name: str) -> bool:
    return rented[name].running if name in rented else not rented


def _life(snapshot: Snapshot, machine: RentedMachine | None, now: float) -> str:
    """Returns how long a machine has run, or how it ended."""
    if machine is None:
        machines = snapshot.machines
        here = machines.running and not machines.rented  # this computer
        return "runs" if here else machines.ended or "ended"
    until = now if machine.running else machine.ended
    lived = "" if machine.since is None or until is None else duration(max(until - machine.since, 0))
    if machine.running:
        return f"runs for {lived}" if lived else "starts"
    return f"{machine.why} after {lived}" if lived else machine.why


def page_of(found: Sequence[int], page: int) -> tuple[Sequence[int], int, int]:
    """Returns a page (from 1) of the jobs' indexes, its number within bounds, and the number of pages."""
    pages = max(-(-len(found) // PAGE_ROWS), 1)
    page = min(max(page, 1), pages)
    return found[(page - 1) * PAGE_ROWS : page * PAGE_ROWS], page, pages


def machine_of(record: JobRecord) -> str:
    """Returns the machine that a job runs or ran on; its worker if the machine is not known."""
    return record.machine or record.worker or ""


def row(record: JobRecord, keys: Mapping[str, Any], names: Sequence[str], *, alive: Alive) -> dict[str, Any]:
    """Returns a line of the table of jobs; `names` are the keys that have a column."""
    return {
        "id": record.id,
        "index": f"{record.index:,}",
        "state": "failed" if record.failed else alive.state(record).value,
        "attempts": record.attempts,
        "cause": record.cause,
        "exit_code": record.exit_code,
        "time": duration(record.seconds) if record.seconds is not None else "",
        "memory": bytes_text(record.max_rss_bytes),
        "machine": machine_of(record),
        "keys": [_value(keys.get(name)) for name in names],
    }


def _value(value: Any) -> str:
    """Returns a job's value as a short text."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_CHARACTERS else text[:VALUE_CHARACTERS] + "\N{HORIZONTAL ELLIPSIS}"


def csv_rows(rows: Iterable[Sequence[object]]) -> bytes:
    """Returns rows as CSV."""
    text = StringIO()
    csv_writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def group(found: FailureGroup) -> dict[str, Any]:
    """Returns a line of the table of failures."""
    return {
        "cause": found.cause,
        "jobs": f"{len(found.ids):,}",
        "dead": found.dead,
        "example": found.example,
        "ids": found.ids[:3],
    }


def file(found: StoredFile) -> dict[str, Any]:
    """Returns a file of a job."""
    shown = how_shown(found.key)
    size = {"size": bytes_text(found.size), "bytes": found.size}
    return {"key": found.key, **size, "kind": shown.kind, "picture": shown.picture}


def attempts(fold: Fold, record: JobRecord, *, alive: Alive) -> list[dict[str, Any]]:
    """Returns the attempts of a job that the ledger has, the newest last."""
    past = [_attempt(str(event["event"]), event) for event in fold.past(record)]
    state = alive.state(record).value
    if state in (State.SUCCEEDED, State.SKIPPED, State.RUNNING):
        facts = {name: getattr(record, name) for name in _OF_RECORD}
        past.append(_attempt(state, {**facts, **fold.result(record)}))
    return past


_OF_RECORD = ("attempt", "exit_code", "seconds", "cpu_seconds", "max_rss_bytes", "worker", "machine", "log")


def _attempt(name: str, facts: Any) -> dict[str, Any]:
    running = name == State.RUNNING
    seconds = None if running else facts.get("seconds")
    phases = facts.get("phases")
    return {
        "name": name,
        "attempt": facts.get("attempt"),
        "cause": facts.get("cause"),
        "detail": facts.get("detail"),
        "log": facts.get("log"),
        "figures": [
            (label, text)
            for label, text in (
                ("exit code", None if running else facts.get("exit_code")),
                ("time", None if seconds is None else duration(seconds)),
                ("fetching inputs", _phase(phases, "in")),
                ("publishing outputs", _phase(phases, "out")),
                ("processor time", None if running else _seconds(facts.get("cpu_seconds"))),
                ("memory", "" if running else bytes_text(facts.get("max_rss_bytes"))),
                ("read", bytes_text(facts.get("bytes_in") or None)),
                ("written", bytes_text(facts.get("bytes_out") or None)),
                ("worker", facts.get("worker")),
                ("machine", facts.get("machine")),
            )
            if text not in (None, "")
        ],
    }


def _phase(phases: Any, name: str) -> str | None:
    return _seconds(phases.get(name)) if isinstance(phases, dict) else None


def _seconds(value: Any) -> str | None:
    return duration(value) if isinstance(value, int | float) else None
