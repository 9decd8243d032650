"""Prints findings, and the first jobs of a file as a worker would run them: `ds check`, `ds submit`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ...console import Console, describe
from ...engine import Store, files_at
from ...errors import DsError
from ...inputs.checks.preview import Preview, Previewer
from ...words import bytes_text, many

if TYPE_CHECKING:
    from ...inputs.checks.findings import Finding
    from ...inputs.jobs.jobfile import JobFile
    from ...steps.project import Project

FILES_SHOWN = 5  # most input files that are shown of one job

NAMES_SHOWN = 100
LONGEST_SHOWN = 1000
"""Most keys or variables that are shown of one job, and most characters of each."""


def show_first(project: Project, file: JobFile, count: int) -> None:
    """Print the first jobs: command, inputs with sizes, output, environment, image. Raises UsageError."""
    console, previewer = project.console, Previewer(project.config)
    for number, job in enumerate(islice(file.jobs(), count)):
        preview = previewer.show(job)
        inputs = [*_inputs(project.engine.store, preview.inputs)]
        if console.json:
            facts = {"id": preview.id, "job": preview.keys, "command": preview.command, "inputs": inputs}
            more = {"output": preview.output, "environment": preview.environment, "image": preview.image}
            console.data({**facts, **more})
        else:
            console.line(("\n" if number else "") + describe(_facts(project, preview, inputs)))


def _facts(project: Project, preview: Preview, inputs: list[dict[str, Any]]) -> dict[str, object]:
    shown = [f"{each['key']} ({_size(each)})" for each in inputs[:FILES_SHOWN]]
    if more := len(inputs) - FILES_SHOWN:
        shown += [f"and {many(more, 'file')} more"] if more > 0 else []
    output = preview.output
    return {
        "job": preview.id,
        "keys": _shown(preview.keys),
        "command": preview.command,
        "inputs": "\n          ".join(shown) or None,
        "output": None if output is None else project.engine.store.locate(output),
        "set": _shown(preview.environment),
        "image": preview.image,
    }


def _shown(values: Mapping[str, object]) -> str:
    """Returns names with values; many and long ones are cut, as --json has them whole."""
    some = [_cut(f"{name}={value}") for name, value in islice(values.items(), NAMES_SHOWN)]
    more = len(values) - len(some)
    return " ".join([*some, *([f"and {more:,} more"] if more else [])])


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _size(found: dict[str, Any]) -> str:
    if found.get("elsewhere"):
        return "in another bucket: not looked for"
    return "missing" if found["bytes"] is None else bytes_text(found["bytes"])


def _inputs(store: Store, keys: list[str]) -> Iterator[dict[str, Any]]:
    """Yields the input files with their sizes in bytes; None: there is no such file, or it is `elsewhere`."""
    for key in keys:
        if key.startswith("s3:"):
            yield {"key": key, "bytes": None, "elsewhere": True}
            continue
        try:
            found = [{"key": file.key, "bytes": file.size} for file in files_at(store, key)]
        except DsError:
            found = []
        yield from found or [{"key": key, "bytes": None}]


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print findings, the worst first."""
    from ...inputs.checks.findings import Severity

    if console.json:
        for each in findings:
            facts = {name: dict(value) if isinstance(value, tuple) else value for name, value in each.facts}
            more = {"facts": facts} if facts else {}
            console.data({"severity": each.severity, "what": each.what, "fix": each.fix, **more})
        return
    order = list(Severity)
    rows = sorted(findings, key=lambda each: order.index(each.severity))
    console.table(["severity", "what", "fix"], [(each.severity, each.what, each.fix) for each in rows])
    counts = {each: sum(found.severity is each for found in findings) for each in order}
    console.say(
        f"{many(counts[Severity.ERROR], 'error')}, {many(counts[Severity.WARNING], 'warning')}, "
        + (f"{many(counts[Severity.NOTICE], 'notice')}, " if counts[Severity.NOTICE] else "")
        + f"{counts[Severity.OK]} ok"
    )
