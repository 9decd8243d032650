"""Serves the page on the loopback address, to clients that have the token. `command` starts it.

Every address begins with the token. A request without it, with another host name or from another origin is
refused with 403 before anything is looked up. Requests that change a run are POST, with the token in a header
too: no form or link of another page can send that.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ..errors import DsError
from ..report.page import LOOK
from ..system.loopback import ADDRESS, is_foreign
from .actions import Actions
from .files import how_shown
from .model import Model, NotFound
from .runs import Runs
from .select import asked

TOKEN_HEADER = "X-Token"  # noqa: S105  its name
BODY_BYTES = 64 << 10
PIECE_BYTES = 1 << 20

_STATIC = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_PAGES = {
    "": "index.html",
    **{name: name for name in ("app.css", "look.css", "icon.svg")},
    **{
        f"{name}.js": f"{name}.js" for name in ("app", "dom", "job", "jobs", "log", "net", "overview", "runs")
    },
}

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Query = Mapping[str, str]


class Refused(Exception):
    """A refused request: its status and the reason."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class PageServer(ThreadingHTTPServer):
    """Serves the runs of a project on the loopback address. `port` 0: any free port."""

    daemon_threads = True

    def __init__(self, runs: Runs, token: str, port: int) -> None:
        super().__init__((ADDRESS, port), Handler)
        self.runs = runs
        self.actions = Actions(runs)
        self.token = token

    @property
    def url(self) -> str:
        """The address of the page, with the token."""
        return f"http://{ADDRESS}:{self.server_address[1]}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing if a browser has gone: the terminal belongs to the user."""


class Handler(BaseHTTPRequestHandler):
    """Handles one connection."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version = "ds"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        """Answers a request for a page, a value or a file."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Answers a request that changes the run."""
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class names it
        """Print nothing: the terminal belongs to the user."""

    def _answer(self, act: Callable[[str, Query], None]) -> None:
        self._begun = False
        try:
            act(*self._admitted())
        except Refused as error:
            self.close_connection = True
            self._fail(error.status, error.why)
        except NotFound:
            self._fail(HTTPStatus.NOT_FOUND, "this run has no such thing")
        except DsError as error:
            self._fail(HTTPStatus.CONFLICT, error.what, error.fix)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True  # the browser has gone
        except Exception as error:  # noqa: BLE001  a bad request must not print a traceback on the terminal
            self.close_connection = True
            what = f"{type(error).__name__}: {error}"
            self._fail(HTTPStatus.INTERNAL_SERVER_ERROR, what, "reload the page")

    def _fail(self, status: HTTPStatus, what: str, fix: str = "") -> None:
        """Send the error. An answer that has begun is cut short: the browser notices by its length."""
        if self._begun:
            self.close_connection = True
        else:
            self._json({"error": {"what": what, "fix": fix}}, status)

    def _admitted(self) -> tuple[str, Query]:
        """Returns the path below the token, and the query. Raises Refused."""
        hosts, get = self.headers.get_all("Host", []), self.headers.get
        parts = urlsplit(self.path)
        token, slash, path = parts.path.removeprefix("/").partition("/")
        opened = not path and get("Sec-Fetch-Mode") == "navigate" and get("Sec-Fetch-Dest") == "document"
        site = None if opened else get("Sec-Fetch-Site")  # a link on another page may open this page only
        if len(hosts) != 1 or is_foreign(hosts[0], get("Origin"), site):
            raise Refused(HTTPStatus.FORBIDDEN, "this page answers itself only, on localhost")
        if not slash or not _same(token, self.server.token):
            raise Refused(HTTPStatus.FORBIDDEN, "open the address that `ds dashboard` printed")
        query = {name: values[-1] for name, values in parse_qs(parts.query, errors="replace").items()}
        return unquote(path), query

    def _get(self, path: str, query: Query) -> None:
        if name := _PAGES.get(path):
            file = LOOK if name == LOOK.name else _STATIC / name
            policy = {"Content-Security-Policy": _PAGE_POLICY}
            self._send(file.read_bytes(), f"{_TYPES[file.suffix]}; charset=utf-8", policy)
        elif path == "file":
            self._file(query)
        elif path == "thumbnail":
            found, kind = self._model(query).thumbnail(query.get("id", ""), query.get("key", ""))
            self._send(found, kind, {"Content-Security-Policy": _FILE_POLICY})
        elif path == "report":
            policy = {"Content-Security-Policy": _FILE_POLICY}
            self._send(self._model(query).report(), "text/html; charset=utf-8", policy)
        elif path == "jobs.csv":
            ids = [each for each in query.get("ids", "").split(",") if each]
            self._stream(self._model(query).csv(asked(query), ids), "text/csv; charset=utf-8", "jobs.csv")
        elif of_project := _OF_PROJECT.get(path):
            self._json(of_project(self.server, query))
        elif of_run := _VALUES.get(path):
            self._json(of_run(self._model(query), query))
        else:
            raise NotFound

    def _model(self, query: Query) -> Model:
        return self.server.runs.of(query.get("run", ""))

    def _post(self, path: str, _query: Query) -> None:
        if not _same(self.headers.get(TOKEN_HEADER, ""), self.server.token):
            raise Refused(HTTPStatus.FORBIDDEN, "the token is missing")
        act = _ACTIONS.get(path)
        if act is None:
            raise NotFound
        self._json({"said": act(self.server.actions, self._body())})

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal() and int(length) <= BODY_BYTES):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is missing or too large")
        try:
            found = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is not JSON") from error
        if not isinstance(found, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is not a JSON object")
        return found

    def _file(self, query: Query) -> None:
        """Sends a job's file in pieces. The browser shows pictures and plain text, and saves the rest."""
        file, read = self._model(query).file(query.get("id", ""), query.get("key", ""))
        shown = how_shown(file.key)
        if shown.kind == "folder":
            raise NotFound
        first = read(0, min(PIECE_BYTES, file.size))  # a missing file is found out before the answer begins
        name = quote(file.key.rpartition("/")[2], errors="replace")
        place = "inline" if shown.inline else "attachment"
        more = {
            "Content-Security-Policy": _FILE_POLICY,
            "Content-Disposition": f"{place}; filename*=UTF-8''{name}",
        }
        self._head(HTTPStatus.OK, shown.content_type, file.size, more)
        sent = 0
        while first:
            self.wfile.write(first)
            sent += len(first)
            first = read(sent, min(PIECE_BYTES, file.size - sent)) if sent < file.size else b""
        if sent != file.size:
            self.close_connection = True  # the file is shorter now: the browser notices by the length

    def _stream(self, pieces: Iterable[bytes], kind: str, name: str) -> None:
        """Sends a file of unknown length, to be saved, in chunks: a browser notices if the end is missing."""
        policy = {
            "Content-Security-Policy": _FILE_POLICY,
            "Content-Disposition": f"attachment; filename={name}",
        }
        every = iter(pieces)
        first = next(every, b"")  # an error is found out before the answer begins
        self._head(HTTPStatus.OK, kind, None, {**policy, "Transfer-Encoding": "chunked"})
        for piece in filter(None, chain([first], every)):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        policy = {"Content-Security-Policy": "default-src 'none'; sandbox"}
        self._send(body, "application/json; charset=utf-8", policy, status)

    def _send(
        self, body: bytes, kind: str, more: Mapping[str, str], status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        if status is HTTPStatus.OK and self.headers.get("If-None-Match") == tag:
            self._head(HTTPStatus.NOT_MODIFIED, kind, None, {**more, "ETag": tag})
            return
        self._head(status, kind, len(body), {**more, "ETag": tag})
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, kind: str, length: int | None, more: Mapping[str, str]) -> None:
        self._begun = True
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in {**_ALWAYS, **more}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 16 else otherwise


_VALUES: dict[str, Callable[[Model, Query], object]] = {
    "api/overview": lambda model, _: model.overview(),
    "api/timeline": lambda model, _: model.timeline(),
    "api/failures": lambda model, _: model.failures(),
    "api/jobs": lambda model, query: model.jobs(asked(query), _number(query.get("page"), 1)),
    "api/job": lambda model, query: model.job(query.get("id", "")),
    "api/log": lambda model, query: model.log(
        query.get("id", ""), query.get("place", ""), _number(query.get("from"), 0)
    ),
}
"""Requests about a run, the current one or that of `run`."""

_OF_PROJECT: dict[str, Callable[[PageServer, Query], object]] = {
    "api/runs": lambda server, _: {"runs": server.runs.list()},
    "api/compare": lambda server, query: server.runs.compare(query.get("one", ""), query.get("other", "")),
    "api/offer": lambda server, query: server.actions.offer(_number(query.get("jobs"), 0)),
}
_ACTIONS: dict[str, Callable[[Actions, dict[str, Any]], str]] = {
    "api/stop": Actions.stop,
    "api/retry": Actions.retry,
    "api/drop": Actions.drop,
}
