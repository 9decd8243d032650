"""Serves a project's page while a test looks at it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from conftest import DsProject

Open = Callable[..., Any]
"""Opens an address in a browser: the fixture `opened`."""


@contextmanager
def dashboard(project: DsProject, *args: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The page's address and its server's process."""
    process = project.start("dashboard", *args)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        process.communicate()
