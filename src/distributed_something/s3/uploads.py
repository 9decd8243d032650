"""Ends the uploads in parts of processes that were killed: their parts are invisible, and cost money."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from ..errors import DsError
from ..inputs.config import Config
from ..system.leftovers import AGE_SECONDS
from ..words import many
from .access import Access
from .session import AwsSession, aws_errors, or_none


def prefixes_of(config: Config) -> list[str]:
    """Returns the prefixes below which an app uploads: that of its runs, and the fixed part of OUTPUT."""
    fixed = (config.output or "").partition("{")[0].rpartition("/")[0].strip("/")
    return [f"runs/{config.app_name}/", *([f"{fixed}/"] if fixed else [])]


def end_old_uploads(config: Config, access: Access, now: float, say: Callable[[str], None]) -> None:
    """Ends what killed processes of an app have left in its bucket, and says so. A failure is said only."""
    bucket, prefix = config.home
    below = f"{prefix.strip('/')}/" if prefix else ""
    prefixes = [below + each for each in prefixes_of(config)]
    try:
        ended = abort_old_uploads(access.session_for(bucket), bucket, prefixes, now) if bucket else 0
    except DsError as error:
        if "NoSuchBucket" not in error.what:
            say(f"note: unfinished uploads, if any, stay: {error.what}")
        return
    if ended:
        say(f"ended {many(ended, 'unfinished upload')} of killed processes in s3://{bucket}")


def abort_old_uploads(session: AwsSession, bucket: str, prefixes: Iterable[str], now: float) -> int:
    """Ends the uploads below these prefixes that began a day ago. Returns how many. Raises DsError."""
    client, ended = session.client("s3"), 0
    old = datetime.fromtimestamp(now, UTC) - timedelta(seconds=AGE_SECONDS)
    with aws_errors(f"looking for unfinished uploads in s3://{bucket}"):
        for prefix in prefixes:
            pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
            for upload in [each for page in pages for each in page.get("Uploads", ())]:
                if upload["Initiated"] < old:
                    key = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                    or_none(client.abort_multipart_upload, "NoSuchUpload", **key)
                    ended += 1
    return ended
