"""Jobs with an output run in a folder named after the job: two runs of the same jobs give the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest

from distributed_something.errors import DsError
from distributed_something.inputs.files import ProjectFile
from distributed_something.inputs.templates.paths import OutputTemplate
from distributed_something.inputs.templates.template import CommandTemplate
from distributed_something.job import Job, Lease, Outcome, State
from distributed_something.ledger import RunPaths
from distributed_something.local.store import FolderStore
from distributed_something.worker.attempt.logs import SlotLog
from distributed_something.worker.attempt.slot import Slot
from distributed_something.worker.attempt.task import Task
from distributed_something.worker.attempt.workplace import Workplace, clear_remains
from distributed_something.worker.files.project import keep

JOB = Job("00000000000000ab", 0, b'{"group":{"n":1}}')
TELLS_ITS_PATHS = "sh -c 'pwd > {output_dir}/header; env | grep ^DS_.*_DIR= | sort >> {output_dir}/header'"


def run_once(data: Path, folder: Path, task: Task | None = None, *, job: Job = JOB) -> tuple[Outcome, bytes]:
    """Runs the job in a slot with this folder. Returns its outcome and its log."""
    store = FolderStore(data)
    task = task or Task(CommandTemplate(TELLS_ITS_PATHS), None, output=OutputTemplate("out"))
    slot = Slot(task, store, folder, SlotLog(store, "", "log"), "run", f"worker-{os.urandom(3).hex()}")
    try:
        slot.begin()
        outcome = slot.run(Lease(job, "token", 0.0), lambda _: None)
    finally:
        slot.close()
    return outcome, store.read("log") if outcome.log else b""


def test_two_runs_of_a_job_in_any_slot_give_the_same_bytes(tmp_path: Path) -> None:
    headers = []
    with chdir(tmp_path):
        for number in range(2):
            outcome, _ = run_once(tmp_path / f"data{number}", tmp_path / "root" / f"slot-{number}")
            assert outcome.state is State.SUCCEEDED
            headers.append((tmp_path / f"data{number}" / "out" / "header").read_text())
    assert headers[0] == headers[1] and str(tmp_path / "root" / JOB.id / "work") in headers[0]
    assert "worker-" not in headers[0] and "slot-" not in headers[0]
    assert not [*(tmp_path / "root").iterdir()]


def test_a_job_whose_folder_a_live_attempt_holds_runs_in_another_and_says_so(tmp_path: Path) -> None:
    held = Workplace(tmp_path / "root" / "slot-0")
    (held.folder / "job.json").touch()
    assert held.claim(JOB.id)
    with chdir(tmp_path):
        outcome, log = run_once(tmp_path / "data", tmp_path / "root" / "slot-1")
    assert outcome.state is State.SUCCEEDED
    assert f"runs in {tmp_path}/root/{JOB.id}-2" in log.decode()
    assert f"{JOB.id}-2/work" in (tmp_path / "data/out/header").read_text()
    held.go_home()
    held.close()


def test_what_a_killed_worker_left_is_removed_and_its_name_is_free(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path;"
        "from distributed_something.worker.attempt.workplace import Workplace;"
        "place = Workplace(Path(sys.argv[1]) / 'slot-0'); place.claim(sys.argv[2]);"
        "(place.folder / 'half.txt').write_text('x'); os._exit(9)"
    )
    root = tmp_path / "root"
    subprocess.run([sys.executable, "-c", script, str(root), JOB.id], check=False)
    assert (root / JOB.id / "half.txt").exists()
    with chdir(tmp_path):
        outcome, log = run_once(tmp_path / "data", root / "slot-0")
    assert outcome.state is State.SUCCEEDED and log == b""
    assert f"{JOB.id}/work" in (tmp_path / "data/out/header").read_text()


def test_remains_are_removed_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    held = Workplace(root / "slot-0")
    (held.folder / "job.json").touch()
    held.claim("00000000000000cd")
    held.go_home()
    for name in ("slot-1", JOB.id, f"{JOB.id}-2", ".left-0a0b0c0d", "data", "slot-x"):
        (root / name).mkdir()
        (root / name / "file").touch()
    clear_remains(root)
    assert sorted(path.name for path in root.iterdir()) == ["data", "slot-0", "slot-x"]
    held.close()


def test_a_job_that_moves_its_folder_away_leaves_the_next_one_a_folder(tmp_path: Path) -> None:
    moves = "sh -c 'touch {output_dir}/a; mv {work_dir}/.. {work_dir}/../../elsewhere'"
    store = FolderStore(tmp_path / "data")
    task = Task(CommandTemplate(moves), None, output=OutputTemplate("out/{n}"))
    with chdir(tmp_path):
        slot = Slot(task, store, tmp_path / "root" / "slot-0", SlotLog(store, "", "log"), "run", "w")
        for number in range(2):
            slot.begin()
            job = Job(f"{number:016x}", number, b'{"group":{"n":%d}}' % number)
            slot.run(Lease(job, "token", 0.0), lambda _: None)
            assert (slot._place.folder / "work").is_dir()
        slot.close()


def test_a_handler_finds_its_job_s_folders(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os\n"
        "def run(job, output_dir, work_dir):\n"
        "    assert os.getcwd() == str(work_dir) == os.environ['DS_WORK_DIR']\n"
        "    (output_dir / 'header').write_text(str(output_dir))\n"
    )
    task = Task(None, "mine:run", output=OutputTemplate("out/{n}"))
    store = FolderStore(tmp_path / "data")
    with chdir(tmp_path):
        slot = Slot(task, store, tmp_path / "root" / "slot-0", SlotLog(store, "", "log"), "run", "w")
        for number in range(3):
            slot.begin()
            job = Job(f"{number:016x}", number, b'{"group":{"n":%d}}' % number)
            assert slot.run(Lease(job, "token", 0.0), lambda _: None).state is State.SUCCEEDED
            assert store.read(f"out/{number}/header").decode() == f"{tmp_path}/root/{job.id}/output"
        slot.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_root_of_another_user_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    os.chown(root, 65534, 65534)
    with pytest.raises(DsError, match="belongs to another user"):
        Workplace(root / "slot-0")


def test_a_command_finds_the_project_files_at_one_path_in_each_run(tmp_path: Path) -> None:
    (tmp_path / "tell.sh").write_text('echo "$0" > "$1/header"\n')
    content = (tmp_path / "tell.sh").read_bytes()
    file = ProjectFile(hashlib.sha256(content).hexdigest(), len(content), executable=False)
    headers = []
    with chdir(tmp_path):
        for number in range(2):
            data = tmp_path / f"data{number}"
            carried = keep(FolderStore(data), RunPaths("App", "r"), {"tell.sh": file}, tmp_path)
            command = CommandTemplate('sh "$DS_PROJECT_DIR/tell.sh" {output_dir}')
            task = Task(command, None, output=OutputTemplate("out"), carried=carried)
            outcome, _ = run_once(data, tmp_path / "root" / f"slot-{number}", task)
            assert outcome.state is State.SUCCEEDED
            headers.append((data / "out" / "header").read_text())
    assert headers == [f"{tmp_path}/root/{JOB.id}/project/tell.sh\n"] * 2
