"""moto's HTTP server, faster: connections stay open, a host's service is looked up once, and so are tags."""

from __future__ import annotations

from functools import cache
from typing import Any

from moto.ec2.models.core import TaggedEC2Resource
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug import serving


class Handler(MotoRequestHandler):
    """Keeps connections open, as AWS does, and sends an answer in one piece."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_request(self, *_: object) -> None:
        """Say nothing: requests come by the thousand."""


class Dispatcher(DomainDispatcherApplication):
    """Remembers which service a host belongs to: moto looks through its folders on each request."""

    def __init__(self) -> None:
        super().__init__(create_backend_app)
        vars(self).update(get_backend_for_host=cache(super().get_backend_for_host))


def _tags(thing: Any) -> list[dict[str, str]]:
    """Returns the tags of one EC2 resource: moto searches those of all resources each time."""
    return [{"key": key, "value": value} for key, value in thing.ec2_backend.tags.get(thing.id, {}).items()]


def make(host: str, port: int, application: Any) -> Any:
    """Returns a server, a thread for each connection. Raises OSError or SystemExit if it cannot listen."""
    setattr(TaggedEC2Resource, "get_tags", _tags)  # noqa: B010
    return serving.make_server(host, port, application, threaded=True, request_handler=Handler)
