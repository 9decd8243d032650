"""The slot's end of the process that runs HANDLER: starts it, sends it jobs, reads its replies.

The other end is `host.py`. Called by `execute.Executor` only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...job import Lease
from .process import Child, Ended, Watch, files_of

MOST_SENT = 4096
"""Maximum bytes of a request: an empty pipe takes them at once, even while the process still imports."""

CARRIED_MARK = "carried-worker"
"""A file beside the Python of an injected worker: it is not the image's own Python."""


class HandlerProcess:
    """The process that runs the HANDLER of one slot."""

    def __init__(
        self, argv: list[str], env: Mapping[bytes, bytes], cwd: Path, files: Mapping[int, int]
    ) -> None:
        self.placed: Mapping[str, str] = {}
        """The variables that name the folders of the latest job, as the process has them."""
        from msgspec.json import decode

        self._decode = decode
        pipes = list[int]()
        try:
            pipes += os.pipe()
            pipes += os.pipe()
            requests, self._requests, self.replies, replies = pipes
            self.child = Child.spawn(argv, env, cwd, files_of({**files, 3: requests, 4: replies}))
        except OSError:
            for each in pipes:
                os.close(each)
            raise
        os.close(requests)
        os.close(replies)
        os.set_blocking(self.replies, False)  # what the process has forked may outlive it and hold its end

    def request(self, lease: Lease, placed: Mapping[str, str]) -> None:
        """Sends a job, a long one without its body; `placed` are the variables that name its folders."""
        job, more = lease.job, b""
        if placed is not self.placed:
            self.placed, more = placed, b',"placed":' + json.dumps(placed).encode()
        body = b',"job":' + job.body if len(job.body) + len(more) < MOST_SENT - 100 else b""
        line = b'{"job_id":"%s","attempt":%d%s%s}\n' % (job.id.encode(), lease.attempt, body, more)
        with suppress(BrokenPipeError):  # it has ended: the wait for its reply shows that
            while line:
                line = line[os.write(self._requests, line) :]

    def reply(self) -> dict[str, Any] | None:
        """Returns the reply that is ready to be read; None: the process has ended instead."""
        line = b""
        while not line.endswith(b"\n"):  # one write, of less than a page: it comes whole or not at all
            try:
                data = os.read(self.replies, 1 << 16)
            except BlockingIOError:
                return None
            if not data:
                return None
            line += data
        reply: dict[str, Any] = self._decode(line)
        return reply

    def stop(self, watch: Watch, *, ended: bool = False) -> Ended:
        """Ends the process unless it has `ended`, reaps it, and closes the pipes."""
        os.close(self._requests)
        result = self.child.reap() if ended else watch.stop(self.child)
        os.close(self.replies)
        return result


def host_program(python: str = "") -> list[str]:
    """Returns what runs HANDLER: this Python, or else our own; for an injected worker, the image's."""
    if not python and Path(sys.prefix, CARRIED_MARK).exists():
        python = "python3"
    if python:
        return [python, str(Path(__file__).with_name("host.py"))]
    return [sys.executable, "-m", f"{__package__}.host"]
