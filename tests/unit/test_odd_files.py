"""Pipes and devices where a file is expected, and no open file left: an answer at once, with its fix."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import DsProject
from distributed_something.cli.entry import in_our_words
from distributed_something.errors import DsError, KeyMissing
from distributed_something.inputs.templates.template import MOST_OF_ALL_VARIABLES, variables_of
from distributed_something.job import RetryPolicy
from distributed_something.local.queue import SqliteQueue
from distributed_something.local.store import FolderStore

pytestmark = pytest.mark.fault(78)

KINDS = ["pipe", "device"]


def odd(path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["config.py", "config.toml", "jobs.csv", "lib/align.sh"])
def test_what_is_no_file_is_refused_at_once(project: DsProject, kind: str, name: str) -> None:
    words = ["check"]
    if name.startswith("jobs"):
        words.append(name)
    if not name.startswith("config"):
        project.config(COMMAND="echo {n}", FILES=["lib"] if name.startswith("lib") else None)
    odd(project.folder / name, kind)
    done = project.ds(*words, code=None)
    assert "is a pipe or a device" in done.stdout + done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_store_of_a_folder_has_files_only(tmp_path: Path, kind: str) -> None:
    odd(tmp_path / "raw/odd", kind)
    (tmp_path / "raw/a.txt").write_text("a")
    store = FolderStore(tmp_path)
    assert [file.key for file in store.list("raw/")] == ["raw/a.txt"]
    with pytest.raises(KeyMissing, match="a pipe or a device"):
        store.fetch("raw/odd", tmp_path / "copy")


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_whose_input_folder_holds_no_file_ends(project: DsProject, kind: str) -> None:
    project.config(COMMAND="ls {input_dir}", INPUTS=["raw/{n}/"], OUTPUT="out/{n}", JOB_RETRIES=1)
    odd(project.folder / "data/raw/1/odd", kind)
    (project.folder / "data/raw/1/a.txt").write_text("a")
    odd(project.folder / "data/raw/2/odd", kind)
    project.ds("run", "--unchecked", project.jobs([{"n": 1}, {"n": 2}]), code=3)
    assert [line["cause"] for line in project.job_lines()] == ["output-missing", "input-missing"]


@contextmanager
def files_left(count: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_no_open_file_left_is_not_a_right_that_lacks(tmp_path: Path, count: int) -> None:
    with files_left(count), pytest.raises(DsError, match="Too many open files") as raised:
        SqliteQueue(tmp_path / "queue.db", policy=RetryPolicy(3), term=60.0)
    assert "ulimit -n" in raised.value.fix


def test_any_error_of_too_many_open_files_has_its_fix() -> None:
    said = in_our_words(OSError(errno.EMFILE, "Too many open files", "data/x"))
    assert said.what == "data/x: Too many open files" and "ulimit -n" in said.fix


def test_the_keys_of_a_job_never_fill_the_environment() -> None:
    many = variables_of({f"key{number}": "v" for number in range(100_000)})
    assert sum(len(name) + len(text) + 10 for name, text in many.items()) <= MOST_OF_ALL_VARIABLES
    assert len(many) > 10_000
    assert variables_of({"x" * 100_000: "v", "n": "1"}) == {b"DS_KEY_n": b"1"}
