"""Sends a worker's lines to CloudWatch: what its jobs print, and its machine's figures once a minute.

Called by `aws/worker.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...background import complain
from ...clock import Clock
from ...s3.session import AwsSession
from ...system.repeating import Repeating
from ...system.usage import Gauge
from .cloudwatch import LINE_BYTES, CloudWatch, Stream

REPORT_SECONDS = 60.0
REMIND_SECONDS = 900.0


class MachineReport(Repeating):
    """While entered: writes the machine's figures to a stream, and warnings there and to stderr.

    A warning is repeated every quarter of an hour while it holds.
    """

    def __init__(self, cloudwatch: CloudWatch, stream: Stream, gauge: Gauge, clock: Clock) -> None:
        super().__init__("machine-report", REPORT_SECONDS, self._report, clock)
        self._cloudwatch = cloudwatch
        self._stream = stream
        self._gauge = gauge
        self._warned: dict[str, float] = {}

    def look(self) -> None:
        """One report."""
        figures = self._gauge.read()
        self._cloudwatch.add(self._stream, figures.to_json().encode())
        now, warnings = self._clock.now(), figures.warnings(self._gauge.folder)
        self._warned = {about: said for about, said in self._warned.items() if about in warnings}
        for about, text in warnings.items():
            if now - self._warned.get(about, float("-inf")) >= REMIND_SECONDS:
                self._warned[about] = now
                self._cloudwatch.add(self._stream, f"warning: {text}".encode())
                complain(f"warning: {text}")

    def _report(self) -> None:
        with suppress(OSError):  # a disk that cannot be read: the next minute may succeed
            self.look()


class JobLines:
    """Cuts the output of one slot's jobs into lines, each with its job's id, in the worker's stream.

    For one thread. A stream for each job would meet CloudWatch's limit of 50 new streams a second.
    """

    def __init__(self, cloudwatch: CloudWatch, group: str, worker: str) -> None:
        self._cloudwatch = cloudwatch
        self._stream = Stream(group, worker)
        self._job = b""
        self._head = b""
        self._rest = bytearray()

    def begin(self, job_id: str, attempt: int) -> None:
        """Begins an attempt: later output belongs to it."""
        self.end()
        self._job = job_id.encode() + b" "
        self._head = f"[ds] attempt {attempt}".encode()

    def __call__(self, data: bytes) -> None:
        """Takes output."""
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        for line in lines:
            self._add(line)
        if len(rest) > LINE_BYTES:
            self._add(rest)
            rest = bytearray()
        self._rest = rest

    def end(self) -> None:
        """Ends the attempt, with its last line."""
        if self._rest:
            self._add(self._rest)
        self._rest = bytearray()
        self._job = b""

    def _add(self, line: bytes | bytearray) -> None:
        if not self._job:
            return
        for each in (self._head, line.removesuffix(b"\r")) if self._head else (line.removesuffix(b"\r"),):
            self._cloudwatch.add(self._stream, self._job + each)
        self._head = b""


class Reporting:
    """Everything that a worker sends to CloudWatch: lines of jobs to the log group, the machine's figures to
    `<group>_perInstance`. Without a log group it sends nothing.
    """

    def __init__(self, session: AwsSession, clock: Clock, group: str, worker: str, machine: str) -> None:
        self._group = group
        self._worker = worker
        self._stream = Stream(f"{group}_perInstance", f"{machine}/{worker}")
        self._clock = clock
        self._cloudwatch = CloudWatch(session, clock) if group else None

    @contextmanager
    def of(self, folder: Path) -> Iterator[None]:
        """Sends while in the context, also the figures of `folder`'s disk. Leaving it sends what waits."""
        if self._cloudwatch is None:
            yield
            return
        report = MachineReport(self._cloudwatch, self._stream, Gauge(folder), self._clock)
        self._cloudwatch.start()
        try:
            with report:
                yield
        finally:
            self._cloudwatch.close()

    def lines(self) -> JobLines | None:
        """Takes the output of one slot's jobs; None: nothing is sent."""
        return JobLines(self._cloudwatch, self._group, self._worker) if self._cloudwatch else None
