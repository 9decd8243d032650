"""S3 of the rehearsal: each bucket is a folder, so what is in it outlives the emulator, however that ends.

The project's STORE is the bucket's folder: a file that the user puts there is an object of the bucket. What
the project's store needs of S3 is answered, errors as S3 words them, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from email.utils import formatdate
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from ...engine import StoredFile, check_key
from ...errors import KeyMissing, KeyRefused
from ...local.store import FolderStore

PAGE = 1000
_FIRST_LIST = {"prefix", "marker", "max-keys", "encoding-type"}
"""What the first version of the list takes, which workers of the reference use."""

_LISTS_KEPT = 64
_READ = 1 << 20
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class Answer(NamedTuple):
    """An HTTP answer."""

    status: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def send(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer the request of a WSGI server; one for the HEAD gets no body, and its length all the same."""
        headers = [*self.headers]
        if not any(name == "Content-Length" for name, _ in headers):
            headers.append(("Content-Length", str(len(self.body))))
        headers.append(("x-amz-request-id", uuid.uuid4().hex[:16]))
        start_response(self.status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self.body]


class S3Error(Exception):
    """An error that S3 answers with."""

    def __init__(self, status: str, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def answer(self) -> Answer:
        """As S3 sends it."""
        body = f"{_XML}<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message></Error>"
        return Answer(self.status, (("Content-Type", "application/xml"),), body.encode())


class Call(NamedTuple):
    """A request about an object or a bucket (then `key` is empty). `query` has each parameter once."""

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @classmethod
    def read(cls, environ: dict[str, Any]) -> Call:
        """Returns a WSGI server's request. Raises S3Error if its body is not what was signed."""
        bucket, _, key = _path(environ).lstrip("/").partition("/")
        query = {
            name: values[0]
            for name, values in parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True).items()
        }
        headers = {
            name[5:].replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        return cls(environ["REQUEST_METHOD"], bucket, key, query, headers, _checked(body, headers))


def _path(environ: dict[str, Any]) -> str:
    """Returns the path as it was sent, "//" and all, where the server tells; decoded."""
    raw = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "").partition("?")[0]
    return unquote(raw) if raw else str(environ["PATH_INFO"]).encode("latin-1").decode("utf-8", "replace")


def _checked(body: bytes, headers: dict[str, str]) -> bytes:
    signed = headers.get("x-amz-content-sha256", "")
    if len(signed) == 64 and hashlib.sha256(body).hexdigest() != signed:
        raise S3Error("400 Bad Request", "XAmzContentSHA256Mismatch", "The body is not what was signed.")
    return b"".join(_chunks(body)) if "aws-chunked" in headers.get("content-encoding", "") else body


def _chunks(body: bytes) -> Iterator[bytes]:
    """Yields the content of a body that was sent in signed chunks."""
    at = 0
    while at < len(body):
        line_end = body.index(b"\r\n", at)
        size = int(body[at:line_end].split(b";")[0], 16)
        if size == 0:
            return
        yield body[line_end + 2 : line_end + 2 + size]
        at = line_end + 4 + size


class Buckets:
    """All buckets. `named` have a folder of their own; others are made below `folder`.

    Threads may share it.
    """

    def __init__(self, folder: Path, named: dict[str, Path]) -> None:
        self._folder = folder
        self._stores = {name: FolderStore(path) for name, path in named.items()}
        self._lists: dict[str, Iterator[StoredFile]] = {}
        self._lock = threading.Lock()
        if folder.exists():
            self._stores |= {each.name: FolderStore(each) for each in folder.iterdir() if each.is_dir()}

    def answer(self, environ: dict[str, Any]) -> Answer:
        """Returns what S3 answers."""
        try:
            call = Call.read(environ)
            return self._object(call) if call.key else self._bucket(call)
        except S3Error as error:
            return error.answer()
        except KeyMissing:
            return S3Error("404 Not Found", "NoSuchKey", "The specified key does not exist.").answer()
        except KeyRefused as error:
            return S3Error("400 Bad Request", "InvalidArgument", error.what).answer()
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            said = f"In a rehearsal, no object's key can be the folder of another's: {error.filename}"
            return S3Error("400 Bad Request", "InvalidRequest", said).answer()
        except OSError as error:
            return S3Error("500 Internal Server Error", "InternalError", str(error)).answer()

    def make(self, name: str) -> None:
        """Make a bucket, unless it is there."""
        path = self._folder / check_key(name)
        path.mkdir(parents=True, exist_ok=True)
        self._stores.setdefault(name, FolderStore(path))

    def _store(self, name: str) -> FolderStore:
        if name not in self._stores:
            raise S3Error("404 Not Found", "NoSuchBucket", "The specified bucket does not exist")
        return self._stores[name]

    # Buckets

    def _bucket(self, call: Call) -> Answer:
        if not call.bucket:
            names = "".join(f"<Bucket><Name>{escape(name)}</Name></Bucket>" for name in self._stores)
            return _xml("ListAllMyBucketsResult", f"<Buckets>{names}</Buckets>")
        if call.method == "PUT" and not call.query:
            self.make(call.bucket)
            return Answer("200 OK", (("Location", f"/{call.bucket}"),))
        store = self._store(call.bucket)
        if call.method == "POST" and "delete" in call.query:
            return _delete_many(store, call.body)
        if call.method == "GET" and (call.query.get("list-type") == "2" or call.query.keys() <= _FIRST_LIST):
            return self._list(store, call)
        if call.method == "GET" and "location" in call.query:
            return Answer("200 OK", _TYPE, f"{_XML}<LocationConstraint{_NAMESPACE}/>".encode())
        if call.method == "HEAD":
            return Answer("200 OK")
        if call.method == "GET" and "uploads" in call.query:  # those of killed workers go with the emulator
            return _xml("ListMultipartUploadsResult", "")
        raise S3Error("501 Not Implemented", "NotImplemented", "The rehearsal's S3 does not answer this.")

    def _list(self, store: FolderStore, call: Call) -> Answer:
        prefix, token = call.query.get("prefix", ""), call.query.get("continuation-token")
        if call.query.get("delimiter") == "/" and prefix.endswith("/"):
            return _listed(call, store, _files_in(store, prefix), None, [*store.folders(prefix)])
        with self._lock:
            files = self._lists.pop(token, None) if token else None
        if files is None:
            after = (
                token.partition("|")[2]
                if token
                else call.query.get("start-after") or call.query.get("marker", "")
            )
            files = (each for each in store.list(prefix) if each.key > after)
        page = list(islice(files, min(int(call.query.get("max-keys") or PAGE), PAGE)))
        more = next(files, None) if page else None
        following = self._keep(files, more, page[-1].key) if more is not None else None
        return _listed(call, store, page, following)

    def _keep(self, files: Iterator[StoredFile], more: StoredFile, last: str) -> str:
        """Keep a list's rest for its next page: a new walk for each would be slow."""

        def rest() -> Iterator[StoredFile]:
            yield more
            yield from files

        token = f"{uuid.uuid4().hex}|{last}"
        with self._lock:
            while len(self._lists) >= _LISTS_KEPT:
                del self._lists[next(iter(self._lists))]
            self._lists[token] = rest()
        return token

    # Objects

    def _object(self, call: Call) -> Answer:
        store, key = self._store(call.bucket), check_key(call.key)
        if "uploadId" in call.query or "uploads" in call.query:
            return self._multipart(store, key, call)
        if call.method in ("GET", "HEAD"):
            return _get(store, key, call)
        if call.method == "PUT":
            return _put(store, key, call)
        if call.method == "DELETE":
            store.delete([key])
            return Answer("204 No Content")
        raise S3Error("501 Not Implemented", "NotImplemented", "The rehearsal's S3 does not answer this.")

    def _multipart(self, store: FolderStore, key: str, call: Call) -> Answer:
        if "uploads" in call.query:
            upload = uuid.uuid4().hex
            self._parts(upload).mkdir(parents=True)
            names = f"<Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
            return _xml("InitiateMultipartUploadResult", f"<Bucket>{escape(call.bucket)}</Bucket>{names}")
        parts = self._parts(check_key(call.query["uploadId"]))
        if not parts.is_dir():
            raise S3Error("404 Not Found", "NoSuchUpload", "The specified upload does not exist.")
        if call.method == "PUT":
            number = int(call.query["partNumber"])
            (parts / f"{number:05d}").write_bytes(call.body)
            return Answer("200 OK", (("ETag", f'"{hashlib.md5(call.body).hexdigest()}"'),))  # noqa: S324
        if call.method == "POST":
            _join(parts, _numbers(call.body), store, key, absent=call.headers.get("if-none-match") == "*")
        shutil.rmtree(parts, ignore_errors=True)
        if call.method == "DELETE":
            return Answer("204 No Content")
        facts = f"<Bucket>{escape(call.bucket)}</Bucket><Key>{escape(key)}</Key>"
        return _xml("CompleteMultipartUploadResult", f"{facts}<ETag>{escape(_tag(store, key))}</ETag>")

    def _parts(self, upload: str) -> Path:
        return self._folder.parent / "uploads" / upload


_TYPE = (("Content-Type", "application/xml"),)


def _xml(name: str, content: str) -> Answer:
    return Answer("200 OK", _TYPE, f"{_XML}<{name}{_NAMESPACE}>{content}</{name}>".encode())


def _files_in(store: FolderStore, prefix: str) -> list[StoredFile]:
    """Returns the files right below a folder."""
    with suppress(OSError), os.scandir(store.locate(prefix.rstrip("/"))) as found:
        return sorted(StoredFile(prefix + each.name, each.stat().st_size) for each in found if each.is_file())
    return []


def _listed(
    call: Call, store: FolderStore, page: list[StoredFile], following: str | None, folders: Sequence[str] = ()
) -> Answer:
    shown: Callable[[str], str] = quote if call.query.get("encoding-type") == "url" else escape
    entries = "".join(
        f"<Contents><Key>{shown(each.key)}</Key><LastModified>{_modified(store, each.key)}</LastModified>"
        f"<ETag>{escape(_tag(store, each.key))}</ETag><Size>{each.size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for each in page
    )
    more = f"<NextContinuationToken>{escape(following)}</NextContinuationToken>" if following else ""
    facts = (
        f"<Name>{escape(call.bucket)}</Name><Prefix>{shown(call.query.get('prefix', ''))}</Prefix>"
        f"<KeyCount>{len(page)}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
        f"<IsTruncated>{'true' if following else 'false'}</IsTruncated>"
    )
    prefix = call.query.get("prefix", "")
    more += "".join(
        f"<CommonPrefixes><Prefix>{shown(prefix + each)}/</Prefix></CommonPrefixes>" for each in folders
    )
    facts += "<EncodingType>url</EncodingType>" if shown is quote else ""
    return _xml("ListBucketResult", facts + more + entries)


def _modified(store: FolderStore, key: str) -> str:
    from datetime import UTC, datetime

    with suppress(OSError):
        changed = Path(store.locate(key)).stat().st_mtime
        return datetime.fromtimestamp(changed, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return "1970-01-01T00:00:00.000Z"  # deleted since


def _delete_many(store: FolderStore, body: bytes) -> Answer:
    found = ET.fromstring(body)  # noqa: S314  from our own clients, on this machine
    keys = [each.text or "" for each in found.iter() if each.tag.rpartition("}")[2] == "Key"]
    store.delete(keys)
    gone = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
    return _xml("DeleteResult", gone)


def _get(store: FolderStore, key: str, call: Call) -> Answer:
    path = Path(store.locate(key))
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            tag = _tag_of(facts)
            if call.headers.get("if-match", tag).strip('"') != tag.strip('"'):
                raise S3Error("412 Precondition Failed", "PreconditionFailed", "It was replaced meanwhile.")
            start, end = _wanted(call.headers.get("range"), facts.st_size)
            file.seek(start)
            body = file.read(end - start) if call.method == "GET" else b""
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise KeyMissing(key) from error
    headers = (
        ("ETag", tag),
        ("Last-Modified", formatdate(facts.st_mtime, usegmt=True)),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", "binary/octet-stream"),
        ("Content-Length", str(end - start)),
    )
    if "range" not in call.headers:
        return Answer("200 OK", headers, body)
    of = f"bytes {start}-{end - 1}/{facts.st_size}"
    return Answer("206 Partial Content", (*headers, ("Content-Range", of)), body)


def _wanted(text: str | None, size: int) -> tuple[int, int]:
    """Returns the first byte of a Range header, and the one after its last. Raises S3Error."""
    if text is None:
        return 0, size
    first, _, last = text.removeprefix("bytes=").partition("-")
    start, end = (int(first), int(last) + 1 if last else size) if first else (max(size - int(last), 0), size)
    if start >= size:
        message = "The requested range is not satisfiable"
        raise S3Error("416 Requested Range Not Satisfiable", "InvalidRange", message)
    return start, min(end, size)


_CONDITIONAL = threading.Lock()
"""Held for a write with If-Match: two of the same key must not both see the old tag."""


def _put(store: FolderStore, key: str, call: Call) -> Answer:
    if "x-amz-copy-source" in call.headers:
        raise S3Error("501 Not Implemented", "NotImplemented", "The rehearsal's S3 does not copy.")
    if "if-match" in call.headers:
        with _CONDITIONAL:
            if _tag(store, key).strip('"') != call.headers["if-match"].strip('"'):
                raise _there()
            store.write(key, call.body)
    elif call.headers.get("if-none-match") != "*":
        store.write(key, call.body)
    elif not store.write_if_absent(key, call.body):
        raise _there()
    return Answer("200 OK", (("ETag", _tag(store, key)),))


def _there() -> S3Error:
    message = "At least one of the pre-conditions you specified did not hold"
    return S3Error("412 Precondition Failed", "PreconditionFailed", message)


def _tag(store: FolderStore, key: str) -> str:
    try:
        return _tag_of(Path(store.locate(key)).stat())
    except (FileNotFoundError, NotADirectoryError):
        return '""'  # deleted since


def _tag_of(facts: os.stat_result) -> str:
    """Returns an ETag that changes when the file does; S3's own need not be a checksum either."""
    return f'"{facts.st_ino:x}{facts.st_mtime_ns:x}-{facts.st_size:x}"'


def _numbers(body: bytes) -> list[int]:
    found = ET.fromstring(body)  # noqa: S314  from our own clients, on this machine
    return [int(each.text or 0) for each in found.iter() if each.tag.rpartition("}")[2] == "PartNumber"]


def _join(parts: Path, numbers: Iterable[int], store: FolderStore, key: str, *, absent: bool) -> None:
    """Make the object of its parts: others see all of it or nothing."""
    if absent and Path(store.locate(key)).exists():
        raise _there()
    whole = parts / "whole"
    with whole.open("wb") as target:
        for number in numbers:
            part = parts / f"{number:05d}"
            if not part.exists():
                raise S3Error("400 Bad Request", "InvalidPart", f"Part {number} was not sent.")
            with part.open("rb") as source:
                shutil.copyfileobj(source, target, _READ)
            part.unlink()
    store.publish(whole, key)
