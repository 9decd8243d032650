"""Builds `report.json` and `report.html` of a run, and the summary that the monitor prints.

The last step of a run calls it. All figures come from the ledger: seconds and bytes throughout.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..engine import Store
from ..errors import KeyMissing
from ..inputs.config import Config, values_given
from ..ledger import Fold, RunPaths
from ..runs.snapshot import Snapshot, outcomes, unproven_text
from ..words import bytes_text, duration, many, money, rate_text
from .failures import FailureGroup
from .statistics import histogram, quantiles, throughput

SHOWN_IDS = 100  # most ids that a report names in a group of failures; the ledger has all

SLOWEST = 10

REPORT = "report.html"  # file name of the page, in the run's folder

DATA = "report.json"


def build_report(
    snapshot: Snapshot, fold: Fold, groups: Sequence[FailureGroup], config: Config, ran: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the content of `report.json`. `ran` is the result of `provenance.what_ran`."""
    seconds, memory = fold.figures("seconds"), fold.figures("max_rss_bytes")
    figures = {
        "seconds": quantiles(seconds),
        "cpu_seconds": quantiles(fold.figures("cpu_seconds")),
        "max_rss_bytes": quantiles(memory),
        "disk_bytes": fold.most_bytes or None,
    }
    return {
        **snapshot.to_json(),
        "elapsed_s": snapshot.elapsed,
        **figures,
        "histograms": {"seconds": histogram(seconds), "max_rss_bytes": histogram(memory)},
        "throughput": _throughput(snapshot, fold),
        "time": _time(fold),
        "memory_asked_bytes": _memory_asked(config, snapshot),
        "disk_asked_bytes": _disk_asked(config, snapshot),
        "cost_per_job_usd": _cost_per_job(snapshot),
        "slowest": _slowest(fold),
        "failures": [
            {
                "cause": g.cause,
                "jobs": len(g.ids),
                "dead": g.dead,
                "example": g.example,
                "ids": g.ids[:SHOWN_IDS],
            }
            for g in groups
        ],
        "what": {**_what(config, fold), **ran, "configs": _configs(fold, ran.get("configs", ()))},
        "advice": _advice(config, snapshot, figures, groups),
    }


def _throughput(snapshot: Snapshot, fold: Fold) -> dict[str, Any] | None:
    if snapshot.started is None or fold.last_end is None:
        return None
    final = snapshot.jobs.final
    return dict(throughput(final, snapshot.started, fold.last_end, fold.ended_in))


def _time(fold: Fold) -> dict[str, Any]:
    """Returns where the workers' time went, in seconds over all attempts, and how long jobs waited.

    `in` and `out` are the staging of files, `running` is the rest of the successful attempts, `failed` and
    `interrupted` are the other attempts.
    """
    lost = {
        "failed": fold.spent.get("failed", 0.0) + fold.spent.get("dead", 0.0),
        "interrupted": fold.spent.get("interrupted", 0.0),
    }
    staged = {name: fold.phases.get(name, 0.0) for name in ("in", "out")}
    useful = fold.spent.get("succeeded", 0.0) + fold.spent.get("skipped", 0.0)
    first = fold.first or 0.0
    waited = [max(started - first, 0.0) for started in fold.figures("started")]
    running = max(useful - staged["in"] - staged["out"], 0.0)
    return {**_rounded({**staged, "running": running, **lost}), "waited_s": quantiles(waited)}


def _rounded(facts: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in facts.items()}


def _slots(config: Config, snapshot: Snapshot) -> int:
    """Returns the number of jobs that run at once in a container."""
    return config.docker_cores or snapshot.machines.slots or 1


def _memory_asked(config: Config, snapshot: Snapshot) -> float | None:
    """Returns each job's share of a container's MEMORY, in bytes."""
    return config.memory * 2**20 / _slots(config, snapshot) if config.memory else None


def _disk_asked(config: Config, snapshot: Snapshot) -> float | None:
    """Returns each job's share of a machine's disk, in bytes; None: the machine is not rented."""
    if not config.engine_kind.rents:
        return None
    return config.ebs_vol_size * 1e9 / (config.tasks_per_machine * _slots(config, snapshot))


def _cost_per_job(snapshot: Snapshot) -> float | None:
    if snapshot.cost_usd is None or not snapshot.jobs.succeeded:
        return None
    return snapshot.cost_usd / snapshot.jobs.succeeded


def _slowest(fold: Fold) -> list[dict[str, Any]]:
    return [
        {"id": r.id, "index": r.index, "seconds": r.seconds, "state": r.state} for r in fold.slowest(SLOWEST)
    ]


def _what(config: Config, fold: Fold) -> dict[str, Any]:
    """Returns what ran: the config, the version, and a hash over the jobs' ids (hashes of their contents).

    The user's own keys may hold secrets, so only their names are returned.
    """
    from .. import __version__

    return {
        "version": __version__,
        "config": values_given(config),
        "environment": sorted({*config.extra, *config.environment}),
        "jobs_sha256": _hash_of(fold.ids()),
    }


def _configs(fold: Fold, noted: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the run's configs in time: from when on each held, and how many attempts began under it."""
    begins = [float(each["t"]) for each in noted]
    ends = [*begins[1:], None][: len(begins)]
    return [
        {**each, "attempts": fold.begun_between(since if at else None, until)}
        for at, (each, since, until) in enumerate(zip(noted, begins, ends, strict=True))
    ]


def _hash_of(texts: Iterable[str]) -> str:
    found = hashlib.sha256()
    for text in texts:
        found.update(text.encode())
    return found.hexdigest()


def _advice(
    config: Config, snapshot: Snapshot, figures: dict[str, Any], groups: Sequence[FailureGroup]
) -> list[dict[str, Any]]:
    from .advice import advise

    causes: dict[str, int] = {}
    for group in groups:
        causes[group.cause] = causes.get(group.cause, 0) + len(group.ids)
    cores = None if config.engine_kind.rents else os.cpu_count()
    found = advise(config, _slots(config, snapshot), figures, causes, cores)
    return [advice._asdict() for advice in found]


def write_report(store: Store, paths: RunPaths, report: dict[str, Any]) -> str:
    """Write the report into the run's folder, as data and as a page. Returns the key of the page."""
    from .page import render

    store.write(paths.root + DATA, json.dumps(report, ensure_ascii=False, indent=1).encode() + b"\n")
    page = paths.root + REPORT
    store.write(page, render(report).encode("utf-8", "replace"))
    return page


def reported_cost(store: Store, paths: RunPaths) -> float | None:
    """Returns the cost of the machines, in dollars, from the run's report; None: the report has none."""
    try:
        cost = json.loads(store.read(paths.root + DATA))["cost_usd"]
    except (KeyMissing, ValueError, KeyError, TypeError):
        return None
    return float(cost) if isinstance(cost, int | float) else None


def summary_lines(report: dict[str, Any]) -> list[str]:
    """Returns the report as a few lines of text."""
    jobs = report["jobs"]
    lines = [
        ": ".join(
            filter(
                None,
                [
                    many(jobs["total"], "job"),
                    ", ".join(f"{count:,} {state}" for state, count in outcomes(jobs)),
                ],
            )
        )
    ]
    if report["elapsed_s"]:
        rate = rate_text((jobs["succeeded"] + jobs["skipped"] + jobs["dead"]) / report["elapsed_s"])
        attempts = many(report["attempts"], "attempt")
        lines.append(f"took {duration(report['elapsed_s'])}, {rate}, {attempts}")
    if report["seconds"] and report["max_rss_bytes"]:
        seconds, memory = report["seconds"], report["max_rss_bytes"]
        lines.append(
            f"a job: median {duration(seconds['median'])}, longest {duration(seconds['max'])},"
            f" memory up to {bytes_text(memory['max'])}"
        )
    if report["cost_usd"]:
        each = report["cost_per_job_usd"]
        lines.append(
            f"machines cost {money(report['cost_usd'])}" + (f", {money(each)} a job" if each else "")
        )
    elif report["machine_hours"] is not None:
        lines.append(f"machines ran {report['machine_hours']:,.2f} hours in all")
    if report["interruptions"]:
        interruptions = many(report["interruptions"], "interruption")
        lines.append(f"{interruptions} (no attempt was charged for that)")
    failures = report["failures"][:5]
    lines += filter(None, [unproven_text(jobs)])
    return lines + [f"  {f['jobs']:,} x {f['cause']}: {f['example'][:100]}" for f in failures]
