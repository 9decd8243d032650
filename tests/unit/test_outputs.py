"""INPUTS and OUTPUT of every job are looked at before anything is queued: what may not be says which job."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from distributed_something.errors import UsageError
from distributed_something.inputs.checks.fit import Fit, check_jobs
from distributed_something.inputs.config import Config, parse_config
from distributed_something.inputs.jobs.jobfile import JobFile
from distributed_something.inputs.templates.paths import Input, InputTemplate, OutputTemplate, Prefixes

Check = Callable[..., Fit]


def config(**keys: Any) -> Config:
    given = {"APP_NAME": "A", "ENGINE": "local", "COMMAND": "true", **keys}
    return parse_config("".join(f"{name} = {value!r}\n" for name, value in given.items()))


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def check(groups: Sequence[Mapping[str, Any]], *, folds_case: bool = False, **keys: Any) -> Fit:
        path = tmp_path / "jobs.jsonl"
        path.write_text("".join(json.dumps(group) + "\n" for group in groups))
        return check_jobs(config(**keys), JobFile(path), lambda _: None, folds_case=folds_case)

    return check


WELLS = [{"Plate": "P1", "Well": "A1"}, {"Plate": "P1", "Well": "A2"}, {"Plate": "P1", "Well": "A3"}]


@pytest.mark.fault(49)
@pytest.mark.parametrize(
    ("output", "groups", "said", "fix"),
    [
        ("out/{Plate}", WELLS, "jobs 1 and 2 both publish into out/P1 (and 1 more job)", "add {Well} to"),
        ("out", WELLS, "jobs 1 and 2 both publish into out", "{Well}"),
        ("{i}", [{"i": 1}, {"i": "1"}], "jobs 1 and 2 both publish into 1", "{job_id}"),
        ("o/{i}", [{"i": "a/"}, {"i": "b"}, {"i": "a"}], "jobs 1 and 3 both publish into o/a", "{i}"),
    ],
)  # fmt: skip
def test_two_jobs_with_one_output_are_refused(
    check: Check, output: str, groups: list[dict[str, Any]], said: str, fix: str
) -> None:
    with pytest.raises(UsageError) as refused:
        check(groups, OUTPUT=output)
    assert said in refused.value.what
    assert fix in refused.value.fix and "SHARED_OUTPUT = True" in refused.value.fix
    assert check(groups, OUTPUT=output, SHARED_OUTPUT=True) == Fit(len(groups))
    assert check(groups, OUTPUT=output + "/{job_id}") == Fit(len(groups))


@pytest.mark.fault(49)
def test_outputs_that_differ_in_case_meet_where_the_store_folds_it(check: Check) -> None:
    groups = [{"i": "a"}, {"i": "A"}]
    assert check(groups, OUTPUT="{i}") == Fit(2)
    with pytest.raises(UsageError, match="both publish into A"):
        check(groups, OUTPUT="{i}", folds_case=True)


def test_the_same_job_twice_is_one_job(check: Check) -> None:
    assert check([*WELLS, *WELLS], OUTPUT="{Plate}/{Well}") == Fit(6)


@pytest.mark.fault(49)
def test_an_output_inside_another_is_a_warning(check: Check) -> None:
    groups = [{"i": "a/b/c"}, {"i": "x"}, {"i": "a"}, {"i": "x/y"}]
    ((what, fix),) = check(groups, OUTPUT="o/{i}").warnings
    assert what == "OUTPUT: job 1 publishes into o/a/b/c, inside job 3's o/a, and 1 more such folders"
    assert "SHARED_OUTPUT" in fix
    assert not check([{"i": "ab"}, {"i": "a"}], OUTPUT="o/{i}").warnings


@pytest.mark.fault(50)
@pytest.mark.parametrize("where", ["", "/", None, "//"])
def test_an_output_that_comes_out_as_nothing_is_refused(check: Check, where: str | None) -> None:
    with pytest.raises(UsageError, match=r"job 2: OUTPUT: .where. comes out as nothing"):
        check([{"where": "a"}, {"where": where}], OUTPUT="{where}")


@pytest.mark.fault(50)
def test_results_without_an_output_are_refused(check: Check) -> None:
    with pytest.raises(UsageError, match="OUTPUT: not given, and COMMAND writes into"):
        check([{"n": 1}], COMMAND="echo {n} > {output_dir}/x")
    assert check([{"n": 1}], COMMAND="echo {n} > {work_dir}/x") == Fit(1)


@pytest.mark.fault(55, 56)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (".", "has a part '.'"),
        ("..", "has a part '.'"),
        ("../x", "has a part '.'"),
        ("a/./b", "has a part '.'"),
        ("x" * 300, "a part of more than 255 bytes"),
        ("é" * 200, "a part of more than 255 bytes"),
        ("/".join("x" * 200 for _ in range(5)), "more than 900 bytes"),
        ("a\0b", "NUL character"),
        ("https://mybucket/out", "is an address"),
        ("runs/App/99", "among the records of runs"),
        ("Runs", "among the records of runs"),
        ("a/.ds/b", "among the records of runs"),
        ([1, 2], "is a list"),
        ({"a": 1}, "is an object"),
    ],
)
def test_an_output_that_cannot_be_one_is_refused(check: Check, value: Any, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        check([{"i": "fine"}, {"i": value}], OUTPUT="{i}")
    assert refused.value.what.startswith("job 2: OUTPUT: ") and said in refused.value.what
    assert refused.value.fix


@pytest.mark.fault(55)
@pytest.mark.parametrize("engine", ["aws", "local"])
def test_other_buckets_are_named_on_every_engine(check: Check, engine: str) -> None:
    groups = [{"i": 1}]
    for key in ("INPUTS", "OUTPUT"):
        assert check(groups, ENGINE=engine, **{key: "s3://other/x/{i}"}) == Fit(1)
        with pytest.raises(UsageError, match="control character"):
            check([{"i": "a\nb"}], ENGINE=engine, **{key: "s3://other/x/{i}"})
    for bad in ("s3://b/runs/{i}", "s3://b", "gs://b/{i}"):
        with pytest.raises(UsageError):
            check(groups, ENGINE=engine, OUTPUT=bad)


@pytest.mark.fault(53)
@pytest.mark.parametrize("text", ["raw/{f}", "raw/{f}/", "{f}", "raw/{f}/x.txt", "raw/{f}{g}"])
@pytest.mark.parametrize("value", ["", None, "/"])
def test_an_empty_value_does_not_widen_an_input(check: Check, text: str, value: str | None) -> None:
    with pytest.raises(UsageError, match=r"job 2: INPUTS: .* is empty, and a whole folder would be fetched"):
        check([{"f": "a", "g": "b"}, {"f": value, "g": ""}], INPUTS=[text])


def test_folders_may_be_values(check: Check) -> None:
    assert InputTemplate("{in}/{f}").fill({"in": "raw/", "f": "P1/"}) == Input("raw/P1/", "")
    assert InputTemplate("{in}/{f}").fill({"in": "/raw", "f": "a.txt"}) == Input("raw/a.txt", "a.txt")
    assert OutputTemplate("{out}/{f}").fill({"out": "res/", "f": ""}) == "res"


@pytest.mark.fault(55)
def test_two_inputs_of_one_name_are_refused_and_can_be_placed_apart(check: Check) -> None:
    groups = [{"p": "P1"}]
    with pytest.raises(UsageError, match=r"a/P1.txt and b/P1.txt would both be") as refused:
        check(groups, INPUTS=["a/{p}.txt", "b/{p}.txt"])
    assert "'b/P1.txt -> other-P1.txt'" in refused.value.fix
    assert check(groups, INPUTS=["a/{p}.txt", "b/{p}.txt -> other-{p}.txt"]) == Fit(1)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a/x.txt -> first.txt", Input("a/x.txt", "first.txt")),
        ("a/x.txt -> in/", Input("a/x.txt", "in/x.txt")),
        ("a/ -> in/{n}", Input("a/", "in/7/")),
        ("a/{n} -> b -> c", Input("a/7", "b -> c")),
    ],
)
def test_an_arrow_names_an_input(text: str, found: Input) -> None:
    assert InputTemplate(text).fill({"n": 7}) == found


@pytest.mark.parametrize("text", ["a -> ../x", "a -> /x", "a -> b/../../c", "a -> {n}", " -> b"])
def test_an_input_cannot_be_placed_elsewhere(text: str) -> None:
    with pytest.raises(UsageError):
        InputTemplate(text).fill({"n": ""})


@pytest.mark.fault(59)
@pytest.mark.parametrize("name", ["output_dir", "job_id", "attempt"])
def test_a_key_of_ours_is_refused(check: Check, name: str) -> None:
    with pytest.raises(UsageError, match=f"job 1: {name} is a key of the job"):
        check([{name: "x"}])
    assert check([{name: "x"}], COMMAND="", ENGINE="aws", DOCKERHUB_TAG="a/b:1") == Fit(1)


@pytest.mark.fault(59)
@pytest.mark.parametrize("value", ["a\ufffeb", ["\uffff"], {"a": {"\ufffe": 1}}])
def test_characters_that_no_message_can_have_are_found_first(check: Check, value: Any) -> None:
    with pytest.raises(UsageError, match="job 2: n has the character U"):
        check([{"n": "é"}, {"n": value}], ENGINE="aws")
    assert check([{"n": value}]) == Fit(1)


@pytest.mark.fault(58)
def test_a_placeholder_may_have_spaces(check: Check) -> None:
    assert OutputTemplate("out/{Sample ID}").fill({"Sample ID": "S 1"}) == "out/S 1"
    assert check([{"Sample ID": "x"}], COMMAND="echo {Sample ID}; awk 'END{print NR}' f") == Fit(1)
    with pytest.raises(UsageError, match=r"{Sample Id} is not a key of the job: did you mean {Sample ID}"):
        check([{"Sample ID": "x"}], COMMAND="echo {Sample Id}")


def test_a_million_prefixes_in_little_memory() -> None:
    prefixes = Prefixes(folds_case=False)
    tracemalloc.start()
    began = time.process_time()
    for plate in range(1_000):
        for well in range(200):
            prefixes.add(f"out/{plate}/{well}")
    prefixes.add("out/7")
    equal, nested = prefixes.meeting()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (equal, nested) == (set(), {hash("out/7")})
    assert peak < 13e6, "65 MB for a million"
    assert time.process_time() - began < 10
