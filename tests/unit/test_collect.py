"""COLLECT: one job at the end of a run that sees the outputs of all others."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import services
from conftest import DsProject
from distributed_something.errors import DsError, UsageError
from distributed_something.inputs.collect import Join, collect_command, collect_handler, join_of
from distributed_something.local.store import FolderStore
from distributed_something.worker.attempt.collect import Outputs, fetch_outputs, join_csv, list_lines

CONFIG = {
    "COMMAND": 'test {Plate} != bad && printf "well,n\\nA01,{N}\\nA02,2\\n" > {output_dir}/t.csv',
    "OUTPUT": "out/{Plate}",
    "JOB_RETRIES": 1,
}
GROUPS = [{"Plate": "P1", "N": 5}, {"Plate": "P2", "N": 6}]


@pytest.fixture
def plates(project: DsProject) -> DsProject:
    project.jobs(GROUPS, Shared="s")
    return project


def rows(project: DsProject) -> list[dict[str, str]]:
    with (project.folder / "data/collected/App.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_files_of_all_jobs_become_one(plates: DsProject) -> None:
    plates.config(**CONFIG, COLLECT="csv")
    plates.ds("run", "files/jobs.json")
    assert rows(plates) == [
        {"Plate": "P1", "N": "5", "well": "A01", "n": "5"},
        {"Plate": "P1", "N": "5", "well": "A02", "n": "2"},
        {"Plate": "P2", "N": "6", "well": "A01", "n": "6"},
        {"Plate": "P2", "N": "6", "well": "A02", "n": "2"},
    ]
    found = plates.job_lines()
    assert len(found) == 3
    assert (found[-1]["state"], found[-1]["output"]) == ("succeeded", "collected")
    assert len([*(plates.folder / "data/collected/.ds").glob("*.json")]) == 1
    assert "4 rows" in plates.ds("logs", found[-1]["id"]).stdout


def test_a_command_sees_all_outputs_and_runs_once(plates: DsProject) -> None:
    plates.config(**CONFIG, COLLECT="ls {outputs_dir}/out > {output_dir}/list; echo $DS_ATTEMPT")
    plates.ds("run", "files/jobs.json")
    assert (plates.folder / "data/collected/list").read_text() == "P1\nP2\n"
    assert plates.ds("logs", "2").stdout == "1\n"


def test_it_is_not_run_if_jobs_are_dead_unless_asked_for(plates: DsProject) -> None:
    plates.jobs([*GROUPS, {"Plate": "bad", "N": 0}])
    plates.config(**CONFIG, COLLECT="csv")
    done = plates.ds("run", "files/jobs.json", code=3)
    assert "COLLECT was not run: 1 of 3 jobs are dead" in done.stderr
    assert not (plates.folder / "data/collected").exists()


def test_it_is_run_at_the_end_with_what_there_is(plates: DsProject) -> None:
    plates.jobs([*GROUPS, {"Plate": "bad", "N": 0}])
    plates.config(**CONFIG, COLLECT="csv", COLLECT_WHEN="ended")
    plates.ds("run", "files/jobs.json", code=3)
    assert len(rows(plates)) == 4


def test_a_collection_that_failed_is_retried_alone(plates: DsProject) -> None:
    go = plates.folder / "go"
    plates.config(**CONFIG, COLLECT=f"test -e {go} && ls {{outputs_dir}} > {{output_dir}}/list")
    plates.ds("run", "files/jobs.json", code=3)
    assert [line["state"] for line in plates.job_lines()] == ["succeeded", "succeeded", "dead"]
    go.touch()
    assert "1 job put back" in plates.ds("retry", "--collect").stderr
    plates.ds("start")
    plates.ds("monitor")
    assert (plates.folder / "data/collected/list").read_text() == "out\n"
    assert len(plates.job_lines()) == 3


def test_workers_that_have_ended_are_started_for_it(plates: DsProject) -> None:
    plates.config(**CONFIG, COLLECT="csv")
    for words in (["setup"], ["submit", "files/jobs.json"], ["start"], ["wait"], ["stop"]):
        plates.ds(*words)
    plates.ds("monitor")
    assert len(rows(plates)) == 4


def test_a_second_run_collects_anew(plates: DsProject) -> None:
    plates.config(**CONFIG, COLLECT="csv", CHECK_IF_DONE_BOOL=True)
    plates.ds("run", "files/jobs.json")
    plates.jobs([*GROUPS, {"Plate": "P3", "N": 7}], Shared="s")
    plates.ds("run", "files/jobs.json")
    assert [line["state"] for line in plates.job_lines()] == ["skipped", "skipped", "succeeded", "succeeded"]
    assert len(rows(plates)) == 6


@pytest.mark.fault(49, 51)
def test_a_collection_replaces_the_one_of_the_run_before_whole(plates: DsProject) -> None:
    """Another run has another collecting job; what only the earlier one left must not stay beside the new."""
    collected = plates.folder / "data/collected"
    plates.config(**CONFIG, COLLECT="touch {output_dir}/both {output_dir}/old")
    plates.ds("run", "files/jobs.json")
    plates.jobs([*GROUPS, {"Plate": "P3", "N": 7}])
    plates.config(**CONFIG, COLLECT="touch {output_dir}/both {output_dir}/new")
    plates.ds("run", "files/jobs.json")
    assert sorted(path.name for path in collected.iterdir()) == [".ds", "both", "new"]
    assert len([*(collected / ".ds").glob("*.json")]) == 1


@pytest.mark.fault(49)
def test_two_apps_collect_into_one_folder_and_neither_touches_the_other_s_files(plates: DsProject) -> None:
    collected = plates.folder / "data/collected"

    def collect(app: str, names: str, code: int = 0) -> str:
        command = " ".join(["touch", *(f"{{output_dir}}/{name}" for name in names.split())])
        plates.config(**CONFIG, APP_NAME=app, COLLECT=command)
        plates.ds("run", "files/jobs.json", code=code)
        return plates.ds("failures").stdout

    collect("One", "one.csv shared.csv")
    collect("Two", "two.csv")
    assert sorted(path.name for path in collected.glob("*.csv")) == ["one.csv", "shared.csv", "two.csv"]
    said = collect("Three", "three.csv shared.csv", code=3)
    assert "output collected/shared.csv: it is that of job" in said
    assert sorted(path.name for path in collected.glob("*.csv")) == ["one.csv", "shared.csv", "two.csv"]
    plates.jobs([*GROUPS, {"Plate": "P3", "N": 7}])
    collect("One", "one.csv")  # it gives the name up
    assert sorted(path.name for path in collected.glob("*.csv")) == ["one.csv", "two.csv"]
    collect("Three", "three.csv shared.csv")
    assert len([*collected.glob("*.csv")]) == 4


@pytest.mark.parametrize("collect", ["cat {Plate}", "cat {outputs}", "cat 'x"])
def test_a_wrong_command_is_found_before_anything_is_queued(plates: DsProject, collect: str) -> None:
    plates.config(**CONFIG, COLLECT=collect)
    assert "COLLECT" in plates.ds("check", "files/jobs.json", code=2).stdout
    assert "COLLECT" in plates.ds("submit", "files/jobs.json", "--dry-run", code=2).stderr


def test_what_collect_is() -> None:
    assert join_of("csv") == Join("csv", "*.csv")
    assert join_of("csv:nuclei.csv") == Join("csv", "nuclei.csv")
    assert join_of("parquet") == Join("parquet", "*.parquet")
    assert join_of("csvjoin {outputs_dir}") is None
    assert collect_handler("lab.tables:Table.main") == "lab.tables:Table.main"
    assert [collect_handler(each) for each in ("csv:main", "./run:x", "run x:y", "")] == [None] * 4
    assert [collect_command(each) for each in ("", "csv", "parquet", "lab:main")] == [None] * 4


def test_a_function_sees_all_outputs(plates: DsProject) -> None:
    (plates.folder / "gather.py").write_text(
        "def main(outputs_dir, output_dir):\n"
        "    found = sorted(path.parent.name for path in outputs_dir.rglob('t.csv'))\n"
        "    print(len(found), 'tables')\n"
        "    (output_dir / 'list').write_text(' '.join(found))\n"
    )
    plates.config(**CONFIG, COLLECT="gather:main")
    plates.ds("check", "files/jobs.json")
    plates.ds("run", "files/jobs.json")
    assert (plates.folder / "data/collected/list").read_text() == "P1 P2"
    assert plates.ds("logs", "2").stdout == "2 tables\n"


def test_the_parquet_files_of_all_jobs_become_one(project: DsProject) -> None:
    services.require("pyarrow")
    from pyarrow import parquet

    (project.folder / "table.py").write_text(
        "import pyarrow, pyarrow.parquet\n"
        "def make(Plate, N, output_dir):\n"
        "    rows = pyarrow.table({'well': ['A01', 'A02'], 'N': [N, 2.5]})\n"
        "    pyarrow.parquet.write_table(rows, output_dir / 't.parquet')\n"
    )
    project.jobs(GROUPS)
    project.config(HANDLER="table:make", OUTPUT="out/{Plate}", COLLECT="parquet")
    project.ds("run", "files/jobs.json")
    joined = parquet.read_table(project.folder / "data/collected/App.parquet")
    assert [str(field.type) for field in joined.schema] == ["int64", "string", "string", "double"]
    assert joined.to_pylist() == [
        {"job.N": 5, "Plate": "P1", "well": "A01", "N": 5.0},
        {"job.N": 5, "Plate": "P1", "well": "A02", "N": 2.5},
        {"job.N": 6, "Plate": "P2", "well": "A01", "N": 6.0},
        {"job.N": 6, "Plate": "P2", "well": "A02", "N": 2.5},
    ]
    assert "App.parquet: 4 rows" in project.ds("logs", "2").stdout


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def listed(store: FolderStore, files: dict[str, dict[str, bytes]]) -> str:
    for prefix, contents in files.items():
        for name, data in contents.items():
            store.write(f"{prefix}/{name}", data)
    store.write("list", list_lines(Outputs(prefix, prefix, {"n": prefix}) for prefix in files))
    return "list"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a": {"t.csv": b"x\n1\n"}, "b": {"t.csv": b"y\n1\n"}}, "job b (b): its columns are y"),
        ({"a": {"t.csv": b"x\n1\n"}, "b": {"t.txt": b""}}, "job b (b) has 0 files"),
        ({"a": {"t.csv": b"x\n1\n", "u.csv": b"x\n"}}, "job a (a) has 2 files"),
    ],
)
def test_files_that_cannot_be_joined_are_named(
    store: FolderStore, tmp_path: Path, files: dict[str, dict[str, bytes]], said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        join_csv(store, listed(store, files), "*.csv", tmp_path / "joined", lambda: None)
    assert said in refused.value.what


def test_a_key_with_the_name_of_a_column_keeps_both(store: FolderStore, tmp_path: Path) -> None:
    key = listed(store, {"a": {"t.csv": b'n,"x, y"\r\n1,"line\nbreak"\r\n'}})
    assert join_csv(store, key, "*.csv", tmp_path / "joined", lambda: None) == 1
    with (tmp_path / "joined").open(newline="") as file:
        assert list(csv.reader(file)) == [["job.n", "n", "x, y"], ["a", "1", "line\nbreak"]]


def test_a_file_that_is_not_the_published_one_is_refused(store: FolderStore, tmp_path: Path) -> None:
    key = listed(store, {"a": {"t.csv": b"x\n1\n"}})
    facts = {"job": "a", "run": "r", "attempt": 1, "worker": "w", "finished": "", "version": ""}
    manifest = {**facts, "files": [{"name": "t.csv", "size": 99, "sha256": ""}]}
    store.write("a/.ds/a.json", json.dumps(manifest).encode())
    with pytest.raises(UsageError, match="not the file that the job published"):
        join_csv(store, key, "*.csv", tmp_path / "joined", lambda: None)


def test_no_name_in_a_manifest_leads_out_of_the_folder(store: FolderStore, tmp_path: Path) -> None:
    key = listed(store, {"a": {"t.csv": b"x\n"}})
    facts = {"job": "a", "run": "r", "attempt": 1, "worker": "w", "finished": "", "version": ""}
    manifest = {**facts, "files": [{"name": "../../t.csv", "size": 2, "sha256": ""}]}
    store.write("a/.ds/a.json", json.dumps(manifest).encode())
    with pytest.raises(DsError):
        fetch_outputs(store, key, tmp_path / "inside" / "input", lambda: None)
    assert not (tmp_path / "inside").exists()


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"y": [1]}, "job b (b): its columns are y"),
        ({"x": ["text"]}, "job b (b): "),
        ({"x": [0.5]}, "job b (b): Float value 0.5"),
        (None, "job b (b): "),
    ],
)
def test_parquet_files_that_cannot_be_joined_are_named(
    store: FolderStore, tmp_path: Path, second: dict[str, list[object]] | None, said: str
) -> None:
    services.require("pyarrow")
    from distributed_something.worker.attempt.parquet import join_parquet

    files = {"a": {"t.parquet": table_of({"x": [1]})}}
    files["b"] = {"t.parquet": table_of(second) if second else b"PAR1 no more"}
    with pytest.raises(UsageError) as refused:
        join_parquet(store, listed(store, files), "*.parquet", tmp_path / "joined", lambda: None)
    assert said in refused.value.what


def test_values_of_other_types_are_converted_if_none_changes(store: FolderStore, tmp_path: Path) -> None:
    services.require("pyarrow")
    from pyarrow import parquet

    from distributed_something.worker.attempt.parquet import join_parquet

    files = {"a": {"t.parquet": table_of({"x": [1]})}, "b": {"t.parquet": table_of({"x": [2.0]})}}
    assert join_parquet(store, listed(store, files), "*.parquet", tmp_path / "joined", lambda: None) == 2
    assert parquet.read_table(tmp_path / "joined").to_pydict() == {"n": ["a", "b"], "x": [1, 2]}


def table_of(columns: dict[str, list[object]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns), sink)
    return bytes(sink.getvalue())


def joined(folder: Path, *contents: bytes) -> str:
    store = FolderStore(folder / "data")
    for number, content in enumerate(contents):
        store.write(f"out/{number}/r.csv", content)
    store.write("list", list_lines(Outputs(str(n) * 16, f"out/{n}", {"n": n}) for n in range(len(contents))))
    join_csv(store, "list", "r.csv", folder / "all.csv", lambda: None)
    return (folder / "all.csv").read_text()


def test_blank_lines_make_no_rows_and_hide_none(tmp_path: Path) -> None:
    assert joined(tmp_path, b"\nx,y\n1,2\n", b"x,y\n3,4\n\n", b"\n") == "n,x,y\n0,1,2\n1,3,4\n"


@pytest.mark.parametrize("row", [b"5", b"5,6,7"])
def test_a_row_that_does_not_fit_the_columns_is_named(tmp_path: Path, row: bytes) -> None:
    with pytest.raises(UsageError, match=r"job 1{16} .*: line 4 has . values for 2 columns"):
        joined(tmp_path, b"x,y\n1,2\n", b"x,y\n3,4\n\n" + row + b"\n")
