"""The examples for programs of the field, each by the real program where it is installed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from conftest import DsProject
from distributed_something import examples
from distributed_something.inputs.checks.fit import check_jobs
from distributed_something.inputs.config import load_config
from distributed_something.inputs.jobs.jobfile import JobFile
from services import cellprofiler, omezarr, require

FOLDER = Path(examples.__file__).parent
NAMES = sorted(each.name for each in FOLDER.iterdir() if (each / "config.py").exists())


def few(project: DsProject, name: str, count: int = 2) -> Path:
    """The example in the project's folder, with the first jobs of its job file."""
    project.ds("init", "--example", name, project.folder / name)
    project.folder = project.folder / name
    jobs = project.folder / "files" / "exampleJob.json"
    content = json.loads(jobs.read_text())
    jobs.write_text(json.dumps({**content, "groups": content["groups"][:count]}))
    return jobs


@pytest.mark.parametrize("name", NAMES)
def test_an_examples_jobs_fit_its_config_and_its_inputs_are_there(name: str, project: DsProject) -> None:
    jobs = few(project, name)
    file = JobFile(jobs)
    assert check_jobs(load_config(project.folder), file, lambda _: None).total == 2
    assert (project.folder / "README.md").exists() and any((project.folder / "data").rglob("*.*"))


ONE_PYTHON = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="make programs: CellProfiler 4.2 has its packages for Python 3.11"
)


@pytest.mark.real
@ONE_PYTHON
def test_cellprofiler_measures_two_groups(project: DsProject) -> None:
    require("cellprofiler")
    project.environment["PATH"] = f"{Path(str(cellprofiler())).parent}{os.pathsep}{os.environ['PATH']}"
    project.ds("run", few(project, "cellprofiler"), timeout=600)
    for well in ("A01", "A02"):
        table = (project.folder / f"data/nuclei/{well}/MyExpt_Nuclei.csv").read_text()
        header, *rows = table.splitlines()
        assert "AreaShape_Area" in header and len(rows) > 1


@pytest.mark.real
def test_imagej_measures_an_image(project: DsProject) -> None:
    require("imagej")
    project.ds("run", few(project, "imagej", 1), timeout=300)
    header, *rows = (project.folder / "data/objects/A01/objects.csv").read_text().splitlines()
    assert "Area" in header and len(rows) > 1


@pytest.mark.real
@ONE_PYTHON
def test_an_image_becomes_ome_zarr(project: DsProject) -> None:
    require("ome-zarr")
    found = omezarr()
    assert found is not None
    project.environment["PYTHONPATH"] = str(found.parent)
    project.ds("run", few(project, "omezarr", 1), timeout=300)
    made = [each for each in (project.folder / "data/zarr/A01/A01.zarr").rglob("*") if each.is_file()]
    assert len(made) > 50
