"""What a terminal shows while a run goes on: bars that fit, and plain lines where nobody watches."""

from __future__ import annotations

import io
import json
import os
import re
import select
import termios
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_something.console import Console, describe, fitting, progress_line
from distributed_something.engine import Machines
from distributed_something.runs.snapshot import JobCounts, Snapshot

COUNTS = JobCounts(total=12_000, waiting=6_000, running=64, succeeded=5_900, failed=20, dead=36)
SNAPSHOT = Snapshot(
    "App", "aws", "r", "running", COUNTS, 6_000, 3, 12.5, 485.0, 0.0, None, Machines(4, 3, 1, 64)
)


class Terminal:
    """A pseudo terminal of a given width, and what was written to it."""

    def __init__(self, columns: int) -> None:
        self._outer, inner = os.openpty()
        self.stream: TextIO = os.fdopen(inner, "w")
        self.resize(columns)

    def resize(self, columns: int) -> None:
        termios.tcsetwinsize(self.stream.fileno(), (24, columns))

    def raw(self) -> bytes:
        """What has come since the last call."""
        self.stream.flush()
        data = b""
        waiting = select.poll()
        waiting.register(self._outer, select.POLLIN)
        while waiting.poll(50):
            data += os.read(self._outer, 65536)
        return data

    def lines(self) -> list[str]:
        """What has come since the last call, without what only colours and moves."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw().decode())
        return [line for line in re.split(r"[\r\n]+", text) if line]

    def hang_up(self) -> None:
        """Its window is closed: what is written to it fails from now on."""
        os.close(self._outer)
        self._outer = os.open(os.devnull, os.O_RDONLY)

    def close(self) -> None:
        self.stream.close()
        os.close(self._outer)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    for name in ("CI", "COLUMNS", "LINES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    found = Terminal(80)
    yield found
    found.close()


def test_a_run_is_one_line() -> None:
    assert progress_line(SNAPSHOT) == (
        "5,936/12,000 jobs · 64 running · 20 to retry · 36 dead · 12.5/s · 8 min 5 s left"
        " · 3 of 4 machines · running"
    )


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (40, ["5,936/12,000 jobs", "36 dead"]),
        (80, ["5,936/12,000 jobs", "20 to retry", "36 dead", "12.5/s", "8 min 5 s left"]),
        (200, ["64 running", "3 of 4 machines"]),
    ],
)
def test_a_bar_is_as_wide_as_the_terminal_and_keeps_what_matters(
    terminal: Terminal, columns: int, words: list[str]
) -> None:
    terminal.resize(columns)
    with Console(err=terminal.stream).watch() as watcher:
        watcher.show(SNAPSHOT)
        shown = terminal.lines()
    assert len(shown) == 1
    assert len(shown[0]) <= columns
    assert shown[0][0] in "━╺╸"
    assert all(word in shown[0] for word in words)


def test_a_bar_follows_a_terminal_that_is_resized(terminal: Terminal) -> None:
    terminal.resize(200)
    with Console(err=terminal.stream).watch() as watcher:
        for columns in (200, 60, 120, 30):
            terminal.resize(columns)
            watcher.show(SNAPSHOT)
            shown = terminal.lines()
            assert len(shown) == 1
            assert len(shown[0]) <= columns
            assert "5,936/12,000 jobs" in shown[0]


def test_a_note_stands_above_the_bar_and_is_said_once(terminal: Terminal) -> None:
    with Console(err=terminal.stream).watch() as watcher:
        for _ in range(3):
            watcher.show(SNAPSHOT)
            watcher.note("no capacity\x1b[2J in this zone")
        text = "\n".join(terminal.lines())
    assert text.count("no capacity") == 1
    assert "\x1b" not in text


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("CI", "true")])
def test_a_terminal_that_nobody_watches_has_plain_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with Console(err=terminal.stream).watch() as watcher:
        watcher.show(SNAPSHOT)
        watcher.show(SNAPSHOT)
        shown = terminal.lines()
    assert shown == [progress_line(SNAPSHOT)]


def test_a_notebook_has_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells show a bar that redraws itself as one bar below the other."""
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    monkeypatch.setenv("TERM", "xterm-color")
    assert not Console(err=terminal.stream).live
    monkeypatch.setenv("TERM", "xterm-256color")
    assert Console(err=terminal.stream).live, "a terminal that Jupyter has opened is one"


def test_no_colour_means_none(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    raw = io.StringIO()
    raw.isatty = lambda: True  # type: ignore[method-assign]
    with Console(err=raw).watch() as watcher:
        watcher.show(SNAPSHOT)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", raw.getvalue())


def test_a_pipe_has_a_line_now_and_then() -> None:
    pipe = io.StringIO()
    with Console(err=pipe).watch() as watcher:
        for _ in range(5):
            watcher.show(SNAPSHOT)
    assert pipe.getvalue() == progress_line(SNAPSHOT) + "\n"
    with Console(err=pipe, json=True).watch() as watcher:
        watcher.show(SNAPSHOT)
    assert pipe.getvalue().count("\n") == 1


def test_a_terminal_that_is_gone_ends_nothing(terminal: Terminal) -> None:
    console = Console(err=terminal.stream)
    with console.watch() as watcher:
        watcher.show(SNAPSHOT)
        terminal.hang_up()
        watcher.show(SNAPSHOT)
        watcher.note("the workers were killed: starting them again")
    console.say("report: there")


def test_data_is_whole_where_the_stream_cannot_encode_it() -> None:
    value, raw = {"Plate": "漢 \ud800"}, io.BytesIO()
    out = io.TextIOWrapper(raw, "latin-1", write_through=True)
    Console(out=out).data(value)
    assert json.loads(raw.getvalue()) == value


def test_short_work_of_our_own_has_no_bar(terminal: Terminal) -> None:
    with Console(err=terminal.stream).progress(10, "jobs submitted") as progress:
        progress.update(10)
    assert terminal.lines() == []


parts = st.lists(st.tuples(st.integers(0, 9), st.text("ab ", min_size=1)), min_size=1)


@given(parts, st.integers(1, 200))
def test_what_is_weightiest_is_kept_and_the_rest_fits(found: list[tuple[int, str]], columns: int) -> None:
    text = fitting(found, columns)
    assert min(found)[1] in text
    assert len(text) <= columns or text == min(found)[1]
    assert fitting(found, None) == " · ".join(words for _, words in found)


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\rdone"
"""What a job may print: a new title, an empty screen, colours, and a line over another."""


@pytest.mark.parametrize(
    "show",
    [
        lambda console: console.line(HOSTILE),
        lambda console: console.write(f"{HOSTILE}\n"),
        lambda console: console.table(["example"], [[HOSTILE]]),
        lambda console: console.data({"example": HOSTILE}),
    ],
)
def test_what_a_job_says_moves_no_terminal(terminal: Terminal, show: Callable[[Console], None]) -> None:
    show(Console(out=terminal.stream, err=terminal.stream))
    shown = terminal.raw().replace(b"\r\n", b"\n")
    assert b"done" in shown
    for bad in (b"\x1b]", b"\x1b[2J", b"\x07", "\x9b".encode(), b"\r"):
        assert bad not in shown


def test_facts_are_wrapped_to_the_terminal() -> None:
    facts = {"state": "running", "none": None, "why idle": "word " * 40}
    lines = describe(facts, 80).splitlines()
    assert lines[0] == "state     running"
    assert max(map(len, lines)) <= 80
    assert [line[:10] for line in lines[1:]] == ["why idle  ", " " * 10, " " * 10]
    assert describe(facts).count("\n") == 1
