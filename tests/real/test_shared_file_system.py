"""Two nodes with one folder on a real network file system, each by its own mount: GlusterFS, and NFS."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from distributed_something.cluster.shared.files import Files
from distributed_something.cluster.shared.place import Place
from distributed_something.cluster.shared.queue import CommandQueue
from distributed_something.engine import Store
from distributed_something.errors import KeyMissing, Unreachable
from distributed_something.local.store import FolderStore
from keepers import TERMS, Pilots, jobs, submit, until
from services import require

pytestmark = pytest.mark.real
SCRIPTS = Path(__file__).parents[1] / "cluster"
JOBS = int(os.environ.get("DS_TEST_JOBS", "6000"))


@pytest.fixture(scope="module")
def mounts() -> Iterator[list[Path]]:
    if given := os.environ.get("DS_TEST_MOUNTS"):
        yield [*map(Path, given.split())]
        return
    require("glusterfs")
    base = Path(tempfile.mkdtemp(prefix="ds-fs-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "FS_STATE": str(base / "state"), "FS_PORT": port}
    both = [base / "m1", base / "m2"]
    subprocess.run(["sh", SCRIPTS / "gluster_up.sh", *both], env=environment, check=True)
    yield both
    subprocess.run(["sh", SCRIPTS / "gluster_down.sh", *both], env=environment, check=True)
    time.sleep(0.5)
    for mount in both:
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def nodes(mounts: list[Path], tmp_path: Path) -> list[Path]:
    """A folder of this test, as two nodes see it."""
    (mounts[0] / tmp_path.name).mkdir()
    return [mount / tmp_path.name for mount in mounts]


def race(count: int, *runners: object) -> list[list[bool]]:
    """What each runner won; all start each round together."""
    start = threading.Barrier(len(runners))
    won: list[list[bool]] = [[] for _ in runners]

    def run(number: int, runner: object) -> None:
        for turn in range(count):
            start.wait()
            won[number].append(runner(turn))  # type: ignore[operator]

    threads = [threading.Thread(target=run, args=(n, runner)) for n, runner in enumerate(runners)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won


def test_a_claim_has_one_winner(nodes: list[Path]) -> None:
    files = Files()
    claims = [lambda n, node=node: files.create(node / f"epoch-{n}", str(node).encode()) for node in nodes]
    assert all(sum(both) == 1 for both in zip(*race(100, *claims), strict=True))


def test_a_manifest_has_one_writer(nodes: list[Path]) -> None:
    stores: list[Store] = [FolderStore(node, durable=True) for node in nodes]
    writes = [lambda n, store=store: store.write_if_absent(f"m/{n}", b"x") for store in stores]
    assert all(sum(both) == 1 for both in zip(*race(50, *writes), strict=True))


def test_what_one_node_stored_the_other_one_reads(nodes: list[Path], tmp_path: Path) -> None:
    here, there = (FolderStore(node, durable=True) for node in nodes)
    assert [*there.list("out/")] == []
    (tmp_path / "file").write_bytes(b"result")
    here.publish(tmp_path / "file", "out/1/file")
    for line in (b"one\n", b"two\n"):
        here.append("events/1.jsonl", line)

    def is_seen(key: str, content: bytes) -> bool:
        with suppress(KeyMissing):  # "is not there" is remembered for a while
            return there.read(key) == content
        return False

    until(lambda: is_seen("out/1/file", b"result"))
    until(lambda: is_seen("events/1.jsonl", b"one\ntwo\n"))
    assert [file.key for file in there.list("out/")] == ["out/1/file"]


def test_a_queue_goes_on_at_another_node_when_its_head_is_killed(nodes: list[Path], tmp_path: Path) -> None:
    pilots = Pilots([Place(node / "run") for node in nodes], tmp_path)
    try:
        submit(pilots, JOBS)
        pilots.work(4, 20)
        until(lambda: len(pilots.ran) > JOBS // 4 and pilots.head)
        pilots.tell_head(signal.SIGKILL)
        until(lambda: pilots.place.told() and pilots.counts().open == 0, 90)
        assert len(pilots.ran) == JOBS
        assert sum(pilots.ran.values()) == JOBS
        assert pilots.place.look().epoch >= 3
    finally:
        pilots.end()


class Quota:
    """The quota of the clients' user on the file system that `nfs_guest.sh` mounts; only in its guest."""

    DEVICE, USER = b"/dev/loop0", 65534
    SET, OF_BLOCKS, OF_BYTES = 0x800008 << 8, 1, 2

    def limit(self, kib: int) -> None:
        """Limits what all files of the user may take together; 0: no limit. (quotactl(2), struct dqblk)"""
        limits = struct.pack("8QI4x", kib, kib, *[0] * 6, self.OF_BLOCKS)
        self._call(self.SET, limits)

    def _call(self, command: int, limits: bytes) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.quotactl(command, self.DEVICE, self.USER, limits):
            raise OSError(ctypes.get_errno(), "quotactl")


def spend(write: Callable[[], object]) -> BaseException:
    """Repeats a write until it is refused; returns why."""
    for _ in range(10_000):
        try:
            write()
        except (OSError, Unreachable) as error:
            return error
    raise AssertionError("no quota was met")


@pytest.mark.skipif("DS_TEST_MOUNTS" not in os.environ, reason="only NFS has a quota here")
def test_a_quota_that_is_spent_is_named_and_nothing_is_lost(nodes: list[Path], mounts: list[Path]) -> None:
    folder, quota = mounts[0] / "quota" / nodes[0].name, Quota()
    folder.mkdir()
    place, store = Place(folder / "run"), FolderStore(folder / "data", durable=True)
    place.make()
    line = b"x" * 999 + b"\n"
    store.append("events/1.jsonl", line)
    with CommandQueue(place, TERMS) as queue:
        queue.put(jobs(100))
        quota.limit(1024)
        refused = spend(lambda: store.append("events/1.jsonl", line))
        assert isinstance(refused, OSError)
        assert refused.errno == errno.EDQUOT
        assert set(store.read("events/1.jsonl").split(b"\n")) == {line[:-1], b""}  # whole lines only
        with pytest.raises(OSError, match="quota"):
            store.write("events/2.jsonl", line * 10)
        assert not store.stat(["events/2.jsonl"])[0]
        refused = spend(lambda: queue.put(jobs(20_000)))
        assert isinstance(refused, Unreachable)
        assert "quota" in refused.what
        assert "your quota" in refused.fix
        quota.limit(0)
        store.append("events/1.jsonl", line)
        assert store.read("events/1.jsonl").endswith(b"\n" + line)
        queue.put(jobs(20_000))
        assert queue.counts().open == 20_000


@pytest.mark.skipif("DS_TEST_MOUNTS" in os.environ, reason="these tests are run by it")
def test_all_this_holds_on_nfs_of_the_kernel(tmp_path: Path) -> None:
    """A guest's kernel is the server and both clients: user-mode Linux needs no rights that a test lacks."""
    require("nfs")
    given = 'export TMPDIR=/dev/shm PYTHONDONTWRITEBYTECODE=1 DS_TEST_MOUNTS="$M1 $M2" DS_TEST_JOBS=1500'
    options = "-q -n 0 -p no:cacheprovider"
    tests = f"cd {Path(__file__).parents[2]} && {sys.executable} -m pytest {options} {__file__}"
    command = ["sh", SCRIPTS / "nfs_run.sh", f"{given}; {tests}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
