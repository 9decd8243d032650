"""Job files that `ds jobfile new` makes: from files, lists of values and tables."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import DsProject
from distributed_something.errors import UsageError
from distributed_something.inputs.jobs.generate import (
    Pattern,
    combine,
    expand,
    group_files,
    missing,
    parse_lists,
    parse_where,
    write_lines,
)
from distributed_something.inputs.templates.paths import Input, InputTemplate


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("P1,P2", ["P1", "P2"]),
        ("A01..B03", ["A01", "A02", "A03", "B01", "B02", "B03"]),
        ("A9..A11", ["A9", "A10", "A11"]),
        ("Z1..AB1", ["Z1", "AA1", "AB1"]),
        ("a1..b2", ["a1", "a2", "b1", "b2"]),
        ("plate8..plate10", ["plate8", "plate9", "plate10"]),
        ("A..C", ["A", "B", "C"]),
        ("1..3", [1, 2, 3]),
        ("3..1", [3, 2, 1]),
        ("08..10", ["08", "09", "10"]),
        ("0..10..5", [0, 5, 10]),
        ("0..0.3..0.1", [0.0, 0.1, 0.2, 0.3]),
        ("1..0..0.5", [1.0, 0.5, 0.0]),
        ("-1..1", [-1, 0, 1]),
        ("0.5,1,01,1.10,1e3", [0.5, 1, "01", "1.10", "1e3"]),
        ("A01..A02,H12", ["A01", "A02", "H12"]),
    ],
)
def test_lists_and_ranges(text: str, values: list[Any]) -> None:
    assert expand(text, "x") == values


@pytest.mark.parametrize(
    "text", ["a,,b", "", "H01..A12", "A01..b02", "plate1..dish2", "1..9..0", "1..x", "A01..", "1..99999999"]
)
def test_a_list_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        expand(text, "--product x")
    assert "--product x" in refused.value.what
    assert refused.value.fix


def test_a_product_goes_through_the_last_name_fastest() -> None:
    lists = parse_lists(["Plate=P1,P2", "Site=1..2"])
    assert [tuple(each.values()) for each in combine(lists, zipped=False)] == [
        ("P1", 1), ("P1", 2), ("P2", 1), ("P2", 2),
    ]  # fmt: skip
    assert [tuple(each.values()) for each in combine(lists, zipped=True)] == [("P1", 1), ("P2", 2)]


def test_lists_of_different_lengths_are_not_zipped() -> None:
    with pytest.raises(UsageError, match="Plate has 2, Site has 3"):
        list(combine(parse_lists(["Plate=P1,P2", "Site=1..3"]), zipped=True))


@pytest.mark.parametrize(
    ("pattern", "path", "keys"),
    [
        ("raw/{Plate}/{Well}_{Site}.tif", "raw/P1/A01_2.tif", {"Plate": "P1", "Well": "A01", "Site": "2"}),
        ("raw/{Plate}/{Well}_{Site}.tif", "raw/P1/x/A01_2.tif", None),
        ("raw/{Plate}/{Well}.tif", "raw/P1/A01.tiff", None),
        ("{Plate}/{Plate}_{Well}.tif", "P1/P1_A01.tif", {"Plate": "P1", "Well": "A01"}),
        ("{Plate}/{Plate}_{Well}.tif", "P1/P2_A01.tif", None),
        ("raw/**/{Well}.tif", "raw/A01.tif", {"Well": "A01"}),
        ("raw/**/{Well}.tif", "raw/a/b/A01.tif", {"Well": "A01"}),
        ("raw/*/{Well}.tif", "raw/a/A01.tif", {"Well": "A01"}),
        ("a(b)/{Well}.tif", "a(b)/A01.tif", {"Well": "A01"}),
        (r"raw/(?P<Plate>P\d)-(?P<Well>[A-H]\d\d)\.tif", "raw/P1-A01.tif", {"Plate": "P1", "Well": "A01"}),
        (r"raw/(?P<Plate>P\d)\.tif", "raw/P1.tif.bak", None),
    ],
)
def test_a_pattern_finds_the_keys_of_a_path(pattern: str, path: str, keys: dict[str, str] | None) -> None:
    found = Pattern(pattern)
    assert found.match(path) == keys
    assert keys is None or path.startswith(found.prefix)


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("raw/x_{Plate}.tif", "raw/x_"),
        (r"raw/x*(?P<Plate>\w)", "raw/"),
        (r"raw/(?P<Plate>\w)", "raw/"),
        (r"raw/(?P<Plate>\w)|b", ""),
    ],
)
def test_only_what_every_match_begins_with_is_listed(pattern: str, prefix: str) -> None:
    assert Pattern(pattern).prefix == prefix


@pytest.mark.parametrize("pattern", ["raw/*.tif", r"(?P<Plate>[", ""])
def test_a_pattern_without_names_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError) as refused:
        Pattern(pattern)
    assert refused.value.fix


def test_missing_combinations_of_a_grid_are_named() -> None:
    wells = [{"Plate": plate, "Well": well} for plate in "PQ" for well in "ABC"]
    assert missing(wells, ["Plate", "Well"]) == (0, [])
    assert missing(wells[:-1], ["Plate", "Well"]) == (1, [{"Plate": "Q", "Well": "C"}])
    diagonal = [{"Plate": str(n), "Well": str(n)} for n in range(10)]  # no grid
    assert missing(diagonal, ["Plate", "Well"]) == (0, [])


def test_files_are_grouped_with_their_paths() -> None:
    files = [({"Plate": "P1", "Site": "1"}, "a"), ({"Plate": "P2", "Site": "1"}, "b"), ({"Plate": "P1"}, "c")]
    assert group_files(files, ["Plate"]) == [
        {"Plate": "P1", "Files": ["a", "c"]},
        {"Plate": "P2", "Files": ["b"]},
    ]


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("Well!=A01,A02", ["B01"]),
        ("Well=A01..B01", ["A01", "B01"]),
        ("Well~^A", ["A01", "A02"]),
        ("Well !~ ^A", ["B01"]),
        ("Site<=2", ["A01", "A02"]),
        ("Site>2", ["B01"]),
        ("Site=3", ["B01"]),
        ('Well != "A01"', ["A02", "B01"]),
        ("Well == 'A01'", ["A01"]),
    ],
)
def test_a_condition_keeps_jobs(condition: str, kept: list[str]) -> None:
    jobs = [{"Well": well, "Site": site} for site, well in enumerate(["A01", "A02", "B01"], 1)]
    assert [job["Well"] for job in filter(parse_where(condition), jobs)] == kept


@pytest.mark.parametrize("condition", ["Well", "Wel=A01", "Well<3", "Well~("])
def test_a_condition_that_cannot_be_meant_is_refused(condition: str) -> None:
    with pytest.raises(UsageError):
        parse_where(condition)({"Well": "A01"})


def test_duplicates_are_counted_whatever_the_order_of_their_keys() -> None:
    jobs = [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3}]
    kept: list[bytes] = []
    assert write_lines(jobs, kept.append, unique=False, distinct=False)[:2] == (3, 1)
    dropped: list[bytes] = []
    assert write_lines(jobs, dropped.append, unique=True, distinct=False)[:2] == (2, 1)
    assert [json.loads(line) for line in b"".join(dropped).splitlines()] == [jobs[0], jobs[2]]


def test_a_million_combinations_take_seconds_and_no_memory() -> None:
    lists = parse_lists(["Plate=1..100", "Well=A01..H12", "Site=1..9", "sigma=0..1..0.1"])
    began, written = time.process_time(), 0

    def write(data: bytes) -> None:
        nonlocal written
        written += len(data)

    summary = write_lines(combine(lists, zipped=False), write, unique=False, distinct=True)
    assert summary.jobs == 100 * 96 * 9 * 11
    assert written > 30e6
    assert time.process_time() - began < 5


def test_an_entry_of_inputs_is_each_value_of_a_list() -> None:
    template = InputTemplate("{Files}")
    assert template.fill_all({"Files": ["a", "b/c"]}) == [Input("a", "a"), Input("b/c", "c")]
    assert template.fill_all({"Files": "a"}) == [Input("a", "a")]
    assert InputTemplate("x/{Files}").fill_all({"Files": "a"}) == [Input("x/a", "a")]


CONFIG = {
    "COMMAND": "cat {input_dir}/x > {output_dir}/{Plate}",
    "INPUTS": ["raw/{Plate}/{Well}.tif"],
    "OUTPUT": "out/{Plate}",
}


def made(project: DsProject, *words: str, **more: Any) -> tuple[list[dict[str, Any]], str, str]:
    done = project.ds("--yes", "jobfile", "new", "files/jobs.jsonl", *words, **more)
    lines = (project.folder / "files/jobs.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], done.stdout, done.stderr


@pytest.fixture
def plates(project: DsProject) -> DsProject:
    project.config(**CONFIG)
    (project.folder / "files").mkdir(exist_ok=True)
    for plate, well in [("P1", "A01"), ("P1", "A02"), ("P2", "A01")]:
        path = project.folder / f"data/raw/{plate}/{well}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(well)
    return project


def test_files_of_the_store_become_jobs(plates: DsProject) -> None:
    jobs, out, err = made(plates, "--from", "raw/{Plate}/{Well}.tif")
    assert jobs == [
        {"Plate": "P1", "Well": "A01"}, {"Plate": "P1", "Well": "A02"}, {"Plate": "P2", "Well": "A01"},
    ]  # fmt: skip
    assert "Plate=P1 Well=A01\n  cat ../input/x > ../output/P1\n" in out.replace("'", "")
    assert "1 combination has no file, such as Plate=P2 Well=A02" in err
    assert "3 jobs" in err


def test_grouped_files_of_a_folder_have_their_paths(plates: DsProject) -> None:
    folder = plates.folder / "data/raw"
    jobs, _, _ = made(plates, "--from", f"{folder}/{{Plate}}/{{Well}}.tif", "--group-by", "Plate")
    assert jobs[0] == {"Plate": "P1", "Files": [f"{folder}/P1/A01.tif", f"{folder}/P1/A02.tif"]}
    assert [job["Plate"] for job in jobs] == ["P1", "P2"]


def test_each_file_is_tried_with_each_value(plates: DsProject) -> None:
    words = ["--from", "raw/{Plate}/{Well}.tif", "--product", "sigma=1,2", "--where", "Plate=P1"]
    jobs, _, _ = made(plates, *words, "--path-key", "Path")
    assert [(job["Path"], job["sigma"]) for job in jobs] == [
        ("raw/P1/A01.tif", 1), ("raw/P1/A01.tif", 2), ("raw/P1/A02.tif", 1), ("raw/P1/A02.tif", 2),
    ]  # fmt: skip


def test_a_table_from_stdin_becomes_jobs(plates: DsProject) -> None:
    table = "plate_id;well;note\nP1;A01;x\nP1;A01;y\nP2;B01;z\n"
    jobs, _, err = made(
        plates, "--table", "-", "--columns", "Plate=plate_id,Well=well", "--unique", stdin=table
    )
    assert jobs == [{"Plate": "P1", "Well": "A01"}, {"Plate": "P2", "Well": "B01"}]
    assert "1 duplicate dropped" in err


def test_json_lines_from_stdin_become_jobs(plates: DsProject) -> None:
    jobs, _, _ = made(plates, "--table", "-", stdin='{"Plate": "P1", "n": 1}\n{"Plate": "P2", "n": 2}\n')
    assert jobs == [{"Plate": "P1", "n": 1}, {"Plate": "P2", "n": 2}]


def test_a_parquet_table_becomes_jobs(plates: DsProject) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"Plate": ["P1", "P2"], "n": [1, 2]})
    parquet.write_table(table, plates.folder / "table.parquet")
    jobs, _, _ = made(plates, "--table", str(plates.folder / "table.parquet"))
    assert jobs == [{"Plate": "P1", "n": 1}, {"Plate": "P2", "n": 2}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to make jobs of"),
        (["--from", "raw/{Plate}.png"], "none of 3 files below raw/ matches"),
        (["--from", "raw/{Plate}/{Well}.tif", "--group-by", "Plat"], "did you mean Plate"),
        (["--from", "raw/{Plate}/{Well}.tif", "--product", "Well=1,2"], "have this name too"),
        (["--product", "Plate=P1", "--where", "Plate=P2"], "no job is left"),
        (["--table", "missing.csv"], "No such file"),
        (["--zip"], "no list to go through"),
    ],
)
def test_a_refusal_leaves_the_old_file(plates: DsProject, words: list[str], said: str) -> None:
    old = plates.folder / "files/jobs.jsonl"
    old.write_text("old")
    done = plates.ds("--yes", "jobfile", "new", "files/jobs.jsonl", *words, code=2)
    assert said in done.stderr
    assert old.read_text() == "old"
    assert [path.name for path in old.parent.iterdir()] == ["jobs.jsonl"]


def test_a_job_file_that_is_there_is_not_replaced_unasked(plates: DsProject) -> None:
    (plates.folder / "files/jobs.jsonl").write_text("old")
    done = plates.ds("jobfile", "new", "files/jobs.jsonl", "--product", "Plate=P1", code=2)
    assert "add --yes" in done.stderr


def test_the_made_file_runs_with_a_list_of_inputs(plates: DsProject, tmp_path: Path) -> None:
    plates.config(**{**CONFIG, "COMMAND": "cat {input_dir}/* > {output_dir}/all", "INPUTS": ["{Files}"]})
    made(plates, "--from", "raw/{Plate}/{Well}.tif", "--group-by", "Plate")
    plates.ds("run", "files/jobs.jsonl")
    assert (plates.folder / "data/out/P1/all").read_text() == "A01A02"
    assert (plates.folder / "data/out/P2/all").read_text() == "A01"
