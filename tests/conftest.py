"""What the tests share: projects in a temporary folder, and `ds` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distributed_something.worker.attempt.process import marked_processes

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""A shell has what it starts in the background ignore Ctrl-C, and so would all that the tests start."""


class DsProject:
    """A project folder and the command that works on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        self.prefix: list[str] = []
        """What runs `ds`, as another user say."""

    def config(self, **keys: object) -> DsProject:
        """Write config.py; ENGINE and APP_NAME have values of their own."""
        given = {"APP_NAME": "App", "ENGINE": "local", "DOCKER_CORES": 2, **keys}
        text = "".join(f"{name} = {value!r}\n" for name, value in given.items() if value is not None)
        (self.folder / "config.py").write_text(text)
        return self

    def jobs(self, groups: Iterable[dict[str, Any]], **shared: object) -> Path:
        """Write a job file in the reference's format."""
        path = self.folder / "files" / "jobs.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**shared, "groups": list(groups)}))
        return path

    def start(self, *args: object, **more: Any) -> subprocess.Popen[str]:
        """Start `ds` with these arguments in the background."""
        ds = [sys.executable, "-m", "distributed_something", "-C", str(self.folder)]
        command = [*self.prefix, *ds, *map(str, args)]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=self.environment, text=True, **{**streams, **more})

    def ds(
        self, *args: object, code: int | None = 0, timeout: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `ds` with these arguments and expect this exit code (None: any)."""
        process = self.start(*args, **({} if stdin is None else {"stdin": subprocess.PIPE}))
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert "Traceback" not in err, err
        assert code is None or process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def status(self) -> dict[str, Any]:
        """What `ds status --json` says."""
        found: dict[str, Any] = json.loads(self.ds("status", "--json").stdout)
        return found

    def job_lines(self, *args: str) -> list[dict[str, Any]]:
        """What `ds jobs --json` says."""
        return [json.loads(line) for line in self.ds("jobs", "--json", *args).stdout.splitlines()]

    def machine(self) -> dict[str, Any]:
        """What the machine process tells of itself."""
        found: dict[str, Any] = json.loads(next(self.folder.glob(".ds/*/machine.json")).read_text())
        return found

    def processes(self) -> list[int]:
        """Every process that belongs to the project's runs, its jobs included."""
        marks = [f"DS_STATE={state}\0".encode() for state in (self.folder / ".ds").glob("*")]
        return [pid for mark in marks for pid in marked_processes(mark)]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[DsProject]:
    """An empty project; nothing of it runs afterwards."""
    found = DsProject(tmp_path / "project")
    found.folder.mkdir()
    yield found
    if (found.folder / "config.py").exists():
        found.ds("stop", "--now", code=None)
    until(lambda: not found.processes(), "the project's processes to end")


def until(holds: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Wait until something holds; the test fails where it does not."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def sshd() -> Iterator[Any]:
    """The sshd of this process."""
    from hosting import own_sshd

    with own_sshd() as found:
        yield found


@pytest.fixture
def hosts(sshd: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The hosts for one test, all of which answer; this process and what it starts can reach them."""
    sshd.clear()
    monkeypatch.setenv("PATH", sshd.environment["PATH"])
    yield sshd


@pytest.fixture(scope="session")
def whole_cluster() -> Iterator[Any]:
    """The Slurm cluster of this process."""
    from clusters import own_cluster

    with own_cluster() as found:
        yield found


@pytest.fixture
def cluster(whole_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The cluster for one test, empty and with all its nodes; this process and what it starts can use it."""
    monkeypatch.setenv("SLURM_CONF", whole_cluster.environment["SLURM_CONF"])
    whole_cluster.clear()
    yield whole_cluster
    whole_cluster.clear()


@pytest.fixture(scope="session", autouse=True)
def rights() -> Iterator[None]:
    """At the end: no role of AWS has made a call, on an emulator, that it may not make."""
    yield
    if (recorded := sys.modules.get("rights")) is not None:
        found = {str(who): calls for who in recorded.SEEN if (calls := recorded.beyond(who))}
        assert not found, f"calls without a right, and the tests that made them: {found}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser that is installed on this machine."""
    from services import chromium, require

    require("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an address; nothing may go wrong on the page, and it asks nobody but its server."""
    contexts, wrong = [], []

    def open_page(url: str, asks: tuple[str, ...] = (), **more: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **more})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith(asks or url[:20]) or wrong.append(asked.url))
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    expected = ("ERR_CONNECTION_REFUSED", "Blocked script execution", "script-src", "404")
    assert [text for text in wrong if not any(word in text for word in expected)] == []
