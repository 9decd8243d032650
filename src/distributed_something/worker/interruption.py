"""Watches for spot interruptions: polls the metadata service of EC2 (IMDSv2). Used by AWS workers.

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
"""Maximum wait for an answer, in seconds: the service is on the machine itself."""

FIRST_TRIES = 6
"""Tries before the watch ends where the service never answered: about a minute, as pauses double."""

LONGEST_PAUSE = 60.0
TOKEN_SECONDS = 21_600
WARY_SECONDS = 900.0
"""Pause of leasing after a rebalance recommendation, in seconds."""


UNSURE_SECONDS = 1.5
"""Time that a notice leaves to an attempt that may not finish in time, in seconds.

To end it at once loses its work; to let it go on loses time: about as much, if nothing is known.
"""


class Silent(Exception):
    """The metadata service gave no answer, or none that makes sense."""


class Metadata:
    """Reads the machine's metadata, with a token. Not thread-safe."""

    def __init__(self, endpoint: str = ENDPOINT) -> None:
        address = urlsplit(endpoint)
        self._host = address.hostname or ""
        self._port = address.port or 80
        self._path = address.path.rstrip("/") + "/latest/"
        self._token = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Metadata | None:
        """Returns the service that botocore would ask too; None: the environment turns it off."""
        if environment.get(DISABLED_VARIABLE, "").lower() == "true":
            return None
        return cls(environment.get(ENDPOINT_VARIABLE) or ENDPOINT)

    def get(self, name: str) -> str | None:
        """Returns a value such as "instance-id"; None: the machine has none. Raises Silent."""
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
    """Polls for a notice every two seconds in a thread, until there is one or `close` is called.

    `on_notice` gets an order to stop that leaves `reserve` seconds of the machine's time; `on_wary` the time
    (Unix seconds) until when nothing should be leased. Without a metadata service the thread ends quietly.
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
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()

    def watch(self) -> None:
        """Polls until there is a notice."""
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
        """Polls once. Returns whether there was a notice. Raises Silent."""
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
    """Turns a notice into an order to stop; one without a readable time leaves no time."""
    end = time_in(notice, "time")
    left = 0.0 if end is None else max(end - now - reserve, 0.0)
    when = "" if end is None else f" at {datetime.fromtimestamp(end).astimezone():%H:%M:%S}"
    return Stop(left, f"spot interruption: this machine ends{when}", UNSURE_SECONDS)


def time_in(text: str, name: str) -> float | None:
    """Returns the time (Unix seconds) under a name in a JSON object; None: there is none."""
    try:
        moment = datetime.fromisoformat(json.loads(text)[name])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return None if moment.tzinfo is None else moment.timestamp()
