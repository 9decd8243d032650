"""The page in a real browser, over real runs on this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from browsing import Open, dashboard
from conftest import DsProject, until
from synthetic import write_run

pytestmark = pytest.mark.real

WORK = """
echo begin $DS_JOB_ID
case {Name} in
  bad*) echo "no such plate: '{Name}'" >&2; exit 3;;
  slow*) for i in 1 2 3 4 5 6 7 8 9; do echo step $i; while [ ! -e $DS_PROJECT_DIR/go$i ]; do sleep 0.05; done; done;;
esac
printf '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40" onload="parent.owned=1"><script>parent.owned=1</script><rect width="40" height="40"/></svg>' > {output_dir}/plot.svg
echo '<script>opener.owned=1;document.title="owned"</script>' > {output_dir}/page.html
"""  # noqa: E501


def names(project: DsProject, *given: str) -> Path:
    project.config(COMMAND=WORK, OUTPUT="out/{Name}", JOB_RETRIES=1)
    return project.jobs({"Name": name} for name in given)


def test_a_run_is_watched_stopped_and_its_failures_retried(project: DsProject, opened: Open) -> None:
    jobs = names(project, "bad1", "bad2", "good", "slow")
    for words in (["setup"], ["submit", jobs], ["start"]):
        project.ds(*words)
    until(lambda: project.status()["jobs"]["dead"] == 2, "two dead jobs")
    with dashboard(project) as (url, _):
        page = opened(url)
        page.get_by_text("3 of 4").wait_for()
        page.get_by_role("row", name=re.compile("no such plate: 'bad1'")).wait_for()
        page.get_by_role("img", name=re.compile("4 attempts in [12] slots?")).wait_for()
        page.get_by_role("link", name="job 3").click()
        log = page.locator("pre.log")
        page.get_by_text("step 1").wait_for()
        (project.folder / "go1").touch()
        page.get_by_text("step 2").wait_for()  # it grows while the job runs
        assert log.inner_text().count("step 1") == 1
        page.get_by_role("link", name="Overview").click()

        page.get_by_role("button", name="Retry these").click()
        page.get_by_role("button", name="Cancel").click()
        assert project.status()["jobs"]["dead"] == 2
        page.get_by_role("button", name="Retry these").click()
        page.get_by_role("dialog").get_by_role("button", name="Retry these").click()
        page.get_by_text("2 jobs put back").wait_for()
        until(lambda: project.status()["attempts"] >= 5, "two new attempts")

        until(lambda: project.status()["jobs"]["dead"] == 2, "two dead jobs again")
        page.goto(url + "#jobs?state=dead")
        page.get_by_text("2 jobs", exact=True).wait_for()
        page.locator("a.id").first.click()
        page.get_by_role("heading", name="Log of attempt 1").wait_for()
        page.get_by_role("button", name="Retry this job").click()
        page.get_by_role("dialog").get_by_role("button", name="Retry this job").click()
        page.get_by_text("1 job put back").wait_for()
        until(lambda: project.status()["attempts"] >= 6, "one more attempt")
        page.get_by_role("link", name="Overview").click()

        page.get_by_role("button", name="Drain").click()
        page.get_by_role("dialog").get_by_role("button", name="Drain").click()
        page.get_by_text("draining", exact=True).wait_for()
        for step in range(2, 10):
            (project.folder / f"go{step}").touch()
        page.get_by_text("finished, 2 dead", exact=True).wait_for()
        assert project.status()["jobs"]["succeeded"] == 2


def test_the_rest_of_a_run_is_ended_from_the_page_alone(project: DsProject, opened: Open) -> None:
    project.ds("run", names(project, "bad1", "bad2", "good"), code=3)
    with dashboard(project) as (url, _):
        page = opened(url)
        page.get_by_text("finished, 2 dead", exact=True).wait_for()
        assert page.get_by_role("button", name="Drain").count() == 0  # nothing runs
        page.get_by_role("button", name="Retry these").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("No worker runs: workers are started.").wait_for()
        dialog.get_by_role("button", name="Retry these").click()
        page.get_by_text("2 jobs put back; workers were started").wait_for()
        until(lambda: project.status()["attempts"] == 5, "two new attempts")
        page.get_by_role("button", name="End the workers").click()
        dialog.get_by_role("button", name="End the workers").click()
        until(lambda: not project.status()["machines"]["running"], "the workers to end")

        page.goto(url + "#jobs?state=dead")
        page.locator("a.id").first.click()
        page.get_by_role("heading", name="Log of attempt 1").wait_for()  # the list has a button of that name
        page.get_by_role("button", name="Take out").click()
        dialog.get_by_role("button", name="Take out").click()
        page.get_by_text("1 job taken out of the run").wait_for()
        assert project.status()["jobs"]["dropped"] == 1
        page.get_by_role("link", name="Overview").click()
        page.get_by_role("row", name=re.compile("no such plate")).get_by_role(
            "button", name="Take out"
        ).click()
        dialog.get_by_role("button", name="Take out").click()
        page.get_by_text("1 of 3 succeeded, 2 taken out", exact=True).wait_for()
        page.get_by_text("finished", exact=True).wait_for()
    assert "2 dropped" in project.ds("monitor").stdout  # exit code 0


def test_stop_now_asks_first_and_puts_the_running_jobs_back(project: DsProject, opened: Open) -> None:
    jobs = names(project, "slow")
    for words in (["setup"], ["submit", jobs], ["start"]):
        project.ds(*words)
    with dashboard(project) as (url, _):
        page = opened(url)
        page.get_by_role("link", name="job 0").wait_for()
        page.get_by_role("button", name="Stop now").click()
        page.keyboard.press("Escape")
        assert project.status()["state"] == "running"
        page.get_by_role("button", name="Stop now").click()
        page.get_by_role("dialog").get_by_role("button", name="Stop now").click()
        page.get_by_text("idle", exact=True).wait_for()
        page.get_by_text("Why nothing moves").wait_for()
        assert project.status()["jobs"]["waiting"] == 1


def test_the_table_is_sorted_filtered_and_acted_on_by_keyboard_alone(
    project: DsProject, opened: Open
) -> None:
    project.config(COMMAND="test {Well} -lt 8", OUTPUT="", JOB_RETRIES=1)
    project.jobs({"Plate": f"P{n % 2}", "Well": n} for n in range(12))
    project.ds("run", "files/jobs.json", code=3)
    with dashboard(project) as (url, _):
        page = opened(url + "#jobs")
        head = page.get_by_role("columnheader", name="Well")
        head.get_by_role("link").press("Enter")
        page.locator('th[aria-sort="ascending"]', has_text="Well").wait_for()
        head.get_by_role("link").press("Enter")
        page.locator('th[aria-sort="descending"]', has_text="Well").wait_for()
        until(lambda: page.locator("tbody tr").first.inner_text().split()[0] == "11", "the last well first")
        page.get_by_role("link", name="P1", exact=True).first.press("Enter")
        page.get_by_text("6 jobs", exact=True).wait_for()
        assert page.get_by_role("searchbox").input_value() == "Plate=P1"
        page.get_by_label("State").select_option("dead")
        page.get_by_text("2 jobs", exact=True).wait_for()
        page.get_by_role("checkbox", name="choose job 9").press("Space")
        page.get_by_text("1 job chosen").wait_for()
        with page.expect_download() as saved:
            page.get_by_role("link", name="Save as CSV").press("Enter")
        assert len(Path(saved.value.path()).read_text().splitlines()) == 2
        page.get_by_role("toolbar").get_by_role("button", name="Take out").press("Enter")
        page.get_by_role("dialog").get_by_role("button", name="Take out").press("Enter")
        page.get_by_text("1 job taken out of the run").wait_for()
        page.get_by_text("1 job", exact=True).wait_for()
        assert project.status()["jobs"]["dropped"] == 1
        page.get_by_role("searchbox").fill("")
        page.get_by_text("3 jobs", exact=True).wait_for()
        page.get_by_role("button", name="Take them out").press("Enter")
        page.get_by_role("dialog").get_by_text("Take 3 jobs out of the run?").wait_for()
        page.get_by_role("dialog").get_by_role("button", name="Take out").press("Enter")
        page.get_by_text("No job is like that.").wait_for()
        assert project.status()["jobs"]["dropped"] == 4


def test_a_command_is_copied_by_one_click(project: DsProject, opened: Open) -> None:
    project.ds("run", names(project, "it's"))
    with dashboard(project) as (url, _):
        page = opened(url + "#jobs", permissions=["clipboard-read", "clipboard-write"])
        page.locator("a.id").first.click()
        page.get_by_role("button", name=re.compile("^Copy ds logs")).click()
        page.get_by_text("Copied: ds logs").wait_for()
        found = page.evaluate("navigator.clipboard.readText()")
        assert re.fullmatch("ds logs [0-9a-f]{12}", found)


def test_a_log_is_shown_as_a_terminal_shows_it(project: DsProject, opened: Open) -> None:
    work = (
        r"for i in 1 2 3; do printf '\rstep %d' $i; done; printf '\n\033[31mred <b>\033[0m plain\n';"
        r" for i in $(seq 200); do echo line $i; done; echo 'ValueError: no such thing'; seq 30; exit 3"
    )
    project.config(COMMAND=work, JOB_RETRIES=1)
    project.jobs([{"n": 1}])
    project.ds("run", "files/jobs.json", code=3)
    with dashboard(project) as (url, _):
        page = opened(url + "#jobs")
        page.locator("a.id").first.click()
        log = page.locator("pre.log")
        log.get_by_text("ValueError: no such thing").wait_for()
        assert log.locator(".line").first.inner_text().strip() == "step 3"
        assert log.locator(".c1").inner_text() == "red <b>"
        page.get_by_role("button", name="Jump to the error").press("Enter")
        assert log.locator(".line.error").inner_text().strip() == "ValueError: no such thing"
        assert not page.get_by_label("Follow").is_checked()
        page.locator("body").press("/")
        page.keyboard.type("line 12")
        page.get_by_text("1 of 11").wait_for()  # 12, and 120 to 129
        page.keyboard.press("Enter")
        page.get_by_text("2 of 11").wait_for()
        assert log.locator(".line.at").inner_text().strip() == "line 120"
        page.keyboard.press("Shift+Enter")
        page.get_by_text("1 of 11").wait_for()


def test_earlier_runs_are_looked_at_and_compared(project: DsProject, opened: Open) -> None:
    project.ds("run", names(project, "bad1", "good"), code=3)
    first = project.status()["run"]
    project.ds("--yes", "cleanup")
    jobs = names(project, "good")
    project.config(COMMAND=WORK, OUTPUT="out/{Name}", JOB_RETRIES=1, CHECK_IF_DONE_BOOL=True)
    project.ds("run", jobs)
    with dashboard(project) as (url, _):
        page = opened(url)
        page.get_by_text(f"1 job is dead in the run before, {first}").wait_for()
        page.goto(url + "#jobs")
        page.locator("a.id").first.click()
        page.get_by_role("link", name=f"its log in run {first}").click()  # it was skipped in this run
        page.get_by_text("This is an earlier run").wait_for()
        page.get_by_text("begin ", exact=False).first.wait_for()
        page.get_by_role("link", name="Overview").click()
        page.get_by_text("1 of 2 succeeded, 1 dead", exact=True).wait_for()
        assert page.get_by_role("button", name="Retry these").count() == 0
        page.get_by_role("link", name="Runs").click()
        page.get_by_role("button", name="Compare the two").wait_for()
        for box in page.get_by_role("checkbox").all():
            box.press("Space")
        page.get_by_role("button", name="Compare the two").press("Enter")
        page.get_by_text("CHECK_IF_DONE_BOOL").wait_for()
        page.get_by_text("1 only in " + first, exact=False).wait_for()
        page.get_by_role("link", name="Overview").click()
        page.get_by_text("0 of 1 succeeded, 1 skipped", exact=True).wait_for()


def test_outputs_are_a_tree_with_sizes_and_pictures_are_small(project: DsProject, opened: Open) -> None:
    work = "mkdir -p {output_dir}/a/b && head -c 1500 /dev/zero > {output_dir}/a/b/x.bin && cp -r $DS_PROJECT_DIR/x.* {output_dir}"  # noqa: E501
    image, zarr = pytest.importorskip("PIL.Image"), pytest.importorskip("zarr")
    project.config(COMMAND=work, OUTPUT="out/{n}")
    image.effect_noise((600, 400), 60).convert("I;16").save(project.folder / "x.tif")
    group = zarr.open_group(project.folder / "x.zarr", mode="w", zarr_format=2)
    group.update_attributes({"multiscales": [{"datasets": [{"path": "0"}]}]})
    group.create_array("0", shape=(500, 700), chunks=(500, 700), dtype="u2")[:250] = 900
    project.jobs([{"n": 7}])
    project.ds("run", "files/jobs.json")
    with dashboard(project) as (url, _):
        page = opened(url)
        for name in ("7: x.zarr", "7: x.tif"):
            small = page.get_by_alt_text(name)
            small.wait_for()
            until(lambda: small.evaluate("image => image.naturalWidth") == 320, "the small picture")  # noqa: B023
        small.click()
        page.get_by_text("b/ 1.5 kB").wait_for()
        page.get_by_text("x.zarr/ ", exact=False).first.wait_for()
        with page.context.expect_page() as other:
            page.get_by_role("link", name="x.zarr, in full").click()
        assert "thumbnail" in other.value.url
        other.value.close()
        page.get_by_text(re.compile(r"\d files, ")).wait_for()


def test_a_button_that_is_pressed_while_the_page_renews_itself_is_clicked(
    project: DsProject, opened: Open
) -> None:
    project.config()
    write_run(project.folder, "App", 100)
    with dashboard(project) as (url, _):
        page = opened(url)
        page.get_by_text("100 of 100").wait_for()
        box = page.get_by_role("button", name="Retry these").first.bounding_box()
        page.mouse.move(box["x"] + 5, box["y"] + 5)
        page.mouse.down()
        write_run(project.folder, "App", 300)
        page.wait_for_timeout(3000)  # a look at least, which has found more failures
        assert page.get_by_text("100 of 100").count() == 1
        page.mouse.up()
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        page.get_by_text("300 of 300").wait_for()


def test_a_page_finds_its_server_again(project: DsProject, opened: Open) -> None:
    project.config()
    write_run(project.folder, "App", 20)
    with dashboard(project) as (url, _):
        page = opened(url)
        page.get_by_text("20 of 20", exact=True).wait_for()
    page.get_by_text("No answer from the page's server").wait_for()
    write_run(project.folder, "App", 30)
    with dashboard(project) as (again, _):
        assert again == url
        page.get_by_text("30 of 30", exact=True).wait_for()
        page.get_by_text("No answer from the page's server").wait_for(state="hidden")
    known = project.folder / ".ds" / "dashboard-App.json"
    assert known.stat().st_mode & 0o777 == 0o600
    known.chmod(0o644)  # somebody may have read it
    with dashboard(project) as (other, _):
        assert other != url


def test_what_a_job_wrote_is_shown_and_never_run(project: DsProject, opened: Open) -> None:
    jobs = names(project, "<img src=x onerror=window.owned=1>")
    project.ds("run", jobs)
    with dashboard(project) as (url, _):
        page = opened(url + "#jobs")
        page.get_by_role("link", name="<img src=x").wait_for()
        page.locator("a.id").first.click()
        picture = page.get_by_alt_text("plot.svg")
        picture.wait_for()
        until(lambda: picture.evaluate("image => image.naturalWidth") == 40, "the picture to be shown")
        for name in ("plot.svg", "page.html"):
            with page.context.expect_page() as other:
                page.get_by_role("link", name=name, exact=True).click()
            other.value.wait_for_load_state()
            assert "owned" not in other.value.title()
            other.value.close()
        assert page.evaluate("window.owned") is None


def test_a_hundred_thousand_jobs_are_searched_without_lag(project: DsProject, opened: Open) -> None:
    project.config()
    write_run(project.folder, "App", 100_000)
    with dashboard(project) as (url, _):
        page = opened(url + "#jobs")
        page.get_by_text("100,000 jobs", exact=True).wait_for(timeout=60_000)
        page.get_by_label("State").select_option("dead")
        page.get_by_text("2,000 jobs", exact=True).wait_for()
        page.get_by_role("searchbox").fill("BR00042")
        page.get_by_text("2 jobs", exact=True).wait_for()
        took = page.evaluate(
            """async () => { let best = Infinity;
               for (const plate of [77, 78, 79]) { const began = performance.now();
                 await fetch(`api/jobs?q=br000${plate}`); best = Math.min(best, performance.now() - began); }
               return best; }"""
        )
        assert took < 5000  # some 100 ms on a quiet machine
        assert page.locator("tbody tr").count() <= 100
        page.goto(url + "#failures")
        page.get_by_role("link", name="667").first.click()
        page.get_by_text("667 jobs that said").wait_for()
        page.goto(url + "#job?id=none")
        page.get_by_text("This run has no such jobs").wait_for()
        page.get_by_role("link", name="All jobs").click()
        page.get_by_text("100,000 jobs", exact=True).wait_for()


def test_the_page_is_used_by_keyboard_and_fits_a_phone(project: DsProject, opened: Open) -> None:
    project.config()
    write_run(project.folder, "App", 200)
    with dashboard(project) as (url, _):
        page = opened(url, viewport={"width": 360, "height": 740}, color_scheme="dark")
        page.get_by_text("200 of 200").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to content"
        page.keyboard.press("Tab"), page.keyboard.press("Tab"), page.keyboard.press("Enter")
        page.get_by_text("200 jobs", exact=True).wait_for()
        page.locator("body").press("/")
        until(lambda: page.evaluate("document.activeElement.id") == "search", "the search to have the focus")
        page.keyboard.type("BR00001")
        page.get_by_text("96 jobs", exact=True).wait_for()
        assert page.evaluate("document.activeElement.id") == "search"
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.locator("#said").inner_text() == "finished, 100 % done, 4 dead"


CONTRAST = """() => {
  const light = (text) => { const [r, g, b] = text.match(/[0-9.]+/g).map(Number).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (node) => { for (; node; node = node.parentElement) { const found = getComputedStyle(node).backgroundColor;
    if (!found.endsWith(", 0)")) return found; } return "rgb(255,255,255)"; };
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((part) => part.nodeType === 3 && part.textContent.trim());
    if (!own || !node.checkVisibility() || node.disabled || node.closest("svg")) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(`${node.className} ${node.textContent.slice(0, 20)} ${ratio}`);
  }
  return low;
}"""  # noqa: E501


NAMELESS = """() => [...document.querySelectorAll("a, button, input, select, svg[role]")].filter((node) =>
  node.checkVisibility() && !node.textContent.trim() && !node.labels?.length && !node.ariaLabel
).length"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_and_every_control_has_a_name(
    project: DsProject, opened: Open, scheme: str
) -> None:
    project.config()
    write_run(project.folder, "App", 200)
    with dashboard(project) as (url, _):
        page = opened(url, color_scheme=scheme)
        page.get_by_text("200 of 200").wait_for()
        dead = json.loads(project.ds("--json", "jobs", "--state", "dead").stdout.splitlines()[0])["id"]
        for view, sign in (
            ("overview", "Throughput"),
            ("jobs", "200 jobs"),
            ("failures", "Retry these"),
            ("runs", "took"),
            (f"job?id={dead}", "Log of attempt"),
        ):
            page.goto(f"{url}#{view}")
            page.get_by_text(sign).first.wait_for()
            assert page.evaluate(CONTRAST) == []
            assert page.evaluate(NAMELESS) == 0


def test_the_report_of_a_run_opens_from_its_file(project: DsProject, opened: Open) -> None:
    done = project.ds("run", names(project, "bad1", "good"), code=3)
    place = re.search(r"report: (.*report\.html)", done.stderr)
    assert place
    page = opened(f"file://{place[1]}")
    assert page.get_by_role("row", name=re.compile("no such plate: 'bad1'")).count() == 1
    assert page.get_by_role("img", name=re.compile("Jobs: succeeded 1, dead 1")).count() == 1
    assert page.evaluate(CONTRAST) == []
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.get_by_role("row", name=re.compile("no such plate: 'bad1'")).count() == 1  # a card now
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(CONTRAST) == []


def test_the_browser_is_led_to_the_page_and_its_command_has_no_token(
    project: DsProject, opened: Open
) -> None:
    project.config()
    given, browser = project.folder / "given", project.folder / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {given}.new && mv {given}.new {given}\n')
    browser.chmod(0o755)
    terminal, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed_something", "-C", str(project.folder), "dashboard"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**project.environment, "DISPLAY": ":none", "BROWSER": f"{browser} %s"},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        until(given.exists, "the browser's command")
        address = given.read_text()
        assert url.split("/")[3] not in address
        door = Path(address.removeprefix("file://"))
        assert door.stat().st_mode & 0o777 == 0o600
        opened(address, asks=(address, url)).get_by_role("heading", name="No run yet").wait_for()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        process.communicate()
        os.close(terminal)
        os.close(theirs)
    assert not door.exists()


def test_the_address_is_data_for_programs(project: DsProject) -> None:
    project.config()
    with dashboard(project, "--json") as (line, process):
        url = json.loads(line)["url"]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", url)
        port = url.split(":")[2].split("/")[0]
        taken = project.ds("dashboard", "--port", port, code=1)
        assert f"port {port}" in taken.stderr
        assert os.getpgid(process.pid)
    project.ds("dashboard", "--port", 70000, code=2)


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [1440, 1000, 400])
def test_a_run_with_dead_jobs_never_looks_green(
    project: DsProject, opened: Open, width: int, scheme: str
) -> None:
    project.config()
    write_run(project.folder, "App", 200)
    with dashboard(project) as (url, _):
        page = opened(url, viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.get_by_text("196 of 200 succeeded, 4 dead", exact=True).wait_for()
        colour = "getComputedStyle(document.getElementById('state')).color"
        bad = page.evaluate("getComputedStyle(document.querySelector('.headline.bad')).color")
        assert page.locator("#state").inner_text() == "finished, 4 dead"
        assert page.evaluate(colour) == bad
        assert page.get_by_role("button", name="Drain").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=os.environ["SHOT"] + f"-{width}-{scheme}.png") if "SHOT" in os.environ else None
