"""The only printer: data to stdout, progress and hints to stderr. Commands and steps call it.

On a terminal it draws bars and tables; elsewhere it prints plain lines, and with --json data.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from .errors import DsError, UsageError
from .words import duration, money, rate_text

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from .runs.snapshot import Snapshot

PLAIN_LINE_SECONDS = 10.0  # pause between two lines of progress without a terminal, in seconds
SOON_SECONDS = 0.3  # work of ours that is shorter has no bar, in seconds: loading the library takes as long
PAGE_LINES = 1000  # number of lines of a table that are printed at a time

BAR_COLUMNS = (6, 50)
"""Least and greatest width of a bar. On a narrow terminal words are dropped before the bar is."""

Row = Sequence[object]
Part = tuple[int, str]
"""A weight and a text about a run. Without room larger weights are dropped first; weight 0 always stays."""


class Console:
    """Prints everything that users see. `json`: print data for programs; `yes`: ask for no confirmation."""

    def __init__(
        self, *, json: bool = False, yes: bool = False, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self.json = json
        self.yes = yes
        self.out = out or sys.stdout
        self.err = err or sys.stderr

    @property
    def live(self) -> bool:
        """Whether a bar can be drawn: stderr is a terminal, not a build server's nor a notebook's."""
        if self.json or not self.err.isatty():
            return False
        term, build_server = os.environ.get("TERM"), os.environ.get("CI", "").lower() == "true"
        notebook = "JPY_PARENT_PID" in os.environ and term == "xterm-color"  # what Jupyter's `!` sets
        return term != "dumb" and not build_server and not notebook

    @property
    def columns(self) -> int | None:
        """Width of the terminal that stdout is; None: it is none."""
        return _columns(self.out) if self.out.isatty() else None

    @property
    def lines(self) -> int | None:
        """Height of the terminal that stdout is; None: it is none."""
        if not self.out.isatty():
            return None
        try:
            return os.get_terminal_size(self.out.fileno()).lines or 24
        except OSError:
            return 24

    def data(self, value: object) -> None:
        """Print one JSON value as a line. Characters that the stream cannot encode are escaped."""
        text = json.dumps(value, ensure_ascii=False, default=str)
        self.line(text if _fits(text, self.out) else json.dumps(value, default=str))

    def line(self, text: str = "") -> None:
        """Print a line of data."""
        print(_printable(text, self.out), file=self.out)

    def write(self, text: str) -> None:
        """Print data that has its own line ends."""
        self.out.write(_printable(text, self.out))

    def raw(self, data: bytes) -> None:
        """Print bytes unchanged; on a terminal without control characters."""
        if self.out.isatty():
            self.write(data.decode(errors="replace"))
        elif data:
            self.out.flush()
            self.out.buffer.write(data)
        self.out.flush()

    def say(self, text: str) -> None:
        """Print a line of progress. A stderr that cannot be written to is no error."""
        with _unbroken(self.err):
            print(_printable(text, self.err), file=self.err, flush=True)

    def hint(self, text: str) -> None:
        """Print a command that the user may type next."""
        if not self.json:
            self.say(f"next: {text}")

    def error(self, error: DsError) -> None:
        """Print an error and its fix."""
        self.say(f"error: {error.what}")
        if error.fix:
            self.say(f"fix: {error.fix}")

    def confirm(self, question: str) -> None:
        """Ask before something is destroyed. Raises UsageError unless the answer is yes."""
        if self.yes:
            return
        if not (sys.stdin.isatty() and self.err.isatty()):
            raise UsageError(f"{question}: there is no terminal to confirm it on", "add --yes")
        self.err.write(_printable(f"{question}? [y/N] ", self.err))
        self.err.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise UsageError("not confirmed: nothing was changed")

    def ask(self, what: str, default: str) -> str:
        """Ask for a line on a terminal; an empty one, or no terminal, means the default."""
        if self.json or self.yes or not (sys.stdin.isatty() and self.err.isatty()):
            self.say(f"{what}: {default}")
            return default
        self.err.write(_printable(f"{what} [{default}]: ", self.err))
        self.err.flush()
        line = sys.stdin.readline()
        if not line:
            raise UsageError("no answer: nothing was changed")
        return line.strip() or default

    def table(self, header: Sequence[str], rows: Iterable[Row]) -> None:
        """Print a table: aligned on a terminal, with tabs elsewhere."""
        if not self.out.isatty():
            lines = map(_tabbed, chain([header], rows))
            while page := list(islice(lines, PAGE_LINES)):
                self.line("\n".join(page))
            return
        from rich.console import Console as Rich
        from rich.table import Table
        from rich.text import Text

        table = Table(*header, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(_printable(_cell(value), self.out)) for value in row))
        Rich(file=self.out).print(table)

    def progress(self, total: int | None, unit: str) -> Progress:
        """Returns a progress bar for long work of ours, such as a submission."""
        return Progress(self, total, unit)

    def watch(self) -> Watcher:
        """Returns the live view of a run."""
        return Watcher(self)


def silence(stream: TextIO) -> None:
    """Send a broken stream to /dev/null, so that neither later writes nor Python's last flush fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _unbroken(stream: TextIO) -> Iterator[None]:
    """Ignores errors of a stream for progress: a full disk or a closed terminal must not end a run."""
    try:
        yield
    except OSError:
        silence(stream)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text.replace("\t", " ").replace("\n", " ")


def _tabbed(row: Row) -> str:
    """Returns the cells of a row as a line. That they have no tab of their own is seen in one look."""
    cells = ["" if value is None else str(value) for value in row]
    line = "\t".join(cells)
    whole = "\n" not in line and line.count("\t") == len(cells) - 1
    return line if whole else "\t".join(map(_cell, cells))


def _printable(text: str, stream: TextIO) -> str:
    """Replaces characters that would move a terminal's cursor or that the stream cannot encode."""
    if stream.isatty():
        text = "".join(c if c.isprintable() or c in "\t\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if _fits(text, stream) else _replaced(text, stream.encoding or "utf-8")


def _fits(text: str, stream: TextIO) -> bool:
    """Returns whether the stream can encode the whole text."""
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _replaced(text: str, encoding: str) -> str:
    return text.encode(encoding, "replace").decode(encoding)


class Progress:
    """Shows the progress of one long action; a context manager."""

    def __init__(self, console: Console, total: int | None, unit: str) -> None:
        self._console, self._total, self._unit = console, total, unit
        self._bar: _Bar | None = None
        self._shown = self._began = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def update(self, done: int) -> None:
        """Show the number of items done so far."""
        now = time.monotonic()
        if self._console.live:
            if self._bar is not None or now - self._began >= SOON_SECONDS:
                self._draw(done, now - self._began)
        elif now - self._shown >= PLAIN_LINE_SECONDS and not self._console.json:
            self._shown = now
            self._console.say(f"{done:,} {self._unit}, {done / (now - self._began):,.0f}/s")

    def _draw(self, done: int, seconds: float) -> None:
        rate = done / seconds if seconds else 0.0
        parts = [(0, f"{done:,} {self._unit}"), (2, rate_text(rate))]
        if self._total and rate:
            parts.append((1, f"{duration(max(self._total - done, 0) / rate)} left"))
        self._bar = self._bar or _Bar(self._console.err, transient=True)
        self._bar.show(done, self._total, parts)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


class _Bar:
    """A bar with words. Each `show` draws it again, as wide as the terminal is then."""

    def __init__(self, stream: TextIO, *, transient: bool) -> None:
        from rich.console import Console as Rich
        from rich.progress import BarColumn, Progress, TextColumn

        self._column = BarColumn()
        self._words = TextColumn("{task.description}", markup=False)
        self._words.get_table_column().no_wrap = True
        self._bar: RichProgress = Progress(
            self._column,
            self._words,
            console=Rich(file=stream),
            auto_refresh=False,
            transient=transient,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._stream = stream
        self._task: TaskID | None = None

    def show(self, done: int, total: int | None, parts: Sequence[Part]) -> None:
        """Draw the bar with these words."""
        with _unbroken(self._stream):
            self._show(done, total, parts)

    def _show(self, done: int, total: int | None, parts: Sequence[Part]) -> None:
        self._bar.console.width = _columns(self._stream)
        wide = self._bar.console.width - 2  # a space between, and one that some terminals wrap at
        text = fitting(parts, wide - BAR_COLUMNS[0])
        self._column.bar_width = max(min(wide - len(text), BAR_COLUMNS[1]), 1)
        if self._task is None:
            self._task = self._bar.add_task(text, total=total, completed=done)
            self._bar.start()
        else:
            self._bar.update(self._task, total=total, completed=done, description=text)
            self._bar.refresh()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        with _unbroken(self._stream):
            self._bar.console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        """Leave the bar on the screen, or remove it if it is transient."""
        with _unbroken(self._stream):
            self._bar.stop()


def _columns(stream: TextIO) -> int:
    """Returns the present width of the terminal behind a stream."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


class Watcher:
    """Shows snapshots of a run: as a bar on a terminal, else as a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: _Bar | None = None
        self._shown: float | None = None
        self._said: str | None = None

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show a new snapshot."""
        if self._console.live:
            self._draw(snapshot)
            return
        now = time.monotonic()
        if not self._console.json and (self._shown is None or now - self._shown >= PLAIN_LINE_SECONDS):
            self._shown = now
            self._console.say(progress_line(snapshot))

    def note(self, text: str) -> None:
        """Print a line above the bar, once."""
        if text == self._said:
            return
        self._said = text
        if self._bar is not None:
            self._bar.say(_printable(text, self._console.err))
        elif not self._console.json:
            self._console.say(text)

    def _draw(self, snapshot: Snapshot) -> None:
        self._bar = self._bar or _Bar(self._console.err, transient=False)
        self._bar.show(snapshot.jobs.final, snapshot.jobs.total or None, progress_parts(snapshot))


def progress_parts(snapshot: Snapshot) -> list[Part]:
    """Returns a run in words, each with its weight."""
    jobs, machines = snapshot.jobs, snapshot.machines
    parts = [(0, f"{jobs.final:,}/{jobs.total:,} jobs")]
    for weight, count, word in (
        (5, jobs.running, "running"),
        (4, jobs.failed, "to retry"),
        (1, jobs.dead, "dead"),
        (4, jobs.dropped, "dropped"),
    ):
        if count:
            parts.append((weight, f"{count:,} {word}"))
    if snapshot.rate:
        parts.append((3, rate_text(snapshot.rate)))
    if snapshot.eta is not None:
        parts.append((2, f"{duration(snapshot.eta)} left"))
    if machines.target > 1 or machines.lost:
        parts.append((6, f"{machines.running:,} of {machines.target:,} machines"))
    if snapshot.cost_usd:
        parts.append((6, money(snapshot.cost_usd)))
        if snapshot.expected_usd is not None and snapshot.state != "finished":
            parts.append((8, f"{money(snapshot.expected_usd)} at the end"))
    parts.append((7 if snapshot.state == "running" else 1, snapshot.state))
    return parts


def progress_line(snapshot: Snapshot) -> str:
    """Returns a run as one line."""
    return fitting(progress_parts(snapshot), None)


def fitting(parts: Sequence[Part], columns: int | None) -> str:
    """Joins the parts. Drops those with the largest weights until the rest fits; None: drops nothing."""
    kept = list(parts)
    while columns is not None and len(kept) > 1 and len(_joined(kept)) > columns:
        kept.remove(max(kept))
    return _joined(kept)


def _joined(parts: Sequence[Part]) -> str:
    return " \N{MIDDLE DOT} ".join(text for _, text in parts)


def describe(facts: Mapping[str, Any], columns: int | None = None) -> str:
    """Returns facts as lines of name and value, aligned and wrapped to the columns, without None."""
    from textwrap import wrap

    shown = {name: str(value) for name, value in facts.items() if value is not None}
    width = max(map(len, shown), default=0)
    lines = []
    for name, value in shown.items():
        parts = wrap(value, max(columns - width - 2, 20), break_on_hyphens=False) if columns else [value]
        lines += [f"{name if not at else '':<{width}}  {part}" for at, part in enumerate(parts or [""])]
    return "\n".join(lines)
