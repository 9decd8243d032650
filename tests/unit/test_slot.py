"""A slot that runs real processes: what one job does must not be felt by the next one."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from distributed_something.inputs.templates.paths import InputTemplate, OutputTemplate
from distributed_something.inputs.templates.template import CommandTemplate
from distributed_something.job import Cause, Job, Lease, Outcome, State
from distributed_something.local.store import FolderStore
from distributed_something.worker.attempt.logs import SlotLog
from distributed_something.worker.attempt.slot import Slot
from distributed_something.worker.attempt.task import Task


class WatchedStore(FolderStore):
    """A folder that tells what is fetched from it and published to it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.on_fetch: Callable[[], None] = lambda: None
        self.on_publish: Callable[[], None] = lambda: None

    full = False

    def append(self, key: str, data: bytes) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left")
        super().append(key, data)

    def _publish(self, path: Path, key: str) -> int:
        self.on_publish()
        return super()._publish(path, key)

    def fetch(self, key: str, path: Path) -> int:
        self.on_fetch()
        return super().fetch(key, path)


class Bench:
    """A slot whose jobs are shell scripts, which find what lies below `in/` in the store."""

    def __init__(self, folder: Path) -> None:
        self.store = WatchedStore(folder / "store")
        self._scripts = folder
        self.store.write("in/1", b"1")
        task = Task(CommandTemplate("sh {script}"), None, inputs=(InputTemplate("in/"),))
        self.slot = Slot(task, self.store, folder / "slot", SlotLog(self.store, "", "log"), "run", "w")
        self._count = 0

    def run(self, script: str, **keys: object) -> Outcome:
        self._count += 1
        path = self._scripts / f"{self._count}.sh"
        path.write_text(script)
        body = json.dumps({"group": {"script": str(path), "n": self._count, **keys}}).encode()
        lease = Lease(Job(f"{self._count:016x}", self._count, body), "token", 0.0)
        self.slot.begin()
        return self.slot.run(lease, lambda _: None)

    def printed(self, outcome: Outcome) -> bytes:
        assert outcome.log is not None
        start, length = map(int, outcome.log.rpartition("@")[2].split("+"))
        return self.store.read("log", start, length)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with chdir(tmp_path):  # and back: a slot starts its processes in the folder of its own one
        bench = Bench(tmp_path)
        yield bench
        bench.slot.close()


def test_a_job_that_replaces_its_file_leaves_the_next_one_its_own(bench: Bench) -> None:
    bench.run('echo other > "$DS_JOB.new"; mv "$DS_JOB.new" "$DS_JOB"')
    outcome = bench.run('cat "$DS_JOB"')
    assert outcome.state is State.SUCCEEDED
    assert json.loads(bench.printed(outcome))["group"]["n"] == 2


def test_a_job_that_makes_its_output_non_blocking_leaves_the_next_ones_as_it_was(bench: Bench) -> None:
    bench.run(f"exec {sys.executable} -c 'import os; os.set_blocking(1, False)'")
    outcome = bench.run(f"exec {sys.executable} -c 'import os; print(os.get_blocking(1))'")
    assert bench.printed(outcome) == b"True\n"


@pytest.mark.fault(64)
@pytest.mark.parametrize(
    ("script", "cause", "detail", "code"),
    [
        ("sh -c 'kill -SEGV $$'; exit $?", Cause.SIGNAL, "killed by SIGSEGV", 139),
        ("sh -c 'kill -KILL $$'", Cause.SIGNAL, "killed by SIGKILL", 137),
        ("kill -TERM $$", Cause.SIGNAL, "killed by SIGTERM", None),
        ("exit 255", Cause.EXIT, "exit code 255", 255),
        ("exit 128", Cause.EXIT, "exit code 128", 128),
        (f"exec {sys.executable} -c 'raise SystemExit(3)'", Cause.EXIT, "exit code 3", 3),
    ],
)
def test_a_signal_below_a_shell_is_a_signal(
    bench: Bench, script: str, cause: Cause, detail: str, code: int | None
) -> None:
    outcome = bench.run(script)
    assert (outcome.cause, outcome.detail, outcome.exit_code) == (cause, detail, code)


def test_a_job_that_removes_its_folder_fails_as_its_exit_code_says(bench: Bench) -> None:
    outcome = bench.run('rm -rf "$DS_WORK_DIR"; exit 7')
    assert (outcome.cause, outcome.exit_code, outcome.detail) == (Cause.EXIT, 7, "exit code 7")
    assert bench.run("touch here").state is State.SUCCEEDED


def test_an_attempt_that_is_cancelled_fetches_no_more_files(bench: Bench) -> None:
    bench.store.write("in/2", b"2")
    fetched: list[None] = []

    def cancel() -> None:
        fetched.append(None)
        bench.slot.cancel(Cause.INTERRUPTED)

    bench.store.on_fetch = cancel
    assert bench.run("exit 1").cause is Cause.INTERRUPTED
    assert len(fetched) == 1


def test_an_attempt_that_is_cancelled_publishes_no_more_files(tmp_path: Path) -> None:
    store, published = WatchedStore(tmp_path / "store"), list[None]()
    task = Task(CommandTemplate("touch {output_dir}/a {output_dir}/b"), None, output=OutputTemplate("out"))
    slot = Slot(task, store, tmp_path / "slot", SlotLog(store, "", "log"), "run", "w")

    def cancel() -> None:
        published.append(None)
        slot.cancel(Cause.INTERRUPTED)

    store.on_publish = cancel
    slot.begin()
    outcome = slot.run(Lease(Job("1" * 16, 1, b'{"group": {}}'), "token", 0.0), lambda _: None)
    slot.close()
    assert outcome.cause is Cause.INTERRUPTED
    assert len(published) == 1
    assert [file.key for file in store.list("out/.ds/")] == []


def test_a_jobs_own_time_limit_goes_before_the_configs(bench: Bench) -> None:
    outcome = bench.run("sleep 30", _timeout=0.1)
    assert (outcome.cause, outcome.detail) == (Cause.TIMEOUT, "ran longer than its _timeout = 0.1 s")
    assert bench.run("true").state is State.SUCCEEDED


def test_a_log_that_could_not_be_kept_is_said(bench: Bench) -> None:
    bench.store.full = True
    outcome = bench.run("echo lost")
    assert (outcome.state, outcome.detail) == (State.SUCCEEDED, "its log could not be kept")
    bench.store.full = False
    assert bench.run("echo kept").detail == ""
