"""A pretend metadata service of EC2 on loopback: IMDSv2, with notices that a test sets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "pretend-token"


class MetadataServer:
    """Answers as the machine's metadata service does. `values` are served by name; `refusing` is a status."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {"instance-id": "i-0123456789abcdef0"}
        self.refusing = 0
        self.token = TOKEN
        self.asked: list[str] = []
        self.endpoint = ""
        self.container = '{"Image": "lab/image:1", "ImageID": "sha256:abab", "Limits": {}}'

    def answer(self, verb: str, path: str, token: str | None, ttl: str | None) -> tuple[int, str]:
        self.asked.append(f"{verb} {path}")
        if path == "/v4/container":  # of ECS, for the container that asks; no token
            return 200, self.container
        if self.refusing:
            return self.refusing, ""
        if verb == "PUT" and path == "/latest/api/token":
            return (200, self.token) if ttl else (400, "")
        if token != self.token:
            return 401, ""
        value = self.values.get(path.removeprefix("/latest/meta-data/"))
        return (404, "") if value is None else (200, value)


@contextmanager
def metadata_server() -> Iterator[MetadataServer]:
    served = MetadataServer()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            token = self.headers.get("X-aws-ec2-metadata-token")
            ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            status, text = served.answer(self.command, self.path, token, ttl)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_PUT = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
