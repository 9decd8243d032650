"""SHARED_INPUTS: fetched once a machine, to read only, checked, and part of what makes an output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from conftest import DsProject
from distributed_something.engine import StoredFile
from distributed_something.errors import SickMachine, UsageError
from distributed_something.inputs.checks.findings import Finding, Room, Severity
from distributed_something.inputs.config import Config, config_of
from distributed_something.inputs.jobs.jobfile import JobFile
from distributed_something.local.store import FolderStore
from distributed_something.runs.runfile import read_run_file, write_run_file
from distributed_something.worker.attempt.workplace import clear_remains
from distributed_something.worker.files.shared import (
    SharedFolder,
    shared_files,
    stored_findings,
)

GENOME = b"ACGT" * 1000


class CountingStore(FolderStore):
    """A folder that counts what is fetched from it."""

    fetched = 0

    def fetch_many(self, files: Iterable[tuple[str, Path]]) -> Sequence[int]:
        found = super().fetch_many(files)
        self.fetched += len(found)
        return found


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    store = CountingStore(tmp_path / "store")
    store.write("genome/hg38.fa", GENOME)
    store.write("genome/index/hg38.fai", b"index")
    store.write("tables/barcodes-7.csv", b"a,b\n")
    return store


def config(*entries: str) -> Config:
    given = {"APP_NAME": "App", "ENGINE": "local", "COMMAND": "true", "SHARED_INPUTS": [*entries]}
    return config_of(given, "run.json")


def of(store: FolderStore, *entries: str) -> dict[str, StoredFile]:
    return shared_files(config(*(entries or ("genome/",))), store)


def idle() -> None:
    pass


def test_a_machine_fetches_once_however_many_slots_ask(store: CountingStore, tmp_path: Path) -> None:
    folders = [SharedFolder(store, of(store), tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as slots:
        list(slots.map(lambda each: each.ensure(idle, idle), folders))
    assert store.fetched == 2
    assert {(each.path / "hg38.fa").read_bytes() for each in folders} == {GENOME}
    for each in folders[1:]:
        each.close()
    clear_remains(tmp_path)
    assert folders[0].path.exists(), "one slot still uses it"
    folders[0].close()
    clear_remains(tmp_path)
    assert not folders[0].path.exists()


def test_nobody_can_write_there_and_names_are_as_in_inputs(store: CountingStore, tmp_path: Path) -> None:
    folder = SharedFolder(store, of(store, "genome/", "tables/barcodes-7.csv -> barcodes.csv"), tmp_path)
    folder.ensure(idle, idle)
    below = [folder.path, *folder.path.rglob("*")]
    assert {each.relative_to(folder.path).as_posix() for each in below} == {
        *(".", "hg38.fa", "index", "index/hg38.fai", "barcodes.csv")
    }
    assert {each.stat().st_mode & 0o222 for each in below} == {0}
    assert (tmp_path / "store/genome/hg38.fa").stat().st_mode & 0o200, "the store's own file stays as it is"


def test_what_a_job_has_changed_is_brought_anew_when_no_slot_uses_it(
    store: CountingStore, tmp_path: Path
) -> None:
    one, other = (SharedFolder(store, of(store), tmp_path) for _ in range(2))
    for each in (one, other):
        each.ensure(idle, idle)
    (one.path / "hg38.fa").chmod(0o644)
    (one.path / "hg38.fa").write_bytes(b"N")

    seen: list[bytes] = []

    def still_used() -> None:
        seen[:] = seen or [(other.path / "hg38.fa").read_bytes()]
        other.close()

    one.ensure(idle, still_used)
    assert seen == [b"N"], "the job that runs there keeps its files"
    assert (one.path / "hg38.fa").read_bytes() == GENOME


@pytest.mark.parametrize("change", ["other", "gone"])
def test_a_file_that_is_not_what_it_was_at_set_up_is_no_fault_of_a_job(
    store: CountingStore, tmp_path: Path, change: str
) -> None:
    folder = SharedFolder(store, of(store), tmp_path)
    if change == "gone":
        store.delete(["genome/hg38.fa"])
    else:
        store.write("genome/hg38.fa", GENOME[::-1])
    with pytest.raises(SickMachine, match=r"genome/hg38.fa (has changed|is gone) since the set-up"):
        folder.ensure(idle, idle)
    assert not folder.path.exists()


def test_a_disk_without_room_is_named_before_it_is_full(tmp_path: Path) -> None:
    huge = {"hg38.fa": StoredFile("genome/hg38.fa", 1 << 60, "1")}
    with pytest.raises(SickMachine, match=r"SHARED_INPUTS have .* TB, and the disk of"):
        SharedFolder(FolderStore(tmp_path), huge, tmp_path).ensure(idle, idle)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("none/", "SHARED_INPUTS: none/: nothing below it in the store"),
        ("none", "SHARED_INPUTS: none: not in the store"),
        ("{Plate}/", "SHARED_INPUTS: {Plate}/: has a key of the job in it"),
        ("../genome/", "SHARED_INPUTS: ../genome/ has a part '.' or '..'"),
        ("/genome/ -> ../x", "SHARED_INPUTS: '../x' is no name"),
        ("gs://lab/genome/", "SHARED_INPUTS: 'gs:/lab/genome/' is an address"),
    ],
)
def test_an_entry_that_names_no_files_is_refused(store: CountingStore, entry: str, what: str) -> None:
    with pytest.raises(UsageError) as refused:
        of(store, entry)
    assert refused.value.what.startswith(what)
    (finding,) = stored_findings(config(entry), None, store, "data", None)
    assert finding.severity is Severity.ERROR


def test_check_counts_them_once_a_machine_and_gives_the_rest_to_inputs(
    store: CountingStore, tmp_path: Path
) -> None:
    (tmp_path / "jobs.json").write_text('{"groups": [{"key": "tables/barcodes-7.csv"}]}')
    known = config("genome/")._replace(inputs=("{key}",))

    def found(size: int) -> list[Finding]:
        room = Room(size, 1, "the disk", "make room")
        return list(stored_findings(known, JobFile(tmp_path / "jobs.json"), store, "data", room))

    shared, inputs = found(10_000)
    assert shared[:2] == (Severity.OK, "SHARED_INPUTS: 2 files, 4.0 kB, fetched once a machine")
    assert inputs.severity is Severity.OK
    assert [each.severity for each in found(4_006)] == [Severity.OK, Severity.OK, Severity.WARNING]
    assert found(3_000)[0].severity is Severity.WARNING


def test_the_runs_facts_have_them(store: CountingStore) -> None:
    shared = of(store)
    write_run_file(store, config("genome/"), "local", "run", shared=shared)
    assert read_run_file(store, "App", "run").shared == shared


def genome(project: DsProject, **more: Any) -> DsProject:
    (project.folder / "data/genome").mkdir(parents=True, exist_ok=True)
    (project.folder / "data/genome/hg38.fa").write_text("ACGT\n")
    given = {
        "COMMAND": "cat {shared_dir}/hg38.fa > {output_dir}/{n}; echo {shared_dir} $DS_SHARED_DIR",
        "SHARED_INPUTS": ["genome/"],
        "OUTPUT": "out/{n}",
    }
    return project.config(**{**given, **more})


def test_jobs_find_them_and_those_done_run_again_after_a_change(project: DsProject) -> None:
    genome(project, DOCKER_CORES=2, CHECK_IF_DONE_BOOL=True)
    jobs = project.jobs({"n": n} for n in range(4))
    assert "SHARED_INPUTS: 1 file, 5 B, fetched once a machine" in project.ds("check", jobs).stdout
    project.ds("run", jobs)
    assert [(project.folder / f"data/out/{n}/{n}").read_text() for n in range(4)] == ["ACGT\n"] * 4
    first, second = project.ds("logs", "0").stdout.split()
    assert first == second and first.endswith("/shared")
    assert "of 4 jobs 4 would be skipped" in project.ds("check", jobs).stdout
    (project.folder / "data/genome/hg38.fa").write_text("TTTT\n")
    assert "4 run again (4: shared input changed)" in project.ds("check", jobs).stdout
    project.ds("run", jobs)
    assert (project.folder / "data/out/0/0").read_text() == "TTTT\n"


def test_a_job_cannot_change_the_stores_file(project: DsProject) -> None:
    genome(project, COMMAND="chmod u+w {shared_dir}/hg38.fa; echo N > {shared_dir}/hg38.fa", OUTPUT="")
    project.ds("run", project.jobs([{"n": 1}]))
    assert (project.folder / "data/genome/hg38.fa").read_text() == "ACGT\n"


def test_a_function_finds_them_and_a_try_too(project: DsProject) -> None:
    (project.folder / "mine.py").write_text(
        "def run(shared_dir, output_dir):\n"
        "    print(shared_dir / 'hg38.fa')\n"
        "    (output_dir / 'x').write_bytes((shared_dir / 'hg38.fa').read_bytes())\n"
    )
    genome(project, COMMAND="", HANDLER="mine:run")
    jobs = project.jobs([{"n": 1}])
    project.ds("run", jobs)
    assert (project.folder / "data/out/1/x").read_text() == "ACGT\n"
    assert "shared/hg38.fa" in project.ds("try", jobs).stdout


def test_without_them_the_folder_is_refused(project: DsProject) -> None:
    project.config(COMMAND="cat {shared_dir}/x")
    said = project.ds("submit", project.jobs([{"n": 1}]), code=2).stderr
    assert "SHARED_INPUTS: not given, and COMMAND names {shared_dir}" in said
