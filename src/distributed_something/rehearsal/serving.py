"""S3 of folders, served by a thread of this process: for reading what a rehearsal has left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from .objects import Buckets

HOST = "127.0.0.1"


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def get_environ(self) -> dict[str, Any]:
        return {**super().get_environ(), "RAW_URI": self.path}


def serve(folder: Path, named: dict[str, Path]) -> str:
    """Serve `objects.Buckets(folder, named)` as long as this process lives; the endpoint."""
    buckets = Buckets(folder, named)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer = buckets.answer(environ)
        headers = [*answer.headers]
        if not any(name == "Content-Length" for name, _ in headers):
            headers.append(("Content-Length", str(len(answer.body))))
        start_response(answer.status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    server = WSGIServer((HOST, 0), _Handler)
    server.set_app(application)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://{HOST}:{server.server_port}"
