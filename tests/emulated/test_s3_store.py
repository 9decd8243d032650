"""What is S3's own in the store on S3: parts, conditions, other buckets, and what its errors say."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import services
from distributed_something.errors import DsError, KeyMissing, KeyRefused, Unreachable
from distributed_something.s3.session import AwsSession
from distributed_something.testing import FakeClock

PART = 8 << 20


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Servers]:
    with services.Servers(tmp_path_factory.getbasetemp().parent) as found:
        yield found


@pytest.fixture(params=["moto", "seaweedfs"])
def server(request: pytest.FixtureRequest, servers: services.Servers) -> services.S3Server:
    return servers.get(request.param)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    services.require("moto")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", services.ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", services.SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def s3(
    endpoint: str, bucket: str, prefix: str | None = None, retry_seconds: float = 10.0, **more: Any
) -> Any:
    from distributed_something.s3.store import S3Store

    prefix = secrets.token_hex(6) if prefix is None else prefix
    session = AwsSession("us-east-1", endpoint=endpoint)
    return S3Store(bucket, session=session, prefix=prefix, retry_seconds=retry_seconds, **more)


@pytest.fixture
def store(server: services.S3Server) -> Any:
    return s3(server.endpoint, services.bucket(server))


@pytest.fixture
def client(server: services.S3Server) -> Any:
    import boto3

    return boto3.client("s3", **server.client_options)


class FakeS3(http.server.ThreadingHTTPServer):
    """Answers as the test says, and keeps what was asked: (method, path, headers, body)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.size = 0
        self.answer: Callable[[str, str], tuple[int, bytes]] = lambda _method, _path: (200, b"")

    def refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.answer = lambda _method, _path: (status, body)

    def store(self, **options: Any) -> Any:
        return s3(f"http://127.0.0.1:{self.server_port}", "bucket", **{"retry_seconds": 0.2, **options})


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeS3

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, self.path, headers, body))
        status, answer = self.server.answer(self.command, self.path)
        self.send_response(status)
        self.send_header("etag", '"tag"')
        self.send_header("last-modified", "Sun, 22 Nov 2026 12:00:00 GMT")
        self.send_header("content-length", str(len(answer)))
        if status == 206:
            self.send_header("content-range", f"bytes 0-{len(answer) - 1}/{self.server.size}")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[FakeS3]:
    with FakeS3() as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


# Parts


def test_an_upload_whose_last_answer_is_lost_is_made_again(fake: FakeS3, tmp_path: Path) -> None:
    """S3 knows no such upload when it is asked a second time to complete one that it has completed."""
    (tmp_path / "file").write_bytes(b"x" * (PART + 1))
    completed = iter([(500, b""), (404, b"<Error><Code>NoSuchUpload</Code></Error>")])
    begun = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
    done = b"<CompleteMultipartUploadResult><ETag>tag</ETag></CompleteMultipartUploadResult>"

    def answer(method: str, path: str) -> tuple[int, bytes]:
        if method != "POST":
            return (200, b"")
        return (200, begun) if "uploads" in path else next(completed, (200, done))

    fake.answer = answer
    assert fake.store(retry_seconds=10.0).publish(tmp_path / "file", "file") == PART + 1
    assert sum(method == "POST" and "uploads" in path for method, path, _, _ in fake.asked) == 2


@pytest.mark.parametrize(("size", "parts"), [(PART, None), (PART + 1, 2), (3 * PART, 3)])
def test_a_file_goes_in_parts_only_where_it_is_large(
    store: Any, client: Any, tmp_path: Path, size: int, parts: int | None
) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    store.publish(tmp_path / "file", "file")
    bucket, name = store.locate("file").removeprefix("s3://").split("/", 1)
    tag = client.head_object(Bucket=bucket, Key=name)["ETag"].strip('"')
    assert tag.rpartition("-")[2] == (str(parts) if parts else tag)


def multipart(fails: Callable[[str, str], bool]) -> Callable[[str, str], tuple[int, bytes]]:
    begun, ended = b"InitiateMultipartUploadResult", b"CompleteMultipartUploadResult"

    def answer(method: str, path: str) -> tuple[int, bytes]:
        if fails(method, path):
            return 403, b"<Error><Code>AccessDenied</Code></Error>"
        if method == "POST" and "uploads" in path:
            return 200, b"<%s><UploadId>U</UploadId></%s>" % (begun, begun)
        return 200, b"<%s><ETag>x</ETag></%s>" % (ended, ended)

    return answer


@pytest.mark.parametrize(
    "fails",
    [
        lambda method, path: "partNumber=2" in path,
        lambda method, path: method == "POST" and "uploadId" in path,
    ],
    ids=["a part", "the end"],
)
def test_an_upload_that_fails_is_given_up(
    fake: FakeS3, tmp_path: Path, fails: Callable[[str, str], bool]
) -> None:
    (tmp_path / "file").write_bytes(b"x" * (3 * PART))
    fake.answer = multipart(fails)
    with pytest.raises(DsError, match="access denied"):
        fake.store().publish(tmp_path / "file", "file")
    asked = [(method, path.partition("?")[2]) for method, path, _, _ in fake.asked]
    assert ("DELETE", "uploadId=U") in asked[-6:]  # parts that were on their way may arrive after it


def test_an_upload_leaves_none_behind(store: Any, client: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (3 * PART))
    store.publish(tmp_path / "file", "file")
    bucket, name = store.locate("file").removeprefix("s3://").split("/", 1)
    assert not client.list_multipart_uploads(Bucket=bucket, Prefix=name).get("Uploads")


def test_every_body_goes_with_its_checksum(fake: FakeS3, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(2 * PART + 5))
    fake.answer = multipart(lambda _method, _path: False)
    store = fake.store()
    store.publish(tmp_path / "file", "large")
    store.write("small", b"content")
    sent = [(headers, body) for method, _, headers, body in fake.asked if method == "PUT"]
    assert sum(len(body) for _, body in sent) == 2 * PART + 12
    for headers, body in sent:
        assert headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
        assert "x-amz-content-sha256" in headers["authorization"]


def test_a_very_large_file_has_fewer_than_ten_thousand_parts() -> None:
    from distributed_something.s3.transfer import MEMORY_BYTES, parts

    for size in (PART + 1, 70 << 30, 500 << 30, 5 << 40):
        part, at_once = parts(size)
        assert size / part <= 10_000
        assert part * at_once <= max(MEMORY_BYTES, part)


def test_a_large_file_that_is_replaced_while_it_is_read_is_not_mixed(fake: FakeS3, tmp_path: Path) -> None:
    changed = (412, b"<Error><Code>PreconditionFailed</Code></Error>")
    fake.answer = lambda _method, _path: changed if len(fake.asked) > 1 else (206, b"x" * PART)
    fake.size = 3 * PART
    with pytest.raises(DsError, match="replaced while it was read"):
        fake.store().fetch("file", tmp_path / "file")
    later = [headers for method, _, headers, _ in fake.asked[1:] if method == "GET"]
    assert later
    assert all(headers["if-match"] == '"tag"' for headers in later)


@pytest.mark.parametrize(("waited", "asked"), [(1.0, 1), (3600.0, 2)])
def test_a_file_that_had_to_wait_long_for_memory_is_asked_for_again(
    fake: FakeS3, tmp_path: Path, waited: float, asked: int
) -> None:
    """An answer that nobody reads is cut off after five minutes."""
    from distributed_something.s3.transfer import MEMORY, MEMORY_BYTES

    fake.answer, fake.size, clock = lambda _method, _path: (206, b"content"), 7, FakeClock()
    store = fake.store(now=clock.now)
    with ThreadPoolExecutor(1) as other:
        with MEMORY.hold(MEMORY_BYTES):
            fetched = other.submit(store.fetch, "file", tmp_path / "file")
            while not fake.asked and not fetched.done():
                time.sleep(0.01)
            clock.advance(waited)
        assert fetched.result() == 7
    assert (tmp_path / "file").read_bytes() == b"content"
    assert [headers.get("if-match") for _, _, headers, _ in fake.asked] == [None, '"tag"'][:asked]


# Conditions


def test_exclusive_creation_is_s3s_own(fake: FakeS3) -> None:
    assert fake.store().write_if_absent("file", b"x")
    assert fake.asked[0][2]["if-none-match"] == "*"


def test_a_conflict_is_decided_by_asking_again(fake: FakeS3) -> None:
    conflict = (409, b"<Error><Code>ConditionalRequestConflict</Code></Error>")
    exists = (412, b"<Error><Code>PreconditionFailed</Code></Error>")
    for last, created in ((exists, False), ((200, b""), True)):
        fake.asked.clear()
        fake.answer = lambda _m, _p, last=last: last if len(fake.asked) > 2 else conflict  # type: ignore[misc]
        assert fake.store().write_if_absent("file", b"x") is created
        assert len(fake.asked) == 3


# Names


def test_names_that_s3_cannot_keep_are_refused(fake: FakeS3) -> None:
    for key in ("line\nbreak", "tab\t", "\x7f", os.fsdecode(b"\xff")):
        with pytest.raises(KeyRefused, match="UTF-8"):
            fake.store().write(key, b"")
    assert not fake.asked


@pytest.mark.fault(54)
def test_objects_whose_names_are_no_keys_are_listed_and_folders_are_not(
    store: Any, client: Any, server: Any
) -> None:
    if server.name == "seaweedfs":
        pytest.skip("SeaweedFS has no such names")
    bucket, prefix = store.locate("x").removeprefix("s3://").removesuffix("x").split("/", 1)
    for name in ("folder/", "a//b", "", "../up", "folder/file"):
        client.put_object(Bucket=bucket, Key=prefix + name, Body=b"")
    assert [file.key for file in store.list()] == ["../up", "a//b", "folder/file"]
    with pytest.raises(KeyRefused, match="a//b"):
        store.read("a//b")


# Other buckets


def test_jobs_may_name_other_buckets(server: services.S3Server, client: Any, tmp_path: Path) -> None:
    from distributed_something.s3.buckets import Stores

    other = f"other-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=other)
    home = s3(server.endpoint, services.bucket(server))
    stores = Stores(home, lambda bucket, _: s3(server.endpoint, bucket, ""))
    stores.write("plain/key", b"home")
    for lead in (f"s3://{other}/", f"s3:/{other}/"):  # cleaning a prefix makes the first to the second
        stores.write(f"{lead}a/x", b"other")
        assert [file.key for file in stores.list(f"{lead}a/")] == [f"{lead}a/x"]
        assert stores.read(f"{lead}a/x", 1, 3) == b"the"
        assert stores.locate(f"{lead}a/x") == f"s3://{other}/a/x"
        stores.fetch_many([(f"{lead}a/x", tmp_path / "x"), ("plain/key", tmp_path / "key")])
        assert (tmp_path / "x").read_bytes() + (tmp_path / "key").read_bytes() == b"otherhome"
        stores.publish_many([(tmp_path / "x", f"{lead}b/x"), (tmp_path / "key", "b/key")])
        assert stores.write_if_absent(f"{lead}b/x", b"") is stores.write_if_absent("b/key", b"") is False
        stores.append(f"{lead}log", b"line\n")
        assert stores.read(f"{lead}log") == b"line\n"
        stores.delete([f"{lead}{key}" for key in ("a/x", "b/x", "log.00000001")] + ["b/key"])
        assert list(stores.list(lead)) == []
        for path in tmp_path.iterdir():
            path.unlink()
    assert [file.key for file in home.list()] == ["plain/key"]
    with pytest.raises(KeyRefused):
        stores.read(f"s3://{other}/../x")


# Errors


@pytest.mark.parametrize(
    ("status", "code", "what", "fix"),
    [
        (404, "NoSuchBucket", "no such bucket", "AWS_BUCKET"),
        (403, "AccessDenied", "access denied", "s3:GetObject.*on bucket bucket"),
        (400, "ExpiredToken", "credentials have expired", "aws sso login"),
        (403, "InvalidAccessKeyId", "credentials are not valid", "aws sts get-caller-identity"),
        (403, "SignatureDoesNotMatch", "credentials are not valid", "aws sts get-caller-identity"),
        (301, "PermanentRedirect", "not in region us-east-1", "AWS_REGION"),
        (400, "AuthorizationHeaderMalformed", "not in region us-east-1", "AWS_REGION"),
        (503, "SlowDown", "is overloaded", "later"),
        pytest.param(
            403,
            "InvalidObjectState",
            "archived \\(GLACIER or DEEP_ARCHIVE\\)",
            "restore-object",
            marks=pytest.mark.fault(69),
        ),
        (500, "InternalError", "S3 failed", "later"),
        (403, "RequestTimeTooSkewed", "clock is wrong", "clock"),
        (400, "SomethingNew", "SomethingNew", ""),
    ],
)
def test_errors_say_what_and_what_to_do(
    fake: FakeS3, tmp_path: Path, status: int, code: str, what: str, fix: str
) -> None:
    (tmp_path / "out").write_bytes(b"x")
    fake.refuse(status, code)
    store = fake.store(prefix="")
    verbs: list[Callable[[], object]] = [
        lambda: store.read("a/file"),
        lambda: store.write("a/file", b""),
        lambda: store.write_if_absent("a/file", b""),
        lambda: store.fetch("a/file", tmp_path / "in"),
        lambda: store.publish(tmp_path / "out", "a/file"),
        lambda: store.delete(["a/file"]),
    ]
    for verb in verbs:
        with pytest.raises(DsError, match=what) as raised:
            verb()
        assert not isinstance(raised.value, KeyMissing)
        assert raised.value.what.startswith("s3://bucket/")
        assert "\n" not in raised.value.what + raised.value.fix
        assert re.search(fix, raised.value.fix)


def test_a_list_says_it_too(fake: FakeS3) -> None:
    fake.refuse(403, "AccessDenied")
    with pytest.raises(DsError, match="access denied") as raised:
        list(fake.store().list("a/"))
    assert "s3:ListBucket" in raised.value.fix


def test_a_bucket_that_is_not_there_is_told_from_a_file(server: services.S3Server, tmp_path: Path) -> None:
    nowhere = s3(server.endpoint, f"nowhere-{secrets.token_hex(4)}")
    for verb in (lambda: nowhere.read("file"), lambda: list(nowhere.list())):
        with pytest.raises(DsError, match="no such bucket") as raised:
            verb()
        assert not isinstance(raised.value, KeyMissing)


def test_wrong_keys_are_told(servers: services.Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    server = servers.get("seaweedfs")  # moto does not look at signatures
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(DsError, match="credentials are not valid"):
        s3(server.endpoint, services.bucket(server)).write("file", b"")


def test_no_network_is_told() -> None:
    store = s3("http://127.0.0.1:9", "bucket", retry_seconds=0.2)
    with pytest.raises(Unreachable, match="no connection to S3"):
        store.read("file")


def test_a_request_is_repeated_for_as_long_as_was_said() -> None:
    store, began = s3("http://127.0.0.1:9", "bucket", retry_seconds=5.0), time.monotonic()
    with pytest.raises(Unreachable):
        store.read("file")
    assert 4.9 < time.monotonic() - began < 8


PASSING: dict[str, tuple[int, bytes]] = {
    "SlowDown": (503, b"<Error><Code>SlowDown</Code></Error>"),
    "ServiceUnavailable": (503, b"<Error><Code>ServiceUnavailable</Code></Error>"),
    "InternalError": (500, b"<Error><Code>InternalError</Code></Error>"),
    "a proxy's": (502, b"<html>bad gateway</html>"),
    "without words": (503, b""),
    "too many": (429, b""),
}


@pytest.mark.fault(8)
@pytest.mark.parametrize("answer", PASSING)
def test_what_passes_by_itself_is_told_from_what_does_not(fake: FakeS3, answer: str) -> None:
    """Who watches a run waits for the one, and ends with the other."""
    from distributed_something.s3.store import S3Store

    fake.answer = lambda _method, _path: PASSING[answer]
    session = AwsSession("us-east-1", endpoint=f"http://127.0.0.1:{fake.server_port}")
    store = S3Store("bucket", session=session, retry_seconds=0.2)
    for verb in (lambda: store.read("file"), lambda: store.write("file", b""), lambda: [*store.list()]):
        with pytest.raises(Unreachable) as raised:
            verb()
        assert raised.value.fix
    fake.refuse(403, "AccessDenied")
    with pytest.raises(DsError) as denied:
        store.read("file")
    assert not isinstance(denied.value, Unreachable)


def test_no_credentials_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(DsError, match="no AWS credentials") as raised:
        s3("http://127.0.0.1:9", "bucket").read("file")
    assert "aws sso login" in raised.value.fix


def test_tokens_that_run_out_are_renewed(
    fake: FakeS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keys from a program, as SSO and roles give them: for a short time, with a session token."""
    script = tmp_path / "keys.py"
    script.write_text(
        "import json, pathlib, datetime\n"
        f"count = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "n = int(count.read_text()) + 1 if count.exists() else 1\n"
        "count.write_text(str(n))\n"
        "end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=60)\n"
        "print(json.dumps(dict(Version=1, AccessKeyId='A', SecretAccessKey='S', SessionToken=f'token{n}',"
        " Expiration=end.isoformat())))\n"
    )
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {sys.executable} {script}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    store = fake.store()
    store.write("file", b"")
    tokens = [headers["x-amz-security-token"] for _, _, headers, _ in fake.asked]
    assert re.fullmatch(r"token\d", tokens[0])
    store._credentials._found.get_frozen_credentials()  # less than 10 minutes left: asked again each time
    assert int((tmp_path / "count").read_text()) > 1


# Memory

TRANSFER = """
import sys
from pathlib import Path
from distributed_something.s3.store import AwsSession, S3Store
store = S3Store(sys.argv[1], session=AwsSession("us-east-1", endpoint=sys.argv[2]), prefix=sys.argv[3])
path = Path(sys.argv[4])
if sys.argv[5] == "out":
    store.publish_many([(path, "a"), (path, "b"), (path, "c")])
else:
    store.fetch_many([(name, path.with_name(f"in-{name}")) for name in "abc"])
# not ru_maxrss: that begins with what the process that started this one had
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(int(peak.split()[1]) // 1024)
"""


def test_three_files_of_256_mb_take_less_than_300_mb_of_memory(
    servers: services.Servers, tmp_path: Path
) -> None:
    server = servers.get("seaweedfs")
    path = tmp_path / "large"
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for _ in range(256):
            file.write(block)
    prefix = secrets.token_hex(6)
    arguments = [services.bucket(server), server.endpoint, prefix, str(path)]
    for direction in ("out", "in"):
        command = [sys.executable, "-c", TRANSFER, *arguments, direction]
        environment = {**os.environ, **server.environment}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert int(ran.stdout) < 300
    assert {each.stat().st_size for each in tmp_path.glob("in-*")} == {256 << 20}
    s3(server.endpoint, services.bucket(server), prefix).delete("abc")
