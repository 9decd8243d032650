"""What goes wrong with the queue's file, and what the user is told."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distributed_something.errors import DsError
from distributed_something.job import Cause, Job, Lease
from distributed_something.local.queue import SqliteQueue
from distributed_something.local.queue_file import VERSION
from distributed_something.system.mounts import type_in


def jobs(count: int, start: int = 0) -> list[Job]:
    return [Job(f"{number:016x}", number, b'{"group": {}}' * 20) for number in range(start, start + count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A queue with some jobs, closed."""
    path = tmp_path / "queue.db"
    with SqliteQueue(path) as queue:
        queue.put(jobs(500))
        queue.fail(queue.lease(1)[0], Cause.EXIT, final=True)
    return path


# The file


def test_the_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    with SqliteQueue(tmp_path / "state" / "queue.db") as queue:
        assert queue.counts().open == 0
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_what_was_stored_is_there_when_it_is_opened_again(path: Path) -> None:
    with SqliteQueue(path) as queue:
        assert (queue.counts().waiting, queue.counts().dead) == (499, 1)


def test_facts_beside_the_jobs_are_kept(path: Path) -> None:
    with SqliteQueue(path) as queue:
        assert queue.get_meta("run") is None
        queue.set_meta("run", "20261122T141500Z-3f2a")
        queue.set_meta("run", "20261122T141500Z-3f2b")
        queue.purge()
    with SqliteQueue(path) as queue:
        assert queue.get_meta("run") == "20261122T141500Z-3f2b"


def test_closing_twice_is_no_error(path: Path) -> None:
    queue = SqliteQueue(path)
    queue.close()
    queue.close()


def test_a_reason_that_is_no_proper_text_is_kept_readable(path: Path) -> None:
    with SqliteQueue(path) as queue:
        dead = queue.fail(queue.lease(1)[0], Cause.EXIT, "caf\udce9: \0", final=True)
        assert dead is not None
        assert dead.detail == "caf\\udce9: \0"
        assert dead in list(queue.dead())


# Another version


def test_a_newer_file_is_refused_and_not_touched(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    before = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(DsError, match="was made by a newer version") as caught:
        SqliteQueue(path)
    assert "upgrade" in caught.value.fix
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_newer_version_not_yet_in_the_header_is_refused_too(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    try:
        with pytest.raises(DsError, match="was made by a newer version"):
            SqliteQueue(path)
    finally:
        db.close()


# Damage


def test_a_file_that_is_no_database_is_damaged(path: Path) -> None:
    path.write_bytes(b"\xff" * 8192)
    with pytest.raises(DsError, match="is damaged") as caught:
        SqliteQueue(path)
    assert "ds repair" in caught.value.fix
    assert "\n" not in caught.value.what


LEASE = Lease(jobs(3)[2], "7e57", 0.0)
VERBS: dict[str, Callable[[SqliteQueue], object]] = {
    "put": lambda queue: queue.put(jobs(1, start=9999)),
    "lease": lambda queue: queue.lease(1),
    "lease with a wait": lambda queue: queue.lease(1, wait=5.0),
    "renew": lambda queue: queue.renew([LEASE]),
    "done": lambda queue: queue.done([LEASE]),
    "release": lambda queue: queue.release([LEASE]),
    "fail": lambda queue: queue.fail(LEASE, Cause.EXIT),
    "counts": lambda queue: queue.counts(),
    "finished": lambda queue: queue.finished(),
    "next_visible": lambda queue: queue.next_visible(),
    "dead": lambda queue: list(queue.dead()),
    "redrive": lambda queue: queue.redrive(),
    "purge": lambda queue: queue.purge(),
    "release_owner": lambda queue: queue.release_owner("w"),
    "set_meta": lambda queue: queue.set_meta("a", "b"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_damage_that_shows_later_is_explained_by_every_verb(path: Path, verb: str) -> None:
    with path.open("r+b") as file:  # the first page, with the header and the list of tables, stays sound
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))
    with SqliteQueue(path) as queue, pytest.raises(DsError, match="is damaged") as caught:
        VERBS[verb](queue)
    assert "ds repair" in caught.value.fix


def test_a_file_cut_short_is_damaged(path: Path) -> None:
    os.truncate(path, 3 * 4096)
    with pytest.raises(DsError, match="is damaged"), SqliteQueue(path) as queue:
        queue.lease(500)


# No room, no right


def test_a_full_disk_is_named_and_loses_nothing(path: Path) -> None:
    with SqliteQueue(path) as queue:
        pages = queue._db.execute("PRAGMA page_count").fetchone()[0]  # as full as SQLite lets us make it
        queue._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(DsError, match="disk is full") as caught:
            queue.put(jobs(5000, start=500))
        assert "nothing is lost" in caught.value.what
        queue._db.execute("PRAGMA max_page_count = 100000")
        assert queue.put(jobs(5500)).known == 500


def test_what_is_stored_is_stored_though_the_log_cannot_be_folded_in(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with SqliteQueue(path) as queue:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))  # enough for the log
        try:
            assert queue.put(jobs(200, start=500)).sent == 200
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert queue.counts().waiting == 699


@pytest.fixture
def foreign_folder() -> Iterator[Path]:
    """A folder that this user can read but not write (root lets go of its rights for a moment)."""
    folder = Path(tempfile.mkdtemp(prefix="ds-foreign-"))
    SqliteQueue(folder / "queue.db").close()
    folder.chmod(0o555)
    (folder / "queue.db.lock").chmod(0o444)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_a_file_of_somebody_else_is_refused(foreign_folder: Path) -> None:
    with pytest.raises(DsError, match="cannot be written") as caught:
        SqliteQueue(foreign_folder / "queue.db")
    assert "DS_STATE_DIR" in caught.value.fix


def test_a_folder_that_cannot_be_made_is_refused(foreign_folder: Path) -> None:
    with pytest.raises(DsError, match="cannot be written"):
        SqliteQueue(foreign_folder / "state" / "queue.db")


# Network file systems

MOUNTS = r"""sysfs /sys sysfs rw,nosuid 0 0
/dev/vda / ext4 rw,relatime 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/vdb /home/ann/scratch xfs rw 0 0
//nas/lab /mnt/my\040lab cifs rw 0 0
me@host:/ /mnt/back\134slash fuse.sshfs rw 0 0
host /host 9p rw,trans=virtio 0 0
/dev/vdc /data ext4 rw 0 0
lustre@tcp:/fs /data lustre rw 0 0
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/queue.db", "ext4"),
        ("/home/ann/project/.ds/queue.db", "nfs4"),
        ("/home", "nfs4"),
        ("/homework/queue.db", "ext4"),
        ("/home/ann/scratch/queue.db", "xfs"),
        ("/home/ann/scratch2/queue.db", "nfs4"),
        ("/mnt/my lab/queue.db", "cifs"),
        ("/mnt/back\\slash/queue.db", "fuse.sshfs"),
        ("/host/queue.db", "9p"),
        ("/data/queue.db", "lustre"),
    ],
)
def test_a_file_system_is_known_by_its_longest_mount_point(path: str, kind: str) -> None:
    assert type_in(Path(path), MOUNTS) == kind


def test_without_mounts_nothing_is_known() -> None:
    assert type_in(Path("/home/ann"), "") is None
