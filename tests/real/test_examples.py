"""The examples for programs of the field, each by the real program where it is installed."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import DsProject
from distributed_something import examples
from distributed_something.inputs.config import load_config
from distributed_something.inputs.fit import check_jobs
from distributed_something.inputs.jobfile import JobFile

FOLDER = Path(examples.__file__).parent
NAMES = sorted(each.name for each in FOLDER.iterdir() if (each / "config.py").exists())
IMAGEJ = Path("/usr/share/java/ij.jar")


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


@pytest.mark.real
@pytest.mark.skipif(shutil.which("cellprofiler") is None, reason="CellProfiler 4.2 is not on the PATH")
def test_cellprofiler_measures_a_group(project: DsProject) -> None:
    project.ds("run", few(project, "cellprofiler", 1), timeout=600)
    header, *rows = (project.folder / "data/nuclei/A01/MyExpt_Nuclei.csv").read_text().splitlines()
    assert "AreaShape_Area" in header and len(rows) > 1


@pytest.mark.real
@pytest.mark.skipif(not (IMAGEJ.exists() and shutil.which("xvfb-run")), reason="apt install imagej xvfb")
def test_imagej_measures_an_image(project: DsProject) -> None:
    project.ds("run", few(project, "imagej", 1), timeout=300)
    header, *rows = (project.folder / "data/objects/A01/objects.csv").read_text().splitlines()
    assert "Area" in header and len(rows) > 1


@pytest.mark.real
@pytest.mark.skipif(find_spec("ome_zarr") is None, reason="pip install ome-zarr pillow")
def test_an_image_becomes_ome_zarr(project: DsProject) -> None:
    project.ds("run", few(project, "omezarr", 1), timeout=300)
    found = [each for each in (project.folder / "data/zarr/A01/A01.zarr").rglob("*") if each.is_file()]
    assert len(found) > 50
