"""Writes docs/terminal.svg, a picture of a real run: python docs/make_terminal.py (takes a minute)."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

COMMANDS = (
    "ds init --example text words",
    "cd words",
    "ds run files/exampleJob.json",
    "ds failures",
    "ds status",
)
COLUMNS, LINES = 118, 40


def run(command: str, folder: Path) -> str:
    """What a command shows on a terminal, as it stands when it has ended."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color"}
    words = [sys.executable, "-m", "distributed_something", *command.split()[1:]]
    child = subprocess.Popen(
        words, cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave, close_fds=True
    )
    os.close(slave)
    shown = b""
    while chunk := _read(master):
        shown += chunk
    child.wait()
    os.close(master)
    return _settled(shown.decode())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: the last one that held the other end has ended
        return b""


def _settled(text: str) -> str:
    """The lines that stay: of a line that was drawn again and again, the last state."""
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        for _ in range(line.count("\x1b[1A")):
            if lines:
                lines.pop()
        last = re.split(r"\r|\x1b\[2K", line)[-1]
        lines.append(re.sub(r"\x1b\[\?25[lh]|\x1b\[\d*[AK]", "", last))
    return "\n".join(lines).strip("\n")


def _at_home(text: str, home: str) -> str:
    """Paths below `home` as `~/…`, padded: columns of tables stay in line."""
    return re.sub(rf"{re.escape(home)}(\S*)", lambda found: f"~{found[1]}" + " " * (len(home) - 1), text)


def main() -> None:
    """Run the commands in a new project, and draw what they show."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for command in COMMANDS:
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            if command.startswith("cd "):
                folder = folder / command[3:]
                continue
            console.print(Text.from_ansi(_at_home(run(command, folder), name)))
    picture = console.export_svg(title="ds", unique_id="ds")
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)  # fonts from elsewhere
    (Path(__file__).parent / "terminal.svg").write_text(picture)


if __name__ == "__main__":
    main()
