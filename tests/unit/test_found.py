"""`ds init` in a folder that has files: what it finds, what it writes, and what it leaves alone."""

from __future__ import annotations

import json
import os
import pty
from pathlib import Path

import pytest

from conftest import DsProject
from distributed_something.inputs.config import parse_config
from distributed_something.inputs.found import app_name, config_text, environment_name, lacking, look


@pytest.mark.parametrize(
    ("paths", "kind", "pattern", "jobs"),
    [
        (["raw/A01.tif", "raw/B01.tif", "raw/notes.txt"], "image", "raw/{Image}.tif", 2),
        (["A01.nii.gz", "x.md"], "image", "{Image}.nii.gz", 1),
        (["d/P1/a.TIF", "d/P2/a.TIF"], "image", "d/{Folder}/{Image}.TIF", 2),
        (["P1/x/a.png", "P2/y/a.png"], "image", "{Folder}/{Folder2}/{Image}.png", 2),
        (["S1_R1_001.fastq.gz", "S1_R2_001.fastq.gz"], "FASTQ pair", "{Sample}_R1_001.fastq.gz", 1),
        (["r/S1_1.fq", "r/S1_2.fq", "r/S2_1.fq"], "FASTQ pair", "r/{Sample}_1.fq", 1),
        (["r/S1.fastq", "r/S2.fastq"], "FASTQ file", "r/{Sample}.fastq", 2),
    ],
)
def test_files_become_a_pattern(paths: list[str], kind: str, pattern: str, jobs: int) -> None:
    found = look(paths).inputs[0]
    assert (found.kind, found.pattern, found.jobs) == (kind, pattern, jobs)


def test_a_pair_is_two_inputs_of_one_job_and_a_read_without_its_mate_is_counted() -> None:
    found = look(["r/S1_R1.fastq.gz", "r/S1_R2.fastq.gz", "r/S2_R2.fastq.gz"])
    assert found.inputs[0].keys == ("r/{Sample}_R1.fastq.gz", "r/{Sample}_R2.fastq.gz")
    assert found.single == 1


@pytest.mark.parametrize(
    "path",
    [".git/a.png", "raw/._a.tif", "runs/a.png", "results/A/x.png", "env/lib/a.png", "a{b}.tif", "\udcff.tif"],
)
def test_hidden_files_outputs_environments_and_names_that_a_pattern_misreads_are_no_inputs(path: str) -> None:
    assert look([path, "results/A/.ds/1.json", "env/pyvenv.cfg"]).inputs == ()


def test_outputs_go_to_a_new_folder_that_the_pattern_does_not_match() -> None:
    before = ["P1/a.png", "P2/a.png", "results/mine.txt"]
    found = look(before)
    assert found.output == "results-2"
    again = look([*before, "results-2/P1/a/a.png", "results-2/P1/a/.ds/1.json"])
    assert again.inputs == found.inputs


@pytest.mark.parametrize("engine", ["local", "aws"])
def test_the_config_is_valid_whatever_the_names(engine: str) -> None:
    found = look(['it\'s "raw"/a b.tif', "Dockerfile"])
    text = config_text(found, found.inputs[0], app_name("été 1/ü"), engine, found.inputs[0].command)
    config = parse_config(text)
    assert config.inputs == ('it\'s "raw"/{Image}.tif',)
    assert config.dockerhub_tag == "t-1:1"
    assert config.engine == engine


def test_an_environment_name_that_is_more_than_a_name_is_not_put_into_a_command() -> None:
    assert environment_name("channels: []\nname: 'seq-tools'  # ours\n") == "seq-tools"
    assert environment_name("name: x; rm -rf ~\n") == ""


def test_a_config_of_the_reference_is_only_said_what_it_lacks() -> None:
    said = " ".join(lacking(parse_config("APP_NAME = 'Old'\nDOCKERHUB_TAG = 'user/image:1'\n"), 0))
    assert all(word in said for word in ("ENGINE", "COMMAND", "AWS_BUCKET", "a job file"))
    whole = "APP_NAME = 'A'\nENGINE = 'local'\nCOMMAND = 'x'\nINPUTS = []\nOUTPUT = 'o'\n"
    assert lacking(parse_config(whole), 1) == []


@pytest.fixture
def folder(tmp_path: Path) -> DsProject:
    (tmp_path / "raw").mkdir()
    for name in ("A 01", "A02"):
        (tmp_path / "raw" / f"{name}.tif").write_text(name)
    return DsProject(tmp_path)


def test_in_a_pipe_it_asks_nothing_says_its_defaults_and_the_project_runs(folder: DsProject) -> None:
    said = folder.ds("init", stdin="no answer\n").stderr
    assert "command of a job: cksum" in said
    assert "engine (local, slurm, ssh, aws, rehearsal): local" in said
    assert "next: ds run files/jobs.jsonl" in said
    folder.ds("run", "files/jobs.jsonl")
    assert (folder.folder / "results/A 01/checksums.txt").stat().st_size
    assert look(str(each.relative_to(folder.folder)) for each in folder.folder.rglob("*")).inputs[0].jobs == 2


def test_on_a_terminal_it_asks_for_command_and_engine(folder: DsProject) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "wb", buffering=0) as typed:
        process = folder.start("init", stdin=theirs, stderr=theirs)
        typed.write(b"wc {input_dir}/{Image}.tif > {output_dir}/n\n\n")
        process.communicate(timeout=60)
        assert process.returncode == 0
    os.close(theirs)
    config = parse_config((folder.folder / "config.py").read_text())
    assert (config.command, config.engine) == ("wc {input_dir}/{Image}.tif > {output_dir}/n", "local")


def test_nothing_is_overwritten(folder: DsProject) -> None:
    jobs = folder.jobs([{"Image": "A02"}]).rename(folder.folder / "files/jobs.jsonl")
    folder.ds("init", "--yes")
    assert "groups" in json.loads(jobs.read_text())
    (folder.folder / "config.py").write_text("APP_NAME = 'Mine'\n")
    said = folder.ds("init", "--yes").stderr
    assert "the config of Mine is there and stays" in said
    assert "missing: ENGINE" in said
    assert (folder.folder / "config.py").read_text() == "APP_NAME = 'Mine'\n"


def test_a_folder_with_a_recipe_only_gets_a_config_and_the_command_that_builds_it(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "environment.yml").write_text("name: seq\n")
    said = DsProject(tmp_path).ds("init").stderr
    assert f"docker build -t {tmp_path.name.lower().replace('_', '-')}:1 ." in said
    assert "conda activate seq" in said
    assert "ds run JOBFILE" in said
    (tmp_path / "config.py").unlink()
    assert "docker" not in DsProject(tmp_path).ds("init", "--engine", "slurm").stderr


def test_a_folder_that_says_nothing_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    assert "error: " in DsProject(tmp_path).ds("init", code=2).stderr
    assert [each.name for each in tmp_path.iterdir()] == ["notes.md"]
