"""The story of a run: `report.json` in the store, and the summary that the monitor prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .console import bytes_text, duration, rate_text
from .engine import Store
from .failures import FailureGroup
from .ledger import Fold, RunPaths
from .snapshot import Snapshot


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """Least, median, 95th percentile, greatest and sum; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "min": ordered[0],
        "median": ordered[last // 2],
        "p95": ordered[round(last * 0.95)],
        "max": ordered[-1],
        "sum": sum(ordered),
    }


def build_report(snapshot: Snapshot, fold: Fold, groups: Sequence[FailureGroup]) -> dict[str, Any]:
    """Everything that is known of the run: seconds and bytes throughout."""
    records = fold.jobs.values()
    return {
        **snapshot.to_json(),
        "elapsed_s": _elapsed(snapshot),
        "seconds": quantiles([r.seconds for r in records if r.seconds is not None]),
        "cpu_seconds": quantiles([r.cpu_seconds for r in records if r.cpu_seconds is not None]),
        "max_rss_bytes": quantiles([r.max_rss_bytes for r in records if r.max_rss_bytes is not None]),
        "failures": [
            {"cause": group.cause, "jobs": len(group.ids), "example": group.example, "ids": group.ids[:100]}
            for group in groups
        ],
    }


def _elapsed(snapshot: Snapshot) -> float | None:
    if snapshot.started is None or snapshot.finished is None:
        return None
    return round(snapshot.finished - snapshot.started, 3)


def write_report(store: Store, paths: RunPaths, report: dict[str, Any]) -> None:
    """Put the report beside the run's ledger."""
    store.write(paths.root + "report.json", json.dumps(report, ensure_ascii=False, indent=1).encode() + b"\n")


def summary_lines(report: dict[str, Any]) -> list[str]:
    """The report in a few lines for a person."""
    jobs = report["jobs"]
    lines = [f"{jobs['total']:,} jobs: " + ", ".join(_counted(jobs))]
    if report["elapsed_s"]:
        rate = rate_text((jobs["succeeded"] + jobs["skipped"] + jobs["dead"]) / report["elapsed_s"])
        lines.append(f"took {duration(report['elapsed_s'])}, {rate}, {report['attempts']:,} attempts")
    if report["seconds"] and report["max_rss_bytes"]:
        seconds, memory = report["seconds"], report["max_rss_bytes"]
        lines.append(
            f"a job: median {duration(seconds['median'])}, longest {duration(seconds['max'])},"
            f" memory up to {bytes_text(memory['max'])}"
        )
    if report["interruptions"]:
        lines.append(f"{report['interruptions']:,} interruptions (no attempt was charged for them)")
    failures = report["failures"][:5]
    return lines + [f"  {f['jobs']:,} x {f['cause']}: {f['example'][:100]}" for f in failures]


def _counted(jobs: dict[str, int]) -> list[str]:
    states = ("succeeded", "skipped", "dead", "running", "waiting")
    return [f"{jobs[state]:,} {state}" for state in states if jobs[state]]
