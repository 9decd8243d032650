"""Job files: every format gives the same jobs, memory stays flat, and each mistake is told with its place."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distributed_something.errors import UsageError
from distributed_something.inputs.jobs.jobfile import JobFile, parse_set
from distributed_something.job import Job

Write = Callable[[str, "str | bytes"], Path]

BOMB = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def read_jobs(path: Path, shared: Mapping[str, Any] | None = None) -> Iterator[Job]:
    return JobFile(path, shared or {}).jobs()


def documents(path: Path, shared: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return [json.loads(job.body) for job in read_jobs(path, shared)]


def canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def test_the_reference_s_example(write: Write) -> None:
    path = write(
        "exampleJob.json",
        """{
        "_comment1": "Paths in this file are relative to the root of your S3 bucket",
        "pipeline": "projects/analysis.cppipe",
        "input": "projects/input",
        "_comment2": "The groups",
        "groups": [
            {"Metadata": "Metadata_Plate=Plate1,Metadata_Well=A01", "_comment": "the first"},
            {"Metadata": "Metadata_Plate=Plate1,Metadata_Well=A02"}
        ]}""",
    )
    shared = {"pipeline": "projects/analysis.cppipe", "input": "projects/input"}
    assert documents(path) == [
        {**shared, "group": {"Metadata": "Metadata_Plate=Plate1,Metadata_Well=A01"}},
        {**shared, "group": {"Metadata": "Metadata_Plate=Plate1,Metadata_Well=A02"}},
    ]


@pytest.mark.fault(28)
def test_body_and_id_are_canonical(write: Write) -> None:
    path = write("a.json", '{"z": 1.50, "groups": [{"b": "é", "a": [1, {"y": 1, "x": null}]}], "a": 2}')
    (job,) = read_jobs(path)
    body = '{"a":2,"group":{"a":[1,{"x":null,"y":1}],"b":"é"},"z":1.5}'.encode()
    assert job == Job(hashlib.sha256(body).hexdigest()[:16], 0, body)


@pytest.mark.fault(28)
def test_the_order_of_keys_and_the_format_do_not_matter_to_an_id(write: Write) -> None:
    (one,) = read_jobs(write("a.json", '{"s": "1", "groups": [{"a": "x", "b": "y"}]}'))
    (two,) = read_jobs(write("b.jsonl", '{"b": "y", "a": "x"}'), {"s": "1"})
    (three,) = read_jobs(write("c.csv", "b,a,_comment\ny,x,z"), {"s": "1"})
    assert one == two == three


@pytest.mark.parametrize("text", ['{"s": 1, "groups": [{"a": 1}]}', '{"groups": [{"a": 1}], "s": 1}'])
def test_shared_keys_stand_before_or_behind(write: Write, text: str) -> None:
    assert documents(write("a.json", text)) == [{"s": 1, "group": {"a": 1}}]
    assert documents(write("a.json", text), {"s": 2, "t": 3}) == [{"s": 2, "t": 3, "group": {"a": 1}}]


def test_numbers_keep_their_value(write: Write) -> None:
    group = '{"a": 123456789012345678901234567890, "b": 18446744073709551615, "c": 0.1, "d": -0.0, "e": 1e22}'
    expected = json.loads(group)
    for path in (write("a.json", f'{{"groups": [{group}]}}'), write("a.jsonl", group)):
        assert repr(documents(path)[0]["group"]) == repr(expected)


def test_a_name_given_twice_counts_the_last_time(write: Write) -> None:
    path = write("a.json", '{"s": 1, "s": 2, "groups": [{"a": 1, "a": 2}]}')
    assert documents(path) == [{"s": 2, "group": {"a": 2}}]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.csv", "A.JSON"])
def test_a_byte_order_mark_is_no_part_of_the_file(write: Write, name: str) -> None:
    texts = {"json": '{"groups": [{"a": "1"}]}', "csv": "a\n1"}
    text = texts.get(name.lower().partition(".")[2], '{"a": "1"}')
    assert documents(write(name, b"\xef\xbb\xbf" + text.encode())) == [{"group": {"a": "1"}}]


def test_blank_lines_are_no_groups(write: Write) -> None:
    path = write("a.jsonl", '\n{"a": 1}\r\n   \n\n{"a": 2}')
    assert [(job.index, json.loads(job.body)["group"]["a"]) for job in read_jobs(path)] == [(0, 1), (1, 2)]


def test_csv_values_are_text(write: Write) -> None:
    path = write("a.csv", 'Plate,Well name,x\r\n"P,1","say ""hi""\nthere",\r\n\r\n007,é,1.50\r\n')
    assert [document["group"] for document in documents(path)] == [
        {"Plate": "P,1", "Well name": 'say "hi"\nthere', "x": ""},
        {"Plate": "007", "Well name": "é", "x": "1.50"},
    ]


TABLES = [
    ("a.csv", "Plate,Well\nP1,A1\n", []),
    ("a.csv", "Plate;Well\nP1;A1\n", ["a.csv: values are separated by a semicolon"]),
    ("a.csv", "Plate\tWell\nP1\tA1\n", ["a.csv: values are separated by a tab"]),
    ("a.tsv", "Plate\tWell\nP1\tA1\n", ["a.tsv: values are separated by a tab"]),
    ("a.csv", "Plate|Well\nP1|A1\n", ["a.csv: values are separated by a bar"]),
    ("a.csv", "Plate, Well\nP1, A1\n", []),
    ("a.csv", 'Plate , "Well"\nP1, "A1"\n', []),
    ("a.csv", "\ufeffPlate;Well;;\r\nP1;A1;;\r\n;;;\r\n", [
        "a.csv: values are separated by a semicolon", "a.csv: 1 row without a value skipped"]),
    ("a.csv", "\n,\nPlate,Well,\nP1,A1,\n,\n , \n", ["a.csv: 2 rows without a value skipped"]),
]  # fmt: skip


@pytest.mark.fault(57, 58)
@pytest.mark.parametrize(("name", "text", "notes"), TABLES)
def test_tables_as_spreadsheets_write_them(write: Write, name: str, text: str, notes: list[str]) -> None:
    file = JobFile(write(name, text))
    assert list(file.groups()) == [{"Plate": "P1", "Well": "A1"}]
    assert file.notes == notes


@pytest.mark.fault(59)
@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_named(write: Write, name: str, encoding: str) -> None:
    with pytest.raises(UsageError, match="is UTF-16 text"):
        list(read_jobs(write(name, '{"a": 1}'.encode(encoding))))


@pytest.mark.fault(59)
def test_a_shared_key_does_not_hide_the_group(write: Write) -> None:
    with pytest.raises(UsageError, match='a shared key is named "group"'):
        JobFile(write("a.json", '{"group": "x", "groups": [{"a": 1}]}'))


@pytest.mark.fault(78)
def test_many_columns_take_no_longer_each(write: Write) -> None:
    names = ",".join(f"c{n}" for n in range(100_000))
    began = time.process_time()
    (group,) = JobFile(write("a.csv", f"{names}\n{names}\n")).groups()
    assert len(group) == 100_000
    assert time.process_time() - began < 5


@pytest.mark.fault(78)
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "jobs.json")
    with pytest.raises(UsageError, match="is a pipe or a device"):
        JobFile(tmp_path / "jobs.json")


@pytest.mark.fault(78)
def test_too_many_open_files_has_its_own_fix(write: Write) -> None:
    path = write("a.jsonl", '{"a": 1}')
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(UsageError, match="Too many open files") as raised:
            JobFile(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "ulimit -n" in raised.value.fix


TEXT = st.one_of(st.sampled_from(['}, {"', "]", '"', "\\", "_x", "groups"]), st.text(max_size=5))
TEXTS = TEXT.filter(lambda text: "_comment" not in text and text.isprintable())
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), TEXTS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
GROUPS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), min_size=1, max_size=8)
SHARED = st.dictionaries(TEXTS.filter(lambda text: text not in ("group", "groups")), VALUES, max_size=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=GROUPS, before=SHARED, behind=SHARED, indent=st.sampled_from([None, 1]))
def test_any_json_file_is_read_as_json_reads_it(
    groups: list[dict[str, Any]],
    before: dict[str, Any],
    behind: dict[str, Any],
    indent: int | None,
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**before, "groups": groups, **behind}, indent=indent), encoding="utf-8")
    jobs = list(read_jobs(path))
    assert [job.body for job in jobs] == [canonical({**before, **behind, "group": group}) for group in groups]
    assert [job.index for job in jobs] == list(range(len(groups)))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 100))
def test_a_file_that_was_cut_off_is_refused_with_its_place(cut: int, tmp_path: Path) -> None:
    text = '{"s": "t", "groups": [{"a": [1, {"b": "}, {"}]}, {"a": 22}, {"a": {}}], "u": 1234}'
    (tmp_path / "a.json").write_text(text[: min(cut, len(text) - 1)])
    with pytest.raises(UsageError, match=r"a\.json: line \d+, byte \d+: "):
        list(read_jobs(tmp_path / "a.json"))


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.json", "", "byte 0: the file ends too early"),
        ("a.json", "[1]", "byte 0: a job file is one JSON object"),
        ("a.json", "{}", 'has no "groups"'),
        ("a.json", '{"a": 1}', 'has no "groups"'),
        ("a.json", '{"groups": 5}', '"groups" is not a list'),
        ("a.json", '{"groups": {"a": 1}}', '"groups" is not a list'),
        ("a.json", '{"groups": []}', '"groups" is empty'),
        ("a.json", '{"groups": [{}],\n"groups": [{}]}', 'line 2, byte 27: "groups" is there twice'),
        ("a.json", '{"groups": [{}, "P1"]}', "group 2 is a text, not an object"),
        ("a.json", '{"groups": [null]}', "group 1 is null, not an object"),
        ("a.json", '{"groups": [{"a": 1},]}', "byte 21: group 2: not JSON"),
        ("a.json", '{\n"groups": [\n {"a": 1},\n]}', "a.json: line 4, byte 25: group 2: not JSON"),
        ("a.json", '{"groups": [{"a": 1} {"a": 2}]}', "expected , or ], found {"),
        ("a.json", '{"groups": [{"a": NaN}]}', "byte 18: group 1: not JSON"),
        ("a.json", '{"groups": [{"a": 1e999}]}', "group 1: not JSON: Number out of range"),
        ("a.json", '{"groups": [{"a": "\\ud800"}]}', "group 1: not JSON"),
        ("a.json", b'{"groups": [{"a": "\xff"}]}', "group 1: not UTF-8"),
        ("a.json", '{"a" 1}', "expected :, found 1"),
        ("a.json", '{a: 1}', "a name: not JSON"),
        ("a.json", '{"a": nul, "groups": [{}]}', "byte 7: a: not JSON"),
        ("a.json", '{"groups": [{}]} x', "behind the end"),
        ("a.json", '{"groups": [{}]}{}', "behind the end"),
        ("a.json", f'{{"groups": [{{"a": {BOMB}}}]}}', "group 1: its lists and objects"),
        ("a.json", f'{{"a": {BOMB}, "groups": [{{}}]}}', "a: its lists and objects are nested too deeply"),
        ("a.jsonl", "", "holds no jobs"),
        ("a.jsonl", "\n\n", "holds no jobs"),
        ("a.jsonl", '{"a": 1}\n\n[1]', "a.jsonl:3: the line is a list, not an object"),
        ("a.jsonl", '{"a": 1}\n{"a": ', "a.jsonl:2: not JSON: Input data was truncated"),
        ("a.jsonl", '{"a": NaN}', "a.jsonl:1: not JSON"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}', "a.jsonl:2: not UTF-8"),
        ("a.jsonl", f'{{"a": {BOMB}}}', "a.jsonl:1: its lists and objects are nested too deeply"),
        ("a.csv", "", "a.csv:1: no header"),
        ("a.csv", "a,b\n", "holds no jobs"),
        ("a.csv", "a, ,b\n1,2,3", "a.csv:1: column 2 has no name"),
        ("a.csv", "a,b,a\n1,2,3", "a.csv:1: two columns are named a"),
        ("a.csv", "a,b\n1,2\n3\n", "a.csv:3: 1 value, and the header has 2"),
        ("a.csv", 'a,b\n"1\n2",2\n3,4,5\n', "a.csv:4: 3 values"),
        ("a.csv", 'a,b\n"1,2\n', "a.csv:2: unexpected end of data"),
        ("a.csv", b"a\n\xff\n", "a.csv:2: not UTF-8"),
        ("a.csv", b"a\n" + 3000 * b"good\n" + b"\xff\n", "a.csv:3002: not UTF-8"),
        ("a.csv", "a\n" + "x" * 200_000, "a.csv:2: field larger than field limit"),
        ("a.txt", "a", "not a job file by its name"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(write: Write, name: str, text: str | bytes, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        list(read_jobs(write(name, text)))
    assert why in caught.value.what
    assert "\n" not in caught.value.what
    assert len(caught.value.what) < 300
    assert caught.value.fix


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    for name, why in (
        ("no.json", "No such file"),
        ("folder.json", "Is a directory"),
        ("no.csv", "No such file"),
    ):
        with pytest.raises(UsageError, match=why):
            list(read_jobs(tmp_path / name))


def test_the_structure_is_known_to_be_right_before_the_first_job(write: Write) -> None:
    groups = ",".join('{"a": 1}' for _ in range(200_000))
    with pytest.raises(UsageError, match="ends too early"):
        next(read_jobs(write("a.json", f'{{"groups": [{groups}')))


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_memory_stays_flat(write: Write, suffix: str) -> None:
    """Of a JSON file its own bytes are held, and little more."""
    count, filler = 10_000, "x" * 400
    group = f'{{"a": "{filler}", "b": [{{}}, {{}}]}}'
    rows = {
        "json": '{"groups": [' + f"{group},\n" * (count - 1) + group + "]}",
        "jsonl": f'{{"a": "{filler}"}}\n' * count,
        "csv": "a\n" + f"{filler}\n" * count,
    }
    path = write(f"a.{suffix}", rows.pop(suffix))
    next(read_jobs(path))
    tracemalloc.start()
    last = deque(read_jobs(path), maxlen=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert last[0].index == count - 1
    assert peak < path.stat().st_size * (1.4 if suffix == "json" else 0.33)


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("a=1", 1), ("a=-1.5e3", -1500.0), ("a=true", True), ("a=null", None), ('a="1"', "1"),
        ("a=[1, 2]", [1, 2]),
        ('a={"b": 1}', {"b": 1}), ("a=", ""), ("a=x=y", "x=y"), ("a=01", "01"), ("a=NaN", "NaN"),
        ("a= 1", " 1"),
        ("a=s3://x/y z", "s3://x/y z"), ("a=1e999", "1e999"), ("a=True", "True"), ("a=\udcff", "\udcff"),
        (f"a={2**70}", 2**70),
    ],
)  # fmt: skip
def test_set_takes_json_and_else_text(pair: str, value: object) -> None:
    assert repr(parse_set([pair])) == repr({"a": value})


@pytest.mark.parametrize("pair", ["a", "=1", "", "group=1", f"a={BOMB}"])
def test_set_refuses(pair: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_set([pair])
    assert caught.value.fix
    assert len(caught.value.what) < 200


def test_a_value_that_json_cannot_carry_is_told(write: Write) -> None:
    with pytest.raises(UsageError, match=r"a\.jsonl: the shared keys: .*surrogate"):
        list(read_jobs(write("a.jsonl", '{"a": 1}'), {"s": "\udcff"}))


def test_a_value_that_is_too_long_for_csv_has_its_own_fix(write: Write) -> None:
    """Its quotes were never closed, mostly."""
    path = write("a.csv", 'a,b\n1,"' + "x\n" * 100_000)
    with pytest.raises(UsageError, match="field limit") as raised:
        list(read_jobs(path))
    assert raised.value.fix == 'close its "quotes"; or give values as long as that in a .jsonl file'
