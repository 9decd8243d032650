"""Inputs fetched, outputs published, and what proves them complete."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from conftest import DsProject
from distributed_something.engine import StoredFile
from distributed_something.errors import DsError, KeyMissing, KeyRefused
from distributed_something.inputs.templates.paths import Input, clean_key
from distributed_something.local.store import FolderStore
from distributed_something.worker.files.done import DoneRule, Recipe, Rules, fingerprint, look
from distributed_something.worker.files.fetch import fetch_inputs, look_at_inputs
from distributed_something.worker.files.manifest import Manifest, OutputFile, read_manifest
from distributed_something.worker.files.publish import Claim, Raced, Taken, publish_outputs
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


def is_done(store: Any, prefix: str, job: str, rule: DoneRule | None) -> bool:
    """Whether a job would be skipped by a manifest that does not say what made it."""
    return look(store, prefix, job, Rules(rule=rule), dict).skip


def go_on() -> None:
    """No order to stop."""


def fetch(store: FolderStore, keys: list[str], folder: Path) -> int:
    folders = ["/" if key.endswith("/") else "" for key in keys]
    cleaned = [clean_key(key) + folder for key, folder in zip(keys, folders, strict=True)]
    wanted = [Input(key, key.rpartition("/")[2]) for key in cleaned]
    return fetch_inputs(store, wanted, folder, go_on)


class Odd(FolderStore):
    """Lists keys as other tools leave them in buckets."""

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        yield from (StoredFile(prefix + name, 1) for name in ("x.txt", "/y.txt", "./z.txt"))


@pytest.mark.fault(54)
def test_a_key_that_no_folder_can_hold_fails_by_its_name(tmp_path: Path, inputs: Path) -> None:
    with pytest.raises(KeyRefused, match=r"db//y\.txt"):
        fetch(Odd(tmp_path), ["db/"], inputs)
    assert below(inputs) == {}


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


def test_a_second_delivery_by_another_command_replaces_what_the_first_published(
    store: FolderStore, outputs: Path
) -> None:
    for command in ("wrong", "right"):
        make(outputs, a_txt=command)
        publish(store, outputs, CLAIM._replace(made_by={"command": command}))
    assert store.read("out/a.txt") == b"right"
    found = read_manifest(store, "out", CLAIM.job)
    assert found is not None
    assert found.made_by == {"command": "right"}


def test_some_files_of_a_lost_worker_are_not_done_by_their_number(store: FolderStore, outputs: Path) -> None:
    class Lost(FolderStore):
        def publish_many(self, files: Iterable[tuple[Path, str]]) -> Sequence[int]:
            super().publish_many([next(iter(files))])
            raise OSError("killed")

    make(outputs, a_txt="first", b_txt="second")
    with pytest.raises(OSError, match="killed"):
        publish(Lost(store.root), outputs, CLAIM._replace(by_files=True))
    assert "out/a.txt" in keys(store)
    assert not is_done(store, "out", CLAIM.job, DoneRule(1, 1, ""))
    make(outputs, a_txt="first", b_txt="second")
    assert publish(store, outputs, CLAIM._replace(by_files=True)) is not None
    assert is_done(store, "out", CLAIM.job, DoneRule(1, 1, ""))
    assert keys(store) == [MANIFEST, "out/a.txt", "out/b.txt"]


@pytest.mark.parametrize("late", ["other", "first"])
def test_an_attempt_that_comes_too_late_leaves_no_proof_of_mixed_files(
    store: FolderStore, outputs: Path, tmp_path: Path, late: str
) -> None:
    class Slow(FolderStore):
        """Another delivery has ended by the time that the files are there."""

        def publish_many(self, files: Iterable[tuple[Path, str]]) -> Sequence[int]:
            waiting = list(files)
            first = tmp_path / "first" / "output"
            first.mkdir(parents=True)
            make(first, a_txt="first")
            assert publish(store, first, CLAIM._replace(worker="w2")) is not None
            return super().publish_many(waiting)

    make(outputs, a_txt=late)
    with pytest.raises(Raced, match="published there at the same time"):
        publish(Slow(store.root), outputs)
    assert is_done(store, "out", CLAIM.job, None) == (late == "first")


def test_a_mark_whose_answer_was_lost_counts(store: FolderStore, outputs: Path) -> None:
    class Lossy(FolderStore):
        def replace(self, key: str, old: bytes, new: bytes) -> bool:
            return super().replace(key, old, new) and False

    for text in ("first", "other"):
        make(outputs, a_txt=text)
        run = Claim(CLAIM.job, f"run of {text}", 1, "w1")
        assert publish(Lossy(store.root), outputs, run) is not None
    assert store.read("out/a.txt") == b"other"


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


@pytest.mark.fault(49)
def test_jobs_of_a_shared_output_have_proofs_of_their_own(store: FolderStore, outputs: Path) -> None:
    for job in ("job1", "job2"):
        make(outputs, **{f"{job}_txt": job})
        publish_outputs(store, "out", outputs, Claim(job, "run1", 1, "w1"), pytest.fail, go_on, shared=True)
    rules = Rules(shared=True)
    assert [look(store, "out", f"job{n}", rules, dict).skip for n in (1, 2, 3)] == [True, True, False]
    assert [key for key in keys(store) if "/.ds/" not in key] == ["out/job1.txt", "out/job2.txt"]


class Asked(FolderStore):
    """Counts the requests that a bucket would get: one for a key, and one for 1,000 files of a list."""

    requests = 0

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        for count, file in enumerate(super().list(prefix)):
            self.requests += count % 1000 == 0
            yield file

    def stat(self, keys: Iterable[str]) -> Sequence[StoredFile | None]:
        keys = [*keys]
        self.requests += len(keys)
        return super().stat(keys)


@pytest.mark.parametrize("shared", [False, True])
def test_many_files_of_a_job_are_looked_for_by_lists(tmp_path: Path, outputs: Path, shared: bool) -> None:
    store = Asked(tmp_path / "asked")
    make(outputs, **{f"{number}_tif": "x" for number in range(2070)})
    publish_outputs(store, "out", outputs, CLAIM, pytest.fail, go_on, shared=shared)
    rules = Rules(shared=shared, lists=True)
    store.requests = 0
    assert look(store, "out", CLAIM.job, rules, dict).skip
    assert store.requests <= 5, "where jobs share a prefix, each file has a mark of its job beside it"
    store.requests = 0
    inputs = [Input(f"out/{number}.tif", f"{number}.tif") for number in range(2070)]
    assert [file.size for file in look_at_inputs(store, inputs, lists=True)] == [1] * 2070
    assert store.requests <= 5


@pytest.mark.fault(49)
def test_jobs_of_a_shared_output_do_not_overwrite_a_file_of_each_other(
    store: FolderStore, outputs: Path
) -> None:
    make(outputs, result_csv="A1")
    publish_outputs(store, "out", outputs, Claim("job1", "run1", 1, "w1"), pytest.fail, go_on, shared=True)
    make(outputs, result_csv="A2", more_csv="A2")
    with pytest.raises(Taken, match=r"out/result\.csv: it is that of job job1 of run run1"):
        publish_outputs(
            store, "out", outputs, Claim("job2", "run1", 1, "w1"), pytest.fail, go_on, shared=True
        )
    assert store.read("out/result.csv") == b"A1"
    (outputs / "more.csv").unlink()
    make(outputs, result_csv="A1 again")
    again = Claim("job1", "run2", 1, "w1")
    publish_outputs(store, "out", outputs, again, pytest.fail, go_on, shared=True)
    assert store.read("out/result.csv") == b"A1 again", "by the job that has it"


@pytest.mark.fault(51)
def test_another_job_replaces_the_output_whole_and_leaves_files_of_nobody(
    store: FolderStore, outputs: Path
) -> None:
    make(outputs, a1_txt="min 40", common_txt="old")
    publish(store, outputs)
    store.write("out/notes.txt", b"by hand")
    for name in ("a1.txt", "common.txt"):
        (outputs / name).unlink(missing_ok=True)
    make(outputs, a2_txt="min 300", common_txt="new")
    notes: list[str] = []
    publish(store, outputs, Claim("fedcba9876543210", "run2", 1, "w2"), notes.append)
    assert keys(store) == ["out/.ds/fedcba9876543210.json", "out/a2.txt", "out/common.txt", "out/notes.txt"]
    assert store.read("out/common.txt") == b"new"
    assert notes == ["1 file(s) below out/ that no manifest owns are left as they are"]


@pytest.mark.fault(51)
def test_a_replacement_that_breaks_proves_nothing_and_the_next_one_ends_it(
    store: FolderStore, outputs: Path
) -> None:
    make(outputs, a_txt="one", b_txt="one")
    publish(store, outputs)
    make(outputs, b_txt="two")
    later = CLAIM._replace(run="run2")
    with pytest.raises(DsError, match="no network"):
        publish(cast("FolderStore", Breaking(store, "publish_many")), outputs, later)
    assert not is_done(store, "out", CLAIM.job, None)
    make(outputs, b_txt="two")
    publish(store, outputs, later._replace(attempt=2))
    assert [key for key in keys(store) if "/.ds/" not in key] == ["out/b.txt"]
    assert store.read("out/b.txt") == b"two"


@pytest.mark.fault(51)
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"command": "other"}, "COMMAND changed"),
        ({"handler": "other"}, "HANDLER changed"),
        ({"environment": "other"}, "ENVIRONMENT changed"),
        ({"image": "other"}, "the image changed"),
        ({"image": ""}, ""),
        ({}, ""),
    ],
)
def test_a_job_is_done_only_while_the_same_recipe_makes_it(
    store: FolderStore, outputs: Path, change: dict[str, str], why: str
) -> None:
    recipe = Recipe("c", "h", "i", "e")
    made_by = fingerprint(recipe, {"n": 1}, [StoredFile("raw/a", 3, "t1")])
    make(outputs, a_txt="one")
    publish(store, outputs, CLAIM._replace(made_by=made_by))
    now = fingerprint(recipe._replace(**change), {"n": 1}, [StoredFile("raw/a", 3, "t1")])
    for job in (CLAIM.job, "fedcba9876543210"):  # by whichever id the manifest bears
        found = look(store, "out", job, Rules(), lambda: now)
        assert (found.skip, found.why) == (not why, why)


@pytest.mark.fault(51)
def test_a_changed_key_or_input_is_named(store: FolderStore, outputs: Path) -> None:
    made_by = fingerprint(Recipe(), {"n": 1, "MinSize": 40}, [StoredFile("raw/P1.tif", 3, "t1")])
    make(outputs, a_txt="one")
    publish(store, outputs, CLAIM._replace(made_by=made_by))
    for keys_now, tag, why in (
        ({"n": 1, "MinSize": 300}, "t1", "MinSize changed"),
        ({"n": 1, "MinSize": 40}, "t2", "input raw/P1.tif changed"),
        ({"n": 1}, "t1", "MinSize is gone"),
    ):
        now = fingerprint(Recipe(), keys_now, [StoredFile("raw/P1.tif", 3, tag)])
        assert look(store, "out", CLAIM.job, Rules(), lambda now=now: now)[:2] == (False, why)  # type: ignore[misc]


def test_the_rule_of_the_reference_can_be_kept(store: FolderStore, outputs: Path) -> None:
    make(outputs, a_txt="one")
    publish(store, outputs, CLAIM._replace(made_by={"command": "x"}))
    rules = Rules(rule=DoneRule(1, 1, ""), by_files=True)
    assert look(store, "out", "fedcba9876543210", rules, dict).skip


@pytest.mark.fault(52)
@pytest.mark.parametrize("target", ["secret", "secrets", "nowhere"])
def test_a_link_that_leads_out_or_nowhere_fails_the_job_by_name(
    store: FolderStore, outputs: Path, tmp_path: Path, target: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secrets").mkdir()
    make(outputs, a_txt="mine")
    (outputs / "latest").symlink_to(tmp_path / target)
    with pytest.raises(KeyRefused, match="output 'latest': a link"):
        publish(store, outputs)
    assert keys(store) == []


@pytest.mark.fault(52)
def test_a_linked_folder_of_the_job_is_published_as_a_copy(store: FolderStore, outputs: Path) -> None:
    make(outputs, d__a_txt="mine")
    (outputs / "latest").symlink_to("d")
    publish(store, outputs)
    assert keys(store) == [MANIFEST, "out/d/a.txt", "out/latest/a.txt"]


@pytest.mark.fault(52)
def test_a_link_in_a_circle_fails_the_job(store: FolderStore, outputs: Path) -> None:
    make(outputs, d__a_txt="mine")
    (outputs / "d" / "up").symlink_to("..")
    with pytest.raises(KeyRefused, match="holds the link itself"):
        publish(store, outputs)


@pytest.mark.fault(52)
def test_a_name_that_is_not_utf8_fails_the_job_by_name(store: FolderStore, outputs: Path) -> None:
    make(outputs, a_txt="mine")
    (outputs / os.fsdecode(b"\xff.txt")).write_text("x")
    with pytest.raises(KeyRefused, match="is not UTF-8"):
        publish(store, outputs)
    assert keys(store) == []


def test_what_is_no_file_fails_the_job_by_name(store: FolderStore, outputs: Path) -> None:
    make(outputs, a_txt="mine")
    os.mkfifo(outputs / "pipe")
    with pytest.raises(KeyRefused, match="output 'pipe': neither a file nor a folder"):
        publish(store, outputs)


@pytest.mark.parametrize("place", [".ds", "b/.ds"])
def test_a_job_cannot_write_a_manifest(store: FolderStore, outputs: Path, place: str) -> None:
    make(outputs, a_txt="mine")
    (outputs / place).mkdir(parents=True)
    (outputs / place / f"{CLAIM.job}.json").write_text("forged")
    with pytest.raises(KeyRefused, match="kept for manifests"):
        publish(store, outputs)
    assert keys(store) == []


def test_a_link_to_a_file_of_the_job_is_published_as_the_file(store: FolderStore, outputs: Path) -> None:
    make(outputs.parent, work__made_txt="made")
    (outputs / "link.txt").symlink_to(outputs.parent / "work" / "made.txt")
    publish(store, outputs)
    assert store.read("out/link.txt") == b"made"
    assert (outputs.parent / "work" / "made.txt").read_text() == "made"


@pytest.mark.fault(56)
@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("runs/App/20261128T081753Z-754e/events", "forged.jsonl"),
        ("runs/App/20261128T081753Z-754e", "report.html"),
        ("runs/App/99", "jobs.jsonl"),
        ("s3:/bucket/runs/App/99", "jobs.jsonl"),
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
    assert publish_outputs(store, "out", outputs, CLAIM, print, go_on, shared=True)

    def is_done(store: FolderStore, prefix: str, job: str, rule: DoneRule | None) -> bool:
        return look(store, prefix, job, Rules(rule=rule, shared=True), dict).skip

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


def test_what_a_job_leaves_running_changes_no_output_after_it_was_hashed(project: DsProject) -> None:
    writer = "setsid sh -c 'while :; do echo more; sleep 0.002; done' > {output_dir}/a.txt &"
    command = f"{writer} head -c 60000000 /dev/zero > {{output_dir}}/b.bin"
    project.config(COMMAND=command, OUTPUT="out/{n}")
    project.jobs([{"n": 1}])
    project.ds("run", "files/jobs.json")
    (manifest,) = (project.folder / "data/out/1/.ds").glob("*.json")
    kept = next(file for file in json.loads(manifest.read_bytes())["files"] if file["name"] == "a.txt")
    content = (project.folder / "data/out/1/a.txt").read_bytes()
    assert (kept["size"], kept["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
