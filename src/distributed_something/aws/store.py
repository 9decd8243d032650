"""A store in a bucket of S3, or of anything that speaks S3: fast, and in bounded memory.

Files travel by obstore, whose work is done outside Python; lists come from boto3, since a list of obstore
cannot start inside a name and fails on the keys with "//" that other tools leave in buckets. Every body
is sent with its SHA-256 in the signature, and S3 refuses one that arrived otherwise.
"""

from __future__ import annotations

import os
import re
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from ..engine import StoredFile, check_key
from ..errors import DsError, KeyMissing, KeyRefused
from .session import AwsSession, aws_errors, error_code

PART_BYTES = 8 << 20
"""A file up to this size goes in one request, a larger one in parts of it (larger parts above 74 GB)."""

PARTS_AT_ONCE = 6
FILES_AT_ONCE = 32
MEMORY_BYTES = 80 << 20
"""What all transfers of the process together may hold, as far as we know: the libraries hold as much again.
A file above 400 GB needs more: two parts of it."""

AHEAD_BYTES = 32 << 20
"""What reads of many files hold beyond the one that is being looked at."""

SEGMENT_PART_BYTES = 512 << 10
"""A part of an appended file grows to this size, by being written anew; then the next one begins."""

RETRY_SECONDS = 180.0
"""How long a request is repeated that the network or S3 failed: less than the 5 minutes a signature lives."""

_MOST_PARTS = 9_500
_REQUEST_SECONDS = 300
_SILENCE_SECONDS = 120
_CREDENTIALS_SECONDS = 420
_CONFLICT_TRIES = 20

_T = TypeVar("_T")


class S3Store:
    """Implements engine.Store on a bucket, or on what lies below `prefix` in it. Threads may share it.

    Nothing is imported and no call made before the first verb. `region` is the bucket's where it is not the
    session's own; `retry_seconds` bounds the repetition of requests that the network or S3 failed.
    Keys with control characters, or that are not UTF-8, are refused, as S3 cannot list them.
    """

    def __init__(
        self,
        bucket: str,
        *,
        session: AwsSession,
        region: str | None = None,
        prefix: str = "",
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self.bucket = bucket
        self._session = session
        self._region = region
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._retry_seconds = retry_seconds
        self._credentials: _Credentials | None = None
        self._objects: Any = None
        self._segments: dict[str, _Segment] = {}
        self._lock = threading.Lock()

    def locate(self, key: str) -> str:
        """The file's address: s3://bucket/key."""
        return f"s3://{self.bucket}/{self._prefix}{check_key(key)}"

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Every file whose key starts with `prefix`, in key order, all pages.

        Objects whose names are no keys (the "folders" that S3's console makes) are passed over.
        """
        if folder := prefix.rpartition("/")[0]:
            check_key(folder)
        yield from self._list(prefix)

    def _list(self, prefix: str, after: str = "") -> Iterator[StoredFile]:
        cut = len(self._prefix)
        with self._errors(prefix):
            pages = self._client().get_paginator("list_objects_v2")
            start = {"StartAfter": self._prefix + after} if after else {}
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._prefix + prefix, **start):
                for entry in page.get("Contents", ()):
                    key = entry["Key"][cut:]
                    if {"", ".", ".."}.isdisjoint(key.split("/")):
                        yield StoredFile(key, entry["Size"])

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """The file's content, or a part of it; of an appended file that of its parts. Raises KeyMissing."""
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
        return _read_ahead(self.read, pieces)

    def _read(self, key: str, start: int, length: int | None) -> bytes:
        name = self._name(key)
        with self._errors(key):
            try:
                found: bytes = self._get(name, *_range(start, length)).bytes().to_bytes()
                return found[:length]
            except Exception as error:
                if start == 0 and length is None:
                    raise
                if _code(error) == "InvalidRange":  # it starts where the file ends
                    return b""
                raise

    def write(self, key: str, data: bytes) -> None:
        """Replace the file at once."""
        self._put(key, data, "overwrite")

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Create the file with this content unless it exists.

        Where the answer to a successful creation is lost, the repeated request finds the file: False.
        """
        for _ in range(_CONFLICT_TRIES):
            try:
                self._put(key, data, "create")
            except _Exists:
                return False
            except _Conflict:  # another writer of the same key is under way: not yet decided who was first
                continue
            return True
        raise DsError(f"{self.locate(key)}: many others write it at the same time", "try again")

    def _put(self, key: str, data: bytes, mode: Any) -> None:
        import obstore

        name = self._name(key)
        with self._errors(key):
            obstore.put(self._open(), name, data, mode=mode, use_multipart=False)

    def append(self, key: str, data: bytes) -> None:
        """Add to the end of an appended file that only this process writes: its last part is written anew.

        So a part, once seen, only grows, and small appends do not make many parts. After a failure the
        file is as it was, or has the data; the next append then takes their place.
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
                obstore.delete(self._open(), names[start : start + 1000])

    def fetch(self, key: str, path: Path) -> int:
        """Copy a stored file to a new local path: a large one by several ranges at a time.

        Raises KeyMissing, and DsError where a large file is replaced while it is read.
        """
        name = self._name(key)
        with self._errors(key):
            first = self._first_part(name)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                return 0 if first is None else self._copy(name, first, file)
            finally:
                os.close(file)

    def _first_part(self, name: str) -> Any:
        """The answer to a request for the first part, not read yet; None where the file is empty."""
        try:
            return self._get(name, (0, PART_BYTES))
        except Exception as error:
            if _code(error) == "InvalidRange":
                return None
            raise

    def _copy(self, name: str, first: Any, file: int) -> int:
        size, tag = first.meta["size"], first.meta["e_tag"]
        if size <= PART_BYTES:
            with _MEMORY.hold(size):
                _write_at(file, first.bytes(), 0)
            return int(size)

        def copy(start: int) -> None:
            answer = self._get(name, (start, min(start + PART_BYTES, size)), tag) if start else first
            _write_at(file, answer.bytes(), start)

        with _MEMORY.hold(PART_BYTES * PARTS_AT_ONCE):
            _at_once(copy, [(start,) for start in range(0, size, PART_BYTES)], PARTS_AT_ONCE)
        return int(size)

    def publish(self, path: Path, key: str) -> int:
        """Copy a local file into the bucket: in parts where it is large. After a failure no part is left.

        Only a process that is killed leaves parts, unseen: a lifecycle rule of the bucket removes those.
        """
        import obstore

        size = path.stat().st_size
        name = self._name(key)
        if size <= PART_BYTES:
            with _MEMORY.hold(size):
                data = path.read_bytes()
                self._put(key, data, "overwrite")
            return len(data)
        part, at_once = _parts(size)
        with _MEMORY.hold(part * (at_once + 1)), self._errors(key):
            obstore.put(self._open(), name, path, chunk_size=part, max_concurrency=at_once)
        return size

    def fetch_many(self, files: Iterable[tuple[str, Path]]) -> Sequence[int]:
        """Fetch each (key, path), many at a time; their sizes."""
        return _at_once(self.fetch, files, FILES_AT_ONCE)

    def publish_many(self, files: Iterable[tuple[Path, str]]) -> Sequence[int]:
        """Publish each (path, key), many at a time; their sizes."""
        return _at_once(self.publish, files, FILES_AT_ONCE)

    def sibling(self, bucket: str) -> S3Store:
        """The store of another bucket, wherever it lies, with the same credentials."""
        region = None if self._session.endpoint else self._region_of(bucket)
        return S3Store(bucket, session=self._session, region=region, retry_seconds=self._retry_seconds)

    # Appended files

    def _segment(self, key: str) -> _Segment:
        with self._lock:
            return self._segments.setdefault(key, _Segment(check_key(key)))

    def _forget(self, gone: Iterable[str]) -> None:
        """An appended file whose parts are deleted begins anew."""
        for key in gone:
            self._segments.pop(key.rpartition(".")[0], None)

    def _is_appended(self, key: str) -> bool:
        import obstore

        with self._errors(key):
            try:
                obstore.head(self._open(), self._name(_Segment(key).part(1)))
            except FileNotFoundError:
                return False
        return True

    def _look(self, segment: _Segment) -> None:
        """Learn of parts that have come or grown."""
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
        return self._session.client("s3")

    def _open(self) -> Any:
        """The bucket as obstore's, with the endpoint that boto3 would take."""
        if self._objects is None:
            with aws_errors(f"opening s3://{self.bucket}"):
                client = self._client()
                self._credentials = self._credentials or _Credentials(self._session)
                objects = _open_bucket(self, client.meta.endpoint_url)
            self._objects = objects
        return self._objects

    def _region_of(self, bucket: str) -> str | None:
        """Where a bucket lies: S3 says so even to those whom it refuses."""
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
        """Where the bucket is looked for."""
        return self._region or self._session.region

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Within: errors of obstore and boto3 become ours, one line each."""
        try:
            with _errors_of_botocore(f"s3://{self.bucket}/{self._prefix}{key}"):
                yield
        except DsError:
            raise
        except Exception as error:
            ours = self._translated(error, key)
            if ours is None:
                raise
            raise ours from error

    def _translated(self, error: Exception, key: str) -> Exception | None:
        """Our error for one of S3's; None for an error of this machine (a full disk)."""
        from botocore.exceptions import ClientError

        code = _code(error)
        if isinstance(error, ClientError):
            if code in _RACES:
                return _RACES[code]()
            return self._missing(key) if code == "NoSuchKey" else self._explained(error, key)
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError, UnauthenticatedError

        if isinstance(error, AlreadyExistsError) and code in _RACES:
            return _RACES[code]()
        if isinstance(error, FileNotFoundError) and error.errno is None and code != "NoSuchBucket":
            return self._missing(key)
        if isinstance(error, UnauthenticatedError) and self._credentials and self._credentials.trouble:
            return self._credentials.trouble
        if isinstance(error, PreconditionError):
            what = f"s3://{self.bucket}/{self._prefix}{key}: it was replaced while it was read"
            return DsError(what, "try again")
        return self._explained(error, key) if isinstance(error, BaseError) or code == "NoSuchBucket" else None

    def _missing(self, key: str) -> KeyMissing:
        return KeyMissing(f"{key}: not in s3://{self.bucket}/{self._prefix}")

    def _explained(self, error: Exception, key: str) -> DsError:
        address = f"s3://{self.bucket}/{self._prefix}{key}"
        what, fix = _EXPLAINED.get(_code(error), (_first_line(error), ""))
        facts = {"bucket": self.bucket, "region": self.region}
        return DsError(f"{address}: {what.format_map(facts) if fix else what}", fix.format_map(facts))


class Stores:
    """Implements engine.Store over the project's bucket, and over any other by keys such as s3://bucket/key.

    So INPUTS and OUTPUT of a job may name other buckets. A key keeps the form in which it is given:
    what `list("s3://b/x")` finds starts with s3://b/x. As prefixes are cleaned of doubled slashes
    on their way here, s3:/b/x is the same.
    """

    def __init__(self, home: S3Store) -> None:
        self._home = home
        self._others: dict[str, S3Store] = {}
        self._lock = threading.Lock()

    def locate(self, key: str) -> str:
        """The file's address: s3://bucket/key."""
        _, store, rest = self._at(key)
        return store.locate(rest)

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Every file whose key starts with `prefix`, in key order."""
        lead, store, rest = self._at(prefix)
        for file in store.list(rest):
            yield StoredFile(lead + file.key, file.size) if lead else file

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """The file's content, or a part of it. Raises KeyMissing."""
        _, store, rest = self._at(key)
        return store.read(rest, start, length)

    def read_many(self, pieces: Iterable[tuple[str, int, int]]) -> Iterator[bytes | None]:
        """The bytes of each (key, start, length), in order, many at a time; None where there is no file."""
        return _read_ahead(self.read, pieces)

    def write(self, key: str, data: bytes) -> None:
        """Replace the file at once."""
        _, store, rest = self._at(key)
        store.write(rest, data)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Create the file with this content unless it exists."""
        _, store, rest = self._at(key)
        return store.write_if_absent(rest, data)

    def append(self, key: str, data: bytes) -> None:
        """Add to the end of an appended file."""
        _, store, rest = self._at(key)
        store.append(rest, data)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files, bucket by bucket."""
        by_store: dict[S3Store, set[str]] = {}
        for key in keys:
            _, store, rest = self._at(key)
            by_store.setdefault(store, set()).add(rest)
        for store, rests in by_store.items():
            store.delete(rests)

    def fetch(self, key: str, path: Path) -> int:
        """Copy a stored file to a new local path."""
        _, store, rest = self._at(key)
        return store.fetch(rest, path)

    def publish(self, path: Path, key: str) -> int:
        """Copy a local file into its bucket."""
        _, store, rest = self._at(key)
        return store.publish(path, rest)

    def fetch_many(self, files: Iterable[tuple[str, Path]]) -> Sequence[int]:
        """Fetch each (key, path), many at a time; their sizes."""
        return _at_once(self.fetch, files, FILES_AT_ONCE)

    def publish_many(self, files: Iterable[tuple[Path, str]]) -> Sequence[int]:
        """Publish each (path, key), many at a time; their sizes."""
        return _at_once(self.publish, files, FILES_AT_ONCE)

    def _at(self, key: str) -> tuple[str, S3Store, str]:
        """(what to put before a key of that store, the store, the key in it)."""
        found = _ELSEWHERE.match(key)
        if found is None:
            return "", self._home, key
        bucket = found["bucket"]
        with self._lock:
            if bucket not in self._others:
                self._others[bucket] = self._home.sibling(bucket)
            return found[0], self._others[bucket], key[found.end() :]


class _Segment:
    """The numbered parts of an appended file, as far as they are known: `ends` are their places in it."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.lock = threading.Lock()
        self.unknown = True
        self._ends: list[int] = []
        self._growing: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes in all parts."""
        return self._ends[-1] if self._ends else 0

    @property
    def last_finished(self) -> str:
        """The part before the last one, after which there may be news."""
        return self.part(len(self._ends) - 1) if len(self._ends) > 1 else ""

    def part(self, number: int) -> str:
        """The key of a part; the first has number 1."""
        return f"{self.key}.{number:08d}"

    def extended(self, data: bytes) -> tuple[int, bytes]:
        """The part that takes more data, and its content then. An earlier process's part is left alone."""
        growing = self._growing
        if growing is not None and len(growing) + len(data) <= SEGMENT_PART_BYTES:
            return len(self._ends), growing + data
        return len(self._ends) + 1, data

    def wrote(self, number: int, whole: bytes) -> None:
        """A part has this content now."""
        self._growing = whole
        self._set_end(number, len(whole))

    def learn(self, files: Iterable[StoredFile]) -> None:
        """Take in what a list says of the parts."""
        for file in files:
            digits = file.key[len(self.key) + 1 :]
            if len(digits) == 8 and digits.isdecimal() and int(digits) <= len(self._ends) + 1:
                self._set_end(int(digits), file.size)
        self.unknown = False

    def pieces(self, start: int, end: int | None) -> Iterator[tuple[str, int, int]]:
        """The (key, start, length) that make up these bytes."""
        end = self.size if end is None else min(end, self.size)
        index = bisect_right(self._ends, start)
        while start < end:
            part_start = self._ends[index - 1] if index else 0
            stop = min(end, self._ends[index])
            yield self.part(index + 1), start - part_start, stop - start
            start, index = stop, index + 1

    def _set_end(self, number: int, size: int) -> None:
        before = self._ends[number - 2] if number > 1 else 0
        self._ends[number - 1 : number] = [before + size]


class _Credentials:
    """boto3's credentials for obstore: roles, SSO and tokens are renewed by boto3.

    botocore renews what has less than 10 minutes left and obstore asks again 5 minutes before
    `expires_at`, so with 7 minutes what it uses is always valid.
    """

    def __init__(self, session: AwsSession) -> None:
        self._found = session.credentials()
        self.trouble: DsError | None = None

    def __call__(self) -> Any:
        """Credentials that are valid for some minutes at least; called by obstore."""
        try:
            with aws_errors("renewing the AWS credentials"):
                frozen = self._found.get_frozen_credentials()
        except DsError as error:
            self.trouble = error
            raise
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=_CREDENTIALS_SECONDS),
        }


class _Memory:
    """Bounds what the transfers of this process hold together."""

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait for `amount` bytes (at most all there are), and have them within."""
        amount = min(amount, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


_MEMORY = _Memory(MEMORY_BYTES)


class _Exists(Exception):
    """The file is there already."""


class _Conflict(Exception):
    """Another conditional write of the same key is under way."""


_RACES = {"PreconditionFailed": _Exists, "ConditionalRequestConflict": _Conflict}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CODE = re.compile(r"<Code>([A-Za-z]+)</Code>")
_ELSEWHERE = re.compile(r"s3://?(?P<bucket>[^/]+)/")

_KEYS = "sign in again (aws sso login), or renew the keys: aws sts get-caller-identity tells whose are in use"
_RIGHTS = (
    "let the user or role in use (aws sts get-caller-identity) do s3:ListBucket, s3:GetObject, s3:PutObject, "
    "s3:DeleteObject and s3:AbortMultipartUpload on bucket {bucket}"
)
_REGION = "set AWS_REGION to the bucket's: aws s3api get-bucket-location --bucket {bucket}"
_LATER = "try again later; fewer machines at a time ask less of S3"
_elsewhere = ("the bucket is not in region {region}", _REGION)
_busy = ("S3 has too much to do just now, and had for minutes", _LATER)
_expired = ("the credentials have expired", _KEYS)
_wrong_keys = ("the credentials are not valid", _KEYS)
_EXPLAINED = {
    "NoSuchBucket": ("there is no such bucket", "set AWS_BUCKET to yours, or: aws s3 mb s3://{bucket}"),
    "AccessDenied": ("access denied", _RIGHTS),
    "AllAccessDisabled": ("access denied", _RIGHTS),
    "AuthorizationHeaderMalformed": _elsewhere,
    "IllegalLocationConstraintException": _elsewhere,
    "PermanentRedirect": _elsewhere,
    "ExpiredToken": _expired,
    "TokenRefreshRequired": _expired,
    "InvalidAccessKeyId": _wrong_keys,
    "InvalidToken": _wrong_keys,
    "SignatureDoesNotMatch": _wrong_keys,
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "set the clock"),
    "ServiceUnavailable": _busy,
    "SlowDown": _busy,
    "TooManyRequests": _busy,
    "InternalError": ("S3 failed, and did so again when asked again", "try again later"),
    "Network": ("no connection to S3", "look at the network, HTTPS_PROXY and AWS_REGION; then try again"),
    "KeyTooLongError": ("the key is longer than 1,024 bytes", "give the files shorter names"),
}


def _code(error: Exception) -> str:
    """S3's code for an error, or one of ours; empty where there is none."""
    if hasattr(error, "response"):
        return error_code(error)
    text = str(error)
    if found := _CODE.search(text):
        return found[1]
    if "416 Range Not Satisfiable" in text:
        return "InvalidRange"
    if "Received redirect without LOCATION" in text:
        return "PermanentRedirect"
    return "Network" if "HTTP error" in text or "error sending request" in text else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def _errors_of_botocore(doing: str) -> Iterator[None]:
    """Within: botocore's own errors (network, credentials) become ours; what S3 itself answered does not."""
    import botocore.exceptions

    try:
        yield
    except botocore.exceptions.BotoCoreError:
        with aws_errors(doing):
            raise


def _open_bucket(store: S3Store, endpoint: str) -> Any:
    from obstore.store import S3Store as Bucket

    client: Any = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=10),
        "read_timeout": timedelta(seconds=_SILENCE_SECONDS),
        "timeout": timedelta(seconds=_REQUEST_SECONDS),
        "user_agent": "distributed-something",
    }
    if bundle := store._session.setting("ca_bundle"):
        client["root_certificate"] = Path(bundle).read_bytes()
    return Bucket(
        store.bucket,
        region=store.region,
        endpoint=endpoint,
        client_options=client,
        retry_config={"max_retries": 12, "retry_timeout": timedelta(seconds=store._retry_seconds)},
        credential_provider=store._credentials,
    )


def _range(start: int, length: int | None) -> tuple[Any, ...]:
    """The argument of a request for these bytes; of none at all: for one, as S3 knows no empty ranges."""
    if length is not None:
        return ((start, start + max(length, 1)),)
    return ({"offset": start},) if start else ()


def _parts(size: int) -> tuple[int, int]:
    """(bytes of a part, parts at a time) of an upload: at most 10,000 parts, in bounded memory."""
    part = max(PART_BYTES, -(-size // _MOST_PARTS))
    return part, max(1, PARTS_AT_ONCE * PART_BYTES // part)


def _write_at(file: int, data: Any, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _at_once(verb: Callable[..., _T], calls: Iterable[tuple[Any, ...]], limit: int) -> Sequence[_T]:
    """The results of the calls, in order, `limit` at a time. After a failure no more begin; it is raised."""
    todo = [*calls]
    if len(todo) < 2:
        return [verb(*call) for call in todo]
    with ThreadPoolExecutor(min(limit, len(todo))) as pool:
        try:
            futures = [pool.submit(verb, *call) for call in todo]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures if not future.cancelled()]


def _read_ahead(
    read: Callable[[str, int, int], bytes], pieces: Iterable[tuple[str, int, int]]
) -> Iterator[bytes | None]:
    """What `read` gives for each piece, in order; as many are read ahead as fit AHEAD_BYTES."""

    def get(key: str, start: int, length: int) -> bytes | None:
        try:
            return read(key, start, length)
        except KeyMissing:
            return None

    rest = deque(pieces)
    if len(rest) == 1:
        yield get(*rest.pop())
        return
    ahead: deque[tuple[int, Future[bytes | None]]] = deque()
    held = 0
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        try:
            while rest or ahead:
                while rest and len(ahead) < FILES_AT_ONCE and (not ahead or held + rest[0][2] <= AHEAD_BYTES):
                    piece = rest.popleft()
                    held += piece[2]
                    ahead.append((piece[2], pool.submit(get, *piece)))
                size, future = ahead.popleft()
                yield future.result()
                held -= size
        finally:
            pool.shutdown(cancel_futures=True)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
