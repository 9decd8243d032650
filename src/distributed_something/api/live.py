"""Shows the progress of a run to a program: nothing, a terminal's bar, or a live line in a notebook."""

from __future__ import annotations

import io
import sys
from types import TracebackType
from typing import Any

from ..console import Console, Watcher, progress_line
from ..runs.snapshot import Snapshot

LAST_NOTES = 3
"""Notes that stay below a notebook's line."""


def console_for(*, progress: bool, yes: bool = False) -> Console:
    """Returns a console that prints no data; `progress`: it shows progress and notes on stderr."""
    if not progress:
        return Console(yes=yes, out=io.StringIO(), err=io.StringIO())
    if in_notebook():
        return NotebookConsole(yes=yes, out=io.StringIO(), err=sys.stdout)
    return ProgramConsole(yes=yes, out=io.StringIO())


def in_notebook() -> bool:
    """Returns whether this is the process of a notebook."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class ProgramConsole(Console):
    """A console that names no commands: a program's user types none."""

    def hint(self, text: str) -> None:
        """Print nothing."""


class NotebookConsole(ProgramConsole):
    """A console whose view of a run is one line of the cell's output, replaced by each look."""

    def watch(self) -> Watcher:
        """Returns the live view of a run."""
        return _NotebookWatcher(self)


class _NotebookWatcher(Watcher):
    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._handle: Any = None
        self._line = ""
        self._notes: dict[str, None] = {}

    def show(self, snapshot: Snapshot) -> None:
        """Show a new snapshot."""
        self._line = progress_line(snapshot)
        self._update()

    def note(self, text: str) -> None:
        """Show a line below, once."""
        self._notes[text] = None
        self._update()

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._update()

    def _update(self) -> None:
        from IPython.display import display

        content = {"text/plain": "\n".join([self._line, *[*self._notes][-LAST_NOTES:]])}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(content, raw=True)
