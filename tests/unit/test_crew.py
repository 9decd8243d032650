"""A machine's worker processes: one that hangs after an order to stop is killed, whoever gave the order."""

from __future__ import annotations

import subprocess
import sys

HANGING = """
import signal, sys, time
from pathlib import Path
from distributed_something.testing import FakeClock
from distributed_something.worker.crew import HANG_SECONDS, Crew
from distributed_something.worker.loop import Stop

class Hanging:
    def stop(self, stop): pass
    def run(self):
        while True: time.sleep(60)

clock, buried = FakeClock(), []
orders = {signal.SIGTERM: lambda: Stop(25.0, "terminated"), signal.SIGUSR1: lambda: Stop(None, "stopped")}
crew = Crew(lambda name, number: Hanging(), orders, Path(sys.argv[1]), clock, on_death=buried.append)
crew.start(2)
crew.order(signal.SIGUSR1)
clock.advance(1e6)
crew.tend()
assert len(crew.pids) == 2, "an order without a limit waits for jobs"
crew.order(signal.SIGTERM)
clock.advance(24 + HANG_SECONDS)
crew.tend()
assert len(crew.pids) == 2
clock.advance(2)
while crew.runs:
    crew.tend()
    time.sleep(0.01)
print(len(buried))
"""


def test_workers_that_hang_after_an_order_to_stop_are_killed(tmp_path: object) -> None:
    command = [sys.executable, "-c", HANGING, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "2\n", ended.stderr
