"""Queues the collecting job of a run, once all of its jobs have ended. `monitor` calls it.

It is a job as any other, with attempts, log, output and manifest, and counts as one job more. Its list of
outputs lies in the store; `worker/attempt/collect.py` does the work.
"""

from __future__ import annotations

import hashlib
import json

from ...errors import DsError
from ...job import Job, State
from ...ledger import Fold, JobRecord, job_bodies
from ...worker.attempt.collect import KEY, Outputs, list_lines
from ..project import Project
from ..submit import queue_jobs


def begin_collecting(project: Project) -> bool:
    """Queue the collecting job, if COLLECT asks for one and it has not been queued for these outputs.

    Returns whether it was queued: the run then goes on. An error is a note, as the end of a run must not
    depend on it: machines cost money.
    """
    if not project.config.collect or project.config.image_starts_worker:
        return False
    try:
        return _begin(project, project.fold())
    except DsError as error:
        project.console.say(f"note: COLLECT was not run: {error.what}")
        return False


def _begin(project: Project, fold: Fold) -> bool:
    store, paths = project.engine.store, project.paths()
    earlier = collecting_jobs(project)
    records = [each for each in fold.update().jobs.values() if each.id not in earlier]
    dead = sum(each.state is State.DEAD for each in records)
    if dead and project.config.collect_when == "succeeded":
        project.console.say(f"note: COLLECT was not run: {dead:,} of {len(records):,} jobs are dead")
        return False
    done = [each for each in records if each.output and each.state in (State.SUCCEEDED, State.SKIPPED)]
    if not done:
        return False
    content = list_lines(_outputs(project, done))
    key = f"{paths.root}collect/{hashlib.sha256(content).hexdigest()[:16]}.jsonl"
    job = _job_of(key)
    if job.id in fold.jobs:
        return False
    store.write(key, content)
    queue_jobs([job], project.engine.queue(), store, paths, lambda _: None)
    return True


def collecting_jobs(project: Project) -> set[str]:
    """Returns the ids of the collecting jobs that the run has had."""
    prefix = project.paths().root + "collect/"
    return {_job_of(file.key).id for file in project.engine.store.list(prefix)}


def _job_of(key: str) -> Job:
    body = json.dumps({"group": {KEY: key}}, separators=(",", ":")).encode()
    return Job(hashlib.sha256(body).hexdigest()[:16], 0, body)


def _outputs(project: Project, done: list[JobRecord]) -> list[Outputs]:
    """Returns the outputs of jobs, in the order of submission."""
    store, paths = project.engine.store, project.paths()
    bodies = dict(job_bodies(store, paths, {each.id for each in done}))
    groups = {job_id: body.get("group") for job_id, body in bodies.items()}
    return [
        Outputs(each.id, each.output or "", group if isinstance(group := groups.get(each.id), dict) else {})
        for each in sorted(done, key=lambda each: each.index)
    ]
