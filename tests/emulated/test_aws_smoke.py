"""`make aws-smoke`: a dry run in a rehearsal, and what it must refuse, find and leave out."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest
from bench.aws_smoke import nothing_left

import services
from emulating import emulator, endpoint, session

ROOT = Path(__file__).parents[2]


def smoke(folder: Path, *more: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    words = ["--bucket", "secret-bucket", "--output", str(folder / "out.txt"), *more]
    command = [sys.executable, "-m", "bench.aws_smoke", *words]
    streams = {"stdin": subprocess.DEVNULL, "capture_output": True}
    return subprocess.run(command, cwd=ROOT, env=env, text=True, timeout=300, check=False, **streams)


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
    for unproven in (
        "new roles reach",
        "user data has",
        "ECS places",
        "jobs that AWS",
        "the fleet's",
        "a spot price",
    ):
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


CLEAN = {
    "moto": "[x] clean-up leaves nothing that costs money",
    "ministack": "[ ] clean-up leaves nothing that costs money: ds cleanup failed",  # it knows no spot fleets
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_run_that_cannot_begin_is_cleaned_up_and_tells_no_account_number(tmp_path: Path, name: str) -> None:
    endpoint()
    session()  # puts the developer's own AWS settings out of reach
    with ExitStack() as running:  # an emulator of its own: its account gets roles
        if name == "moto":
            address = running.enter_context(emulator())
        else:
            address = running.enter_context(services.Servers(tmp_path / "servers")).get(name).endpoint
        environment = {**os.environ, "AWS_ENDPOINT_URL": address}
        done = smoke(tmp_path, "--yes", "--worker-image", "user/worker:1", env=environment)
    assert done.returncode == 1, done.stdout + done.stderr
    text = (tmp_path / "out.txt").read_text()
    assert "there is no bucket <bucket>" in text
    assert "the account <account> is set up" in text
    for unseen in ("new roles reach", "the fleet's history", "all jobs succeeded: 0 of 20"):
        assert f"[ ] {unseen}" in text
    assert CLEAN[name] in text
    assert "a look beside it found nothing" in text
    assert "123456789012" not in text
