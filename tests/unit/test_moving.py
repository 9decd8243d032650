"""Projects as users of the reference system and its children bring them: docs/moving.md says what changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import DsProject
from distributed_something.errors import UsageError
from distributed_something.inputs.config import Config, load_config, parse_config
from distributed_something.inputs.jobs.jobfile import JobFile
from distributed_something.inputs.jobs.messages import form_of, outputs_of
from distributed_something.job import Job, keys_of
from moving_projects import FOLDER, NAMES, bring, config_of


def messages(name: str) -> list[str]:
    """What that child's own submit sends, written down by hand: keys in its order, spaces as its JSON has."""
    return [json.dumps(each) for each in json.loads((FOLDER / name / "messages.json").read_text())]


def sent(name: str, config: Config, job_file: Path | None = None) -> list[Job]:
    file = JobFile(job_file or FOLDER / name / "jobs.json")
    form = form_of(config, file)
    return [form.message(job) for job in file.jobs(in_order=not form.as_is)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.fault(48)
def test_an_old_config_means_what_it_meant(name: str) -> None:
    config = load_config(config_of(name))
    assert config.engine == "aws"
    assert config.sqs_queue_name == config.app_name + "Queue"
    assert config.check_if_done_bool is (name in ("cellprofiler", "printgroups"))


@pytest.mark.parametrize("name", NAMES)
def test_old_files_pass_the_check_as_they_are(name: str, project: DsProject) -> None:
    jobs = bring(name, project.folder)
    found = project.ds("--engine", "rehearsal", "check", jobs, "--json").stdout
    assert not [line for line in found.splitlines() if json.loads(line)["severity"] == "error"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.fault(60)
def test_messages_are_those_that_each_childs_workers_know(name: str) -> None:
    found = sent(name, load_config(config_of(name)))
    assert [job.body.decode() for job in found] == messages(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.fault(60)
def test_a_job_has_one_id_in_every_form_and_our_worker_reads_them_all(name: str) -> None:
    config = load_config(config_of(name))
    theirs, ours = sent(name, config), sent(name, config._replace(command="x {Metadata}"))
    assert [job.id for job in theirs] == [job.id for job in ours]
    for job, own in zip(theirs, ours, strict=True):
        assert {key: own.keys[key] for key in own.keys if key in job.keys} == {
            key: value for key, value in job.keys.items() if key in own.keys
        }
        assert own.keys.keys() - job.keys.keys() <= {"group"}


@pytest.mark.fault(60)
def test_the_order_of_a_groups_keys_is_the_files_and_changes_no_id(tmp_path: Path) -> None:
    """Distributed-Fiji's worker may name the output folder by a group's values, one after another."""
    config = load_config(config_of("fiji"))
    found = []
    for group in ('{"well": "A01", "channel": 1, "é": "x"}', '{"channel": 1, "é": "x", "well": "A01"}'):
        jobs = tmp_path / "jobs.json"
        jobs.write_text(f'{{"shared_metadata": {{}}, "output_file_location": "o", "groups": [{group}]}}')
        found += sent("fiji", config, jobs)
    first, second = found
    assert first.body == (
        b'{"Metadata": {"well": "A01", "channel": 1, "\\u00e9": "x"},'
        b' "output_file_location": "o", "shared_metadata": {}}'
    )
    assert second.body.startswith(b'{"Metadata": {"channel": 1, "\\u00e9": "x", "well": "A01"}')
    assert first.id == second.id


@pytest.mark.fault(60)
def test_a_group_as_cellprofiler_prints_it_is_the_text_that_cellprofiler_takes() -> None:
    config = load_config(config_of("printgroups"))
    first = sent("printgroups", config)[0]
    assert first.keys["Metadata"] == "Metadata_Plate=Plate1,Metadata_Well=A01"
    assert first.keys["Metadata_Well"] == "A01"


@pytest.mark.fault(60)
def test_a_message_of_ones_own_is_filled_in_with_texts_and_values(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.json"
    jobs.write_text('{"pipeline": "p", "groups": [{"Plate": "P1", "sites": [1, 2]}]}')
    form = {"Metadata": "{group}", "sites": "{sites}", "where": "{pipeline}/{Plate}"}
    config = load_config(config_of("something"))._replace(message=form)
    (job,) = sent("something", config, jobs)
    assert json.loads(job.body) == {
        "Metadata": {"Plate": "P1", "sites": [1, 2]},
        "sites": [1, 2],
        "where": "p/P1",
    }


@pytest.mark.parametrize(
    ("text", "message", "what"),
    [
        ('{"pipeline": "p", "groups": ["A01"]}', "", "its shared keys are of no family"),
        ('{"pipeline": "p", "groups": [{"a": 1}]}', "cellprofiler", "lacks the shared key output"),
        ('{"groups": [{"a": 1}]}', "fiji", "lacks the shared key output_file_location"),
        ('{"plates": ["P1"], "groups": [{"a": 1}]}', "omezarr", "has a job without a plate"),
        ('{"groups": ["A01"]}', "", "its shared keys are of no family"),
        ('{"plates": [5]}', "", "plate 1 is a number, not a text"),
    ],
)
@pytest.mark.fault(60)
def test_a_file_that_no_worker_could_read_is_refused(
    tmp_path: Path, text: str, message: str, what: str
) -> None:
    jobs = tmp_path / "jobs.json"
    jobs.write_text(text)
    config = load_config(config_of("something"))._replace(message=message)
    with pytest.raises(UsageError, match=what):
        sent("something", config, jobs)


@pytest.mark.fault(60)
def test_a_name_that_no_job_has_is_found_in_a_message_of_ones_own(project: DsProject) -> None:
    jobs = bring("something", project.folder, "\nMESSAGE = {'Metadata': '{Wel}'}\n")
    found = project.ds("--engine", "rehearsal", "check", jobs, code=2)
    assert "MESSAGE" in found.stdout + found.stderr and "{Wel}" in found.stdout + found.stderr


@pytest.mark.parametrize(
    "made",
    [
        ("--product", "Plate=Plate1", "Well=A01..A03"),
        ("--table", "{folder}/load.csv", "--columns", "Plate=Metadata_Plate,Well=Metadata_Well", "--unique"),
    ],
)
def test_what_the_childrens_tools_make_comes_from_one_line(project: DsProject, made: tuple[str, ...]) -> None:
    """Of lists of plates and wells, or of the table that CellProfiler loads: docs/moving.md has the lines."""
    project.config(COMMAND="true {Plate}")
    sites = "".join(f"Plate1,A0{well},{site}\n" for well in (1, 2, 3) for site in (1, 2))
    (project.folder / "load.csv").write_text("Metadata_Plate,Metadata_Well,Metadata_Site\n" + sites)
    jobs = project.folder / "wells.jsonl"
    project.ds("jobfile", "new", jobs, *(word.format(folder=project.folder) for word in made))
    file = JobFile(
        jobs,
        {
            "pipeline": "projects/workspace/analysis.cppipe",
            "output": "projects/output",
            "data_file": "projects/workspace/load_data.csv",
        },
    )
    message = {
        "Metadata": "Metadata_Plate={Plate},Metadata_Well={Well}",
        **{name: f"{{{name}}}" for name in ("pipeline", "output")},
        "input": "dummy",
        "data_file": "{data_file}",
        "output_structure": "Metadata_Plate-Metadata_Well",
    }
    form = form_of(load_config(config_of("cellprofiler"))._replace(message=message), file)
    found = [form.message(job).body.decode() for job in file.jobs(in_order=True)]
    assert found == messages("cellprofiler")


def test_shared_keys_may_be_named_plates(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.json"
    jobs.write_text('{"plates": ["P1", "P2"], "groups": [{"a": 1}]}')
    (job,) = JobFile(jobs).jobs()
    assert job.keys["plates"] == ["P1", "P2"]


@pytest.mark.real
@pytest.mark.parametrize("name", NAMES)
def test_with_a_command_the_same_jobs_run_on_this_machine(name: str, project: DsProject) -> None:
    command = (FOLDER / name / "command.txt").read_text().strip()
    here = "\nENGINE = 'local'\nCONTAINERS = False\nSECONDS_TO_START = 0\n"
    more = f"{here}COMMAND = {command!r}\nOUTPUT = 'out/{{job_id}}'\n"
    jobs = bring(name, project.folder, more)
    project.ds("check", jobs)
    project.ds("setup")
    report = json.loads(project.ds("submitJob", jobs, "--json").stdout)
    assert report == {"sent": len(messages(name)), "known": 0, "failed": {}}
    project.ds("startCluster")
    project.ds("monitor", "--every", "0.05")
    said = [path.read_text() for path in project.folder.glob("data/out/*/*.txt")]
    for group in JobFile(jobs).groups():
        values = keys_of({"group": group})["Metadata" if "Metadata" in group else next(iter(group))]
        assert any(str(values) in text for text in said)


CONFIG = parse_config("APP_NAME = 'A'\nAWS_BUCKET = 'lab'\nDOCKERHUB_TAG = 'a/b:1'\n")
CELLPROFILER = {"pipeline": "p", "output": "out", "input": "i", "data_file": "d"}
FIJI = {"output_file_location": "out", "shared_metadata": {}, "group": {"a": "b"}}
PLATE = {"output_location": "zarr/", "group": {"plate": "P1"}}


def place_of(body: dict[str, Any], **config: Any) -> str | None:
    found = outputs_of(CONFIG._replace(**config), body, "0123456789abcdef")
    return None if found is None else str(found).removeprefix("s3://")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"output_structure": "Plate/Well", "group": {"Metadata": "Plate=P1,Well=A01"}}, "out/P1/A01/"),
        ({"group": {"Metadata": "Plate=P1,Well=A01"}}, "out/P1-A01/"),
        ({"group": {"Metadata": "Plate=a=b"}}, "out/a/"),
        ({"group": {"Metadata": [{"Plate": "P1", "Well": "A01"}, [1, 2]]}}, "out/P1-A01/"),
        ({"output_structure": "Plate_Well", "group": {"Plate": "P1", "Well": 7}}, "out/P1_7/"),
        ({"group": {"Plate": "P1"}}, None),
        ({"group": {"Metadata": "all"}}, None),
    ],
)
def test_the_outputs_of_a_cellprofiler_job_are_known_by_its_message(
    body: dict[str, Any], expected: str | None
) -> None:
    """Where its worker fails, as for a group of values without a structure, they are not known."""
    found = place_of(CELLPROFILER | body, message="cellprofiler")
    assert found == (None if expected is None else f"lab/{expected}")
    assert place_of(CELLPROFILER | body, message="fiji") is None


def test_the_outputs_of_a_plate_are_known_and_those_of_other_jobs_are_not() -> None:
    assert place_of(PLATE) == "lab/zarr/P1.", "not those of P10"
    assert place_of(PLATE | {"group": {"plate": "P1", "site": 1}}) is None
    assert place_of(PLATE | {"group": {"plate": "P1", "site": 1}}, message="omezarr") == "lab/zarr/P1."
    assert place_of({"output_location": "out", "group": {"Plate": "P1"}}) is None
    assert place_of(FIJI) is None and place_of(FIJI, message="cellprofiler") is None


def test_the_outputs_may_be_in_another_bucket() -> None:
    elsewhere = {"DESTINATION_BUCKET": "other"}
    assert place_of(PLATE, extra=elsewhere) == "other/zarr/P1."
    assert place_of(PLATE | {"output_bucket": "third"}, extra=elsewhere) == "third/zarr/P1."
    assert place_of(PLATE, output="s3://fourth/{plate}", extra=elsewhere) == "fourth/P1/"


def test_output_says_where_the_outputs_of_any_family_are() -> None:
    assert place_of(FIJI, output="{output_file_location}/{a}_") == "lab/out/b_", "files that begin so"
    assert place_of(FIJI, output="{output_file_location}/{a}") == "lab/out/b/", "a folder: not that of b2"
    assert place_of(PLATE, output="mine/{job_id}/") == "lab/mine/0123456789abcdef/"


def test_the_outputs_of_a_message_of_ones_own_are_known_if_it_is_a_familys() -> None:
    own = {**dict.fromkeys(CELLPROFILER, "{shared}"), "output": "out/{Well}", "Metadata": "Well={Well}"}
    assert place_of({"shared": "s", "group": {"Well": "A01"}}, message=own) == "lab/out/A01/A01/"
    assert place_of({"group": {"Well": "A01"}}, message={"well": "{Well}"}) is None
