"""Walks through page and report in a real browser, and keeps a screenshot of each step: `make pictures`.

The pictures are for eyes: at three widths, dark and light. They are remade by each walk, and not kept in the
repository. With words on the command line (`plates-overview`), only the steps that begin so are taken.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from browsing import dashboard
from conftest import DsProject, until
from distributed_something.rehearsal.faults import parse_faults
from rehearsing import TWO_MACHINES, unlucky
from services import chromium
from synthetic import write_run

WIDTHS = (1440, 1000, 400)
SCHEMES = ("light", "dark")
TARGET = Path(__file__).parents[1] / "pictures"

WORK = """
for i in 1 2 3; do printf '\\rreading %d0 %%' $i; done; echo
printf '\\033[32mplate {Plate}\\033[0m well {Well}\\n'
sleep 0.{Pause}
case {Well} in
  B02) echo "ValueError: no nuclei in {Plate}/{Well}" >&2; exit 3;;
  C03) sleep 30;;
  D04) if [ $DS_ATTEMPT = 1 ]; then echo "OSError: the disk of scanner {Pause} is away" >&2; exit 1; fi;;
esac
mkdir -p {output_dir}/masks/raw
echo "well,area" > {output_dir}/table.csv
head -c 3000 /dev/zero > {output_dir}/masks/raw/mask.bin
PYTHON -c "
from PIL import Image
import sys
n = int(sys.argv[1])
image = Image.effect_mandelbrot((320, 240), (-2, -1.2, 0.8 - n / 9, 1.2), 40 + n * 8)
image.save(sys.argv[2] + '/overlay.png')
image.convert('I').point(lambda value: value * 40).save(sys.argv[2] + '/plane.tif')
import json, os
os.makedirs(sys.argv[2] + '/field.zarr/0')
array = dict(zarr_format=2, shape=[240, 320], chunks=[240, 320], dtype='|u1', fill_value=0, order='C')
described = dict(multiscales=[dict(datasets=[dict(path='0')])])
for name, facts in (('.zattrs', described), ('0/.zarray', dict(array, compressor=None, filters=None))):
    json.dump(facts, open(sys.argv[2] + '/field.zarr/' + name, 'w'))
open(sys.argv[2] + '/field.zarr/0/0.0', 'wb').write(image.rotate(180).tobytes())
" {Pause} {output_dir}
"""
WELLS = [f"{row}{column:02}" for row in "ABCD" for column in range(1, 7)]


def main(words: list[str]) -> None:
    """Makes the projects, serves each page, and takes the pictures."""
    from playwright.sync_api import sync_playwright

    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ds-pictures-") as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for name, make in PROJECTS.items():
            if words and not any(word.startswith(name) for word in words):
                continue
            project = DsProject(Path(folder, name))
            project.folder.mkdir()
            with make(project) as steps, dashboard(project) as (url, _):
                for width in WIDTHS:
                    for scheme in SCHEMES:
                        context = browser.new_context(
                            viewport={"width": width, "height": 900}, color_scheme=scheme
                        )
                        page = context.new_page()
                        for step, act in steps.items():
                            if words and not any(f"{name}-{step}".startswith(word) for word in words):
                                continue
                            page.goto(url)
                            page.locator("main section").first.wait_for()
                            act(page, url)
                            page.wait_for_timeout(700)
                            for picture in page.locator("img[loading]").all():
                                picture.scroll_into_view_if_needed()
                            page.wait_for_load_state("networkidle")
                            page.screenshot(
                                path=TARGET / f"{name}-{step}-{width}-{scheme}.png", full_page=True
                            )
                        context.close()
        browser.close()
    print(f"{len([*TARGET.glob('*.png')])} pictures in {TARGET}/")


Steps = dict[str, Callable[[Any, str], object]]


@contextmanager
def plates(project: DsProject) -> Iterator[Steps]:
    """Two runs of 12 and 48 wells, with failures of several kinds."""
    keys = {"COMMAND": WORK.replace("PYTHON", sys.executable), "OUTPUT": "out/{Plate}/{Well}", "INPUTS": []}
    groups = [
        {"Plate": f"BR0000{plate}", "Well": well, "Pause": at % 8}
        for plate in (1, 2)
        for at, well in enumerate(WELLS)
    ]
    project.config(**keys, JOB_RETRIES=2, JOB_TIMEOUT=3, BACKOFF=0.2)
    project.jobs(groups[:12])
    project.ds("run", "files/jobs.json", code=None, timeout=120)
    project.ds("--yes", "cleanup")
    project.config(**keys, JOB_RETRIES=2, JOB_TIMEOUT=2, DOCKER_CORES=4, BACKOFF=0.2)
    project.jobs(groups)
    project.ds("run", "files/jobs.json", code=None, timeout=120)
    dead = project.job_lines("--state", "dead")[0]["id"]
    good = project.job_lines("--state", "succeeded")[0]["id"]
    first = project.ds("--json", "runs").stdout.splitlines()[-1].split('"')[3]
    yield {
        "overview": lambda page, url: None,
        "jobs": lambda page, url: page.goto(url + "#jobs?order=-time"),
        "chosen": choose,
        "dead-job": lambda page, url: page.goto(url + f"#job?id={dead}"),
        "good-job": lambda page, url: page.goto(url + f"#job?id={good}"),
        "failures": lambda page, url: page.goto(url + "#failures"),
        "runs": lambda page, url: page.goto(url + "#runs"),
        "earlier": lambda page, url: page.goto(url + f"#overview?run={first}"),
        "compare": lambda page, url: page.goto(url + f"#compare?one={first}&other={project.status()['run']}"),
        "report": lambda page, url: page.goto(url + "report"),
        "dialog": lambda page, url: page.get_by_role("button", name="Retry these").first.click(),
    }


def choose(page: Any, url: str) -> None:
    """Chooses two jobs of the table."""
    page.goto(url + "#jobs?state=dead")
    page.get_by_role("checkbox", name="choose job").nth(1).check()
    page.get_by_role("checkbox", name="choose job").nth(2).check()


MEASURE = """
test $1 -ge 20 && sleep 60
sleep 2.$(expr $1 % 7)
test $1 -ge 3 || { echo "ValueError: could not convert string to float: 'n/a'" >&2; exit 1; }
"""


@contextmanager
def machines(project: DsProject, *, stopped: bool = False) -> Iterator[Steps]:
    """A rehearsed run: a machine is lost and too many jobs are dead; `stopped`: no machine runs any more."""
    (project.folder / "measure.sh").write_text(MEASURE)
    project.config(
        **TWO_MACHINES | {"DOCKERHUB_TAG": "lab/nuclei:1.4", "MACHINE_PRICE": 0.04},
        CONTAINERS=False,
        OUTPUT="",
        JOB_RETRIES=1,
        DOCKER_CORES=3,
        SQS_MESSAGE_VISIBILITY=10,
        COMMAND="sh $DS_PROJECT_DIR/measure.sh {Well}",
        BUDGET_USD=0.02,
        MAX_FAILURES=4,
    )
    jobs = project.jobs({"Plate": "P1", "Well": n} for n in range(24))
    faults = "kill=0.4/min,notice=0.4/min,speed=8x"
    faults += f",seed={unlucky(parse_faults(faults)).seed}"
    try:
        for words in (["setup"], ["submit", jobs], ["start", "--wait", "0.1", "--faults", faults]):
            project.ds(*words, timeout=60)
        until(
            lambda: project.status()["machines"]["lost"] and project.status()["jobs"]["dead"] == 3, "losses"
        )
        if stopped:
            project.ds("stop", "--now")
            until(lambda: not project.status()["machines"]["running"], "the machines to end")
            yield {"dialog": lambda page, url: page.get_by_role("button", name="Retry these").click()}
        else:
            yield {"overview": lambda page, url: None}
    finally:
        project.ds("cleanup", "--yes", code=None, timeout=120)


@contextmanager
def large(project: DsProject) -> Iterator[Steps]:
    """A run of 20,000 jobs that has ended, by its ledger."""
    project.config(COMMAND="true", OUTPUT="out/{Plate}")
    write_run(project.folder, "App", 20_000)
    yield {
        "overview": lambda page, url: None,
        "jobs": lambda page, url: page.goto(url + "#jobs?order=key:Well"),
    }


PROJECTS = {
    "plates": plates,
    "machines": machines,
    "stopped": partial(machines, stopped=True),
    "large": large,
}

if __name__ == "__main__":
    main(sys.argv[1:])
