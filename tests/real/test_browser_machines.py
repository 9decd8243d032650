"""The page of a run on rented machines, in a real browser: canary, limits, losses, cost, budget."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from browsing import Open, dashboard
from conftest import DsProject, until
from distributed_something.rehearsal.faults import parse_faults
from pretending import require
from rehearsing import TWO_MACHINES, processes, unlucky

pytestmark = pytest.mark.real

WORK = "test -e $DS_PROJECT_DIR/mended || { test {n} -gt 3 || { echo no licence; exit 1; }; sleep 60; }"
FAULTS = "kill=0.4/min,notice=0.4/min,speed=8x"


def test_a_rented_run_is_held_mended_and_goes_on_from_the_page(project: DsProject, opened: Open) -> None:
    require()
    project.config(
        **TWO_MACHINES,
        COMMAND=WORK,
        OUTPUT="",
        AWS_BUCKET="bucket-of-a-test",
        BUDGET_USD=1,
        CANARY=3,
        SQS_MESSAGE_VISIBILITY=8,
        JOB_RETRIES=1,
        DOCKER_CORES=2,
    )
    jobs = project.jobs({"n": n} for n in range(6))
    try:
        watch(project, opened, jobs)
    finally:
        project.ds("cleanup", "--yes", code=None, timeout=120)
        until(lambda: not processes(project), "the rehearsal's processes to end")


def watch(project: DsProject, opened: Open, jobs: Path) -> None:
    seed = unlucky(parse_faults(FAULTS)).seed
    project.ds("setup", timeout=60)
    project.ds("submit", jobs, timeout=60)
    with dashboard(project) as (url, _):
        page = opened(url)
        page.set_default_timeout(90_000)
        page.get_by_role("button", name="Copy ds start").wait_for()
        started = project.ds("start", "--wait", "0.1", "--faults", f"{FAULTS},seed={seed}", timeout=60)
        assert "canary: one machine until 3 jobs have ended" in started.stderr
        page.get_by_text(re.compile("The canary goes first: [0-3] of its 3 jobs have ended")).wait_for()
        page.get_by_text(re.compile("On hold: .*no licence.*MAX_FAILURE_RATE")).wait_for()
        page.get_by_role("button", name="Copy ds start && ds monitor").wait_for()
        page.get_by_text(re.compile(r"\$\S+ of \$1\.00 \(\d+%\)")).wait_for()  # the budget
        timeline = page.get_by_role("img", name=re.compile(r"\d+ attempts in \d+ slots.*\d+ machines? lost"))
        timeline.wait_for()
        why = timeline.locator("rect.lost title").first.text_content().removeprefix("lost: ")
        page.get_by_role("row", name=re.compile(f"{re.escape(why)} after")).first.wait_for()

        page.get_by_role("button", name="Stop now").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Stop now").click()
        until(lambda: not project.status()["machines"]["running"], "the machines to end")
        (project.folder / "mended").touch()
        page.get_by_role("button", name="Retry these").press("Enter")
        for said in (
            "Put 4 jobs back into the queue, with all attempts?",
            "No machine runs: machines are asked for, as the config says.",
            "2 machines at $0.10 an hour each: $0.20 an hour at most",
            re.compile(r"budget: \$1\.00 \(\$\S+ are spent\)"),
        ):
            dialog.get_by_text(said).wait_for()
        dialog.get_by_role("button", name="Retry these").press("Enter")
        page.get_by_text("4 jobs put back; machines were asked for").wait_for()
        page.get_by_text("6 of 6 succeeded", exact=True).wait_for()
        page.get_by_text("It has ended").wait_for()
        page.get_by_role("button", name="Copy ds monitor").wait_for()  # it ends the machines
    ended = project.ds("monitor", timeout=120)
    assert "left behind: nothing" in ended.stdout
