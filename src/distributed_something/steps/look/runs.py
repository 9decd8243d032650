"""Tells of all runs of a project, compares two of them, and makes a run's report again.

`ds runs` and `ds report` call it. Reads the store only: no run has to be set up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...engine import Store
from ...errors import DsError, KeyMissing, UsageError
from ...inputs.config import values_given
from ...ledger import Fold, JobRecord, RunPaths
from ...report.build import DATA, REPORT
from ...runs.runfile import read_run_file
from ...worker.attempt.collect import KEY, MANIFEST_BYTES
from ...worker.attempt.task import COLLECTED
from ...worker.files.manifest import Manifest, manifest_key
from ..project import Project

EXAMPLES = 3  # most jobs that a comparison names for each difference


class RunFacts(NamedTuple):
    """One run in a line. `started` is a UTC time; `seconds` and `cost_usd` are None if unknown."""

    run: str
    started: str | None
    engine: str
    state: str
    jobs: Mapping[str, int]
    seconds: float | None
    cost_usd: float | None


def all_runs(project: Project) -> list[RunFacts]:
    """Returns the facts of every run, the newest first."""
    current = project.engine.current_run()
    return [facts_of(project, run, live=run == current) for run in reversed(project.runs())]


def facts_of(project: Project, run: str, *, live: bool) -> RunFacts:
    """Returns the facts of a run: from its report if it has ended, else from its ledger."""
    report = None if live else read_report(project, run)
    if report is None:
        try:
            snapshot = project.looking_at(run).snapshot()
            report = {**snapshot.to_json(), "elapsed_s": snapshot.elapsed}
        except DsError as error:
            project.console.say(f"note: run {run}: {error.what}")
            report = {}
    jobs = {name: int(count) for name, count in report.get("jobs", {}).items()}
    engine = _run_file_fact(project, run, "engine") or str(report.get("engine", ""))
    state = str(report.get("state", "unreadable"))
    return RunFacts(
        run, report.get("started"), engine, state, jobs, report.get("elapsed_s"), report.get("cost_usd")
    )


def read_report(project: Project, run: str) -> dict[str, Any] | None:
    """Returns the content of a run's report.json; None: it is missing or damaged."""
    try:
        found = json.loads(project.engine.store.read(RunPaths(project.config.app_name, run).root + DATA))
    except (KeyMissing, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("jobs"), dict) else None


def _run_file_fact(project: Project, run: str, name: str) -> str:
    """Returns a fact in a run's run.json as text; empty: it has none."""
    try:
        key = RunPaths(project.config.app_name, run).root + "run.json"
        found = json.loads(project.engine.store.read(key))
        return str(found[name])
    except (KeyMissing, ValueError, TypeError, KeyError):
        return ""


def remake_report(project: Project) -> str:
    """Write the report of the run that the project looks at. Returns the key of its page."""
    from ...report.build import write_report
    from ..watch.finish import make_report

    paths = project.paths()
    config = project.config
    try:
        config = read_run_file(project.engine.store, paths.app, paths.run).config
        config = config._replace(engine=project.config.engine)
    except UsageError as missing:
        project.console.say(f"note: {missing.what}; the present config is used")
    return write_report(project.engine.store, paths, make_report(project, project.fold(), config))


def report_key(project: Project) -> str | None:
    """Returns the key of the run's page; None: it has none yet."""
    key = project.paths().root + REPORT
    return key if project.engine.store.stat([key])[0] is not None else None


# -- Comparing ----------------------------------------------------------------------------------------------


def compare(project: Project, one: str, other: str) -> dict[str, Any]:
    """Returns what differs between two runs: config, what ran, jobs, outcomes, outputs, time and cost."""
    facts = [facts_of(project, run, live=run == project.engine.current_run()) for run in (one, other)]
    reports = [read_report(project, run) or {} for run in (one, other)]
    what = [report.get("what", {}) for report in reports]
    folds = [project.looking_at(run).fold().update() for run in (one, other)]
    first, second = map(_users_jobs, folds)
    both = [job for job in first if job in second]
    return {
        "runs": [one, other],
        "config": _differences(*(_config(project, run) for run in (one, other))),
        "ran": _differences(
            *(_what_ran(project, run, each) for run, each in zip((one, other), what, strict=True))
        ),
        "jobs": {
            "both": len(both),
            "only_first": _some([job for job in first if job not in second]),
            "only_second": _some([job for job in second if job not in first]),
        },
        "outcomes": _changed(first, second, both),
        "outputs": _changed_outputs(project.engine.store, folds, both),
        "seconds": [each.seconds for each in facts],
        "cost_usd": [each.cost_usd for each in facts],
    }


def _users_jobs(fold: Fold) -> dict[str, JobRecord]:
    """Returns the jobs without those that collected their outputs: these have other ids in each run."""
    found = {**fold.jobs}
    perhaps = [record for record in found.values() if record.output == COLLECTED]
    bodies = fold.bodies(perhaps)
    for record in perhaps:
        if KEY.encode() in bodies.get(record.id, b""):
            del found[record.id]
    return found


def _config(project: Project, run: str) -> dict[str, Any]:
    try:
        return values_given(read_run_file(project.engine.store, project.config.app_name, run).config)
    except UsageError:
        return {}


def _what_ran(project: Project, run: str, what: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the versions, images and job files of a run, as far as they are known."""
    workers: list[dict[str, str]] = what.get("workers", [])
    files: list[dict[str, Any]] = what.get("job_files", [])
    return {
        "version": _run_file_fact(project, run, "version"),
        "image": sorted(
            {f"{each.get('image')} {each.get('image_digest', '')}" for each in workers if each.get("image")}
        ),
        "python": sorted({each["python"] for each in workers if "python" in each}),
        "job files": sorted(f"{each.get('name')} {str(each.get('sha256'))[:12]}" for each in files),
        "environment": what.get("environment", []),
    }


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = dict.fromkeys([*one, *other])
    return {name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)}


def _changed(
    first: Mapping[str, JobRecord], second: Mapping[str, JobRecord], both: list[str]
) -> list[dict[str, Any]]:
    """Returns how the common jobs' states changed: from, to, number of jobs, examples."""
    found: dict[tuple[str, str], list[str]] = {}
    for job in both:
        one, other = first[job].state, second[job].state
        if one != other:
            found.setdefault((str(one), str(other)), []).append(job)
    return [{"from": one, "to": other, **_some(jobs)} for (one, other), jobs in sorted(found.items())]


def _changed_outputs(store: Store, folds: Sequence[Fold], both: list[str]) -> list[dict[str, Any]]:
    """Returns how outputs changed of jobs that have some in both runs: size, place, and content.

    Content is compared by the files' hashes where the later run did not replace the earlier one's output.
    """
    found: dict[str, list[str]] = {"size": [], "place": [], "content": []}
    apart: list[tuple[str, str, str]] = []
    for job in both:
        one, other = (fold.jobs[job] for fold in folds)
        if not (one.output and other.output):
            continue
        sizes = [fold.result(each).get("bytes_out") for fold, each in zip(folds, (one, other), strict=True)]
        if None not in sizes and sizes[0] != sizes[1]:
            found["size"].append(job)
        if one.output != other.output:
            found["place"].append(job)
            apart.append((job, one.output, other.output))
    keys = ([manifest_key(prefixes[side], job) for job, *prefixes in apart] for side in (0, 1))
    manifests = [store.read_many((key, 0, MANIFEST_BYTES) for key in each) for each in keys]
    for (job, _, _), one_text, other_text in zip(apart, *manifests, strict=True):
        kept = [None if text is None else Manifest.from_json(text) for text in (one_text, other_text)]
        hashes = [{file.name: file.sha256 for file in each.files} for each in kept if each is not None]
        if len(hashes) == 2 and hashes[0] != hashes[1]:
            found["content"].append(job)
    return [{"what": what, **_some(jobs)} for what, jobs in found.items() if jobs]


def _some(jobs: list[str]) -> dict[str, Any]:
    return {"count": len(jobs), "such_as": jobs[:EXAMPLES]}
