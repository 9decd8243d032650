"""Writes docs/commands.md from the parser of the command line: python docs/make_commands.py"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from distributed_something.cli.parser import COMMANDS, REFERENCE_NAMES, build_parser

HEAD = """# Commands

`ds`, `python -m distributed_something` and a project's `python run.py` are the same program.
Data goes to stdout; progress, hints and errors go to stderr. An error is one line of *what: why*, and a line
`fix:` with what to do. This page is made from the program itself.

| exit code | means |
| --- | --- |
| 0 | done, and every job succeeded |
| 1 | an error of ours or of the world |
| 2 | wrong usage, or a file of yours is wrong; nothing was changed |
| 3 | finished, but some jobs are dead |
| 4 | clean-up left something behind, and listed it |
| 130 | interrupted with Ctrl-C |

## Options of every command

They may stand before or after the command.

"""


def text() -> str:
    """The whole page."""
    parser = build_parser("ds", [])
    common = [each for each in parser._actions if each.option_strings]
    found = next(each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    shared = {each.dest for each in common}
    sections = [section(name, found.choices[name], shared) for name in COMMANDS]
    return "".join([HEAD, "\n".join(options(common)), "\n", *sections])


def section(name: str, parser: argparse.ArgumentParser, shared: set[str]) -> str:
    """A command: what it does, how it is called, what each of its arguments means."""
    own = [each for each in parser._actions if each.dest not in shared]
    usage = " ".join(["ds", name, *map(called, own)])
    lines = [f"\n## `ds {name}`\n", f"    {usage}\n", f"{parser.description}"]
    aliases = [old for old, new in REFERENCE_NAMES.items() if new == name]
    if aliases:
        lines[-1] += f" Also called `{aliases[0]}`, as in the reference system."
    if parser.epilog:
        lines += ["", parser.epilog]
    if own:
        lines += ["", *options(own)]
    return "\n".join(lines) + "\n"


def called(action: argparse.Action) -> str:
    """An argument in the line of usage."""
    word = str(action.metavar or "|".join(action.choices or ()) or action.dest.upper())
    if not action.option_strings:
        return {"?": f"[{word}]", "*": f"[{word} …]"}.get(str(action.nargs), word)
    option = action.option_strings[-1]
    return f"[{option}]" if action.nargs == 0 else f"[{option} {word}]"


def options(actions: list[argparse.Action]) -> Iterator[str]:
    """A row for each argument."""
    yield "| argument | means |"
    yield "| --- | --- |"
    for action in actions:
        names = ", ".join(f"`{each}`" for each in action.option_strings) or f"`{called(action).strip('[]')}`"
        yield f"| {names} | {meaning(action)} |"


def meaning(action: argparse.Action) -> str:
    """What an argument does, and which values it takes."""
    said = (action.help or "").replace("%%", "%").replace("|", "\\|")
    choices = ", ".join(f"`{each}`" for each in action.choices or ())
    return f"{said} ({choices})" if choices and action.option_strings and choices not in said else said


if __name__ == "__main__":
    (Path(__file__).parent / "commands.md").write_text(text())
