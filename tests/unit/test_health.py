"""What is the machine's fault and what is a job's, how long a worker pauses, and what publishing outlasts."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from distributed_something.clock import BackOff
from distributed_something.errors import DsError, KeyRefused, SickMachine, Unreachable
from distributed_something.local.store import FolderStore
from distributed_something.worker.health import Health, PatientStore, pauses, sickness

pytestmark = pytest.mark.fault(65)


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def caused_by(error: Exception) -> Exception:
    outer = ValueError("outer")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (os_error(errno.EAGAIN), "no processes left (ulimit -u)"),
        (os_error(errno.ENOMEM), "no memory left"),
        (os_error(errno.EMFILE), "too many open files (ulimit -n)"),
        (os_error(errno.ENFILE), "too many open files on this machine (fs.file-max)"),
        (caused_by(os_error(errno.EMFILE)), "too many open files (ulimit -n)"),
        (ImportError("libz.so: cannot open: Too many open files"), "too many open files (ulimit -n)"),
        (RuntimeError("can't start new thread"), "no processes left (ulimit -u)"),
        (MemoryError(), "no memory left"),
        (Unreachable("S3 does not answer"), "S3 does not answer"),
        (SickMachine("as it is"), "as it is"),
    ],
)
def test_what_no_job_can_cause_is_the_machines(error: Exception, says: str) -> None:
    found = sickness(error)
    assert found is not None
    assert found.what == says


@pytest.mark.parametrize(
    "error",
    [os_error(errno.ENOENT), os_error(errno.EACCES), os_error(errno.E2BIG), DsError("x"), RuntimeError("x")],
)
def test_what_a_job_can_cause_is_not(error: Exception) -> None:
    assert sickness(error) is None


def test_pauses_double_up_to_the_longest() -> None:
    back_off = BackOff(0.5, 3.0)
    assert [back_off.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    back_off.reset()
    assert back_off.next() == 0.5


class SickStore(FolderStore):
    """A folder whose files cannot be published while `errors` lasts."""

    errors: list[Exception] = []  # noqa: RUF012  replaced by each test
    works = True

    def publish_many(self, files: Iterable[tuple[Path, str]]) -> Sequence[int]:
        if self.errors:
            raise self.errors.pop(0)
        return super().publish_many(files)

    def write(self, key: str, data: bytes) -> None:
        if not self.works:
            raise os_error(errno.EROFS)
        super().write(key, data)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.store = SickStore(folder / "store")
        self.store.write("run.json", b"{}")
        self.health = Health(self.store, "paused/w1", "run.json", folder)
        self.checks: list[Callable[[], None]] = []
        self.patient = PatientStore(self.store, self.health, self.check)
        self.folder = folder

    def check(self) -> None:
        if self.checks:
            self.checks.pop(0)()

    def files(self, names: Iterable[str]) -> list[tuple[Path, str]]:
        for name in names:
            (self.folder / name).write_text(name)
        return [(self.folder / name, f"out/{name}") for name in names]

    def publish(self, *names: str) -> Sequence[int]:
        return self.patient.publish_many(self.files(names))

    def published(self) -> list[str]:
        return [file.key for file in self.store.list("out/")]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
def test_publishing_outlasts_a_store_that_takes_nothing_and_loses_no_file(bench: Bench, number: int) -> None:
    files = bench.files(["a", "bb", "ccc"])
    first = bench.store.publish(*files[0])
    assert first == 1
    bench.files(["a"])
    bench.store.errors = [os_error(number)]
    assert [*bench.patient.publish_many(files)] == [1, 2, 3]
    assert bench.published() == ["out/a", "out/bb", "out/ccc"]
    assert bench.health.pauses
    bench.health.recovered()
    assert not [*bench.store.list("paused/")]


def test_an_error_that_repeats_where_the_store_works_is_raised(bench: Bench) -> None:
    bench.store.errors = [os_error(errno.EINVAL), os_error(errno.EINVAL)]
    with pytest.raises(OSError, match="Invalid"):
        bench.publish("a")
    assert not bench.health.pauses


def test_an_error_that_does_not_repeat_is_outlasted(bench: Bench) -> None:
    bench.store.errors = [os_error(errno.EIO)]
    assert [*bench.publish("a")] == [1]


def test_a_store_that_cannot_be_written_is_waited_for(bench: Bench) -> None:
    bench.store.errors = [os_error(errno.EIO)]
    bench.store.works = False

    def mend() -> None:
        bench.store.works = True

    bench.checks = [lambda: None, mend]
    assert [*bench.publish("a")] == [1]
    assert bench.health.pauses


def test_a_store_without_its_run_is_away(bench: Bench) -> None:
    bench.store.delete(["run.json"])
    with pytest.raises(SickMachine, match="the store is away"):
        bench.health.check_store()

    def back() -> None:
        assert not bench.published()
        bench.store.write("run.json", b"{}")

    bench.checks = [back]
    assert [*bench.publish("a")] == [1]


def test_a_refused_name_is_no_fault_of_the_machine(bench: Bench) -> None:
    with pytest.raises(KeyRefused):
        bench.patient.read("../x")
    assert not bench.health.pauses


def test_a_cancelled_attempt_ends_its_pause(bench: Bench) -> None:
    def cancel() -> None:
        raise InterruptedError

    bench.store.errors = [os_error(errno.ENOSPC)] * 9
    bench.checks = [lambda: None, cancel]
    with pytest.raises(InterruptedError):
        bench.publish("a")


def test_notes_of_pauses_are_read_and_old_ones_left_out(bench: Bench) -> None:
    for worker, why, until in [("a", "full", 100), ("b", "full", 100), ("c", "slow", 100), ("d", "old", 1)]:
        bench.store.write(f"paused/{worker}", b'{"why": "%s", "until": %d}' % (why.encode(), until))
    bench.store.write("paused/e", b"no note")
    found = [each.why for each in pauses(bench.store, "paused/", 90.0)]
    assert found == ["full", "full", "slow"]
    assert not pauses(bench.store, "paused/", 1000.0)


def test_a_note_without_a_descriptor_left_closes_no_other_file(tmp_path: Path) -> None:
    opened = list[int]()

    class Full(FolderStore):
        """While it writes, another thread takes the last descriptors."""

        def write(self, key: str, data: bytes) -> None:
            while True:
                try:
                    opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
                except OSError:
                    return

        def delete(self, keys: Sequence[str]) -> None:
            return

    health = Health(Full(tmp_path), "paused/w1")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each) for each in os.listdir("/dev/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 5, limits[1]))
    try:
        health.pause(SickMachine("no descriptor left"), lambda: False)
        health.recovered()
        health.close()
        assert opened
        for each in opened:
            os.fstat(each)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in opened:
            with suppress(OSError):
                os.close(each)
