"""Looks for inputs that S3 has archived: they are listed like others, and cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from ..errors import UsageError
from ..inputs.checks.findings import Finding, error
from ..inputs.checks.present import inputs_of
from ..inputs.config import Config
from ..inputs.jobs.jobfile import JobFile
from ..inputs.templates.paths import InputTemplate
from ..words import many
from .session import AwsSession, aws_errors, or_none

LOOKED_AT = 500
"""Maximum inputs that are asked for, one call each; a listing does not say what is restored."""

AT_ONCE = 16
ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_MISSING = ("404", "NoSuchKey", "NotFound", "403", "Forbidden")
RESTORE = "restore it (aws s3api restore-object), wait until it is there, or name a copy"


def archived_findings(config: Config, file: JobFile, session: AwsSession) -> Iterator[Finding]:
    """Yields an error if inputs of the first jobs are archived and not restored."""
    try:
        keys = list(islice(_keys(config, file), LOOKED_AT))
    except UsageError:
        return  # a job file that is wrong, or does not fit: job_file_findings says so
    with aws_errors("looking at the inputs"), ThreadPoolExecutor(AT_ONCE) as pool:
        kinds = list(pool.map(lambda key: _archive(session, config.aws_bucket, key), keys))
    found = [(key, kind) for key, kind in zip(keys, kinds, strict=True) if kind]
    if found:
        (key, kind), of = found[0], many(len(keys), "input")
        yield error(f"INPUTS: archived: {len(found):,} of the first {of}, such as {key} ({kind})", RESTORE)


def _keys(config: Config, file: JobFile) -> Iterator[str]:
    """Yields the keys of the inputs of all jobs, each once; folders are left out."""
    templates = [InputTemplate(text) for text in config.inputs]
    seen = set[str]()
    for job in file.jobs():
        for each in inputs_of(templates, job):
            if each.key not in seen and not each.key.endswith("/"):
                seen.add(each.key)
                yield each.key


def _archive(session: AwsSession, bucket: str, key: str) -> str:
    """Returns the archive that an object lies in; empty: it can be read, or is not there."""
    if key.startswith("s3:"):
        bucket, _, key = key.removeprefix("s3:").lstrip("/").partition("/")
    look = session.client("s3").head_object
    found: Mapping[str, Any] | None = or_none(look, *_MISSING, Bucket=bucket, Key=key.lstrip("/"))
    return archive_of(found or {})


def archive_of(described: Mapping[str, Any]) -> str:
    """Returns the archive of an object as S3 describes it; empty: it can be read."""
    kind = str(described.get("ArchiveStatus") or described.get("StorageClass") or "")
    restored = 'ongoing-request="false"' in described.get("Restore", "")
    archived = kind in ARCHIVES or "ArchiveStatus" in described
    return kind if archived and not restored else ""
