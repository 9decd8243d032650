"""What killed processes leave behind goes away when it is old, and a killed start is tried again."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import DsProject
from distributed_something import background
from distributed_something.errors import DsError
from distributed_something.local.store import FolderStore
from distributed_something.runs.record import RunRecord, write_record
from distributed_something.s3.uploads import abort_old_uploads
from distributed_something.system.leftovers import AGE_SECONDS

pytestmark = pytest.mark.fault(79)


def leave_behind(path: Path, *, old: bool) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half a fi")
    if old:
        then = time.time() - AGE_SECONDS - 60
        os.utime(path, (then, then))
    return path


def test_listing_a_folder_of_the_store_removes_old_temporaries_only(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write("out/1/.distributed-something/a.json", b"{}")
    old = leave_behind(tmp_path / "out/1/.distributed-something/.ds-tmp-0011", old=True)
    new = leave_behind(tmp_path / "out/1/.ds-tmp-0022", old=False)
    theirs = leave_behind(tmp_path / "out/1/old.txt", old=True)
    assert [file.key for file in store.list("out/1/")] == [
        "out/1/.distributed-something/a.json",
        "out/1/old.txt",
    ]
    assert not old.exists()
    assert new.exists() and theirs.exists()


def test_cleanup_removes_old_temporaries_wherever_they_are(project: DsProject) -> None:
    project.config(COMMAND="echo {n} > {output_dir}/n", OUTPUT="out/{n}", DOCKER_CORES=1)
    project.ds("run", project.jobs([{"n": 1}]))
    run = next((project.folder / "data/runs/App").iterdir())
    record = project.folder / "files/.AppSpotFleetRequestId.json.0a1b2c3d"
    old = [
        leave_behind(place, old=True)
        for place in (run / "ran/files/.ds-tmp-1", project.folder / "data/out/1/.ds-tmp-2", record)
    ]
    new = leave_behind(project.folder / "data/out/1/.ds-tmp-3", old=False)
    project.ds("cleanup")
    assert not [path for path in old if path.exists()]
    assert new.exists()


def test_writing_a_record_removes_the_temporaries_of_killed_writers(tmp_path: Path) -> None:
    old = leave_behind(tmp_path / ".App.json.0a1b2c3d", old=True)
    new = leave_behind(tmp_path / ".App.json.4e5f6a7b", old=False)
    write_record(tmp_path / "App.json", RunRecord("App", "r", "local", "", "", "", "", 0))
    assert not old.exists() and new.exists()


def leave(folder: Path, program: str) -> None:
    log = folder / "log"
    with background.free(folder / "lock") as lock:
        assert lock is not None
        command = [sys.executable, "-c", program, str(folder)]
        background.leave(command, lock, os.environ, failure="the workers could not be started", log=log)


DYING = """
import os, pathlib, signal, sys
count = pathlib.Path(sys.argv[1], "count")
tries = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (tries + 1))
if tries < {deaths}:
    os.kill(os.getpid(), signal.SIGKILL)
print("ready", flush=True)
"""


def test_a_process_that_is_killed_while_it_starts_is_started_again(tmp_path: Path) -> None:
    leave(tmp_path, DYING.format(deaths=2))
    assert (tmp_path / "count").read_text() == "xxx"


def test_a_process_that_is_killed_again_and_again_is_named_with_what_kills_it(tmp_path: Path) -> None:
    with pytest.raises(DsError, match="could not be started: its process was killed by SIGKILL"):
        leave(tmp_path, DYING.format(deaths=99))
    assert (tmp_path / "count").read_text() == "xxx"


def test_a_process_that_refuses_is_started_once(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys; open(sys.argv[1] + '/count', 'a').write('x'); print('no room\\nmake room')"
    )
    with pytest.raises(DsError, match="could not be started: no room") as refused:
        leave(tmp_path, program)
    assert refused.value.fix == "make room"
    assert (tmp_path / "count").read_text() == "x"


def test_a_lock_goes_unless_it_is_held(tmp_path: Path) -> None:
    lock = tmp_path / "App-aws.lock"
    with background.free(lock):
        background.remove_if_free(lock)
        assert lock.exists()
    background.remove_if_free(lock)
    assert not lock.exists()
    background.remove_if_free(tmp_path / "away" / "App-aws.lock")


class Uploads:
    """A session and a client of S3, whose bucket has an upload for each hour of the last two days."""

    def __init__(self, now: datetime) -> None:
        self.began = {f"out/{hours}": now - timedelta(hours=hours) for hours in range(48)}

    def client(self, _service: str) -> Any:
        return self

    get_paginator = client

    def paginate(self, **_: object) -> list[dict[str, Any]]:
        found = [{"Key": key, "UploadId": key, "Initiated": at} for key, at in self.began.items()]
        return [{"Uploads": found[:20]}, {"Uploads": found[20:]}, {}]

    def abort_multipart_upload(self, **upload: str) -> None:
        del self.began[upload["Key"]]


def test_uploads_that_are_not_a_day_old_may_still_be_under_way() -> None:
    now = datetime(2026, 3, 4, 12, tzinfo=UTC)
    bucket: Any = Uploads(now)
    assert abort_old_uploads(bucket, "bucket", ["out/"], now.timestamp()) == 23
    assert set(bucket.began) == {f"out/{hours}" for hours in range(25)}
