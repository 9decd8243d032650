"""`make aws-smoke`: a dry run in a rehearsal, and what it must refuse, find and leave out."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

from bench.aws_smoke import fleet_history, nothing_left, spot_price

from emulating import endpoint, session

ROOT = Path(__file__).parents[2]


def smoke(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = ["--bucket", "secret-bucket", "--output", str(folder / "out.txt"), *more]
    command = [sys.executable, "-m", "bench.aws_smoke", *words]
    streams = {"stdin": subprocess.DEVNULL, "capture_output": True}
    return subprocess.run(command, cwd=ROOT, text=True, timeout=300, check=False, **streams)


def test_without_a_terminal_and_without_yes_it_does_nothing(tmp_path: Path) -> None:
    done = smoke(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: not run: there is no terminal to confirm it on\nfix: --yes\n"
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_takes_the_steps_and_claims_no_more_than_it_saw(tmp_path: Path) -> None:
    endpoint()  # skips where the emulator is not installed
    done = smoke(tmp_path, "--engine", "rehearsal", "--seconds", "0.1")
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "out.txt").read_text()
    assert "[x] all jobs succeeded: 20 of 20" in text
    assert "[x] clean-up leaves nothing" in text
    for unproven in ("roles reach", "user data has", "ECS places", "a spot notice"):
        assert f"[ ] {unproven}" in text
    for step in ("setup", "submit", "start", "monitor", "cleanup"):
        assert f"$ ds {step}" in text
    for secret in ("secret-bucket", str(Path.home()) + "/", "123456789012"):
        assert secret not in text


def test_the_look_beside_clean_up_names_what_is_left() -> None:
    app = f"DsSmoke{uuid.uuid4().hex[:6]}"
    sqs = session().client("sqs")
    assert nothing_left(session(), app, clean=True).seen
    assert not nothing_left(session(), app, clean=False).seen
    url = sqs.create_queue(QueueName=f"{app}Queue")["QueueUrl"]
    found = nothing_left(session(), app, clean=True)
    assert not found.seen and f"{app}Queue" in found.evidence
    sqs.delete_queue(QueueUrl=url)


def test_what_cannot_be_looked_at_is_not_ticked(tmp_path: Path) -> None:
    found = fleet_history(session(), tmp_path / "missing.json")
    assert not found.seen and "FileNotFoundError" in found.evidence
    assert spot_price(session()).evidence
