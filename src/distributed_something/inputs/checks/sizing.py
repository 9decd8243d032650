"""Works out what jobs of a file need, and whether machines have it. `ds submit` and `ds check` use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...engine import Store
from ...errors import UsageError
from ...job import Job, Needs, NeedyJob, in_batches
from ...packing import Capacity
from ...words import many
from ..config import Config
from ..jobs.jobfile import JobFile
from ..needs import Resources
from ..templates.paths import InputTemplate
from .findings import Finding, ok, refused
from .present import BATCH, BATCH_BYTES, Lookup, inputs_of


def with_needs(config: Config, store: Store, jobs: Iterable[Job], default: Needs) -> Iterator[Job]:
    """Yields the jobs; those that say what they need as NeedyJob. Looks up inputs where sizes count.

    `default` is what a job needs of which it says nothing. Raises UsageError.
    """
    resources = Resources(config.resources)
    templates = [InputTemplate(text) for text in config.inputs] if resources.sized else []
    lookup = Lookup(store, lists=config.in_bucket)
    for batch in in_batches(jobs, BATCH, BATCH_BYTES):
        known = [job if templates and job.body else None for job in batch]
        keys = [[each.key for each in inputs_of(templates, job)] if job else [] for job in known]
        found = lookup.of({key for wanted in keys for key in wanted})
        for job, wanted in zip(batch, keys, strict=True):
            size = sum(file.size for key in wanted for file in found[key])
            needs = resources.needs(job.keys, size, default) if resources.may_say(job.body) else None
            yield job if needs is None else NeedyJob(job, needs)


def largest(config: Config, file: JobFile, store: Store, capacity: Capacity) -> Needs | None:
    """Returns the most that jobs of a file need of each; None: no job says anything.

    Raises UsageError for the first job that fits no machine.
    """
    found: Needs | None = None
    for job in with_needs(config, store, file.jobs(), capacity.default):
        if isinstance(job, NeedyJob):
            if not job.needs.fit(capacity.whole):
                what = f"job {job.index + 1} needs {job.needs}, and {capacity.what} has {capacity.whole}"
                raise UsageError(what, capacity.fix)
            found = job.needs.most(found or capacity.default)
    return found


def need_findings(config: Config, file: JobFile, store: Store, capacity: Capacity) -> Iterator[Finding]:
    """Yields whether machines have what the jobs need, and how many of the largest run at a time."""
    try:
        most = largest(config, file, store, capacity)
    except UsageError as unfit:
        yield refused(unfit)
        return
    if most is not None:
        yield ok(f"the largest need is {most}; {at_once(capacity, most)}")


def at_once(capacity: Capacity, most: Needs) -> str:
    """Says how many jobs run at a time where all need the most of any."""
    jobs = many(capacity.fitting(most), "job")
    return f"{capacity.what} has {capacity.whole}: {jobs} of that size at a time"
