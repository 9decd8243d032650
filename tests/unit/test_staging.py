"""Inputs fetched, outputs published, and what proves them complete."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distributed_something.engine import StoredFile
from distributed_something.errors import DsError, KeyMissing, KeyRefused
from distributed_something.local.store import FolderStore
from distributed_something.worker.attempt.staging import (
    Claim,
    DoneRule,
    Manifest,
    OutputFile,
    fetch_inputs,
    is_done,
    publish_outputs,
    read_manifest,
)
from trees import below, make

CLAIM = Claim(job="0123456789abcdef", run="run1", attempt=1, worker="w1")
MANIFEST = f"out/.ds/{CLAIM.job}.json"


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    (tmp_path / "input").mkdir()
    return tmp_path / "input"


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    (tmp_path / "slot" / "output").mkdir(parents=True)
    return tmp_path / "slot" / "output"


def fill(store: FolderStore, *keys: str) -> None:
    for key in keys:
        store.write(key, key.encode())


def keys(store: FolderStore, prefix: str = "") -> list[str]:
    return [file.key for file in store.list(prefix)]


def publish(
    store: FolderStore, folder: Path, claim: Claim = CLAIM, note: Callable[[str], None] = pytest.fail
) -> Manifest | None:
    return publish_outputs(store, "out", folder, claim, note, go_on)


def go_on() -> None:
    """No order to stop."""


def fetch(store: FolderStore, keys: list[str], folder: Path) -> int:
    return fetch_inputs(store, keys, folder, go_on)


class Breaking:
    """A store that breaks at one of its verbs."""

    def __init__(self, store: FolderStore, verb: str) -> None:
        self._store, self._verb = store, verb

    def __getattr__(self, name: str) -> Any:
        if name == self._verb:
            raise DsError("no network")
        return getattr(self._store, name)


# Inputs


def test_inputs_are_fetched_under_their_base_names(store: FolderStore, inputs: Path) -> None:
    fill(store, "a/one.tif", "b/c/two.tif")
    assert fetch(store, ["a/one.tif", "/b//c/two.tif"], inputs) == 20
    assert below(inputs) == {"one.tif": "a/one.tif", "two.tif": "b/c/two.tif"}


def test_a_prefix_fetches_all_below_it(store: FolderStore, inputs: Path) -> None:
    fill(store, "plate/a.tif", "plate/b/c.tif", "plate2/d.tif", "plate.txt", "plate/.ds/0123.json")
    fetch(store, ["plate/"], inputs)
    assert below(inputs) == {"a.tif": "plate/a.tif", "b/c.tif": "plate/b/c.tif"}


@pytest.mark.parametrize("key", ["missing.tif", "missing/", "a"])
def test_an_input_that_is_not_there_is_named(store: FolderStore, inputs: Path, key: str) -> None:
    fill(store, "a/b")
    with pytest.raises(KeyMissing, match=key):
        fetch(store, [key], inputs)


@pytest.mark.parametrize("key", ["../x", "a/..", "", "a/./b", ".."])
def test_an_input_cannot_lead_out_of_the_store(store: FolderStore, inputs: Path, key: str) -> None:
    with pytest.raises(KeyRefused):
        fetch(store, [key], inputs)
    assert below(inputs) == {}


@pytest.mark.parametrize(
    "wanted", [["a/x", "b/x"], ["a/x", "a/x"], ["a/", "b/"], ["c/", "a/x"], ["a/x", "c/"]]
)
def test_two_inputs_at_one_place_are_refused_before_any_is_fetched(
    store: FolderStore, inputs: Path, wanted: list[str]
) -> None:
    fill(store, "a/x", "b/x", "c/x/y")
    with pytest.raises(KeyMissing, match="another input has the name 'x'"):
        fetch(store, wanted, inputs)
    assert below(inputs) == {}


# Outputs


def test_outputs_come_with_a_manifest_that_tells_them(store: FolderStore, outputs: Path) -> None:
    make(outputs, a_txt="first", sub__b_txt="second!")
    manifest = publish(store, outputs)
    assert manifest is not None
    assert [(file.name, file.size) for file in manifest.files] == [("a.txt", 5), ("sub/b.txt", 7)]
    assert manifest == read_manifest(store, "out", CLAIM.job)
    assert store.read("out/a.txt") == b"first"
    stored = json.loads(store.read(MANIFEST))
    assert (stored["job"], stored["run"], stored["attempt"], stored["worker"]) == (
        CLAIM.job, "run1", 1, "w1"
    )  # fmt: skip
    assert stored["files"][0]["sha256"].startswith("a7937b64b8caa58f")
    assert is_done(store, "out", CLAIM.job, None)


def test_no_output_is_no_manifest(store: FolderStore, outputs: Path) -> None:
    (outputs / "empty" / "folders").mkdir(parents=True)
    assert publish(store, outputs) is None
    assert keys(store) == []
    assert not is_done(store, "out", CLAIM.job, None)


@pytest.mark.fault(21)
@pytest.mark.parametrize("verb", ["publish_many", "write_if_absent"])
def test_outputs_without_their_manifest_are_not_done(
    store: FolderStore, outputs: Path, tmp_path: Path, verb: str
) -> None:
    make(outputs, a_txt="first", b_txt="second")
    with pytest.raises(DsError, match="no network"):
        publish_outputs(Breaking(store, verb), "out", outputs, CLAIM, pytest.fail, go_on)  # type: ignore[arg-type]
    assert not is_done(store, "out", CLAIM.job, None)
    make(outputs, a_txt="first", b_txt="second")
    assert publish(store, outputs) is not None
    assert is_done(store, "out", CLAIM.job, None)


def test_a_failed_publication_takes_the_earlier_proof_away(store: FolderStore, outputs: Path) -> None:
    make(outputs, a_txt="first")
    publish(store, outputs)
    make(outputs, a_txt="other")
    later = Claim(CLAIM.job, "run2", 1, "w2")
    with pytest.raises(DsError):
        publish_outputs(Breaking(store, "publish_many"), "out", outputs, later, pytest.fail, go_on)  # type: ignore[arg-type]
    assert not is_done(store, "out", CLAIM.job, None)


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_second_delivery_leaves_what_the_first_published(
    store: FolderStore, outputs: Path, attempt: int
) -> None:
    make(outputs, a_txt="first")
    first = publish(store, outputs, Claim(CLAIM.job, "run1", attempt, "w1"))
    make(outputs, a_txt="second", b_txt="more")
    assert publish(store, outputs, Claim(CLAIM.job, "run1", 1, "w2")) == first
    assert store.read("out/a.txt") == b"first"
    assert keys(store) == [MANIFEST, "out/a.txt"]


@pytest.mark.parametrize("claim", [Claim(CLAIM.job, "run1", 2, "w2"), Claim(CLAIM.job, "run2", 1, "w2")])
def test_a_later_attempt_or_run_replaces(store: FolderStore, outputs: Path, claim: Claim) -> None:
    make(outputs, a_txt="first")
    publish(store, outputs)
    make(outputs, a_txt="second")
    manifest = publish(store, outputs, claim)
    assert manifest is not None
    assert (manifest.run, manifest.attempt) == (claim.run, claim.attempt)
    assert store.read("out/a.txt") == b"second"
    assert is_done(store, "out", CLAIM.job, None)


def test_jobs_that_share_a_prefix_have_proofs_of_their_own(store: FolderStore, outputs: Path) -> None:
    for job in ("job1", "job2"):
        make(outputs, **{f"{job}_txt": job})
        publish(store, outputs, Claim(job, "run1", 1, "w1"))
    assert is_done(store, "out", "job1", None)
    assert is_done(store, "out", "job2", None)
    assert not is_done(store, "out", "job3", None)


def test_links_to_outside_are_never_published(store: FolderStore, outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("secret")
    make(outputs, a_txt="mine")
    (outputs / "file").symlink_to(tmp_path / "secret")
    (outputs / "folder").symlink_to(tmp_path / "secrets")
    (outputs / "dangling").symlink_to("nowhere")
    (outputs / "circle").symlink_to("circle")
    notes: list[str] = []
    publish(store, outputs, note=notes.append)
    assert keys(store) == [MANIFEST, "out/a.txt"]
    assert sorted(note.split("'")[1] for note in notes) == ["circle", "dangling", "file", "folder"]


def test_a_link_to_a_file_of_the_job_is_published_as_the_file(store: FolderStore, outputs: Path) -> None:
    make(outputs.parent, work__made_txt="made")
    (outputs / "link.txt").symlink_to(outputs.parent / "work" / "made.txt")
    publish(store, outputs)
    assert store.read("out/link.txt") == b"made"
    assert (outputs.parent / "work" / "made.txt").read_text() == "made"


def test_what_is_no_file_is_left_out(store: FolderStore, outputs: Path) -> None:
    make(outputs, a_txt="mine")
    os.mkfifo(outputs / "pipe")
    notes: list[str] = []
    publish(store, outputs, note=notes.append)
    assert keys(store) == [MANIFEST, "out/a.txt"]
    assert notes == ["output 'pipe' left out: not a plain file"]


def test_a_job_cannot_write_a_manifest_of_its_own(store: FolderStore, outputs: Path) -> None:
    make(outputs, a_txt="mine")
    (outputs / ".ds").mkdir()
    (outputs / ".ds" / f"{CLAIM.job}.json").write_text("forged")
    notes: list[str] = []
    manifest = publish(store, outputs, note=notes.append)
    assert manifest is not None
    assert [file.name for file in manifest.files] == ["a.txt"]
    assert "'.ds'" in notes[0]
    assert read_manifest(store, "out", CLAIM.job) == manifest


def test_nor_one_of_another_job_whose_prefix_lies_below(store: FolderStore, outputs: Path) -> None:
    make(outputs, a_txt="mine")
    (outputs / "b" / ".ds").mkdir(parents=True)
    (outputs / "b" / ".ds" / "fedcba9876543210.json").write_text("forged")
    notes: list[str] = []
    publish(store, outputs, note=notes.append)
    assert read_manifest(store, "out/b", "fedcba9876543210") is None
    assert keys(store) == [MANIFEST, "out/a.txt"]
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("runs/App/20261128T081753Z-754e/events", "forged.jsonl"),
        ("runs/App/20261128T081753Z-754e", "report.html"),
        ("runs", "App__20261128T081753Z-754e__jobs__x.jsonl"),
        (".ds", "fedcba9876543210.json"),
        ("out/.ds", "fedcba9876543210.json"),
    ],
)
def test_a_value_in_output_cannot_lead_to_what_runs_keep(
    store: FolderStore, outputs: Path, prefix: str, name: str
) -> None:
    path = outputs / name.replace("__", "/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("forged")
    with pytest.raises(KeyRefused, match="keep of themselves"):
        publish_outputs(store, prefix, outputs, CLAIM, pytest.fail, go_on)
    assert keys(store) == []


def test_a_folder_named_runs_is_the_users_own(store: FolderStore, outputs: Path) -> None:
    make(outputs, a_txt="mine")
    assert publish_outputs(store, "runs/2026/plate1", outputs, CLAIM, pytest.fail, go_on) is not None


def test_a_name_that_is_not_utf8_is_an_error_before_anything_is_published(
    store: FolderStore, outputs: Path
) -> None:
    make(outputs, a_txt="mine")
    (outputs / os.fsdecode(b"\xff.txt")).write_text("x")
    with pytest.raises(ValueError, match="utf-8"):
        publish(store, outputs)
    assert keys(store) == []


# Done already


def test_a_manifest_counts_while_its_files_are_there(store: FolderStore, outputs: Path) -> None:
    make(outputs, a_txt="first", b_txt="second")
    publish(store, outputs)
    assert is_done(store, "out", CLAIM.job, None)
    store.write("out/a.txt", b"cut")
    assert not is_done(store, "out", CLAIM.job, None)
    store.write("out/a.txt", b"12345")
    assert is_done(store, "out", CLAIM.job, None)
    store.delete(["out/b.txt"])
    assert not is_done(store, "out", CLAIM.job, None)


@pytest.mark.fault(21)
def test_a_manifest_outweighs_the_rule(store: FolderStore, outputs: Path) -> None:
    """Partial outputs of a job are not taken for whole ones, however many there are."""
    make(outputs, a_txt="first", b_txt="second")
    publish(store, outputs)
    store.delete(["out/b.txt"])
    assert not is_done(store, "out", CLAIM.job, DoneRule(1, 1, ""))


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b"\xff", b'{"files": [{"name": 1}]}', b"[" * 100_000])
def test_a_broken_manifest_proves_nothing(store: FolderStore, broken: bytes) -> None:
    store.write(MANIFEST, broken)
    assert read_manifest(store, "out", CLAIM.job) is None
    assert not is_done(store, "out", CLAIM.job, None)


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    ("rule", "done"),
    [
        (DoneRule(2, 1, ".csv"), True),
        (DoneRule(3, 1, ".csv"), False),
        (DoneRule(2, 5, ".csv"), False),
        (DoneRule(1, 5, ".csv"), True),
        (DoneRule(4, 0, ""), True),
        (DoneRule(5, 0, ""), False),
        (DoneRule(1, 0, "out"), False),
        (DoneRule(1, 0, "2026"), True),
        (DoneRule(0, 0, "nothing"), True),
    ],
)
def test_the_reference_rule_counts_files_by_size_and_name(
    store: FolderStore, rule: DoneRule, done: bool
) -> None:
    for key, size in {"a.csv": 5, "sub/b.csv": 1, "c.csv": 0, "2026.txt": 9}.items():
        store.write(f"out/{key}", b"x" * size)
    store.write("outer.csv", b"12345")
    assert is_done(store, "out", CLAIM.job, rule) is done


@pytest.mark.fault(21)
def test_the_reference_rule_sees_more_than_a_thousand_files(store: FolderStore) -> None:
    for number in range(1100):
        store.write(f"out/{number:04d}", b"x")
    assert is_done(store, "out", CLAIM.job, DoneRule(1100, 1, ""))
    assert is_done(store, "out", CLAIM.job, DoneRule(1, 1, "1099"))


class Unlisted(FolderStore):
    """May not be listed: it is where a million jobs leave their files."""

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        raise AssertionError(prefix)


def test_a_manifest_is_checked_by_its_own_files_alone(store: FolderStore, outputs: Path) -> None:
    make(outputs, a_txt="one", sub__b_txt="two")
    assert publish_outputs(store, "out", outputs, CLAIM, print, go_on)
    assert is_done(Unlisted(store.root), "out", CLAIM.job, DoneRule(1, 1, ""))
    store.write("out/sub/b.txt", b"cut")
    assert is_done(Unlisted(store.root), "out", CLAIM.job, None)
    store.write("out/sub/b.txt", b"c")
    assert not is_done(Unlisted(store.root), "out", CLAIM.job, None)
    store.delete(["out/sub/b.txt"])
    assert not is_done(Unlisted(store.root), "out", CLAIM.job, None)


def test_a_manifest_with_a_name_that_is_none_proves_nothing(store: FolderStore) -> None:
    store.write("secret", b"x")
    file = OutputFile("../secret", 1, "")
    store.write(MANIFEST, Manifest(CLAIM.job, "r", 1, "w", "t", (file,)).to_json())
    assert not is_done(store, "out", CLAIM.job, None)
