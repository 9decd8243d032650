"""What a worker tells CloudWatch: what its jobs print, and once a minute how its machine is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...background import complain
from ...clock import Clock
from ...system.repeating import Repeating
from ...system.usage import Gauge
from ..session import AwsSession
from .cloudwatch import LINE_BYTES, CloudWatch, Stream

REPORT_SECONDS = 60.0
REMIND_SECONDS = 900.0


class MachineReport(Repeating):
    """While entered: writes the machine's figures to a stream, and warnings there and to stderr.

    A warning is said when it comes up, and every quarter of an hour while it holds.
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
        with suppress(OSError):  # a disk that cannot be asked: the next minute may tell
            self.look()


class JobLines:
    """What the jobs of one slot print, cut into lines, each attempt in the stream of its job.

    For one thread. An attempt that prints nothing has no stream.
    """

    def __init__(self, cloudwatch: CloudWatch, group: str, worker: str) -> None:
        self._cloudwatch = cloudwatch
        self._group = group
        self._worker = worker
        self._stream: Stream | None = None
        self._head = b""
        self._rest = bytearray()

    def begin(self, job_id: str, attempt: int) -> None:
        """What is printed from now on belongs to this attempt."""
        self.end()
        self._stream = Stream(self._group, job_id)
        self._head = f"[ds] attempt {attempt}, worker {self._worker}".encode()

    def __call__(self, data: bytes) -> None:
        """Take what was printed."""
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        for line in lines:
            self._add(line)
        if len(rest) > LINE_BYTES:
            self._add(rest)
            rest = bytearray()
        self._rest = rest

    def end(self) -> None:
        """The attempt has ended: its last line may lack its end."""
        if self._rest:
            self._add(self._rest)
        self._rest = bytearray()
        self._stream = None

    def _add(self, line: bytearray) -> None:
        if self._stream is None:
            return
        if self._head:
            self._cloudwatch.add(self._stream, self._head)
            self._head = b""
        self._cloudwatch.add(self._stream, bytes(line.removesuffix(b"\r")))


class Reporting:
    """All that a worker tells CloudWatch, from entering the context to leaving it: lines of jobs to the log
    group, the machine's figures to `<group>_perInstance`. Without a log group it tells nothing.
    """

    def __init__(self, session: AwsSession, clock: Clock, group: str, worker: str, machine: str) -> None:
        self._group = group
        self._worker = worker
        self._stream = Stream(f"{group}_perInstance", f"{machine}/{worker}")
        self._clock = clock
        self._cloudwatch = CloudWatch(session, clock) if group else None

    @contextmanager
    def of(self, folder: Path) -> Iterator[None]:
        """Tell, while in the context, also of the disk of `folder`. Leaving it sends what waits."""
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
        """For the lines of one slot's jobs."""
        return JobLines(self._cloudwatch, self._group, self._worker) if self._cloudwatch else None
