"""A slot that runs a HANDLER in a real process: whatever the function does, the slot goes on."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from distributed_something.job import Cause, Job, Lease, Outcome, State
from distributed_something.local.store import FolderStore
from distributed_something.worker.attempt.logs import SlotLog
from distributed_something.worker.attempt.slot import Slot
from distributed_something.worker.attempt.task import Task


class Handled:
    """A slot whose jobs call the function `f` of a module."""

    def __init__(self, folder: Path, source: str, **task: Any) -> None:
        (folder / "functions.py").write_text(source)
        self.store = FolderStore(folder / "store")
        log = SlotLog(self.store, "", "log")
        self.slot = Slot(Task(None, "functions:f", **task), self.store, folder / "slot", log, "run", "w")
        self.took_long = list[float]()
        self.close = self.slot.close

    def run(self, **keys: object) -> Outcome:
        lease = Lease(Job("1" * 16, 1, json.dumps({"group": keys}).encode()), "token", 0.0)
        self.slot.begin()
        return self.slot.run(lease, lambda _: self.took_long.append(time.monotonic()))


@pytest.fixture
def handled(tmp_path: Path) -> Iterator[Callable[..., Handled]]:
    made = list[Handled]()

    def make(source: str, **task: Any) -> Handled:
        made.append(Handled(tmp_path, source, **task))
        return made[-1]

    with chdir(tmp_path):
        yield make
        for each in made:
            each.close()


KILLED = """
import os, signal, time
def f(deadly):
    if deadly:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_while_its_forked_child_lives_ends_its_attempt(
    handled: Callable[..., Handled],
) -> None:
    started, slot = time.monotonic(), handled(KILLED)
    outcome = slot.run(deadly=True)
    assert (outcome.cause, outcome.detail) == (Cause.SIGNAL, "killed by SIGKILL")
    assert slot.run(deadly=False).state is State.SUCCEEDED
    assert time.monotonic() - started < 20


def test_a_long_job_is_under_its_time_limit_while_the_module_is_imported(
    handled: Callable[..., Handled],
) -> None:
    slot = handled("import time; time.sleep(30)\ndef f(): pass", timeout=0.2)
    started = time.monotonic()
    assert slot.run(text="x" * 200_000).cause is Cause.TIMEOUT
    assert time.monotonic() - started < 20
    assert slot.took_long


@pytest.mark.parametrize("length", [0, 3_900, 4_000, 4_096, 200_000])
def test_a_job_of_any_length_reaches_the_function(handled: Callable[..., Handled], length: int) -> None:
    slot = handled("def f(text, length): assert text == 'é' * length")
    for _ in range(2):
        assert slot.run(text="é" * length, length=length).state is State.SUCCEEDED


def test_a_secret_in_an_exceptions_text_is_not_in_the_reason(handled: Callable[..., Handled]) -> None:
    source = "import os\ndef f(): raise ValueError('401 for ?token=' + os.environ['TOKEN'])"
    outcome = handled(source, secrets={"TOKEN": "sesame-open"}).run()
    assert outcome.detail == "ValueError: 401 for ?token=***"


USING = """
import subprocess, sys
def f(own, child):
    data = b"x" * (own << 20)
    if child:
        work = f"import time; data = b'x' * ({child} << 20)\\nwhile time.process_time() < 0.8: pass"
        subprocess.run([sys.executable, "-c", work], check=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can reset a process's peak")
def test_a_jobs_memory_and_processor_time_are_its_own_and_its_childrens(
    handled: Callable[..., Handled],
) -> None:
    before = b"x" * (300 << 20)  # what started the process counts as the process's own
    slot, sizes = handled(USING), []
    for own, child in ((200, 0), (0, 0), (0, 150), (0, 100), (170, 0)):
        outcome = slot.run(own=own, child=child)
        assert outcome.cpu_seconds is not None
        assert (outcome.cpu_seconds >= 0.8) is (child > 0)
        sizes.append(outcome.max_rss_bytes)
    del before
    assert sizes[3] is None, "it is not known how much less than the child before"
    large, small, parent, _, again = ((each or 0) >> 20 for each in sizes)
    assert 200 <= large < 250
    assert small < 100
    assert 150 <= parent < 200
    assert 170 <= again < 220
