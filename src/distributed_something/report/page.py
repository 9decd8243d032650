"""Renders a report as one page of HTML. A pure function of the report; `build.write_report` calls it.

The page has no script and loads nothing; its size does not grow with the number of jobs. All text from jobs
and config is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..runs.snapshot import outcomes, unproven_text
from ..words import bytes_text, duration, many, rate_text
from .plots import Part, histogram_plot, parts_plot, throughput_plot

GROUPS = 50  # most groups of failures on the page, the largest first
CHARACTERS = 500  # longest value that is shown in full, in characters

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
LOOK = Path(__file__).with_name("look.css")
"""Style sheet of the report and of the dashboard."""
_HEADER = "main { padding-top: 1.2rem; } header { margin: 0 0 1rem; }"

Cell = object


def render(report: Mapping[str, Any]) -> str:
    """Returns the page of a report that `build.build_report` made."""
    title = f"{report['app']}, run {report['run']}"
    parts = [
        _headline(report, title),
        f'<div class="grid2">{_speed(report)}{_time(report)}</div>',
        _failures(report["failures"]),
        f'<div class="grid2">{_histograms(report)}</div>',
        _advice(report["advice"]),
        f'<div class="grid2">{_what(report)}{_slowest(report["slowest"])}</div>',
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{LOOK.read_text()}{_HEADER}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _text(value: object) -> str:
    text = str(value)
    return escape(text if len(text) <= CHARACTERS else text[:CHARACTERS] + "\N{HORIZONTAL ELLIPSIS}")


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{inside}</section>"


def _facts(facts: Iterable[tuple[str, object]]) -> str:
    shown = (
        f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts if value not in (None, "")
    )
    return f"<dl>{''.join(shown)}</dl>"


def _table(columns: Mapping[str, str], rows: Iterable[Sequence[Cell]]) -> str:
    """Returns a table, whose rows are cards where the page is narrow.

    `columns` are names with their classes in the style sheet: number, said, or none.
    """
    kinds = [f' class="{kind}"' if kind else "" for kind in columns.values()]
    head = "".join(
        f'<th scope="col" role="columnheader"{kind}>{escape(name)}</th>'
        for name, kind in zip(columns, kinds, strict=True)
    )
    cells = [
        f'<td role="cell" data-name="{escape(name)}"{kind}>'
        for name, kind in zip(columns, kinds, strict=True)
    ]
    body = "".join(f'<tr role="row">{_cells(cells, row)}</tr>' for row in rows)
    return (
        f'<div class="scroll"><table role="table" class="cards"><thead role="rowgroup"><tr role="row">{head}'
        f'</tr></thead><tbody role="rowgroup">{body}</tbody></table></div>'
    )


def _cells(begins: Sequence[str], row: Sequence[Cell]) -> str:
    return "".join(
        f"{begin}{_text('' if value is None else value)}</td>"
        for begin, value in zip(begins, row, strict=True)
    )


def _headline(report: Mapping[str, Any], title: str) -> str:
    jobs, elapsed = report["jobs"], report["elapsed_s"]
    parts = [Part(state, count, f"{count:,}", state) for state, count in outcomes(jobs)]
    per_job = report["cost_per_job_usd"]
    figures = [
        ("jobs", f"{jobs['total']:,}"),
        ("dead", f"{jobs['dead']:,}"),
        ("dropped", f"{jobs['dropped']:,}" if jobs.get("dropped") else None),
        ("took", duration(elapsed) if elapsed else None),
        (
            "rate",
            rate_text((jobs["total"] - jobs["waiting"] - jobs["running"]) / elapsed) if elapsed else None,
        ),
        ("attempts", f"{report['attempts']:,}"),
        ("interruptions", f"{report['interruptions']:,}"),
        ("cost", f"${report['cost_usd']:,.2f}" if report["cost_usd"] is not None else None),
        ("machine-hours", f"{report['machine_hours']:,.2f}" if report["machine_hours"] is not None else None),
        ("a job", f"${per_job:,.5f}" if per_job is not None else None),
    ]
    shown = "".join(
        f"<div><b>{_text(value)}</b><span>{name}</span></div>" for name, value in figures if value is not None
    )
    times = (report["started"], report["finished"])
    when = " to ".join(each.replace("T", " ").replace("Z", " UTC") for each in times if each)
    dead = f', <b class="bad">{jobs["dead"]:,} dead</b>' if jobs["dead"] else ""
    return (
        f'<header><h1>{_text(title)}</h1><p class="quiet">'
        f"{_text(report['engine'])} · {_text(report['state'])}{dead}"
        f" · {_text(when)}</p></header>"
        + _section(
            "What came out",
            f'<div class="figures">{shown}</div>{parts_plot(parts, "Jobs")}'
            + (f'<p class="quiet">{_text(unproven)}</p>' if (unproven := unproven_text(jobs)) else ""),
        )
    )


def _speed(report: Mapping[str, Any]) -> str:
    if not report["throughput"]:
        return ""
    return _section("Throughput", throughput_plot(report["throughput"], duration))


_PHASES = (
    ("running", "running-time"), ("in", "in"), ("out", "out"), ("failed", "failed"),
    ("interrupted", "interrupted"),
)  # fmt: skip
_PHASE_NAMES = {"in": "fetching inputs", "out": "publishing outputs", "failed": "failed attempts"}


def _time(report: Mapping[str, Any]) -> str:
    spent, elapsed, waited = report["time"], report["elapsed_s"], report["time"]["waited_s"]
    whole = sum(spent[name] for name, _ in _PHASES)
    if not whole:
        return ""
    parts = [
        Part(
            _PHASE_NAMES.get(name, name),
            spent[name],
            f"{duration(spent[name])} ({spent[name] / whole:.0%})",
            look,
        )
        for name, look in _PHASES
        if spent[name]
    ]
    facts: list[tuple[str, object]] = [("work of all slots", duration(whole))]
    if elapsed:
        facts.append(("jobs at a time", f"{whole / elapsed:,.1f} on average"))
    if waited:
        facts.append(
            ("wait for a slot", f"median {duration(waited['median'])}, longest {duration(waited['max'])}")
        )
    return _section("Where the time went", parts_plot(parts, "Time") + "<br>" + _facts(facts))


def _failures(groups: Sequence[Mapping[str, Any]]) -> str:
    if not groups:
        return ""
    rows = [
        (f"{g['jobs']:,}", f"{g['dead']:,}", g["cause"], g["example"], " ".join(g["ids"][:3]))
        for g in groups[:GROUPS]
    ]
    columns = {"jobs": "number", "dead": "number", "cause": "", "what they said": "said", "for example": "id"}
    left = len(groups) - len(rows)
    more = f'<p class="quiet">and {left:,} more kinds: see report.json</p>' if left else ""
    return _section("Failures", _table(columns, rows) + more)


def _histograms(report: Mapping[str, Any]) -> str:
    found, shown = report["histograms"], []
    if found["seconds"]:
        plot = histogram_plot(found["seconds"], "Time", duration)
        shown.append(_section("Time of a job", plot + _spread(report["seconds"], duration)))
    if found["max_rss_bytes"]:
        plot = histogram_plot(found["max_rss_bytes"], "Memory", bytes_text)
        spread = _spread(report["max_rss_bytes"], bytes_text)
        if report["memory_asked_bytes"]:
            spread += _facts([("asked for a job", bytes_text(report["memory_asked_bytes"]))])
        shown.append(_section("Memory of a job, at most", plot + spread + _disk(report)))
    return "".join(shown)


def _disk(report: Mapping[str, Any]) -> str:
    """Returns the disk space that jobs used, and their share of a machine's disk."""
    seen, asked = report["disk_bytes"], report["disk_asked_bytes"]
    if not seen:
        return ""
    shown = [("disk", f"inputs and outputs of a job up to {bytes_text(seen)}")]
    if asked:
        shown.append(("a job's share", bytes_text(asked)))
    return _facts(shown)


def _spread(values: Mapping[str, float], label: Any) -> str:
    names = {"median": "median", "p95": "95 of 100 below", "max": "largest"}
    return _facts((name, label(values[key])) for key, name in names.items())


def _advice(advice: Sequence[Mapping[str, Any]]) -> str:
    if not advice:
        return ""
    rows = [
        (
            a["key"],
            "not set" if a["asked"] is None else _set_to(a["asked"]),
            _set_to(a["suggested"]),
            a["seen"],
            a["why"],
        )
        for a in advice
    ]
    columns = {"key": "", "now": "pair", "better": "pair", "seen": "pair", "why": "said"}
    return _section("Next time", _table(columns, rows))


def _set_to(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _what(report: Mapping[str, Any]) -> str:
    what = report["what"]
    facts = [
        *_configs(what),
        ("environment", ", ".join(what["environment"])),
        *(
            ("job file", f"{each['name']}, {bytes_text(each['bytes'])}, sha256 {each['sha256']}")
            for each in what["job_files"]
        ),
        ("jobs", f"sha256 of their ids {what['jobs_sha256']}"),
        *(("workers", _worker(each)) for each in what["workers"]),
        ("this report", f"distributed-something {what['version']}"),
    ]
    return _section("What ran", _facts(facts))


def _configs(what: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields each key with its value; where it has changed, what it was for how many attempts."""
    periods = what.get("configs", ())
    if len(periods) < 2:
        for name, value in what["config"].items():
            yield name, _config_text(value)
        return
    for name in dict.fromkeys(name for each in periods for name in each["config"]):
        parts: list[tuple[str, int]] = []
        for each in periods:
            text = _config_text(each["config"].get(name, "not set"))
            if parts and parts[-1][0] == text:
                parts[-1] = text, parts[-1][1] + each["attempts"]
            else:
                parts.append((text, each["attempts"]))
        shown = [f"{text} ({many(attempts, 'attempt')})" for text, attempts in parts]
        yield name, ", then ".join(shown) if len(parts) > 1 else parts[0][0]


def _worker(facts: Mapping[str, str]) -> str:
    """Describes a worker. Its image is named by digest, because a tag may move."""
    image = facts.get("image"), facts.get("image_digest")
    parts = [
        f"distributed-something {facts.get('version', 'of unknown version')}",
        f"Python {facts['python']}" if "python" in facts else "",
        facts.get("system", ""),
        "image " + "@".join(filter(None, image)) if any(image) else "",
    ]
    return ", ".join(filter(None, parts))


def _config_text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _slowest(jobs: Sequence[Mapping[str, Any]]) -> str:
    if not jobs:
        return ""
    rows = [(f"{job['index']:,}", duration(job["seconds"]), job["state"], job["id"]) for job in jobs]
    columns = {"index": "number", "time": "number", "state": "", "id": "id"}
    return _section("Longest jobs", _table(columns, rows))
