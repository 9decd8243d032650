"""S3 of folders, served by a thread of this process: for reading what a rehearsal has left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from ...system.loopback import ADDRESS
from ..auth import for_programs
from .s3 import Buckets


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def get_environ(self) -> dict[str, Any]:
        return {**super().get_environ(), "RAW_URI": self.path}


def serve(folder: Path, named: dict[str, Path], key: str) -> str:
    """Serve `objects.Buckets(folder, named)` to those with the key while this process lives; the endpoint."""
    buckets = Buckets(folder, named)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return buckets.answer(environ).send(environ, start_response)

    server = WSGIServer((ADDRESS, 0), _Handler)
    server.set_app(for_programs(application, key))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://{ADDRESS}:{server.server_port}"
