"""Implements engine.Store on a bucket of S3 or of an S3-compatible server: fast, in bounded memory.

Files travel by obstore, which works outside Python. Lists come from botocore: obstore's cannot start inside a
name, and fail on keys with "//". Every body is sent with its SHA-256 in the signature, so S3 refuses a body
that changed on its way.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from ..engine import StoredFile, check_key
from ..errors import DsError, KeyMissing, KeyRefused
from .bucket import Credentials, open_bucket
from .errors import Conflict, Exists, Place, code_of, errors_of_botocore, translated
from .segment import Segment
from .session import AwsSession, aws_errors
from .transfer import (
    FILES_AT_ONCE,
    MEMORY,
    PART_BYTES,
    PARTS_AT_ONCE,
    aside,
    at_once,
    parts,
    read_ahead,
    write_from,
)

WORKER_RETRY_SECONDS = 180.0
"""How long workers repeat a failed request, in seconds: giving up may lose a job of hours."""

SILENCE_SECONDS = 120.0
"""Longest silence of S3 in seconds: a slow line needs this to send a large body."""

ANSWER_SECONDS = 10.0
SMALL_BYTES = 1 << 20
"""Longest silence of S3 for bodies up to SMALL_BYTES, in seconds, beside the time of repetition."""

FRESH_SECONDS = 60.0
"""Age in seconds of an unread answer (there was no memory for it) at which the request is repeated: a request
has five minutes in all."""

_CONFLICT_TRIES = 20

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class S3Store:
    """Implements engine.Store on a bucket, or on what lies below `prefix` in it. Threads may share it.

    Nothing is imported and no call made before the first verb. `region` is the bucket's (None: that of the
    session); `retry_seconds` limits the repetition of failed requests (None: the patience of the session);
    `now` is a clock in seconds.
    Keys with control characters, or that are not UTF-8, are refused, as S3 cannot list them.
    """

    def __init__(
        self,
        bucket: str,
        *,
        session: AwsSession,
        region: str | None = None,
        prefix: str = "",
        retry_seconds: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bucket = bucket
        self._session = session
        self._region = region
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._given_seconds = retry_seconds
        self._retry_seconds = session.patience if retry_seconds is None else retry_seconds
        self._now = now
        self._credentials: Credentials | None = None
        self._objects: dict[float, Any] = {}
        self._segments: dict[str, Segment] = {}
        self._lock = threading.Lock()
        self._opening = threading.Lock()

    @property
    def folds_case(self) -> bool:
        """Whether `a` and `A` are one name: not in S3."""
        return False

    def locate(self, key: str) -> str:
        """The file's address: s3://bucket/key."""
        return f"s3://{self.bucket}/{self._prefix}{check_key(key)}"

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Every file whose key starts with `prefix`, in key order, all pages.

        The "folders" that S3's console makes are passed over. Names that are no keys come as they are: what
        takes them up refuses them.
        """
        if folder := prefix.rpartition("/")[0]:
            check_key(folder)
        yield from self._list(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        """Yields the next part of the keys below `prefix`, each once, in order: a request a thousand."""
        check_key(prefix.rstrip("/"))
        start = self._prefix + prefix
        with self._errors(prefix):
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=start, Delimiter="/"):
                for entry in page.get("CommonPrefixes", ()):
                    name = entry["Prefix"][len(start) :].rstrip("/")
                    if name not in ("", ".", ".."):
                        yield name

    def _list(self, prefix: str, after: str = "") -> Iterator[StoredFile]:
        cut = len(self._prefix)
        with self._errors(prefix):
            pages = self._client().get_paginator("list_objects_v2")
            start = {"StartAfter": self._prefix + after} if after else {}
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._prefix + prefix, **start):
                for entry in page.get("Contents", ()):
                    key = entry["Key"][cut:]
                    if key and not key.endswith("/"):
                        yield StoredFile(key, entry["Size"], entry.get("ETag", "").strip('"'))

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """The file's content, or a part of it; an appended file's is joined. Raises KeyMissing."""
        segment = self._segments.get(key)
        if segment is None:
            try:
                return self._read(key, start, length)
            except KeyMissing:
                if not self._is_appended(key):
                    raise
            segment = self._segment(key)
        end = None if length is None else start + length
        if end is None or end > segment.size:
            self._look(segment)
        return b"".join(self._read(*piece) for piece in segment.pieces(start, end))

    def read_many(self, pieces: Iterable[tuple[str, int, int]]) -> Iterator[bytes | None]:
        """The bytes of each (key, start, length), in order, many at a time; None where there is no file."""
        return read_ahead(self.read, pieces)

    def _read(self, key: str, start: int, length: int | None) -> bytes:
        name = self._name(key)
        with self._errors(key):
            try:
                wanted = _range(start, length)
                found: bytes = aside(lambda: self._get(name, *wanted).bytes().to_bytes())
                return found[:length]
            except Exception as error:
                if start == 0 and length is None:
                    raise
                if code_of(error) == "InvalidRange":  # it starts where the file ends
                    return b""
                raise

    def stat(self, keys: Iterable[str]) -> Sequence[StoredFile | None]:
        """Returns each file with its size and tag, many at a time; None: there is no such file."""
        return at_once(self._stat, [(key,) for key in keys], FILES_AT_ONCE)

    def _stat(self, key: str) -> StoredFile | None:
        import obstore

        name = self._name(key)
        with self._errors(key):
            try:
                found = aside(lambda: obstore.head(self._open(), name))
                return StoredFile(key, int(found["size"]), (found["e_tag"] or "").strip('"'))
            except FileNotFoundError:
                return None

    def write(self, key: str, data: bytes) -> None:
        """Replace the file at once."""
        self._put(key, data, "overwrite")

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Create the file with this content unless it exists.

        False also if the answer to a successful creation was lost, as the repeated request finds the file.
        """
        for _ in range(_CONFLICT_TRIES):
            try:
                self._put(key, data, "create")
            except Exists:
                return False
            except Conflict:  # another writer of the same key is under way: not yet decided who was first
                continue
            return True
        raise DsError(f"{self.locate(key)}: many others write it at the same time", "try again")

    def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Replaces the file if its content is still `old` (If-Match)."""
        try:
            data, tag = self._tagged(key)
            if data != old:
                return False
            self._put(key, new, {"e_tag": tag})
        except (KeyMissing, Exists, Conflict):
            return False
        return True

    def ignored_condition(self, key: str) -> str:
        """Writes and removes a file. Returns the condition that the server ignores; empty: none."""
        tries: list[tuple[str, Any]] = [("If-None-Match", "create"), ("If-Match", {"e_tag": '"0"'})]
        self._put(key, b"1", "create")
        try:
            for condition, mode in tries:
                with suppress(Exists, Conflict):
                    self._put(key, b"2", mode)
                    return condition
        finally:
            self.delete([key])
        return ""

    def _tagged(self, key: str) -> tuple[bytes, str]:
        """Returns a file's content and the tag for If-Match."""
        name = self._name(key)
        with self._errors(key):

            def get() -> tuple[bytes, str]:
                answer = self._get(name)
                return answer.bytes().to_bytes(), answer.meta["e_tag"]

            found: tuple[bytes, str] = aside(get)
            return found

    def _put(self, key: str, data: bytes, mode: Any) -> None:
        import obstore
        import obstore.exceptions

        name = self._name(key)
        with self._errors(key):
            bucket = self._open(len(data))
            try:
                aside(lambda: obstore.put(bucket, name, data, mode=mode, use_multipart=False))
            except obstore.exceptions.PreconditionError as error:  # changed since its tag was read
                raise Exists from error

    def append(self, key: str, data: bytes) -> None:
        """Adds to the end of an appended file that only this process writes, by rewriting its last part.

        So a part only grows, and small appends make few parts. After a failure the file is as before, or has
        the data; the next append then replaces them.
        """
        segment = self._segment(key)
        with segment.lock:
            if segment.unknown:
                self._look(segment)
            number, whole = segment.extended(data)
            self.write(segment.part(number), whole)
            segment.wrote(number, whole)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files, a thousand in a request; one that is not there is no error."""
        import obstore

        gone = [*keys]
        names = [self._name(key) for key in gone]
        self._forget(gone)
        with self._errors(""):
            for start in range(0, len(names), 1000):
                aside(partial(obstore.delete, self._open(), names[start : start + 1000]))

    def fetch(self, key: str, path: Path) -> int:
        """Copies a stored file to a new local path, a large one by several ranges at a time.

        Raises KeyMissing, and DsError if a large file is replaced while it is read.
        """
        name = self._name(key)
        return aside(lambda: self._fetch(key, name, path))

    def _fetch(self, key: str, name: str, path: Path) -> int:
        with self._errors(key):
            asked = self._now()
            first = self._first_part(name)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                return 0 if first is None else self._copy(name, first, asked, file)
            finally:
                os.close(file)

    def _first_part(self, name: str) -> Any:
        """The unread answer to a request for the first part; None: the file is empty."""
        try:
            return self._get(name, (0, PART_BYTES))
        except Exception as error:
            if code_of(error) == "InvalidRange":
                return None
            raise

    def _copy(self, name: str, first: Any, asked: float, file: int) -> int:
        """Writes the whole file; uses the answer `first` while it is fresh."""
        size, tag = first.meta["size"], first.meta["e_tag"]

        def copy(start: int) -> None:
            fresh = not start and self._now() - asked < FRESH_SECONDS
            answer = first if fresh else self._get(name, (start, min(start + PART_BYTES, size)), tag)
            write_from(answer, file, start)

        with MEMORY.hold(min(size, PART_BYTES * PARTS_AT_ONCE)):
            at_once(copy, [(start,) for start in range(0, size, PART_BYTES)], PARTS_AT_ONCE)
        return int(size)

    def publish(self, path: Path, key: str) -> int:
        """Copies a local file into the bucket, a large one in parts. After a failure no part is left.

        Only a killed process leaves invisible parts: `uploads` ends those when they are a day old.
        """
        name = self._name(key)
        return aside(lambda: self._publish(path, key, name))

    def _publish(self, path: Path, key: str, name: str) -> int:
        size = path.stat().st_size
        if size <= PART_BYTES:
            with MEMORY.hold(size):
                data = path.read_bytes()
                self._put(key, data, "overwrite")
            return len(data)
        with suppress(KeyMissing):  # the last answer was lost, and the repeated request found no upload
            return self._publish_parts(path, key, name, size)
        return self._publish_parts(path, key, name, size)

    def _publish_parts(self, path: Path, key: str, name: str, size: int) -> int:
        import obstore

        part, at_a_time = parts(size)
        with MEMORY.hold(part * (at_a_time + 1)), self._errors(key):
            obstore.put(self._open(size), name, path, chunk_size=part, max_concurrency=at_a_time)
        return size

    def fetch_many(self, files: Iterable[tuple[str, Path]]) -> Sequence[int]:
        """Fetch each (key, path), many at a time; their sizes."""
        return at_once(self.fetch, files, FILES_AT_ONCE)

    def publish_many(self, files: Iterable[tuple[Path, str]]) -> Sequence[int]:
        """Publish each (path, key), many at a time; their sizes."""
        return at_once(self.publish, files, FILES_AT_ONCE)

    def in_its_region(self) -> Self:
        """Asks for the bucket's region, and sends requests there. Returns the store itself."""
        self._region = self._region_of(self.bucket)
        return self

    # Appended files

    def _segment(self, key: str) -> Segment:
        with self._lock:
            return self._segments.setdefault(key, Segment(check_key(key)))

    def _forget(self, gone: Iterable[str]) -> None:
        """Forgets appended files whose parts are deleted."""
        for key in gone:
            self._segments.pop(key.rpartition(".")[0], None)

    def _is_appended(self, key: str) -> bool:
        return self._stat(Segment(key).part(1)) is not None

    def _look(self, segment: Segment) -> None:
        """Reads which parts are new or have grown."""
        segment.learn(self._list(segment.key + ".", after=segment.last_finished))

    # Requests

    def _name(self, key: str) -> str:
        """The object's name."""
        name = self._prefix + check_key(key)
        if _CONTROL.search(name) or not _is_utf8(name):
            raise KeyRefused(
                f"store key {key!r}: S3 keeps no control characters, and only UTF-8",
                "give the file another name",
            )
        return name

    def _get(self, name: str, wanted: Any = None, tag: str | None = None) -> Any:
        import obstore

        options: Any = {} if wanted is None else {"range": wanted}
        if tag:
            options["if_match"] = tag
        return obstore.get(self._open(), name, options=options)

    def _client(self) -> Any:
        return self._session.client("s3", patience=self._given_seconds)

    def _open(self, sent: int = 0) -> Any:
        """The bucket for obstore, with botocore's endpoint. `sent`: bytes in a request."""
        quick = ANSWER_SECONDS + self._retry_seconds
        silence = SILENCE_SECONDS if sent > SMALL_BYTES else min(quick, SILENCE_SECONDS)
        if silence not in self._objects:
            with self._opening:  # many threads begin at once: one opens it
                if silence not in self._objects:
                    self._objects[silence] = self._opened(silence)
        return self._objects[silence]

    def _opened(self, silence: float) -> Any:
        with aws_errors(f"opening s3://{self.bucket}"):
            endpoint = self._session.endpoint or self._client().meta.endpoint_url
            if not self._session.unsigned:
                self._credentials = self._credentials or Credentials(self._session)
            return open_bucket(
                self.bucket,
                self._session,
                region=self.region,
                endpoint=endpoint,
                retry_seconds=self._retry_seconds,
                silence_seconds=silence,
                credentials=self._credentials,
            )

    def _region_of(self, bucket: str) -> str | None:
        """The region of a bucket. S3 names it even in a refusal."""
        import botocore.exceptions

        with self._errors(""):
            try:
                answer = self._client().head_bucket(Bucket=bucket)
            except botocore.exceptions.ClientError as error:
                answer = error.response
        region: str | None = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        return region

    @property
    def region(self) -> str:
        """The region of the requests."""
        return self._region or self._session.region

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Within: translates errors of obstore and botocore."""
        try:
            with errors_of_botocore(f"s3://{self.bucket}/{self._prefix}{key}"):
                yield
        except DsError:
            raise
        except Exception as error:
            ours = self._refused(error) or translated(error, self._place(key))
            if ours is None:
                raise
            raise ours from error

    def _place(self, key: str) -> Place:
        return Place(self.bucket, self._prefix, key, self.region)

    def _refused(self, error: Exception) -> DsError | None:
        """Why there were no credentials, if that is what failed a request."""
        if self._credentials is None:  # obstore made no request, and may not be installed
            return None
        from obstore.exceptions import UnauthenticatedError

        return self._credentials.failure if isinstance(error, UnauthenticatedError) else None


def _range(start: int, length: int | None) -> tuple[Any, ...]:
    """Arguments of a request for these bytes; for one byte if there are none, as S3 has no empty ranges."""
    if length is not None:
        return ((start, start + max(length, 1)),)
    return ({"offset": start},) if start else ()


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
