"""Counts which jobs of a file a run would skip, run again, or run first, by the code of a slot's done check.

`ds check JOBFILE` calls it. It changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..engine import Store, StoredFile
from ..errors import KeyMissing, UsageError
from ..inputs.checks.findings import Finding, ok, warning
from ..inputs.checks.fit import STAND_INS
from ..inputs.checks.present import BATCH, BATCH_BYTES, Lookup, inputs_of
from ..inputs.config import Config
from ..inputs.files import project_files
from ..inputs.handler import handler_travels
from ..inputs.jobs.jobfile import JobFile
from ..inputs.templates.paths import Input, InputTemplate, OutputTemplate
from ..job import Job, in_batches
from ..words import many
from .files.done import UNKNOWN, Done, Reading, Recipe, Rules, fingerprint, look, recipe_of, rules_of
from .files.fetch import look_at_inputs
from .files.manifest import is_manifest, manifest_key
from .files.shared import shared_files

MOST = 200_000
"""Maximum jobs of a file whose outputs are looked for: it takes about 0.2 ms a job, in a bucket more."""

_WHOLE = 1 << 30

REASONS = 4
"""Maximum reasons that are named."""


class Forecast(NamedTuple):
    """What a run would do with `jobs` jobs: skip, run again for a reason, or run for the first time."""

    jobs: int
    skipped: int
    again: Mapping[str, int]
    """Jobs that run again, by reason, the most frequent first."""
    rest: bool = False
    """There are more jobs, and they were not looked at."""

    @property
    def anew(self) -> int:
        """Jobs that run although there are outputs."""
        return sum(self.again.values())

    @property
    def first(self) -> int:
        """Jobs without outputs."""
        return self.jobs - self.skipped - self.anew


def forecast_findings(
    config: Config, file: JobFile, store: Store, project: Path, image: str = ""
) -> Iterator[Finding]:
    """Yields how many jobs of the file would be skipped as done. `image`: its digest, where it is known."""
    if not config.check_if_done_bool or config.image_starts_worker:
        return
    if not config.output:
        yield warning("CHECK_IF_DONE_BOOL: no job is skipped, as OUTPUT is not given", "OUTPUT = '…/{Plate}'")
        return
    try:
        found = forecast(config, file, store, project, image)
    except UsageError:
        return  # a job file that is wrong, or does not fit: job_file_findings says so
    if not found.jobs:
        return
    reasons = [f"{count:,}: {reason}" for reason, count in islice(found.again.items(), REASONS)]
    reasons += ["…"] if len(found.again) > REASONS else []
    why = f" ({'; '.join(reasons)})" if reasons else ""
    of = f"the first {found.jobs:,} jobs" if found.rest else many(found.jobs, "job")
    counts = f"{found.skipped:,} would be skipped, {found.anew:,} run again{why}, {found.first:,} run first"
    what = f"CHECK_IF_DONE_BOOL: of {of} {counts}"
    facts = {"jobs": found.jobs, "skipped": found.skipped, "again": found.anew, "first": found.first}
    yield ok(what)._replace(facts=(*facts.items(), ("reasons", tuple(found.again.items()))))


def forecast(
    config: Config, file: JobFile, store: Store, project: Path, image: str = "", most: int = MOST
) -> Forecast:
    """Looks for the outputs of the first `most` jobs, in batches. Raises UsageError for one that is wrong."""
    rules = rules_of(config, _recipe(config, project, image, shared_files(config, store)))
    inputs = [InputTemplate(text) for text in config.inputs]
    output = OutputTemplate(config.output)
    jobs = skipped = 0
    again: Counter[str] = Counter()
    for batch in in_batches(islice(file.jobs(), most + 1), BATCH, BATCH_BYTES):
        asked = [_Asked(job, _prefix(output, job), inputs_of(inputs, job)) for job in batch[: most - jobs]]
        seen: Reading = store
        if config.in_bucket:
            seen = Glance(store, asked, rules)
        for done in (_look(seen, rules, each) for each in asked):
            skipped += done.skip
            if done.kind and not done.skip:
                again[done.kind] += 1
        jobs += len(batch)
    return Forecast(min(jobs, most), skipped, dict(again.most_common()), jobs > most)


def _recipe(config: Config, project: Path, image: str, shared: Mapping[str, StoredFile]) -> Recipe:
    """Returns the recipe that workers will have. What an image has of a HANDLER is not known here."""
    files = project_files(config, project)
    recipe = recipe_of(config, project, image, files, shared=shared)
    elsewhere = config.handler and config.engine_kind.rents and not handler_travels(config, project, files)
    return recipe._replace(handler=UNKNOWN) if elsewhere else recipe


class _Asked(NamedTuple):
    """A job whose outputs are looked for."""

    job: Job
    prefix: str
    inputs: list[Input]


def _prefix(output: OutputTemplate, job: Job) -> str:
    return output.fill({**job.keys, **STAND_INS, "job_id": job.id})


def _look(seen: Reading, rules: Rules, asked: _Asked) -> Done:
    def made_by() -> Mapping[str, Any]:
        return fingerprint(rules.recipe, asked.job.keys, look_at_inputs(seen, asked.inputs))

    return look(seen, asked.prefix, asked.job.id, rules, made_by)


class Glance:
    """What a bucket holds for a batch of jobs: asked for in few calls, then answered from memory."""

    def __init__(self, store: Store, asked: Sequence[_Asked], rules: Rules) -> None:
        self._store = store
        self._lookup = Lookup(store, lists=True)
        alone = rules.shared and not rules.by_files
        folders = () if alone else {each.prefix + "/" for each in asked}
        self._found = self._lookup.of(folders)
        keys = (
            [manifest_key(each.prefix, each.job.id) for each in asked] if alone else list(self._manifests())
        )
        texts = zip(keys, store.read_many((key, 0, _WHOLE) for key in keys), strict=True)
        self._texts = {key: text for key, text in texts if text is not None}
        made = {key.rpartition("/.ds/")[0] for key in self._texts}
        inputs = {one.key for each in asked if each.prefix in made for one in each.inputs}
        self._found |= self._lookup.of(inputs)

    def _manifests(self) -> Iterator[str]:
        for folder, files in self._found.items():
            yield from (file.key for file in files if is_manifest(file.key, folder[:-1]))

    def list(self, prefix: str) -> Iterator[StoredFile]:
        """Yields the files below a folder that was asked for."""
        found = self._found if prefix in self._found else self._lookup.of([prefix])
        return iter(found[prefix])

    def read(self, key: str) -> bytes:
        """Returns a manifest. Raises KeyMissing."""
        if key not in self._texts:
            raise KeyMissing(f"{key}: not in the store")
        return self._texts[key]

    def stat(self, keys: Iterable[str]) -> Sequence[StoredFile | None]:
        """Returns each file, as `Store.stat` does."""
        wanted = list(keys)
        new = [key for key in wanted if key not in self._found]
        known = dict(zip(new, self._store.stat(new), strict=True)) if new else {}
        return [known[key] if key in known else next(iter(self._found[key]), None) for key in wanted]
