"""NOTIFY: messages about a run reach real servers, and neither delay nor fail it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import services
from conftest import DsProject, until
from distributed_something.engine import Machines
from distributed_something.inputs.config import parse_config
from distributed_something.ledger import RunPaths
from distributed_something.local.store import FolderStore
from distributed_something.notify.notices import due
from distributed_something.notify.notifier import Notifier
from distributed_something.runs.snapshot import JobCounts, Snapshot

TOKEN = "T0KEN-of-the-hook"


class Hook:
    """An HTTP server that keeps what it is sent, and answers with `status` (0: never)."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.got: list[tuple[str, dict[str, Any]]] = []
        hook = self

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((self.path, json.loads(body)))
                if not hook.status:
                    time.sleep(30)
                self.send_response(hook.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def listening(status: int = 200) -> Iterator[Hook]:
    hook = Hook(status)
    thread = Thread(target=hook.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hook
    finally:
        hook.server.shutdown()
        hook.server.server_close()
        thread.join()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with listening() as found:
        yield found


@pytest.fixture
def some_dead(project: DsProject) -> DsProject:
    project.jobs({"x": n} for n in range(3))
    return project


CONFIG = {"COMMAND": "test {x} != 2", "JOB_RETRIES": 1}


def test_the_end_of_a_run_is_told_once(some_dead: DsProject, hook: Hook) -> None:
    some_dead.config(**CONFIG, NOTIFY=[f"{hook.url}/hooks/{TOKEN}"])
    some_dead.ds("run", "files/jobs.json", code=3)
    some_dead.ds("monitor", code=3)  # a second monitor, at the same end
    [(path, message)] = hook.got
    assert path == f"/hooks/{TOKEN}"
    assert message["text"].startswith("App: finished, 1 dead: 2 of 3 jobs succeeded, 1 dead, in ")
    assert (message["app"], message["event"], message["jobs"]["dead"]) == ("App", "end", 1)
    assert message["run"] == some_dead.status()["run"]


def test_a_run_that_goes_on_ends_again(some_dead: DsProject, hook: Hook) -> None:
    some_dead.config(**CONFIG, NOTIFY=hook.url)
    some_dead.ds("run", "files/jobs.json", code=3)
    some_dead.config(**{**CONFIG, "COMMAND": "true"}, NOTIFY=hook.url)
    for words in (["retry"], ["start"], ["monitor"]):
        some_dead.ds(*words)
    assert [message["title"] for _, message in hook.got] == ["App: finished, 1 dead", "App: finished"]


def test_the_first_death_and_a_stall_are_told_while_the_run_goes_on(project: DsProject, hook: Hook) -> None:
    go = project.folder / "go"
    command = f"test {{x}} = 1 && while ! test -e {go}; do sleep 0.05; done"
    project.config(COMMAND=command, JOB_RETRIES=1, NOTIFY=hook.url, NOTIFY_STALLED=0.3)
    project.jobs({"x": n} for n in range(2))
    running = project.start("run", "files/jobs.json")
    until(lambda: len(hook.got) == 2, "both messages")
    go.touch()
    running.communicate(timeout=30)
    told = {message["event"]: message["text"] for _, message in hook.got}
    assert [*told][2:] == ["end"]
    assert told["dead"] == "App: a job is dead: 1 job is dead, 1 of 2 left"
    assert "no job has ended for " in told["stalled"]
    assert "; 1 left, " in told["stalled"]


def test_notify_when_chooses(some_dead: DsProject, hook: Hook) -> None:
    some_dead.config(**CONFIG, NOTIFY=hook.url, NOTIFY_WHEN=["stalled"])
    some_dead.ds("run", "files/jobs.json", code=3)
    assert hook.got == []


def test_a_command_gets_it_in_its_environment(some_dead: DsProject) -> None:
    told = some_dead.folder / "told"
    command = f'command: echo "$DS_EVENT|$DS_APP|$DS_TITLE|$DS_TEXT" > {told}'
    some_dead.config(**CONFIG, NOTIFY=[command])
    some_dead.ds("run", "files/jobs.json", code=3)
    assert told.read_text().startswith("end|App|App: finished, 1 dead|2 of 3 jobs succeeded, 1 dead, in ")


def test_mail_goes_out_by_apprise(some_dead: DsProject) -> None:
    services.require("aiosmtpd")
    from aiosmtpd.controller import Controller

    got = []

    class Mailbox:
        async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802
            got.append(envelope)
            return "250 OK"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Controller(Mailbox(), hostname="127.0.0.1", port=port)
    server.start()
    try:
        address = f"mailto://127.0.0.1:{port}?from=ds@lab.org&to=${{READER}}"
        some_dead.environment["READER"] = "ada@lab.org"
        some_dead.config(**CONFIG, NOTIFY=[address])
        done = some_dead.ds("run", "files/jobs.json", code=3)
        until(lambda: got, f"mail, after {done.stderr}")
    finally:
        server.stop()
    [envelope] = got
    assert envelope.rcpt_tos == ["ada@lab.org"]
    mail = message_from_bytes(envelope.content)
    assert mail["Subject"] == "App: finished, 1 dead"
    text = next(part for part in mail.walk() if part.get_content_type() == "text/plain")
    assert b"2 of 3 jobs succeeded, 1 dead" in text.get_payload(decode=True)  # type: ignore[operator]


@pytest.mark.parametrize("status", [404, 302])
def test_a_refused_message_fails_nothing_and_shows_no_secret(some_dead: DsProject, status: int) -> None:
    with listening(status) as hook:
        some_dead.config(**CONFIG, NOTIFY=[f"{hook.url}/{TOKEN}", f"http://127.0.0.1:9/{TOKEN}"])
        done = some_dead.ds("run", "files/jobs.json", code=3)
    assert f"note: NOTIFY: http://127.0.0.1: HTTP {status}" in done.stderr
    assert "note: NOTIFY: http://127.0.0.1: Connection refused" in done.stderr
    assert len(hook.got) == 1, "a redirect was followed"
    said = done.stdout + done.stderr + some_dead.ds("check", "files/jobs.json").stdout
    assert TOKEN not in said
    kept = [path for path in some_dead.folder.rglob("*") if path.is_file() and path.name != "config.py"]
    assert len(kept) > 5
    assert [path for path in kept if TOKEN.encode() in path.read_bytes()] == []


def test_a_server_that_never_answers_holds_the_end_up_for_a_moment_only(project: DsProject) -> None:
    with listening(status=0) as hook:
        project.config(COMMAND="true", NOTIFY=hook.url)
        project.jobs([{"x": 1}])
        began = time.monotonic()
        project.ds("run", "files/jobs.json")
        assert time.monotonic() - began < 15
        assert len(hook.got) == 1


def test_a_topic_that_cannot_be_reached_is_a_note(some_dead: DsProject) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    some_dead.environment |= {**keys, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    topic = "arn:aws:sns:eu-west-1:123456789012:lab"
    some_dead.config(**CONFIG, NOTIFY=[topic])
    done = some_dead.ds("run", "files/jobs.json", code=3)
    assert f"note: NOTIFY: {topic}: EndpointConnectionError" in done.stderr


def test_without_apprise_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "apprise.py").write_text("raise ImportError\n")
    order = {"to": ["mailto:ada@lab.org"], "message": {"title": "t", "text": "x"}}
    done = subprocess.run(
        [sys.executable, "-m", "distributed_something.notify.send"],
        input=json.dumps(order),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    expected = "mailto:ada@lab.org: needs Apprise: pip install 'distributed-something[notify]'\n"
    assert (done.returncode, done.stderr) == (1, expected)


@pytest.mark.parametrize(
    "address", ["nonsense://x", "https://${NO_SUCH_NAME}/x", "command: exit 3", "http://["]
)
def test_what_cannot_be_sent_is_one_line(address: str) -> None:
    order = {"to": [address], "message": dict.fromkeys(("app", "run", "event", "title", "text"), "x")}
    command = [sys.executable, "-m", "distributed_something.notify.send"]
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def snapshot(jobs: JobCounts) -> Snapshot:
    facts = {"attempts": 0, "interruptions": 0, "rate": 0.0, "eta": None, "started": None, "finished": None}
    return Snapshot("App", "local", "run", "running", jobs, machines=Machines(), **facts)  # type: ignore[arg-type]


def test_a_run_has_not_stalled_while_a_job_is_within_its_time_limit() -> None:
    config = parse_config("APP_NAME = 'App'\nNOTIFY_STALLED = 10\nJOB_TIMEOUT = 100\n")
    some = snapshot(JobCounts(total=4, running=1, succeeded=1, waiting=2))
    assert [*due(config, some, 1000.0, 1099.0)] == []
    [notice] = due(config, some, 1000.4, 1101.0)
    assert notice.key == "stalled-1000"
    assert [*due(config, snapshot(JobCounts(total=1, succeeded=1)), 0.0, 1e9)] == []


def test_two_monitors_tell_a_thing_once(tmp_path: Path, hook: Hook) -> None:
    config = parse_config(f"APP_NAME = 'App'\nNOTIFY = {hook.url!r}\n")
    said: list[str] = []
    both = [Notifier(config, FolderStore(tmp_path), RunPaths("App", "run"), said.append) for _ in range(2)]
    some = snapshot(JobCounts(total=4, dead=1, waiting=3))
    for _ in range(2):
        for each in both:
            each.look(some, 0.0, 1.0)
    for each in both:
        each.end(some, "the budget is spent")
    assert sorted(message["event"] for _, message in hook.got) == ["dead", "end"]
    assert said == []
