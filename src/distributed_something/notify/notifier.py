"""Has notices about a run sent, each once. `steps/watch/monitor.py` and `automonitor.py` call it.

A run neither waits for a notice nor fails by one. Before a notice is sent the store has a mark of it, so that
two monitors do not send it twice; a sender that is killed sends it never. Topics
of SNS have a mark of their own: the auto-monitor knows no other addresses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..engine import Store
from ..errors import DsError
from ..inputs.config import Config
from ..ledger import RunPaths
from ..runs.snapshot import Snapshot
from . import notices
from .notices import Notice

PATIENCE_SECONDS = 5.0  # longest wait at the end of a run for notices under way; they are sent all the same


class Notifier:
    """Sends the notices of one run to NOTIFY. `say` prints a line about one that could not be sent.

    `waits`: sends by itself, and waits for it; else processes of their own send.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        paths: RunPaths,
        say: Callable[[str], None],
        *,
        waits: bool = False,
    ) -> None:
        self._config = config
        self._store = store
        self._paths = paths
        self._say = say
        self._waits = waits
        self._done: set[str] = set()
        self._sending: list[subprocess.Popen[bytes]] = []

    def look(self, snapshot: Snapshot | None, moved: float, now: float) -> None:
        """Send what is to be said at this look; `moved` is when a job last ended."""
        if self._config.notify and snapshot is not None:
            for notice in notices.due(self._config, snapshot, moved, now):
                self._tell(notice, snapshot)
            self._report()

    def end(self, snapshot: Snapshot | None, why: str | None = None) -> None:
        """Send how the run has ended, and wait a moment for what is under way. `why`: see `ended`."""
        if not self._config.notify or snapshot is None:
            return
        self._tell(notices.ended(snapshot, why), snapshot)
        until = time.monotonic() + PATIENCE_SECONDS
        while self._sending and time.monotonic() < until:
            time.sleep(0.02)
            self._report()

    def _tell(self, notice: Notice, snapshot: Snapshot) -> None:
        if notice.event not in self._config.notify_when or notice.key in self._done:
            return
        self._done.add(notice.key)
        facts: dict[str, Any] = {"app": snapshot.app, "run": snapshot.run, "event": notice.event}
        facts |= {"title": notice.title, "text": notice.text, "jobs": snapshot.jobs._asdict()}
        topics = self._config.topics
        others = [each for each in self._config.notify if each not in topics]
        topics = () if self._config.engine_kind.rehearses else topics
        for addresses, mark in ((others, notice.key), (topics, f"{notice.key}-topics")):
            try:
                if not addresses or not self._store.write_if_absent(f"{self._paths.root}notices/{mark}", b""):
                    continue
                if self._waits:
                    from .send import send_all

                    send_all(addresses, facts, lambda line: self._say(f"note: NOTIFY: {line}"))
                else:
                    self._sending.append(_start(addresses, facts, self._config.aws_profile))
            except (DsError, OSError) as error:
                self._say(f"note: NOTIFY: {notice.title!r} was not sent: {error}")

    def _report(self) -> None:
        """Print what the senders that have ended could not send."""
        ended = [each for each in self._sending if each.poll() is not None]
        self._sending = [each for each in self._sending if each not in ended]
        for process in ended:
            assert process.stderr is not None
            with process.stderr:
                lines = process.stderr.read().decode(errors="replace").splitlines()
            for line in lines or ([] if process.returncode == 0 else ["the sender was killed"]):
                self._say(f"note: NOTIFY: {line[:300]}")


def _start(addresses: Sequence[str], message: dict[str, Any], profile: str) -> subprocess.Popen[bytes]:
    """Starts a sender. Addresses may be secret: they go by its stdin, not by its arguments."""
    environment = {**os.environ, "AWS_PROFILE": profile} if profile else None
    process = subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.send"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    with process.stdin:
        process.stdin.write(json.dumps({"to": addresses, "message": message}).encode())
    return process
