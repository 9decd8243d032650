"""An S3 server in memory that asks for rights: who asks, who pays, which ACL. No server that can be installed
here knows all three. Signatures are not verified, but what must be signed is looked for in them."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

ROLE_KEY = "ASIAROLE"


class Asked(NamedTuple):
    """One request: `key` is who signed it (empty: nobody), `pays` and `acl` what its signed headers say."""

    verb: str
    bucket: str
    name: str
    key: str
    pays: bool
    acl: str


class StrictS3:
    """The server's objects by "bucket/name", and the requests so far. `may` says which are allowed."""

    def __init__(self, may: Callable[[Asked], bool]) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[Asked] = []
        self.roles: list[str] = []
        self.may = may
        self.endpoint = ""

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str | bytes]:
        """The status and body of an answer."""
        url = urlsplit(path)
        query = parse_qs(url.query, keep_blank_values=True)
        bucket, _, name = unquote(url.path).lstrip("/").partition("/")
        if not bucket and method == "POST":
            return self._assume(body.decode())
        verb = {"GET": "read", "HEAD": "read", "PUT": "write", "DELETE": "remove", "POST": "write"}[method]
        verb = "list" if not name and method == "GET" else "remove" if "delete" in query else verb
        signed = _signed(headers)
        key = headers.get("authorization", "").partition("Credential=")[2].partition("/")[0]
        pays = signed.get("x-amz-request-payer") == "requester"
        asked = Asked(verb, bucket, name, key, pays, signed.get("x-amz-acl", ""))
        self.asked.append(asked)
        if "delete" in query:
            return 200, self._delete(bucket, re.findall("<Key>(.*?)</Key>", body.decode()), self.may(asked))
        if not self.may(asked):
            return 403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        if verb == "list":
            return 200, self._list(bucket, query["prefix"][0])
        place = f"{bucket}/{name}"
        if method == "PUT":
            there = place in self.objects
            if ("if-none-match" in headers and there) or "if-match" in headers:
                return 412, "<Error><Code>PreconditionFailed</Code><Message>no</Message></Error>"
            self.objects[place] = body
            return 200, ""
        if place not in self.objects:
            return 404, "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
        data = self.objects[place]
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
            return 206, data[int(wanted[1]) : int(wanted[2] or len(data)) + 1]
        return 200, data

    def _delete(self, bucket: str, names: list[str], may: bool) -> str:
        """What S3 answers to a list of names: each is removed, or has an error of its own."""
        found = ""
        for name in names:
            if may:
                self.objects.pop(f"{bucket}/{name}", None)
                found += f"<Deleted><Key>{name}</Key></Deleted>"
            else:
                found += f"<Error><Key>{name}</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
        return f"<DeleteResult>{found}</DeleteResult>"

    def _assume(self, body: str) -> tuple[int, str]:
        role = parse_qs(body)["RoleArn"][0]
        self.roles.append(role)
        if role.endswith("/refused"):
            said = "<Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not you</Message></Error>"
            return 403, f"<ErrorResponse>{said}</ErrorResponse>"
        keys = f"<AccessKeyId>{ROLE_KEY}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
        keys += "<SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
        credentials = f"<Credentials>{keys}</Credentials>"
        return (
            200,
            f"<AssumeRoleResponse><AssumeRoleResult>{credentials}</AssumeRoleResult></AssumeRoleResponse>",
        )

    def _list(self, bucket: str, prefix: str) -> str:
        found = ""
        for place, data in sorted(self.objects.items()):
            if place.startswith(f"{bucket}/{prefix}"):
                key = place.partition("/")[2]
                found += f'<Contents><Key>{key}</Key><Size>{len(data)}</Size><ETag>"x"</ETag></Contents>'
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"


def _signed(headers: dict[str, str]) -> dict[str, str]:
    names = re.search("SignedHeaders=([^,]*)", headers.get("authorization", ""))
    return {name: headers.get(name, "") for name in names[1].split(";")} if names else {}


@contextmanager
def strict_s3(may: Callable[[Asked], bool]) -> Iterator[StrictS3]:
    """A server while entered."""
    found = StrictS3(may)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, text = found.answer(self.command, self.path, headers, body)
            data = text.encode() if isinstance(text, str) else text
            whole = len(found.objects.get(unquote(urlsplit(self.path).path).lstrip("/"), data))
            start = int((re.findall(r"=(\d+)-", headers.get("range", "")) or ["0"])[0])
            self.send_response(status)
            for name, value in (
                ("Content-Length", str(len(data))),
                ("ETag", '"x"'),
                ("Last-Modified", "Mon, 30 Nov 2026 10:00:00 GMT"),
                ("Content-Range", f"bytes {start}-{start + len(data) - 1}/{whole}"),
            ):
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _do  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
