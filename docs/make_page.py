"""Writes docs/dashboard.png, the page of a real rehearsal: python docs/make_page.py (takes some minutes)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

CONFIG = {
    "APP_NAME": "Nuclei",
    "ENGINE": "rehearsal",
    "OUTPUT": "measured/{Plate}/{Well}",
    "DOCKERHUB_TAG": "lab/nuclei:1.4",
    "CONTAINERS": False,
    "CLUSTER_MACHINES": 4,
    "TASKS_PER_MACHINE": 1,
    "MACHINE_TYPE": ["m5.large"],
    "MACHINE_PRICE": 0.04,
    "DOCKER_CORES": 4,
    "JOB_RETRIES": 1,
    "SQS_MESSAGE_VISIBILITY": 20,
}
MEASURE = """
sleep 1.$(expr $1 '*' 7 % 9)
echo $1 > $2/count.txt
case $1 in
  *17|*42) echo "ValueError: could not convert string to float: 'n/a'" >&2; exit 1;;
  *33) echo "libpng error: IDAT: CRC error in /mnt/P1/$1.png" >&2; exit 1;;
esac
"""
FAULTS = "kill=0.5/min,seed=11"


def ds(folder: Path, *words: str, **more: Any) -> subprocess.Popen[str]:
    """Start a command in the project."""
    command = [sys.executable, "-m", "distributed_something", "-C", str(folder), *words]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **more)


def status(folder: Path) -> Any:
    """What `ds status --json` says."""
    return json.loads(ds(folder, "status", "--json").communicate()[0])


def main() -> None:
    """Run, wait until machines were lost and jobs have failed, look, and take everything away."""
    folder = Path(tempfile.mkdtemp()) / "nuclei"
    (folder / "files").mkdir(parents=True)
    given = {**CONFIG, "COMMAND": f"sh {folder}/measure.sh {{Well}} {{output_dir}}"}
    (folder / "config.py").write_text("".join(f"{name} = {value!r}\n" for name, value in given.items()))
    (folder / "measure.sh").write_text(MEASURE)
    groups = [{"Plate": f"P{1 + n // 96}", "Well": n} for n in range(1440)]
    (folder / "files" / "jobs.json").write_text(json.dumps({"groups": groups}))
    try:
        for words in (
            ["setup"],
            ["submit", "files/jobs.json"],
            ["start", "--wait", "0.1", "--faults", FAULTS],
        ):
            ds(folder, *words).communicate()
        until = time.monotonic() + 240
        while time.monotonic() < until:
            found = status(folder)
            if found["machines"]["lost"] and found["jobs"]["dead"] >= 4 and found["jobs"]["succeeded"] > 60:
                break
        photograph(folder)
    finally:
        ds(folder, "--yes", "cleanup").communicate()
        shutil.rmtree(folder.parent)


def photograph(folder: Path) -> None:
    """The page as it is now."""
    server = ds(folder, "dashboard")
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        page.goto(url)
        page.get_by_role("button", name="Retry these").first.wait_for()
        time.sleep(4)
        picture = Image.open(BytesIO(page.screenshot(full_page=True)))
        picture.convert("RGB").quantize(64).save(Path(__file__).with_name("dashboard.png"), optimize=True)
        browser.close()
    server.terminate()
    server.communicate()


if __name__ == "__main__":
    main()
