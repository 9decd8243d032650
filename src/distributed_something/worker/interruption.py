"""Spot interruptions, as the machine itself tells of them: polled from the metadata service of EC2 (IMDSv2).

    spot/instance-action                     this machine ends at that time, in two minutes at most
    events/recommendations/rebalance         this machine is more likely than others to be ended soon

The notice becomes an order to stop. The recommendation is not always followed by a notice: so the worker
leases nothing for some minutes, goes on with what runs, and then takes jobs again.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from urllib.parse import urlsplit

from ..clock import Clock
from .orders import Stop

ENDPOINT = "http://169.254.169.254"
ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
DISABLED_VARIABLE = "AWS_EC2_METADATA_DISABLED"

POLL_SECONDS = 2.0
ANSWER_SECONDS = 1.0
"""The service is on the machine itself: an answer that takes longer does not come."""

FIRST_TRIES = 6
"""With pauses that double, about a minute: who has not heard of the service by then is not on EC2."""

LONGEST_PAUSE = 60.0
TOKEN_SECONDS = 21_600
WARY_SECONDS = 900.0
"""How long nothing is leased after a recommendation to move on."""


UNSURE_SECONDS = 1.5
"""How long after a notice an attempt goes on of which nothing says that it will finish in time.

To end it at once loses what it has done, to let it go on loses time: about as much, where nothing is known.
"""


class Silent(Exception):
    """No answer, or none that makes sense, from the metadata service."""


class Metadata:
    """The machine's metadata, read with a token. One thread at a time."""

    def __init__(self, endpoint: str = ENDPOINT) -> None:
        address = urlsplit(endpoint)
        self._host = address.hostname or ""
        self._port = address.port or 80
        self._path = address.path.rstrip("/") + "/latest/"
        self._token = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Metadata | None:
        """The service that botocore would ask too; None where the environment turns it off."""
        if environment.get(DISABLED_VARIABLE, "").lower() == "true":
            return None
        return cls(environment.get(ENDPOINT_VARIABLE) or ENDPOINT)

    def get(self, name: str) -> str | None:
        """A value such as "instance-id"; None where the machine has none. Raises Silent."""
        for _ in range(2):
            if not self._token:
                self._token = self._new_token()
            status, text = self._ask("GET", "meta-data/" + name, {"X-aws-ec2-metadata-token": self._token})
            if status == 200:
                return text
            if status == 404:
                return None
            self._token = ""  # 401: it has run out
        raise Silent(f"status {status}")

    def _new_token(self) -> str:
        wish = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
        status, token = self._ask("PUT", "api/token", wish)
        if status != 200 or not token.isprintable():
            raise Silent(f"no token: status {status}")
        return token

    def _ask(self, verb: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=ANSWER_SECONDS)
        try:
            connection.request(verb, self._path + path, headers=dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read(1 << 16).decode("utf-8", "replace").strip()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Silent(str(error)) from error
        finally:
            connection.close()


class InterruptionWatch:
    """A thread that looks for a notice every two seconds, until there is one or `close` is called.

    `on_notice` gets an order to stop that leaves `reserve` seconds of the machine's time; `on_wary` the time
    (Unix seconds) until when nothing should be leased. Where no metadata is served, the thread ends quietly.
    """

    def __init__(
        self,
        metadata: Metadata,
        clock: Clock,
        on_notice: Callable[[Stop], None],
        on_wary: Callable[[float], None],
        *,
        reserve: float,
    ) -> None:
        self._metadata = metadata
        self._clock = clock
        self._on_notice = on_notice
        self._on_wary = on_wary
        self._reserve = reserve
        self._advised = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self.watch, name="interruption-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def watch(self) -> None:
        """The thread's work."""
        heard, failures = False, 0
        while not self._closed.is_set():
            try:
                if self._look():
                    return
                heard, failures = True, 0
            except Silent:
                failures += 1
                if not heard and failures >= FIRST_TRIES:
                    return
            self._clock.wait(min(POLL_SECONDS * 2**failures, LONGEST_PAUSE), self._closed)

    def _look(self) -> bool:
        """Whether the notice has come and was passed on. Raises Silent."""
        if notice := self._metadata.get("spot/instance-action"):
            self._on_notice(stop_of(notice, self._clock.now(), self._reserve))
            return True
        advice = self._metadata.get("events/recommendations/rebalance")
        if advice and advice != self._advised:
            self._advised = advice
            since = time_in(advice, "noticeTime")
            self._on_wary((self._clock.now() if since is None else since) + WARY_SECONDS)
        return False


def stop_of(notice: str, now: float, reserve: float) -> Stop:
    """The order that a notice amounts to; one without a time that can be read leaves no time at all."""
    end = time_in(notice, "time")
    left = 0.0 if end is None else max(end - now - reserve, 0.0)
    when = "" if end is None else f" at {datetime.fromtimestamp(end).astimezone():%H:%M:%S}"
    return Stop(left, f"spot interruption: this machine ends{when}", UNSURE_SECONDS)


def time_in(text: str, name: str) -> float | None:
    """The time (Unix seconds) under a name in a JSON object; None where there is none."""
    try:
        moment = datetime.fromisoformat(json.loads(text)[name])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return None if moment.tzinfo is None else moment.timestamp()
